"""`python -m chaos.inside NOTES MODULE [ARGUMENT ...]`: run a part of the relay as its Procfile does, with traps in it.

Orders come on stdin, a line each; when stdin ends, because the run has ended, however, so do we.

    trap SIDE PLACE SIGNAL   at the next passage of this point the process sends itself this signal
    free                     no trap any more
    clock SECONDS            the process's time of day is so far off from now on; Redis's is not
    disk full | disk well    appends to the spill are written by half, and refused

What has happened is noted in the file NOTES before it does.
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
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any

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


def main() -> None:
    """Be the module that is named, with traps."""
    global _notes
    notes, module, *arguments = sys.argv[1:]
    _notes = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    bend_time()
    bend_disk()
    lay_traps(WORKING if module == "arq" else (*ACKNOWLEDGING, *SPILLING))
    threading.Thread(target=obey, daemon=True).start()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
