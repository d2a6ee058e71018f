"""The source `mailchimp`: forms that tell of people who leave become AudiencePoint's events."""

from __future__ import annotations

import contextlib
from typing import Any
from urllib.parse import parse_qsl, urlencode

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.outcomes import Invalid, Reason, Stage, Unreadable
from pipeline.sources import Malformed, Rules
from pipeline.sources.form_body import MULTIPART, URLENCODED
from pipeline.sources.mailchimp import MAILCHIMP
from tests.pipeline.sample_outcomes import NOW, delivery, samples, shown


@pytest.mark.parametrize("sample", samples("mailchimp"))
@pytest.mark.parametrize("rules", [Rules(), Rules("delivered", "SoftBounce", "campaign")])
def test_a_sample_gives_what_it_expects(sample: dict[str, Any], rules: Rules) -> None:
    """Every sample form gives exactly the outcome beside it; no setting changes what Mailchimp tells."""
    body = sample["body"].encode()
    MAILCHIMP.check(body, f"{URLENCODED}; charset=utf-8")
    found = MAILCHIMP.parse(delivery("mailchimp", body), rules, NOW)
    assert [shown(outcome) for outcome in found] == sample["expect"]


def test_a_form_in_parts_is_read_too() -> None:
    """What counts is the fields, not how they are written."""
    fields = {"type": "unsubscribe", "fired_at": "2023-06-01 12:00:00"}
    fields |= {"data[email]": "ada@example.com", "data[list_id]": "l"}
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    body, content_type = ("".join(parts) + "--b--\r\n").encode(), f"{MULTIPART}; boundary=b"
    MAILCHIMP.check(body, content_type)
    sent = delivery("mailchimp", body)
    sent.content_type = content_type
    (found,) = MAILCHIMP.parse(sent, Rules(), NOW)
    assert shown(found)["send_id"] == "list:l"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", URLENCODED),
        (b"\xff=1", ""),
        (b"type=unsubscribe", "application/json"),
        (b"{}", "text/x"),
    ],
)
def test_what_is_no_form_is_malformed(body: bytes, content_type: str) -> None:
    """It is refused at the door: an empty body, other bytes, another Content-Type."""
    with pytest.raises(Malformed):
        MAILCHIMP.check(body, content_type)


@pytest.mark.parametrize("body", [b"{}", b"a=1", b"data%5Btype%5D=unsubscribe"])
def test_a_form_without_a_type_is_of_unknown_shape(body: bytes) -> None:
    """A form that names no event is unreadable as a whole."""
    with pytest.raises(Unreadable) as caught:
        MAILCHIMP.parse(delivery("mailchimp", body), Rules(), NOW)
    assert caught.value.reason is Reason.UNKNOWN_SHAPE


def test_a_wrong_event_is_kept_as_it_came() -> None:
    """An event that cannot be read is buried in the stage `forward` with its fields."""
    body = b"type=unsubscribe&data%5Bemail%5D=ada%40example.com&data%5Bmerges%5D%5BX%5D=%C3%A9"
    (found,) = MAILCHIMP.parse(delivery("mailchimp", body), Rules(), NOW)
    assert isinstance(found, Invalid)
    assert found.stage is Stage.FORWARD
    assert orjson.loads(found.payload) == dict(parse_qsl(body.decode()))


@given(st.dictionaries(st.text(), st.text()), st.binary(max_size=20))
def test_nothing_is_signed(headers: dict[str, str], body: bytes) -> None:
    """Mailchimp signs nothing: the token alone is judged, and that is done at the door."""
    MAILCHIMP.verify(headers, body, {}, NOW)


_NAMES = st.sampled_from(
    ["type", "fired_at", "data[email]", "data[list_id]", "data[campaign_id]", "data[reason]"]
)
_WORDS = st.sampled_from(["unsubscribe", "cleaned", "hard", "abuse", "a@example.com", "2023-06-01"])


@given(st.lists(st.tuples(_NAMES | st.text(), _WORDS | st.text(st.characters(codec="utf-8")))))
def test_any_form_gives_an_outcome_or_is_unreadable(fields: list[tuple[str, str]]) -> None:
    """No form at all makes the parser raise anything but `Unreadable`."""
    body = urlencode(fields, errors="replace").encode()
    with contextlib.suppress(Unreadable):
        assert all(map(shown, MAILCHIMP.parse(delivery("mailchimp", body), Rules(), NOW)))


@given(st.binary(max_size=200), st.sampled_from(["", URLENCODED, f"{MULTIPART}; boundary=b"]))
def test_any_bytes_are_read_or_refused(body: bytes, content_type: str) -> None:
    """No bytes at all make the door or the parser raise anything but what their contract names."""
    with contextlib.suppress(Malformed):
        MAILCHIMP.check(body, content_type)
    sent = delivery("mailchimp", body)
    sent.content_type = content_type
    with contextlib.suppress(Unreadable):
        MAILCHIMP.parse(sent, Rules(), NOW)
