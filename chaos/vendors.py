"""`python -m chaos.vendors PORT JOURNAL`: the vendors' stand-ins, with a journal that outlives a SIGKILL.

A line for what was accepted, before it is answered, and one for how the call was answered (0: not at all, -1: by half):

    {"c": call, "t": Unix time, "e": endpoint, "i": [ids]}      {"c": call, "s": status}

The addresses of `POISONED` are refused with 400, always.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from contextvars import ContextVar
from itertools import count
from typing import Any

import orjson

from chaos.ids import ids_in
from sandbox.__main__ import listen, server
from sandbox.app import create
from sandbox.desk import Call
from sandbox.faults import Fault, Faults, poisoned
from sandbox.memory import Memory

POISONED = tuple(f"poisoned{n}@example.com" for n in range(4))

#: the status of an answer that broke off
CUT_OFF = -1

_call: ContextVar[str] = ContextVar("call", default="")
_is_cut: ContextVar[bool] = ContextVar("is_cut", default=False)


class Watched(Faults):
    """Remembers which call's answer is cut off: its status does not tell."""

    def take(self, endpoint: str, raw: bytes) -> Fault | None:
        """Return the fault of a call."""
        fault = super().take(endpoint, raw)
        _is_cut.set(fault is not None and fault.cut is not None)
        return fault


class Journal(Memory):
    """Keeps nothing in memory, and writes down what arrives."""

    def __init__(self, path: str) -> None:
        super().__init__(keeps_bodies=False)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._numbers = count()

    def keep_batch(self, events: Sequence[dict[str, Any]], raw: bytes) -> None:
        """Write down a batch."""
        super().keep_batch(events, raw)
        self._accepted("events", raw)

    def subscribe(self, addresses: Sequence[str]) -> tuple[int, int]:
        """Write down a subscription."""
        answer = super().subscribe(addresses)
        self._accepted("list-subscription", " ".join(addresses).encode())
        return answer

    def answered(self, call: Call) -> None:
        """Write down how the call that was accepted was answered."""
        if number := _call.get():
            self._write({"c": number, "s": CUT_OFF if _is_cut.get() else call.status})
            _call.set("")

    def _accepted(self, endpoint: str, raw: bytes) -> None:
        number = f"{os.getpid()}.{next(self._numbers)}"
        _call.set(number)
        self._write({"c": number, "t": time.time(), "e": endpoint, "i": ids_in(raw)})

    def _write(self, line: dict[str, object]) -> None:
        os.write(self._file, orjson.dumps(line) + b"\n")


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(1)


def main() -> None:
    """Run until stdin ends."""
    port, path = sys.argv[1:]
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    journal = Journal(path)
    faults = Watched()
    faults.add(poisoned("events", *POISONED))
    app = create(journal, faults, announce=journal.answered)
    server(app).run(sockets=[listen(port=int(port))])


if __name__ == "__main__":
    main()
