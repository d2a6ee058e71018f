"""Reading the certificates of the machine takes a tenth of a second: it is done once."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx
import pytest

from workers.clients.http import _certificates, new_client

pytestmark = pytest.mark.anyio


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[ssl.SSLContext]:
    """Give the list of the contexts that httpx makes from now on."""
    made: list[ssl.SSLContext] = []
    create = httpx.create_ssl_context

    def noted() -> ssl.SSLContext:
        made.append(create())
        return made[-1]

    monkeypatch.setattr(httpx, "create_ssl_context", noted)
    monkeypatch.setattr(httpx._config, "create_ssl_context", noted)
    _certificates.cache_clear()
    return made


async def test_all_clients_and_proxies_share_the_certificates(
    read: list[ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two clients behind two proxies read them once."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://proxy.example:3128")
    async with new_client(), new_client():
        assert len(read) == 1


async def test_other_certificates_of_the_environment_are_heeded(
    read: list[ssl.SSLContext], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A corporate network's own authority counts from when it is set."""
    async with new_client():
        pass
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    async with new_client():
        pass
    assert len(read) == 2
