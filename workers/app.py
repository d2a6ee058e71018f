"""The worker process: arq's settings as a dictionary, and everything that starts and stops with it.

arq is used for what it is good at (a pool of workers, signals, a queue that wakes them) and kept away from
what it is not: a job holds a stage's name, never an event; nothing depends on its results, retries or
time-outs. The sweep and the heartbeat are tasks of the process rather than arq's crons: a cron's job keeps
keys behind it every second and never lets `--burst` come to an end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from arq.worker import func
from redis.exceptions import RedisError

from pipeline import dialects, heartbeats, wake
from pipeline.clock import HOUR_MS
from pipeline.connections import Role, connection_pool
from pipeline.loopback import is_loopback
from pipeline.moves import Mover
from pipeline.outcomes import Stage
from pipeline.queues import Queues, create_groups
from pipeline.scripts import words_of
from pipeline.settings import Settings
from pipeline.tombstones import Tombstones
from pipeline.traces import open_spans
from workers import metrics
from workers.chronicle import keep_chronicling
from workers.clients import crm
from workers.clients.audiencelab import AudienceLab
from workers.clients.audiencepoint import AudiencePoint
from workers.clients.crm import Crm
from workers.clients.http import DEADLINE_S, VendorHttp, new_client
from workers.context import Context
from workers.drains import Drains, drain
from workers.fates import last_line
from workers.mend import keep_mending
from workers.patience import Patience, arqs_redis, hurry
from workers.poll_scores import keep_polling
from workers.reconcile import keep_reconciling
from workers.ringing import look, ring_for_work
from workers.sweep import keep_beating, keep_sweeping, pause_without_keys
from workers.timing import Timing
from workers.vendors import audiencelab_client, audiencepoint_client

if TYPE_CHECKING:
    from workers.traced import Traced

logger = logging.getLogger(__name__)


def worker_settings(
    settings: Settings, timing: Timing | None = None, *, catches_signals: bool = True
) -> dict[str, Any]:
    """Return what arq's `Worker` (and its command line) takes."""
    timing = timing or Timing()
    pool, patience = connection_pool(settings, Role.WORKER), Patience()
    pool.connection_kwargs["retry"] = patience
    life = _Life(settings, timing, patience, catches_signals=catches_signals)
    return {
        "functions": [func(drain, name=wake.DRAIN)],
        "redis_pool": arqs_redis(pool, patience),
        "queue_name": wake.QUEUE_NAME,
        "job_serializer": wake.serialize,
        "job_deserializer": wake.deserialize,
        "expires_extra_ms": wake.EXPIRES_MS,
        "on_startup": life.begin,
        "on_shutdown": life.end,
        "max_jobs": 50,
        "poll_delay": 0.1,  # while there is a job; where there is none arq is told (`workers.patience`)
        # a drain's time, a call begun at its end, some patience with Redis; arq locks a dead job as long
        "job_timeout": timing.drain_s + DEADLINE_S + 50,
        "keep_result": 0,  # here, not on the function: a kept result blocks its job id
        "max_tries": 1_000_000,  # a stop counts as a try; giving up would lose the wake-up
        # arq's own sign of life is read by nobody, and a full server would end the worker over it
        "health_check_interval": 3600,
        "log_results": False,
    }


class _Life:
    """What arq calls when the worker starts and when it has stopped."""

    def __init__(
        self, settings: Settings, timing: Timing, patience: Patience, *, catches_signals: bool
    ) -> None:
        self._settings, self._timing, self._patience = settings, timing, patience
        self._catches_signals = catches_signals
        self._stack = AsyncExitStack()

    async def begin(self, ctx: dict[str, Any]) -> None:
        """Open everything and put it where the jobs find it."""
        arq_log = logging.getLogger("arq")  # the command line gave it a handler and INFO of its own
        arq_log.handlers.clear()
        arq_log.setLevel(logging.WARNING)
        redis = wake.arq_redis(ctx["redis"].connection_pool)
        opened = _opened(self._settings, redis, self._timing)
        context = await self._stack.enter_async_context(opened)
        self._patience.begin()
        await self._stack.enter_async_context(metrics.served(context.metrics, self._settings))
        ctx["context"], ctx["drains"] = context, Drains(context)
        context.drain = ctx["drains"].drain
        ctx["stop"] = stopper(context, self._patience)
        opened.stop_when_a_part_fails(ctx["stop"])
        if self._catches_signals:
            obey_signals(ctx["stop"])

    async def end(self, ctx: dict[str, Any]) -> None:
        """Close everything."""
        await self._stack.aclose()


