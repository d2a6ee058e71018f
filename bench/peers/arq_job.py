"""A receiver on Starlette: token, body cap, and one arq job a request, enqueued before the answer."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hmac import compare_digest
from typing import TypedDict

from arq import ArqRedis, create_pool
from arq.connections import RedisSettings
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

TOKEN = os.environ.get("HOOK_TOKENS", "").encode()
MOST_BYTES = 20 * 1024 * 1024


class State(TypedDict):
    """What each request finds."""

    arq: ArqRedis


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[State]:
    """Keep one pool of connections as long as the app lives."""
    pool = await create_pool(RedisSettings.from_dsn(os.environ["REDIS_URL"]))
    yield {"arq": pool}
    await pool.aclose()


async def take(request: Request) -> Response:
    """Enqueue the body, then answer."""
    if not compare_digest(request.path_params["token"].encode(), TOKEN):
        return Response(status_code=401)
    body = await request.body()
    pool: ArqRedis = request.state.arq
    job = await pool.enqueue_job("take", request.path_params["source"], body)
    assert job is not None
    return JSONResponse({"id": job.job_id}, status_code=202)


app = Starlette(
    routes=[Route("/hooks/{source}/{token}", take, methods=["POST"], max_body_size=MOST_BYTES)],
    lifespan=lifespan,
)
