"""The stand-ins under a real server: nothing of one test reaches another's."""

from __future__ import annotations

import httpx
import pytest

from tests.vendors import KEY, sandbox_in_thread


def test_each_stand_in_is_alone_and_ends_with_its_block() -> None:
    """Two at a time have an address and a memory each; after its block nobody reaches one, on no line it had."""
    with httpx.Client(headers={"X-API-Key": KEY}) as client, sandbox_in_thread() as other:
        with sandbox_in_thread() as one:
            body = {"emailAddresses": ["ada@example.com"]}
            answer = client.post(f"{one.audiencepoint_url}/list-subscription", json=body)
            assert answer.is_success
            assert one.memory.counters() != other.memory.counters()
        with pytest.raises(httpx.TransportError):
            client.get(f"{one.url}/seen")
        assert client.get(f"{other.url}/seen").json() == other.memory.counters()
