"""The ids of what is sent: they are found again wherever they show."""

from __future__ import annotations

import re

_ID = re.compile(rb"chaos-(\d+)-")


def ids_in(data: bytes) -> list[int]:
    """Return the ids in *data*, in order."""
    return [int(found) for found in _ID.findall(data)]
