"""Which URLs lead to this machine."""

from __future__ import annotations

import pytest

from pipeline.loopback import is_loopback


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:80", "http://localhost/a?b", "https://[::1]:8443", "HTTP://LOCALHOST"]
)
def test_a_url_of_this_machine(url: str) -> None:
    """Its name or address, whatever the scheme and port."""
    assert is_loopback(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1.example.com",
        "http://a.example/127.0.0.1",
        "http://127.0.0.1@a.example",
        "http://[::1",
        "localhost",
        "",
    ],
)
def test_a_url_of_another_one(url: str) -> None:
    """Neither a name that begins like it, nor one with it anywhere else, nor what is no URL."""
    assert not is_loopback(url)
