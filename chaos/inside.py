"""`python -m chaos.inside NOTES MARKS MODULE [ARGUMENT ...]`: run a part of the relay as its Procfile does, with traps.

Orders come on stdin, a line each; when stdin ends, because the run has ended, however, so do we.

    trap SIDE PLACE SIGNAL   at the next passage of this point the process sends itself this signal
    free                     no trap any more
    clock SECONDS            the process's time of day is so far off from now on; Redis's is not
    disk full | disk well    appends to the spill are written by half, and refused

What has happened is noted in the file NOTES before it does. In the file MARKS a worker writes the ids of each batch
that it is about to send and that was counted in `maybe_duplicate`, a line a batch.
"""

from __future__ import annotations

import asyncio
import errno
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import wraps
from importlib import import_module
from typing import Any

from chaos.ids import ids_in
from chaos.points import ACKNOWLEDGING, SPILLING, WORKING, Point

_armed: dict[tuple[str, str], str] = {}
_lock = threading.Lock()
_offset_s = 0.0
_disk_is_full = False
_notes = -1


def note(words: str) -> None:
    """Write down what happens now; this outlives a SIGKILL."""
    os.write(_notes, f"{time.monotonic()} {os.getpid()} {words}\n".encode())


def pass_by(place: str, side: str) -> None:
    """Be at a point: fall into the trap that is laid there, if any."""
    if not _armed:
        return
    with _lock:
        how = _armed.pop((place, side), None)
    if how is not None:
        note(f"{how} {side} {place}")
        os.kill(os.getpid(), getattr(signal, f"SIG{how}"))


def lay_traps(points: tuple[Point, ...]) -> None:
    """Put every function of *points* between two points; raises `AttributeError` where there is none."""
    for place in sorted({point.place for point in points}):
        module, _, path = place.partition(":")
        owner: Any = import_module(module)
        *outer, name = path.split(".")
        for each in outer:
            owner = getattr(owner, each)
        setattr(owner, name, _between(getattr(owner, name), place))


def _between(whole: Callable[..., Any], place: str) -> Callable[..., Any]:
    if asyncio.iscoroutinefunction(whole):

        @wraps(whole)
        async def trapped_coroutine(*args: Any, **named: Any) -> Any:
            pass_by(place, "before")
            found = await whole(*args, **named)
            pass_by(place, "after")
            return found

        return trapped_coroutine

    @wraps(whole)
    def trapped(*args: Any, **named: Any) -> Any:
        pass_by(place, "before")
        found = whole(*args, **named)
        pass_by(place, "after")
        return found

    return trapped


def bend_time() -> None:
    """Let the time of day be off by an order; called before anything has taken `time.time` for itself."""
    true_time, true_time_ns = time.time, time.time_ns
    time.time = lambda: true_time() + _offset_s
    time.time_ns = lambda: true_time_ns() + int(_offset_s * 1e9)


def bend_disk() -> None:
    """Let appends fail by an order, after half of them, as a full disk does; nothing else writes with `pwrite`."""
    true_pwrite = os.pwrite

    def pwrite(handle: int, data: bytes, offset: int) -> int:
        if _disk_is_full:
            true_pwrite(handle, data[: len(data) // 2], offset)
            note("disk full")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return true_pwrite(handle, data, offset)

    os.pwrite = pwrite  # type: ignore[assignment] # it takes any bytes, ours too


def marking(
    read_batch: Callable[[Sequence[Any]], Any], marks: int
) -> Callable[[Sequence[Any]], Any]:
    """Return what reads a claimed batch and writes down the ids in it, if `lua/claim.lua` has counted them."""

    @wraps(read_batch)
    def read(claim: Sequence[Any]) -> Any:
        fields, attempts = claim[3], claim[4]
        if attempts.endswith(b":1"):  # a call was begun, and its answer is not known
            items = [
                item for name, item in zip(fields[::2], fields[1::2], strict=True) if name == b"p"
            ]
            ids = {found for item in items for found in ids_in(item)}
            os.write(marks, " ".join(map(str, ids)).encode() + b"\n")
        return read_batch(claim)

    return read


def mark_repetitions(marks: int) -> None:
    """Let a worker write down what it sends though it may have been sent before."""
    dispatch = import_module("workers.dispatch")
    setattr(dispatch, "read_batch", marking(dispatch.read_batch, marks))  # noqa: B010 - not the module's own


def obey() -> None:
    """Take orders until stdin ends, then end: nobody supervises us any more."""
    global _offset_s, _disk_is_full
    for line in sys.stdin:
        match line.split():
            case ["trap", side, place, how]:
                with _lock:
                    _armed[place, side] = how
            case ["free"]:
                with _lock:
                    _armed.clear()
            case ["clock", seconds]:
                _offset_s = float(seconds)
            case ["disk", how]:
                _disk_is_full = how == "full"
    os._exit(1)


def _opened(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def main() -> None:
    """Be the module that is named, with traps."""
    global _notes
    notes, marks, module, *arguments = sys.argv[1:]
    _notes = _opened(notes)
    bend_time()
    bend_disk()
    if module == "arq":
        lay_traps(WORKING)
        mark_repetitions(_opened(marks))
    else:
        lay_traps((*ACKNOWLEDGING, *SPILLING))
    threading.Thread(target=obey, daemon=True).start()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
