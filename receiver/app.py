"""The receiver put together: its routes, and the tasks that live as long as it does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from pipeline import books, heartbeats
from pipeline.inbox import Inbox, NotPossible
from pipeline.metrics import Books
from pipeline.scripts import words_of
from pipeline.settings import Settings
from pipeline.siblings import Siblings
from pipeline.sources import Source
from pipeline.sources.registry import SOURCES
from pipeline.spill import Spill
from pipeline.wake import Bell, arq_redis
from receiver import access_log, servers
from receiver.answers import answer
from receiver.bodies import Bodies, Memory
from receiver.group_commit import GroupCommit
from receiver.heads import Heads
from receiver.health import Healthz, Readyz
from receiver.limits import Limits
from receiver.metrics import Metrics, MetricsPage
from receiver.opening import Opening
from receiver.problems import NOT_FOUND, Refused, render
from receiver.refusals import Refusals
from receiver.room import RoomWatch
from receiver.spilling import Spilling
from receiver.strangers import Strangers
from receiver.summary import Summary
from receiver.tokens import Tokens
from receiver.webhooks import PREFIX, Webhooks, route_path

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from pipeline.spans import Spans
    from receiver.short_way import Whole

# A body has this long to arrive: 20 MiB over a slow line, and no longer for a sender that has
# stopped.
READ_DEADLINE_S = 30.0
_PREFIX = PREFIX.encode()
# A head is a few packets. Senders have it ready when they connect; whoever takes longer has no request to make.
HEAD_DEADLINE_S = 10.0


class Receiver(Starlette):
    """Starlette that lets hooks through at once, and without its two error middlewares.

    Every endpoint here answers its own errors. For a hook, matching routes and wrapping `send` twice
    would cost more than storing it does.
    """

    def __init__(self, hooks: Webhooks, siblings: Siblings, **options: Any) -> None:
        super().__init__(**options)
        self._hooks = hooks
        self._siblings = siblings
        # A redirect would repeat the query, and with it a token.
        self.router.redirect_slashes = False
        self.router.default = _not_found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        if self._siblings.port is None and (server := scope.get("server")):
            # Nothing else tells it; behind a Unix socket there is none.
            self._siblings.answer_on(server[1] or 0)
        if scope["type"] == "http" and route_path(scope).startswith(PREFIX):
            await self._hooks(scope, receive, send)
            return
        scope["app"] = self
        await self.router(scope, receive, _in_words(send) if scope["type"] == "lifespan" else send)

    def take(self, whole: Whole) -> bool:
        """Take a hook that has come whole: see `short_way.Taker`."""
        # `__call__` has to tell the port first, if there is one
        is_known = self._siblings.port is not None or whole.server is None
        return is_known and whole.url.startswith(_PREFIX) and self._hooks.take(whole)


def _in_words(send: Send) -> Send:
    """Return a *send* that tells a failed start by its sentence; Starlette tells its traceback."""

    async def tell(message: Message) -> None:
        error = sys.exc_info()[1]
        if message["type"] == "lifespan.startup.failed" and isinstance(error, NotPossible):
            message = {**message, "message": str(error)}
        await send(message)

    return tell


@dataclass(frozen=True, slots=True)
class Parts:
    """What lives as long as the receiver does."""

    inbox: Inbox
    opening: Opening
    metrics: Metrics
    siblings: Siblings
    commit: GroupCommit
    room: RoomWatch
    spilling: Spilling
    memory: Memory
    bodies: Bodies
    heads: Heads
    refusals: Refusals
    summary: Summary

    @classmethod
    def of(
        cls,
        settings: Settings,
        redis: Redis,
        limits: Limits | None,
        read_deadline_s: float,
        head_deadline_s: float,
    ) -> Parts:
        """Make them; nothing runs yet."""
        inbox, metrics = Inbox(redis, settings.ack_policy), Metrics()
        opening, room = Opening(inbox), RoomWatch(inbox)
        bell = Bell(arq_redis(redis.connection_pool))
        spill = Spill(settings.data_home(), settings.spill_max_bytes)
        spilling = Spilling(spill, inbox, bell, opening, room, metrics)
        return cls(
            inbox=inbox,
            opening=opening,
            metrics=metrics,
            siblings=Siblings(settings.data_home(), "receiver", metrics),
            commit=GroupCommit(inbox, bell, metrics, limits, spilling),
            room=room,
            spilling=spilling,
            memory=Memory(settings.max_inflight_bytes),
            bodies=Bodies(settings.max_body_bytes, read_deadline_s),
            heads=Heads(head_deadline_s, metrics),
            refusals=Refusals(inbox),
            summary=Summary(metrics),
        )

    def problem(self) -> str | None:
        """Return why nothing can be stored at this moment, if anything is known."""
        return self.opening.problem or self.spilling.refusal or self.commit.trouble()


def make_app(
    settings: Settings,
    redis: Redis,
    *,
    sources: Mapping[str, Source] = SOURCES,
    limits: Limits | None = None,
    read_deadline_s: float = READ_DEADLINE_S,
    head_deadline_s: float = HEAD_DEADLINE_S,
    spans: Spans | None = None,
) -> Starlette:
    """Return the receiver. *redis* fails fast (`receiver_redis`) and is closed at the end, as *spans* are."""
    parts = Parts.of(settings, redis, limits, read_deadline_s, head_deadline_s)
    access_log.tame(sources)
    servers.find()
    _tell_levels(parts)
    return Receiver(
        _hooks(settings, sources, parts, spans),
        parts.siblings,
        routes=_pages(settings, redis, parts),
        lifespan=_lifespan(parts, at_end=[redis.aclose, *_closing(spans)]),
    )


def _hooks(
    settings: Settings, sources: Mapping[str, Source], parts: Parts, spans: Spans | None
) -> Webhooks:
    made: Callable[..., Webhooks] = Webhooks
    if spans is not None:
        from receiver.traced import TracedWebhooks

        made = partial(TracedWebhooks, spans)
    return made(
        sources=sources,
        ack_policy=settings.ack_policy,
        tokens=Tokens([(token.source, token.token) for token in settings.tokens()], sources),
        secrets=settings.sender_secrets(),
        bodies=parts.bodies,
        memory=parts.memory,
        commit=parts.commit,
        inbox=parts.inbox,
        opening=parts.opening,
        room=parts.room,
        spilling=parts.spilling,
        refusals=parts.refusals,
        strangers=Strangers(),
        metrics=parts.metrics,
    )


def _pages(settings: Settings, redis: Redis, parts: Parts) -> list[Route]:
    return [
        Route("/healthz", Healthz()),
        Route("/readyz", Readyz(parts.room, _heartbeat_age(redis), parts.problem, parts.spilling)),
        Route("/metrics", MetricsPage(parts.siblings, _books(settings, redis))),
    ]


def _tell_levels(parts: Parts) -> None:
    tell, memory, commit, room = parts.metrics.gauge, parts.memory, parts.commit, parts.room
    spilling = parts.spilling
    tell("relay_inflight_bytes", "Bytes of bodies held.", lambda: memory.used_bytes)
    tell("relay_waiting_deliveries", "Waiting for a flush.", lambda: commit.waiting)
    tell("relay_redis_used_bytes", "Redis memory in use.", lambda: room.used_bytes)
    tell("relay_redis_limit_bytes", "Redis maxmemory.", lambda: room.limit_bytes)
    tell("relay_spill_deliveries", "Spilled here, not yet in Redis.", lambda: spilling.left)
    tell("relay_spill_bytes", "Files of this receiver's spill.", lambda: spilling.held_bytes)
    tell("relay_spill_limit_bytes", "SPILL_MAX_BYTES.", lambda: spilling.limit_bytes)


def _lifespan(
    parts: Parts, at_end: Sequence[Callable[[], Awaitable[None]]]
) -> Callable[[Starlette], contextlib.AbstractAsyncContextManager[None]]:
    """Return what opens the inbox, runs the background's jobs and, the last of all, does *at_end*."""
    opening, refusals, summary = parts.opening, parts.refusals, parts.summary
    background: list[Callable[[], Coroutine[None, None, None]]] = [
        *(parts.commit.run, parts.bodies.watch, parts.heads.watch, parts.room.watch),
        *(refusals.keep_writing, summary.tell, opening.keep_trying, parts.spilling.run),
        parts.siblings.run,
    ]

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
            closing = (parts.commit.finish, refusals.write, summary.finish, parts.spilling.close)
            for close in (*closing, *at_end):
                try:
                    await close()
                except Exception as error:  # Redis may be gone; the process ends all the same
                    log.warning("not closed cleanly error=%s", words_of(error))

    return lifespan


def _closing(spans: Spans | None) -> list[Callable[[], Awaitable[None]]]:
    return [] if spans is None else [partial(asyncio.to_thread, spans.close)]


async def _stop(tasks: list[asyncio.Task[None]]) -> None:
    pending = set(tasks)
    # Python 3.11's asyncio.wait_for, which redis-py uses, may swallow a cancellation: ask again.
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.1)


def _heartbeat_age(redis: Redis) -> Callable[[], Awaitable[float | None]]:
    return lambda: heartbeats.youngest_age_s(redis)


def _books(settings: Settings, redis: Redis) -> Callable[[], Awaitable[Books]]:
    return lambda: books.snapshot(redis, settings=settings)


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1000, "reason": ""})
        return
    await answer(send, *render(Refused(NOT_FOUND, "Hooks are at /hooks/{source}/{token}.")))
