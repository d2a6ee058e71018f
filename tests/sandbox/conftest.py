"""A sandbox of its own for each test, and a client of each vendor that holds the right key."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette

from sandbox.app import create
from sandbox.memory import Memory
from sandbox.settings import Settings

KEY = {"X-API-Key": "sandbox"}


def client_of(app: Starlette, path: str) -> httpx.AsyncClient:
    """Return a client of what is mounted under *path*."""
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(
        transport=transport, base_url=f"http://sandbox{path}", headers=KEY, timeout=60
    )


@pytest.fixture
def app() -> Starlette:
    """Both vendors, as observed."""
    return create()


@pytest.fixture
def settings(app: Starlette) -> Settings:
    """What the sandbox obeys."""
    found: Settings = app.state.settings
    return found


@pytest.fixture
def memory(app: Starlette) -> Memory:
    """What the sandbox remembers."""
    found: Memory = app.state.memory
    return found


@pytest.fixture
async def lab(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    """A client of AudienceLab."""
    async with client_of(app, "/audiencelab") as client:
        yield client


@pytest.fixture
async def point(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    """A client of AudiencePoint."""
    async with client_of(app, "/audiencepoint/v1") as client:
        yield client
