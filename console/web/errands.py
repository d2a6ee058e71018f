"""Errands: what a form began and what takes longer than a page may, carried out in the background of this process.

One of a kind at a time, known to this process only. A page tells how far it has come; what it came to stays there
until the next one begins.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from redis.exceptions import RedisError

log = logging.getLogger(__name__)

#: a process that ends waits so long for what goes on
END_WITHIN_S = 5.0


class Busy(Exception):
    """Another one of its kind is being carried out. The message is a sentence for the operator."""


@dataclass(slots=True)
class Errand:
    """One of them; *state* is a word for people."""

    state: Literal["going on", "finished", "stopped", "failed"] = field(
        default="going on", kw_only=True
    )
    stopping: asyncio.Event = field(default_factory=asyncio.Event, kw_only=True)

    @property
    def goes_on(self) -> bool:
        """Whether it is still carried out."""
        return self.state == "going on"


E = TypeVar("E", bound=Errand)


class Errands(Generic[E]):
    """Carries out one at a time."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self.last: E | None = None

    @property
    def going_on(self) -> E | None:
        """Return the one that is being carried out."""
        return self.last if self.last is not None and self.last.goes_on else None

    def start(self, errand: E, work: Coroutine[Any, Any, bool]) -> E:
        """Begin *work*, which answers whether it came to its end."""
        self.last = errand
        self._task = asyncio.create_task(_carry_out(errand, work))
        return errand

    async def close(self) -> None:
        """Stop what goes on, at the process's end, and wait until it is written down."""
        if self._task is None or self.last is None:
            return
        self.last.stopping.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(END_WITHIN_S):
                await asyncio.wait([self._task])
        if self._task.cancel():  # it cannot be stopped: what it did not come to is still there
            await asyncio.wait([self._task])


async def _carry_out(errand: Errand, work: Coroutine[Any, Any, bool]) -> None:
    """Do *work*, and say what became of it: an error's text may quote people, so only its kind is logged."""
    what = type(errand).__name__.lower()
    try:
        errand.state = "finished" if await work else "stopped"
    except (RedisError, OSError) as error:
        errand.state = "failed"
        log.warning("console: the %s failed error=%s", what, type(error).__name__)
    except Exception as error:
        errand.state = "failed"
        kind = RuntimeError(type(error).__name__).with_traceback(error.__traceback__)
        log.error("console: the %s failed", what, exc_info=kind)  # noqa: TRY400
    except asyncio.CancelledError:
        errand.state = "stopped"
