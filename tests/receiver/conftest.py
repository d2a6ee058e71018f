"""The receiver as its tests use it: the whole app on a real Redis, driven without a network."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest
from httpx import ASGITransport, AsyncClient
from redis.asyncio import Redis

from pipeline.settings import Settings
from tests.given import GivenSettings
from tests.patience import be_patient, patient_receiver
from tests.served import served_for_life

TOKEN = "hook-token-0123456789"


class MakeClient(Protocol):
    """Starts a receiver; keywords are settings, `read_deadline_s` is the app's own."""

    def __call__(
        self, *, read_deadline_s: float = 30.0, **changed: object
    ) -> AbstractAsyncContextManager[AsyncClient]: ...


@pytest.fixture
def make_settings(redis_url: str, tmp_path: Path) -> Callable[..., Settings]:
    """Return a maker of settings that never reads the environment."""

    def make(**changed: object) -> Settings:
        values: dict[str, object] = {
            "redis_url": redis_url,
            "hook_tokens": TOKEN,
            "relay_home": tmp_path / "home",
        }
        return GivenSettings.model_validate(values | changed)

    return make


@pytest.fixture(params=["as ASGI has it", "over uvicorn"])
def make_client(
    request: pytest.FixtureRequest,
    redis: Redis,
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> MakeClient:
    """Return a maker of clients, each on a patient receiver of its own.

    What a receiver does is the same by both of its ways: over uvicorn what has come whole goes the short one.
    """
    be_patient(monkeypatch)

    @asynccontextmanager
    async def start(
        *, read_deadline_s: float = 30.0, **changed: object
    ) -> AsyncIterator[AsyncClient]:
        settings = make_settings(**changed)
        app = patient_receiver(settings, read_deadline_s=read_deadline_s)
        if request.param == "over uvicorn":
            with served_for_life(app) as url:
                async with AsyncClient(base_url=url) as client:
                    await client.get("/healthz")  # tells the port
                    yield client
            return
        async with (
            app.router.lifespan_context(app),
            AsyncClient(transport=ASGITransport(app), base_url="http://relay.test") as client,
        ):
            yield client

    return start


@pytest.fixture
async def client(make_client: MakeClient) -> AsyncIterator[AsyncClient]:
    """Give a client of a receiver with the settings' defaults."""
    async with make_client() as client:
        yield client
