"""The end of the process, heard of at once: streams that stay open would keep the server from ending.

uvicorn waits for open answers before it ends the lifespan, and tells the application nothing until then. So its
handlers of signals are called by ones of ours, while the application lives.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def heard(ending: asyncio.Event) -> Iterator[None]:
    """Set *ending* when the process is asked to end, beside what it does then."""
    if threading.current_thread() is not threading.main_thread():  # signals reach only that one
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def hear(number: int, frame: Any) -> None:
        ending.set()
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    ours = {number: handler for number, handler in before.items() if callable(handler)}
    for number in ours:
        signal.signal(number, hear)
    try:
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
