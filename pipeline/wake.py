"""The bell: tells the workers, through arq, that a stage has work.

A job carries a stage's name, never an event, so losing or doubling one is harmless: the sweep looks for
work every second. Its id ends in a number that the drain raises, so that a bell rung during a run or after a
crash makes a new job. With each job a note is left, in the same step: a worker that has none waits for the next
note instead of asking (`workers/patience.py`). This is the only file of the package that knows arq.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import orjson
from arq import ArqRedis
from redis.asyncio import ConnectionPool
from redis.asyncio.client import Pipeline
from redis.exceptions import RedisError

from pipeline import keys
from pipeline.outcomes import Stage
from pipeline.scripts import words_of

logger = logging.getLogger(__name__)

DRAIN = "drain"
QUEUE_NAME = "{relay}:arq:queue"
#: a bell that waited for a day (arq's default) would fail as expired; the sweep rings again anyway
EXPIRES_MS = 7 * 24 * 3600 * 1000


def serialize(job: dict[str, Any]) -> bytes:
    """Return arq's job as JSON; arq also passes exceptions through here, so anything has a form."""
    return orjson.dumps(job, default=repr)


def deserialize(stored: bytes) -> dict[str, Any]:
    """Read what `serialize` wrote."""
    job: dict[str, Any] = orjson.loads(stored)
    return job


def arq_redis(pool: ConnectionPool) -> ArqRedis:
    """Return arq's client over *pool*, with the serializer and the queue the workers use."""
    return _Ringing(
        pool,
        job_serializer=serialize,
        job_deserializer=deserialize,
        default_queue_name=QUEUE_NAME,
        expires_extra_ms=EXPIRES_MS,
    )


class _Ringing(ArqRedis):
    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """Return a pipeline that leaves a note with each job."""
        return _Noting(self.connection_pool, self.response_callbacks, transaction, shard_hint)


class _Noting(Pipeline):  # type: ignore[misc] # redis-py's types say nothing here
    def zadd(self, name: Any, mapping: Mapping[Any, Any], *args: Any, **options: Any) -> Pipeline:
        """Add jobs to the queue, which arq does in a transaction, and in the same one the note."""
        super().zadd(name, mapping, *args, **options)
        return self.xadd(keys.RUNG, {"job": next(iter(mapping))}, maxlen=1, approximate=False)


class Bell:
    """Rings for stages; a number is rung once by each process."""

    def __init__(self, arq: ArqRedis) -> None:
        self._arq = arq
        self._rung: dict[Stage, int] = {}

    def is_rung(self, stage: Stage, number: int) -> bool:
        """Tell whether this process has rung *number* already."""
        return self._rung.get(stage) == number

    async def ring(self, stage: Stage, number: int) -> bool:
        """Wake a worker for *stage* unless this process rang *number* already; tell whether that worked.

        Never raises.
        """
        if self.is_rung(stage, number):
            return True
        self._rung[stage] = number
        try:
            async with asyncio.timeout(1):
                await self._arq.enqueue_job(DRAIN, stage, _job_id=f"{DRAIN}:{stage}:{number}")
        except (RedisError, OSError, TimeoutError) as error:
            self._rung.pop(stage, None)
            logger.warning(
                "bell not rung; the sweep rings again stage=%s error=%s", stage, words_of(error)
            )
            return False
        return True

    def forget(self, stage: Stage) -> None:
        """Let the stage's number be rung again: the sweep saw work that nobody takes up."""
        self._rung.pop(stage, None)

    async def ring_all(self, numbers: Mapping[Stage, int], stages: set[Stage]) -> None:
        """Ring for *stages* with the numbers that a move answered."""
        for stage in stages:
            await self.ring(stage, numbers[stage])
