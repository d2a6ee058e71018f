"""Readable: a payload as text for a page, whatever it is, and no more of it than anybody reads."""

from __future__ import annotations

import orjson

from pipeline.dead_letters import payload_view

#: of a payload; the whole of it is what `relay dead show --json` prints
LONGEST = 100_000


def readable(payload: bytes) -> str:
    """Return *payload* as indented JSON, else as text, else as hexadecimal digits; cut."""
    if len(payload) > LONGEST:  # nobody reads it all, and indenting megabytes takes long
        return payload[:LONGEST].decode(errors="replace")
    view = payload_view(payload)
    if view["encoding"] == "json":
        return orjson.dumps(view["data"], option=orjson.OPT_INDENT_2).decode()
    if view["encoding"] == "utf-8":
        return str(view["data"])
    return payload.hex(" ", 4)
