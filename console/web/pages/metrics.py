"""What Prometheus reads of the console: all that lives in Redis, as one page.

Prometheus shows CONSOLE_TOKEN as bearer; without one only this machine is told. When Redis does not answer in time
the page says so by `relay_redis_up 0` instead of failing, as the receiver's does.
"""

from __future__ import annotations

import asyncio
import logging

from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from console.web.desk import Desk, desk_of
from pipeline import calls, dead_letters, senders
from pipeline.endpoints import Endpoint
from pipeline.metrics import CONTENT_TYPE, Shared, page
from pipeline.sources.registry import SOURCES

log = logging.getLogger(__name__)

# Prometheus gives up after 10 s
_WITHIN_S = 5.0


async def metrics(request: Request) -> Response:
    """Answer with the text that Prometheus reads."""
    try:
        async with asyncio.timeout(_WITHIN_S):
            shared = await _read(desk_of(request))
    except (RedisError, OSError) as error:  # a time-out is one, too
        log.warning("metrics without Redis error=%s", type(error).__name__)
        shared = Shared()
    return Response(page(shared), headers={"content-type": CONTENT_TYPE})


async def _read(desk: Desk) -> Shared:
    books, full = await desk.gauges.look()
    dead = await dead_letters.kinds(desk.redis)
    heard = await senders.read(desk.redis, list(SOURCES))
    return Shared(books, full, dead, heard, await calls.read_all(desk.redis, list(Endpoint)))


routes = [Route("/metrics", metrics, methods=["GET"])]
