"""The receiver put together: its routes, and the tasks that live as long as it does."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline import books, heartbeats
from pipeline.inbox import Inbox, NotPossible
from pipeline.settings import Settings
from pipeline.sources import Source
from pipeline.sources.registry import SOURCES
from pipeline.wake import Bell, arq_redis
from receiver import access_log
from receiver.answers import answer
from receiver.bodies import Bodies, Memory
from receiver.group_commit import GroupCommit, Limits
from receiver.health import Healthz, Readyz
from receiver.metrics import Books, Metrics, MetricsPage
from receiver.opening import Opening
from receiver.problems import NOT_FOUND, Refused, render
from receiver.refusals import Refusals
from receiver.room import RoomWatch
from receiver.tokens import Tokens
from receiver.webhooks import PREFIX, Summary, Webhooks, route_path

if TYPE_CHECKING:
    from redis.asyncio import Redis

# A body has this long to arrive: 20 MiB over a slow line, and no longer for a sender that has
# stopped.
READ_DEADLINE_S = 30.0


class Receiver(Starlette):
    """Starlette that lets hooks through at once, and without its two error middlewares.

    Every endpoint here answers its own errors. For a hook, matching routes and wrapping `send` twice
    would cost more than storing it does.
    """

    def __init__(self, hooks: ASGIApp, **options: Any) -> None:
        super().__init__(**options)
        self._hooks = hooks
        # A redirect would repeat the query, and with it a token.
        self.router.redirect_slashes = False
        self.router.default = _not_found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        if scope["type"] == "http" and route_path(scope).startswith(PREFIX):
            await self._hooks(scope, receive, send)
            return
        scope["app"] = self
        await self.router(scope, receive, _in_words(send) if scope["type"] == "lifespan" else send)


def _in_words(send: Send) -> Send:
    """Return a *send* that tells a failed start by its sentence; Starlette tells its traceback."""

    async def tell(message: Message) -> None:
        error = sys.exc_info()[1]
        if message["type"] == "lifespan.startup.failed" and isinstance(error, NotPossible):
            message = {**message, "message": str(error)}
        await send(message)

    return tell


def make_app(
    settings: Settings,
    redis: Redis,
    *,
    sources: Mapping[str, Source] = SOURCES,
    limits: Limits | None = None,
    read_deadline_s: float = READ_DEADLINE_S,
) -> Starlette:
    """Return the receiver. *redis* fails fast (`receiver_redis`) and is closed at the end."""
    inbox = Inbox(redis, settings.ack_policy)
    metrics = Metrics()
    commit = GroupCommit(inbox, Bell(arq_redis(redis.connection_pool)), metrics, limits)
    room = RoomWatch(inbox)
    memory = Memory(settings.max_inflight_bytes)
    refusals, summary, opening = Refusals(inbox), Summary(metrics), Opening(inbox)
    bodies = Bodies(settings.max_body_bytes, read_deadline_s)
    webhooks = Webhooks(
        sources=sources,
        ack_policy=settings.ack_policy,
        tokens=Tokens([(token.source, token.token) for token in settings.tokens()], sources),
        secrets=settings.sender_secrets(),
        bodies=bodies,
        memory=memory,
        commit=commit,
        inbox=inbox,
        opening=opening,
        room=room,
        refusals=refusals,
        metrics=metrics,
    )
    access_log.tame(sources)
    _tell_levels(metrics, memory, commit, room)
    return Receiver(
        webhooks,
        routes=_pages(redis, room, lambda: opening.problem or commit.trouble(), metrics),
        lifespan=_lifespan(
            opening=opening,
            background=[
                *(commit.run, bodies.watch, room.watch),
                *(refusals.keep_writing, summary.tell, opening.keep_trying),
            ],
            at_end=[commit.finish, refusals.write, summary.finish, redis.aclose],
        ),
    )


def _pages(
    redis: Redis, room: RoomWatch, problem: Callable[[], str | None], metrics: Metrics
) -> list[Route]:
    return [
        Route("/healthz", Healthz()),
        Route("/readyz", Readyz(room, _heartbeat_age(redis), problem)),
        Route("/metrics", MetricsPage(metrics, _books(redis))),
    ]


def _tell_levels(metrics: Metrics, memory: Memory, commit: GroupCommit, room: RoomWatch) -> None:
    metrics.gauge("relay_inflight_bytes", "Bytes of bodies held.", lambda: memory.used_bytes)
    metrics.gauge("relay_waiting_deliveries", "Waiting for a flush.", lambda: commit.waiting)
    metrics.gauge("relay_redis_used_bytes", "Redis memory in use.", lambda: room.used_bytes)
    metrics.gauge("relay_redis_limit_bytes", "Redis maxmemory.", lambda: room.limit_bytes)


def _lifespan(
    opening: Opening,
    background: list[Callable[[], Coroutine[None, None, None]]],
    at_end: list[Callable[[], Awaitable[None]]],
) -> Callable[[Starlette], contextlib.AbstractAsyncContextManager[None]]:
    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        tasks: list[asyncio.Task[None]] = []
        try:
            await opening.try_once()
            tasks += [asyncio.create_task(job()) for job in background]
            for task in tasks:
                task.add_done_callback(opening.close_if_failed)
            yield
        finally:
            await _stop(tasks)
            for close in at_end:
                # Redis may be gone; the process ends all the same.
                with contextlib.suppress(Exception):
                    await close()

    return lifespan


async def _stop(tasks: list[asyncio.Task[None]]) -> None:
    pending = set(tasks)
    # Python 3.11's asyncio.wait_for, which redis-py uses, may swallow a cancellation: ask again.
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.1)


def _heartbeat_age(redis: Redis) -> Callable[[], Awaitable[float | None]]:
    return lambda: heartbeats.youngest_age_s(redis)


def _books(redis: Redis) -> Callable[[], Awaitable[Books]]:
    async def stages() -> Books:
        stages: Books = (await books.snapshot(redis))["stages"]
        return stages

    return stages


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1000, "reason": ""})
        return
    await answer(send, *render(Refused(NOT_FOUND, "Hooks are at /hooks/{source}/{token}.")))
