"""`/healthz`: the process lives. `/readyz`: Redis takes what comes, and somebody works on it.

A receiver that spills because Redis takes nothing is not ready, though it answers 2xx: its 503 says why, and that
deliveries are kept on disk. While it only drains it is ready, and says `spilling`.

A load balancer asks `/readyz`, a supervisor `/healthz`: to restart the receiver because Redis is
away would help nobody, so `/healthz` asks nothing and nobody.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic

import orjson
from starlette.types import Receive, Scope, Send

from pipeline.scripts import words_of
from receiver.answers import answer
from receiver.problems import METHOD_NOT_ALLOWED, NOT_READY, Headers, Refused, render
from receiver.room import RoomWatch
from receiver.spilling import Spilling

log = logging.getLogger(__name__)

# No heartbeat for so long, and no worker is said to be alive (docs/operations.md).
WORKER_SILENT_S = 60
# The 250 ms of an answer, less what answering takes.
_ASK_WITHIN_S = 0.2


class Healthz:
    """`GET /healthz`: 200 while the process lives."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        await _answer_get(scope, send, b'{"alive":true}')


class Readyz:
    """`GET /readyz`: 200, or 503 that names everything that is wrong.

    *problem* tells why deliveries are not stored in Redis, or None.
    """

    def __init__(
        self,
        room: RoomWatch,
        heartbeat_age_s: Callable[[], Awaitable[float | None]],
        problem: Callable[[], str | None],
        spilling: Spilling,
    ) -> None:
        self._room = room
        self._heartbeat_age_s = heartbeat_age_s
        self._problem = problem
        self._spilling = spilling
        # when a worker last lived, as far as it was seen here: one that stops takes its heartbeat with it
        self._lived_at: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask Redis and answer."""
        not_stored, not_worked_on = await self._what_is_wrong()
        if wrong := not_stored + not_worked_on:
            if not_stored and await self._spills():
                wrong.append("deliveries are kept on disk meanwhile")
            await answer(send, *render(Refused(NOT_READY, "; ".join(wrong))))
        elif why := self._spilling.reason():
            await _answer_get(scope, send, orjson.dumps({"ready": True, "spilling": why}))
        else:
            await _answer_get(scope, send, b'{"ready":true}')

    async def _spills(self) -> bool:
        """Try whether what Redis does not take is kept on disk."""
        if not self._spilling.is_on:
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout(_ASK_WITHIN_S):
                await self._spilling.check()
                return self._spilling.takes
        return False

    async def _what_is_wrong(self) -> tuple[list[str], list[str]]:
        """Return why Redis does not take deliveries, and why nobody works on them."""
        try:
            async with asyncio.timeout(_ASK_WITHIN_S):
                await self._room.look()
                age_s = await self._heartbeat_age_s()
        except Exception as error:
            # Whatever it is, Redis takes nothing: that is the answer, not a failure of this page.
            log.warning("not ready: Redis unreachable error=%s", words_of(error))
            return ["Redis is unreachable"], []
        wrong, idle = [], []
        if (reason := self._problem()) is not None:
            wrong.append(reason)
        if self._room.is_full:
            wrong.append("Redis is nearly full")
        if age_s is not None:
            self._lived_at = monotonic() - age_s
        if self._lived_at is None or monotonic() - self._lived_at > WORKER_SILENT_S:
            idle.append(f"no worker has given a sign of life for {WORKER_SILENT_S} seconds")
        return wrong, idle


async def _answer_get(scope: Scope, send: Send, body: bytes) -> None:
    if scope["method"] not in ("GET", "HEAD"):
        refused = Refused(METHOD_NOT_ALLOWED, "Ask with GET.", headers=[(b"allow", b"GET, HEAD")])
        await answer(send, *render(refused))
        return
    await answer(send, 200, _json_headers(body), body)


def _json_headers(body: bytes) -> Headers:
    return [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
