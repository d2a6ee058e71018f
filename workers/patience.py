"""Patience: how long a worker waits for Redis, by what it is doing.

While it starts there is nothing that could be lost, and it waits as long as it takes. While it works each command is
tried for half a minute. When it leaves, Redis may be gone for good: a stop that waited for each of its last commands in
turn took over a minute, and was killed by then.

Here is also how arq waits for its next job: where there is none it is told, and asks no more ten times a second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from arq import ArqRedis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import AuthenticationError, OutOfMemoryError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from pipeline import keys, wake

if TYPE_CHECKING:
    from redis.asyncio import ConnectionPool

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: as `pipeline.connections` has it for workers: half a minute
RETRIES = 30
#: a restart of Redis with little data takes no longer; what follows the first failure has to fit into it, all of it
LEAVING_S = 3.0
#: how often a worker that waits to be started says so
TELL_EVERY_S = 30.0
#: refusals of writes that pass without anybody's doing here: no disk, no replica
FOR_A_WHILE = ("MISCONF", "NOREPLICAS")
#: a bell that leaves no note is seen at the latest after this
LISTENS_S = 1.0
GONE = (RedisConnectionError, RedisTimeoutError, OSError)
BEFORE_ALL = "0-0"


class Patience(Retry):  # type: ignore[misc] # redis-py's types say nothing here
    """Redis-py's rule of retries, the same one for all connections of a process."""

    def __init__(self) -> None:
        super().__init__(ExponentialBackoff(cap=1, base=0.05), RETRIES)
        self._has_begun = False
        self._is_leaving = False
        self._until = float("inf")
        self._told_at = float("-inf")

    def __deepcopy__(self, memo: object) -> Patience:
        """Return the same: redis-py copies what it is given for each connection."""
        return self

    @property
    def is_leaving(self) -> bool:
        """Tell whether the worker stops."""
        return self._is_leaving

    def begin(self) -> None:
        """From now on there is work that Redis is waited for half a minute at a time."""
        self._has_begun = True

    def leave(self) -> None:
        """From now on wait a few seconds in all."""
        self._is_leaving = True

    async def call_with_retry(
        self, do: Callable[[], Awaitable[T]], fail: Callable[[Any], Any]
    ) -> T:
        """Return what *do* does; each failure is handed to *fail*, the last one raised."""
        failures = 0
        while True:
            try:
                return await do()
            except self._supported_errors as error:
                failures += 1
                await fail(error)
                if self._is_over(failures, error):
                    raise
                self._tell(error)
            await asyncio.sleep(self._backoff.compute(failures))

    def _is_over(self, failures: int, error: Exception) -> bool:
        if not self._has_begun:  # no waiting mends a wrong password
            return self._is_leaving or isinstance(error, AuthenticationError)
        if self._is_leaving:
            self._until = min(self._until, monotonic() + LEAVING_S)
        return failures > RETRIES or monotonic() >= self._until

    def _tell(self, error: Exception) -> None:
        now = monotonic()
        if not (self._has_begun or self._is_leaving) and now >= self._told_at + TELL_EVERY_S:
            self._told_at = now
            why = f"{type(error).__name__}: {error}"
            logger.warning("worker waits for Redis error=%s", why)


def hurry(pool: ConnectionPool) -> None:
    """Let no command of a worker that leaves wait longer: each in turn would wait for a server that hangs."""
    pool.connection_class.silence_s = LEAVING_S


def arqs_redis(pool: ConnectionPool, patience: Patience) -> ArqRedis:
    """Return arq's own client over *pool*, by which it can always close.

    What arq notes of a job at its end, and a key that it deletes when it closes, do not matter: its jobs hold nothing.
    But when one fails arq closes nothing else, and gives nothing back.
    """
    return _ArqsRedis(pool, patience)


class _ArqsRedis(ArqRedis):
    def __init__(self, pool: ConnectionPool, patience: Patience) -> None:
        super().__init__(
            pool,
            job_serializer=wake.serialize,
            job_deserializer=wake.deserialize,
            default_queue_name=wake.QUEUE_NAME,
            expires_extra_ms=wake.EXPIRES_MS,
        )
        self._patience = patience
        self._was_empty = False
        self._last_note: bytes | str = BEFORE_ALL

    async def zrangebyscore(self, name: Any, *args: Any, **options: Any) -> list[bytes]:
        """Return the jobs of the queue; when the last answer was that there is none, first wait for a bell's note.

        Job and note are made in one step, and no note is waited for that is older than the last answer: so a job is
        seen at once. While there is a job, whoever works on it, arq asks as often as it likes. Jobs that are not due
        count, too (arq itself looks at their time): they are due now by the clock of whoever rang.
        """
        is_told = self._was_empty and await self._listen()
        options["max"] = "+inf"
        jobs: list[bytes] = await super().zrangebyscore(name, *args, **options)
        if jobs and not is_told:
            self._last_note = (
                BEFORE_ALL  # what was read is no measure: after a fail-over notes may be older
            )
        self._was_empty = not jobs
        return jobs

    async def _listen(self) -> bool:
        """Wait for a note, but not for long; tell whether there was one."""
        try:
            notes = await self.xread(
                {keys.RUNG: self._last_note}, count=1, block=int(LISTENS_S * 1000)
            )
        except ResponseError:  # such as -UNBLOCKED: the master is a replica now
            return False
        if notes:
            self._last_note = notes[0][1][-1][0]
        return bool(notes)

    async def delete(self, *names: Any) -> int:
        """Delete keys; arq does it only when it closes, also when it never came to start."""
        self._patience.leave()
        try:
            deleted: int = await super().delete(*names)
        except GONE:
            return 0
        return deleted

    async def psetex(self, name: Any, time_ms: Any, value: Any) -> bool:
        """Set a key that expires; arq does it only for its sign of life, which is read by nobody.

        A server that is full, cannot write to its disk or misses its replica refuses it for a while, and arq would end
        with its first poll: a worker could not start there and drain it. Any other refusal ends the worker, which finds
        the right server when it is started again (READONLY: a primary that is none any more), or tells what is wrong.
        """
        try:
            return bool(await super().psetex(name, time_ms, value))
        except OutOfMemoryError:
            return False
        except ResponseError as refusal:
            if not str(refusal).startswith(FOR_A_WHILE):
                raise
            return False

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """Return a pipeline that answers nothing when Redis is gone and the worker leaves.

        It is a transaction only where arq watches a key: a full server takes no command at all into a transaction, not
        even those by which a job ends, and arq would end with it.
        """
        pipe = _ArqsPipeline(self.connection_pool, self.response_callbacks, False, shard_hint)
        pipe.patience = self._patience
        return pipe


class _ArqsPipeline(Pipeline):  # type: ignore[misc] # as above
    patience: Patience

    def incr(self, name: Any, amount: int = 1) -> Pipeline:
        """Tell 0 and count nothing; arq counts only how often it has begun a job, which here has no limit.

        A full server refuses to count.
        """
        return self.exists(name)

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        asked = len(self.command_stack)
        try:
            answers: list[Any] = await super().execute(raise_on_error)
        except GONE:
            if not self.patience.is_leaving:
                raise
            return [None] * asked
        return answers
