"""The source `postmark`: one object a call, each kind with names of its own, and nothing signed."""

from __future__ import annotations

import pytest

from pipeline.outcomes import EventType
from pipeline.sources import Rules
from pipeline.sources.postmark import POSTMARK
from tests.pipeline.sample_outcomes import NOW, delivery, shown

CLICK = {
    "RecordType": "Click",
    "Recipient": "ada@example.com",
    "MessageID": "m-1",
    "ReceivedAt": "2023-06-01T12:00:00Z",
}


def outcome(body: object, rules: Rules | None = None) -> dict[str, object]:
    """Return the one outcome of *body* in the words of a sample."""
    (found,) = POSTMARK.parse(delivery("postmark", body), rules or Rules(), NOW)
    return shown(found)


@pytest.mark.parametrize(
    ("family", "is_browser"),
    [
        *((name, True) for name in ("Chrome", "Firefox", "Safari", "Mobile Safari", "IE", "Edge")),
        *((name, True) for name in ("Internet Explorer", "Opera", "Chrome Mobile", "CHROME")),
        *((name, True) for name in ("Samsung Browser", "Samsung", "Amazon Silk", "SeaMonkey")),
        *((name, True) for name in ("Konqueror",)),
        *((name, False) for name in ("Gmail", "Outlook", "Thunderbird", "Apple Mail", "Yahoo!")),
        *((name, False) for name in ("Opera Mail", "Windows Live Mail", "Knowledge", "Friend")),
    ],
)
def test_a_program_is_a_browser_or_reads_mail(family: str, is_browser: bool) -> None:
    """The program's family tells which; its whole name leaves, and only under one of the two."""
    found = outcome(CLICK | {"Client": {"Name": f"{family} 7", "Family": family}})
    assert found.get("browser") == (f"{family} 7" if is_browser else None)
    assert found.get("client") == (None if is_browser else f"{family} 7")
    assert outcome(CLICK | {"Client": {"Name": family}}) == outcome(
        CLICK | {"Client": {"Name": family, "Family": " "}}
    )


@pytest.mark.parametrize("value", [False, None, "false", 0, "missing"])
def test_only_what_is_true_ends_a_subscription(value: object) -> None:
    """Whoever gets mail again has not unsubscribed, and what is not true is not taken for it."""
    body: dict[str, object] = {
        **{"RecordType": "SubscriptionChange", "Recipient": "ada@example.com", "MessageID": "m-1"},
        **{"ChangedAt": "2023-06-01T12:00:00Z", "SuppressionReason": "ManualSuppression"},
    }
    for yes in (True, "true", 1):
        assert outcome(body | {"SuppressSending": yes})["type"] == EventType.UNSUBSCRIBE
    changed = body if value == "missing" else body | {"SuppressSending": value}
    assert outcome(changed) == {"ignored": "not_a_mail_event"}
