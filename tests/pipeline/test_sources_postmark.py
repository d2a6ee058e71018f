"""The source `postmark`: one object a call, each kind with names of its own, and nothing signed."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.outcomes import EventType, Invalid, Reason, Stage, Unreadable
from pipeline.sources import Malformed, Rules
from pipeline.sources.postmark import POSTMARK
from tests.pipeline.sample_outcomes import NOW, delivery, samples, shown

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


@pytest.mark.parametrize("sample", samples("postmark"))
def test_a_sample_gives_what_it_expects(sample: dict[str, Any]) -> None:
    """Every sample body gives exactly the outcome beside it."""
    found = outcome(sample["body"], Rules(**sample.get("rules", {})))
    assert [found] == sample["expect"]


@pytest.mark.parametrize(
    "body", [{}, [], [CLICK], {"RecordType": None}, {"Recipient": "a@example.com"}, 1, "x", None]
)
def test_a_body_without_an_event_is_of_unknown_shape(body: object) -> None:
    """JSON that is not one event is unreadable as a whole."""
    with pytest.raises(Unreadable) as caught:
        POSTMARK.parse(delivery("postmark", body), Rules(), NOW)
    assert caught.value.reason is Reason.UNKNOWN_SHAPE


@pytest.mark.parametrize("body", [b"", b"RecordType=Open", b"{"])
def test_what_is_no_json_is_malformed(body: bytes) -> None:
    """The receiver answers 400; what got past an older check is unreadable."""
    with pytest.raises(Malformed):
        POSTMARK.check(body, "application/json")
    with pytest.raises(Unreadable) as caught:
        POSTMARK.parse(delivery("postmark", body), Rules(), NOW)
    assert caught.value.reason is Reason.MALFORMED


def test_a_wrong_event_is_kept_as_it_came() -> None:
    """It is buried in the stage `forward` with its own JSON, long numbers too, and read again alike."""
    body = b'{"RecordType":"Click","MessageID":"m","n":123456789012345678901234567890}'
    (found,) = POSTMARK.parse(delivery("postmark", body), Rules(), NOW)
    assert isinstance(found, Invalid)
    assert (found.stage, found.payload) == (Stage.FORWARD, body)
    assert POSTMARK.parse(delivery("postmark", found.payload), Rules(), NOW) == [found]


@pytest.mark.parametrize(
    ("family", "is_browser"),
    [
        *((name, True) for name in ("Chrome", "Firefox", "Safari", "Mobile Safari", "IE", "Edge")),
        *((name, True) for name in ("Internet Explorer", "Opera", "Chrome Mobile", "CHROME")),
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


@pytest.mark.parametrize("value", [False, None, "true", 1, "missing"])
def test_only_a_plain_true_ends_a_subscription(value: object) -> None:
    """Whoever gets mail again has not unsubscribed, and what is not true is not taken for it."""
    body: dict[str, object] = {
        **{"RecordType": "SubscriptionChange", "Recipient": "ada@example.com", "MessageID": "m-1"},
        **{"ChangedAt": "2023-06-01T12:00:00Z", "SuppressionReason": "ManualSuppression"},
    }
    assert outcome(body | {"SuppressSending": True})["type"] == EventType.UNSUBSCRIBE
    changed = body if value == "missing" else body | {"SuppressSending": value}
    assert outcome(changed) == {"ignored": "not_a_mail_event"}


def test_there_is_nothing_to_verify() -> None:
    """Postmark signs nothing: whatever headers and secrets there are, the token alone decides."""
    POSTMARK.verify({"authorization": "\udcff"}, b"", {"MAILGUN_SIGNING_KEY": "x"}, NOW)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(width=64) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_NAMES = st.sampled_from(
    [
        *("Email", "Recipient", "MessageID", "ID", "Type", "Details", "DeliveredAt", "BouncedAt"),
        *("ReceivedAt", "ChangedAt", "SuppressSending", "SuppressionReason", "Client", "OS"),
        *("Geo", "Platform", "UserAgent", "FirstOpen", "OriginalLink", "FromFull", "Name"),
    ]
)
_WORDS = st.sampled_from(
    [
        *("HardBounce", "SpamComplaint", "ManualSuppression", "Desktop", "Chrome", "smtp;550 x"),
        *("a@example.com", "192.0.2.1", "2023-06-01T12:00:00.1234567-04:00", True),
    ]
)
_KINDS = st.sampled_from(["Delivery", "Bounce", "Open", "Click", "SubscriptionChange", "Inbound"])
_OBJECTS = st.builds(
    lambda kind, fields: {**kind, **fields},
    st.fixed_dictionaries({}, optional={"RecordType": _KINDS | _JSON}),
    st.dictionaries(_NAMES, _JSON | _WORDS | st.dictionaries(_NAMES, _WORDS)),
)


@given(
    st.binary(max_size=100) | st.one_of(_JSON, _OBJECTS).map(orjson.dumps),
    st.sampled_from([Rules(), Rules("delivered", "SoftBounce", "campaign")]),
)
def test_any_body_gives_an_outcome_or_is_unreadable(body: bytes, rules: Rules) -> None:
    """No bytes and no JSON at all make the source raise anything else."""
    try:
        POSTMARK.check(body, "application/json")
        found = POSTMARK.parse(delivery("postmark", body), rules, NOW)
    except (Malformed, Unreadable):
        return
    assert len(found) == 1
    assert all(shown(each) for each in found)
