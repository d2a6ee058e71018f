"""Precedence: what was spilled goes to Redis before the flushes that come later."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

log = logging.getLogger(__name__)


class Precedence:
    """Whether flushes are behind the spill.

    So they are from the start on: until somebody has looked for files that dead ones have left, nothing is stored.
    """

    def __init__(self) -> None:
        self._lasts = self._is_advancing = True
        self._is_told = False
        self._over = asyncio.Event()
        self.refused: str | None = None
        """Redis's own words while it refuses what is drained."""

    @property
    def is_known(self) -> bool:
        """Whether something is known to be spilled."""
        return self._lasts and self._is_told

    def begin(self, why: str | None = None) -> None:
        """Let no flush overtake what is spilled; *why* is told at the first time."""
        if why and not self._is_told:
            log.warning("spilling: %s", why)
        if not self._lasts:
            self._is_advancing = False
        self._lasts = self._is_told = True
        self._over.clear()

    def advances(self, does: bool = True) -> None:
        """Note whether the drain gets on: only then is its end worth waiting for."""
        self._is_advancing = does

    def end(self) -> None:
        """Let flushes go to Redis again."""
        if self._is_told:
            log.info("spilling is over: Redis takes deliveries again")
        self._lasts = self._is_told = False
        self.refused = None
        self._over.set()

    def reason(self) -> str | None:
        """Return why a flush may not go to Redis, or None: it may."""
        if not self._lasts:
            return None
        if not self._is_told:
            return "what was spilled before is not known yet"
        return self.refused or "what was spilled before goes first"

    async def wait(self, within_s: float) -> None:
        """Wait for the end of a drain that gets on."""
        if not self._is_advancing:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._over.wait()
