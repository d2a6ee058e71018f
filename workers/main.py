"""What `arq workers.main.WorkerSettings` imports: reads the settings, or says what is wrong and exits 2.

A worker that Redis refuses, or that lost it for longer than it can wait, ends with one sentence, and with 1.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from types import TracebackType

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from pipeline.starting import made_of_settings
from workers.app import worker_settings

if sys.platform != "win32" and sys.implementation.name == "cpython":
    import uvloop

    # arq takes the loop it finds; this one costs a worker a tenth less
    asyncio.set_event_loop(uvloop.new_event_loop())


def _end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say why the process ends; arq lets the error through that ended its polling."""
    if isinstance(error, RedisConnectionError | RedisTimeoutError):
        print(f"The worker ends without Redis: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _end

WorkerSettings = made_of_settings(worker_settings)

# what lives as long as the process is kept out of the collector's way; events go by reference count
gc.collect()
gc.freeze()
gc.set_threshold(20_000, 20, 20)
