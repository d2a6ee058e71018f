"""The console's page in this process, against the test's Redis; a browser's manners come from httpx."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from console.web.app import make_app
from pipeline.connections import Role, connection_pool
from pipeline.settings import Settings
from pipeline.wake import arq_redis
from tests.given import GivenSettings

TOKEN = "console-token-0123456789"

Open = Callable[..., Awaitable[httpx.AsyncClient]]


@pytest.fixture
async def open_console(
    redis: Redis, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Open]:
    """Give a function that opens a console with settings; *peer* is whose requests the client makes."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    async with AsyncExitStack() as stack:

        async def opened(
            peer: str = "127.0.0.1", url: str = "http://127.0.0.1:8001", **values: Any
        ) -> httpx.AsyncClient:
            usual: dict[str, Any] = {"redis_url": redis_url, "relay_home": tmp_path / "home"}
            settings = GivenSettings(**usual | values)
            app = make_app(settings, arq_redis(connection_pool(settings, Role.CONSOLE)))
            await stack.enter_async_context(app.router.lifespan_context(app))
            transport = httpx.ASGITransport(app, client=(peer, 1234))
            client = httpx.AsyncClient(transport=transport, base_url=url)
            return await stack.enter_async_context(client)

        yield opened


def form_token(text: str) -> str:
    """Return the token that the forms of a page carry."""
    found = re.search(r'name="form_token" value="([^"]+)"', text)
    assert found is not None, text
    return found[1]


async def log_in(client: httpx.AsyncClient, token: str = TOKEN) -> httpx.Response:
    """Post the log-in form."""
    return await client.post("/login", data={"token": token, "next": "/"})
