"""Stopping: what waits or asks beside the stages ends as soon as it is to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Stopped(Exception):
    """What was going on was given up, because it is to stop."""


async def rest(stopping: asyncio.Event, seconds: float) -> None:
    """Wait *seconds*, or until it is to stop."""
    try:
        async with asyncio.timeout(seconds):
            await stopping.wait()
    except TimeoutError:
        return


async def unless_stopped(stopping: asyncio.Event, work: Coroutine[Any, Any, T]) -> T:
    """Return what *work* does, or give it up and raise `Stopped`; only for what may be begun again."""
    task, stop = asyncio.ensure_future(work), asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Stopped
        return task.result()
    finally:
        task.cancel()
        stop.cancel()
        await asyncio.gather(task, stop, return_exceptions=True)