def stopper(context: Context, patience: Patience) -> Callable[[], None]:
    """Return what stops this worker; to be called from arq's `on_startup`, which runs in arq's main task.

    arq's own way to stop cancels its jobs. One that is cancelled while arq is still fetching it, or is already
    putting it away, makes arq's closing fail: nothing is given back and the process ends with an error (seen
    about once in thirty stops). Here only the polling is cancelled; the drains end by themselves, and arq
    waits for them. Polling that ends by itself, because Redis is gone, is a stop, too.
    """
    polling = asyncio.current_task()

    def leave(_: object = None) -> None:
        context.stopping.set()
        patience.leave()
        hurry(context.redis.connection_pool)

    def stop() -> None:
        leave()
        if polling is not None:
            polling.cancel()

    if polling is not None:
        polling.add_done_callback(leave)
    return stop


def obey_signals(stop: Callable[[], None]) -> None:
    """Let SIGINT and SIGTERM call *stop* instead of what arq installed."""
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)


class _opened:
    """Opens the context of a worker process and closes it, in order."""

    def __init__(self, settings: Settings, redis: Any, timing: Timing) -> None:
        self._settings, self._redis, self._timing = settings, redis, timing
        self._tasks: list[asyncio.Task[None]] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Context:
        await create_groups(self._redis)
        self._context = await self._make()
        await heartbeats.beat(self._redis, self._context.consumer)
        try:
            await pause_without_keys(self._context, await look(self._context))
            await ring_for_work(self._context)
        except BaseException:  # also a stop: nobody shall take it for one that lives
            await self.__aexit__()
            raise
        keepers = (
            *(keep_beating, keep_chronicling, keep_sweeping, keep_mending),
            *(keep_reconciling, keep_polling),
        )
        for keep in keepers:
            task = asyncio.create_task(keep(self._context), name=keep.__name__)
            self._tasks.append(task)
        logger.info("worker started worker=%s", self._context.consumer)
        return self._context

    def stop_when_a_part_fails(self, stop: Callable[[], None]) -> None:
        """Call *stop* when something ends that lasts as long as the worker: without a heartbeat others do its work."""

        def ended(part: asyncio.Task[None]) -> None:
            if not part.cancelled() and (error := part.exception()) is not None:
                logger.critical(
                    "a part of the worker has failed, so the worker ends part=%s error=%s",
                    *(part.get_name(), last_line(error)),
                )
                stop()

        for part in self._tasks:
            part.add_done_callback(ended)

    async def __aexit__(self, *exc: object) -> None:
        context = self._context
        context.stopping.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            for stage in Stage:
                await context.queues.release(stage)
            await heartbeats.stop(context.redis, context.consumer)
            await context.tally.tell(context.redis)
        except (RedisError, OSError) as error:  # the next worker takes it over a little later
            logger.warning(
                "stopped without Redis: other workers take over what this one held error=%s",
                words_of(error),
            )
        finally:
            await self._stack.aclose()
        logger.info("worker stopped worker=%s", context.consumer)

    async def _make(self) -> Context:
        settings, redis = self._settings, self._redis
        consumer = f"{socket.gethostname()}:{os.getpid()}:{token_hex(3)}"
        window_ms = int(settings.seen_window_h * HOUR_MS)
        return Context(
            settings=settings,
            redis=redis,
            consumer=consumer,
            mover=Mover(redis, consumer, window_ms),
            queues=Queues(redis, consumer),
            bell=wake.Bell(redis),
            tombstones=Tombstones(redis),
            audiencepoint=await self._audiencepoint(),
            audiencelab=await self._audiencelab(),
            crm=await self._crm(),
            timing=self._timing,
            traced=self._traced(),
        )

    def _traced(self) -> Traced | None:
        spans = open_spans("worker")
        if spans is None:
            return None
        from workers.traced import Traced

        self._stack.push_async_callback(asyncio.to_thread, spans.close)
        return Traced(spans)

    async def _audiencepoint(self) -> AudiencePoint | None:
        settings = self._settings
        if settings.audiencepoint_api_key is None:
            return None
        client = await self._stack.enter_async_context(new_client())
        return audiencepoint_client(settings, settings.audiencepoint_api_key, client)

    async def _audiencelab(self) -> AudienceLab | None:
        settings = self._settings
        if settings.audiencelab_api_key is None:
            return None
        client = await self._stack.enter_async_context(new_client())
        keeper = dialects.Keeper(self._redis)
        self._stack.push_async_callback(keeper.settle)
        worked = await dialects.read(self._redis)
        return audiencelab_client(settings, settings.audiencelab_api_key, client, worked, keeper)

    async def _crm(self) -> Crm | None:
        settings = self._settings
        if settings.scores_webhook_url is None:
            return None
        base, path = crm.place(settings.scores_webhook_url.get_secret_value())
        if base.startswith("http://") and not is_loopback(base):
            logger.warning(
                "SCORES_WEBHOOK_URL is http: everybody on the way can read what it carries"
            )
        client = await self._stack.enter_async_context(new_client())
        return Crm(VendorHttp(crm.VENDOR, base, {}, client), path, settings.webhook_keys())
