"""Loopback: the addresses of this machine that no other one can listen on."""

from __future__ import annotations

from urllib.parse import urlsplit

HOSTS = ("127.0.0.1", "localhost", "::1")


def is_loopback(url: str) -> bool:
    """Tell whether *url* leads to this machine, so that nobody is on the way."""
    try:
        return urlsplit(url).hostname in HOSTS
    except ValueError:  # brackets without an address
        return False
