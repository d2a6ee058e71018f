"""arq's own rate: what its worker runs when every event is a job that does nothing.

`arq bench.empty_jobs.WorkerSettings`, with the settings that served arq best where this was written: many
jobs at once, hardly a pause between two looks at the queue, no results kept, the relay's own serializer.
"""

from __future__ import annotations

import os
from typing import Any

from arq import ArqRedis
from arq.worker import func
from redis.asyncio import ConnectionPool

from pipeline import wake

NAME = "nothing"
QUEUE = "bench:queue"


async def nothing(ctx: dict[str, Any], event_id: int) -> None:
    """Do nothing with one event."""


def client(url: str) -> ArqRedis:
    """Return arq's client on the queue of this bench."""
    return ArqRedis(
        ConnectionPool.from_url(url),
        job_serializer=wake.serialize,
        job_deserializer=wake.deserialize,
        default_queue_name=QUEUE,
    )


def worker_settings(url: str) -> dict[str, Any]:
    """Return what arq's command line takes."""
    return {
        "functions": [func(nothing, name=NAME)],
        "redis_pool": client(url),
        "queue_name": QUEUE,
        "job_serializer": wake.serialize,
        "job_deserializer": wake.deserialize,
        "max_jobs": int(os.environ.get("BENCH_MAX_JOBS", "100")),
        "poll_delay": float(os.environ.get("BENCH_POLL_DELAY", "0.01")),
        "keep_result": 0,
        "log_results": False,
    }


if url := os.environ.get("REDIS_URL"):
    WorkerSettings = worker_settings(url)
