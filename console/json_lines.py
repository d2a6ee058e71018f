"""The log of `relay up` for programs: each line becomes one JSON object."""

from __future__ import annotations

import io
from typing import TextIO

import orjson


class JsonLines(io.TextIOBase):
    """Stands in for stdout: `TRIAL worker   | text` becomes `{"trial": true, "from": "worker", …}`."""

    def __init__(self, stdout: TextIO) -> None:
        self._stdout = stdout

    def write(self, line: str) -> int:
        """Write one line of `console.processes.Terminal`."""
        speaker, _, text = line.rstrip("\n").partition(" | ")
        trial, name = speaker.startswith("TRIAL "), speaker.removeprefix("TRIAL ").strip()
        said = orjson.dumps({"trial": trial, "from": name, "line": text}).decode()
        return self._stdout.write(f"{said}\n")

    def flush(self) -> None:
        """Flush the real stdout."""
        self._stdout.flush()
