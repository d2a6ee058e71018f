"""An answer's head and body in one write to the socket.

uvicorn writes the head when it is told the status and the body when it gets it: two system calls and two
packets for each answer, and these calls are half of what receiving a webhook costs. While an answer is sent, its
cycle's transport is replaced by one that collects, and what was collected is written at the end. Under any other
server, or another protocol of uvicorn's, nothing is replaced and the answer is sent as usual.
"""

from __future__ import annotations

from typing import Any

from starlette.types import Send


class OneWrite:
    """Collects what uvicorn writes for one answer. Use as a context manager around both sends."""

    __slots__ = ("_cycle", "_parts", "_transport")

    def __init__(self, cycle: Any) -> None:
        self._cycle = cycle
        self._transport = cycle.transport
        self._parts: list[bytes] = []

    def __enter__(self) -> OneWrite:
        self._cycle.transport = self
        return self

    def __exit__(self, *exc: object) -> None:
        self._cycle.transport = self._transport
        self._flush()

    def write(self, data: bytes) -> None:
        """Take what uvicorn would write."""
        self._parts.append(data)

    def close(self) -> None:
        """Close the connection, as uvicorn does after the last answer of one."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            self._transport.write(b"".join(self._parts))
            self._parts = []


def one_write(send: Send) -> OneWrite | None:
    """Return what joins the writes of *send*, or None where that is not possible."""
    cycle = getattr(send, "__self__", None)
    if type(cycle).__module__ == "uvicorn.protocols.http.httptools_impl":
        return OneWrite(cycle)
    return None
