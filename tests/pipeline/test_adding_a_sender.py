"""The page docs/adding-a-sender.md: its example is a sender that works."""

from __future__ import annotations

import hmac
import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from pipeline.outcomes import Probe, Reason, Unreadable
from pipeline.sources import Rules, Source, Unauthentic
from tests.pipeline.sample_outcomes import NOW, delivery, shown

_PAGE = Path(__file__).parents[2] / "docs" / "adding-a-sender.md"
_EVENT = {"event": "open", "recipient": "ada@example.com", "at": 1_685_620_800, "message_id": "m-1"}


@pytest.fixture
def acme() -> Source:
    """Return the sender that the page shows as a whole."""
    (code,) = re.findall(r"```python\n(.*?)```", _PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {"__name__": "acme"}
    exec(compile(code, str(_PAGE), "exec"), names)  # noqa: S102 - the page is ours
    source: Source = names["ACME"]
    return source


def test_the_pages_sender_reads_events(acme: Source) -> None:
    """One of each kind comes out as the page says, and a wrong one is alone in it."""
    delivered = _EVENT | {"event": "delivered"}
    items = [_EVENT, delivered, {"event": "dropped"}, {"event": "new"}, {}, 7]
    found = acme.parse(delivery("acme", items), Rules(), NOW)
    event = {"email": "ada@example.com", "occurred_at_utc": "2023-06-01T12:00:00", "send_id": "m-1"}
    assert [shown(one) for one in found] == [
        event | {"type": "Open", "machine_open": False},
        {"ignored": "not_the_send"},
        {"ignored": "suppressed"},
        {"ignored": "unmapped"},
        {"invalid": "event is missing or not a string"},
        {"invalid": "the event is not an object"},
    ]


def test_the_pages_sender_knows_its_shapes(acme: Source) -> None:
    """An empty array tries whether we are there; an object of another kind holds no event."""
    assert (acme.name, acme.success, acme.keeps_headers) == ("acme", 200, frozenset())
    with pytest.raises(Probe):
        acme.parse(delivery("acme", []), Rules(), NOW)
    with pytest.raises(Unreadable) as caught:
        acme.parse(delivery("acme", {"events": []}), Rules(), NOW)
    assert caught.value.reason is Reason.UNKNOWN_SHAPE


def test_the_pages_sender_proves_itself(acme: Source) -> None:
    """Once its secret is set, what it did not sign is refused."""
    body, secrets = orjson.dumps([_EVENT]), {"ACME_SIGNING_KEY": "one,another"}
    signature = hmac.digest(b"another", body, "sha256").hex()
    acme.verify({}, body, {}, NOW)
    acme.verify({"x-acme-signature": signature}, body, secrets, NOW)
    for headers in ({}, {"x-acme-signature": signature[::-1]}):
        with pytest.raises(Unauthentic):
            acme.verify(headers, body, secrets, NOW)
