"""The console put together: its pages, what guards them, and how a failure is told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from console.commands import redis_failure
from console.web.desk import Desk
from console.web.ending import heard
from console.web.examination import Examinations
from console.web.forgetting import Forgettings
from console.web.gauges import Gauges
from console.web.guard import Guard
from console.web.pages import (
    api,
    dead_letters,
    deliveries,
    destinations,
    flow,
    log_in,
    metrics,
    senders,
    visitors,
)
from console.web.pages import settings as settings_page
from console.web.rendering import failure
from console.web.replay import Replays
from console.web.sessions import Sessions

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from pipeline.settings import Settings

log = logging.getLogger(__name__)

_STATIC = Path(__file__).parent / "static"


def make_app(settings: Settings, redis: Redis) -> Starlette:
    """Return the console. *redis* is closed at its end."""
    token = settings.console_token.get_secret_value() if settings.console_token else None
    desk = Desk(
        settings,
        redis,
        Sessions(token),
        Replays(redis),
        Gauges(settings, redis),
        Forgettings(redis),
        Examinations(redis, settings),
    )

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        try:
            with heard(desk.ending):
                yield
        finally:
            await asyncio.gather(*(each.close() for each in desk.errands))
            with contextlib.suppress(RedisError, OSError):
                await redis.aclose()
                await redis.connection_pool.disconnect()

    app = Starlette(
        routes=_routes(),
        middleware=[
            Middleware(Guard, sessions=desk.sessions, attempts=desk.attempts),
            Middleware(Faults),
        ],
        exception_handlers={
            HTTPException: _told,
            RedisError: _redis_failed,
            OSError: _redis_failed,
        },
        lifespan=lifespan,
    )
    app.state.desk = desk
    return app


def _routes() -> list[BaseRoute]:
    return [
        *flow.routes,
        *deliveries.routes,
        *dead_letters.routes,
        *api.routes,
        *visitors.routes,
        *senders.routes,
        *destinations.routes,
        *settings_page.routes,
        *metrics.routes,
        *log_in.routes,
        Route("/healthz", _lives, methods=["GET"]),
        Mount("/static", StaticFiles(directory=_STATIC), name="static"),
    ]


async def _lives(request: Request) -> Response:
    return PlainTextResponse("ok\n")


async def _told(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - for mypy: this handler is called for nothing else
    # a page's own sentence, or the router's word for a page that is not there
    sentence = "There is no such page." if error.detail == "Not Found" else error.detail
    return failure(request, error.status_code, sentence)


async def _redis_failed(request: Request, error: Exception) -> Response:
    log.warning("console: Redis failed error=%s", type(error).__name__)
    return failure(request, 503, redis_failure(error, request.app.state.desk.settings))


class Faults:
    """Middleware that tells a fault of ours as a page, with the headers of all others; the log has its traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        has_begun = False

        async def noting(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as error:
            if has_begun or scope["type"] != "http":
                raise
            # without the error's text, which may quote what somebody posted
            kind = RuntimeError(type(error).__name__).with_traceback(error.__traceback__)
            log.error("console: a page failed", exc_info=kind)  # noqa: TRY400
            sentence = "The console failed on this page; its log says more."
            await failure(Request(scope), 500, sentence)(scope, receive, send)
