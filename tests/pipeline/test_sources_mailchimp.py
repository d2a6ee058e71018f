"""The source `mailchimp`: forms that tell of people who leave become AudiencePoint's events."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import orjson
import pytest

from pipeline.outcomes import Invalid, Reason, Stage, Unreadable
from pipeline.sources import Malformed, Rules
from pipeline.sources.form_body import URLENCODED
from pipeline.sources.mailchimp import MAILCHIMP
from tests.pipeline.sample_outcomes import NOW, delivery, samples, shown
from tests.pipeline.sender_facts import OTHER_RULES


@pytest.mark.parametrize("sample", samples("mailchimp"))
def test_no_setting_changes_what_it_tells(sample: dict[str, Any]) -> None:
    """Every sample form gives exactly the outcome beside it, whatever the rules."""
    body = sample["body"].encode()
    MAILCHIMP.check(body, f"{URLENCODED}; charset=utf-8")
    found = MAILCHIMP.parse(delivery("mailchimp", body), OTHER_RULES, NOW)
    assert [shown(outcome) for outcome in found] == sample["expect"]


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


def test_json_is_a_form_that_names_no_event() -> None:
    """It is one field with a strange name: unreadable as a whole."""
    with pytest.raises(Unreadable) as caught:
        MAILCHIMP.parse(delivery("mailchimp", b"{}"), Rules(), NOW)
    assert caught.value.reason is Reason.UNKNOWN_SHAPE


def test_a_wrong_event_is_kept_as_it_came() -> None:
    """An event that cannot be read is buried in the stage `forward` with its fields."""
    body = b"type=unsubscribe&data%5Bemail%5D=ada%40example.com&data%5Bmerges%5D%5BX%5D=%C3%A9"
    (found,) = MAILCHIMP.parse(delivery("mailchimp", body), Rules(), NOW)
    assert isinstance(found, Invalid)
    assert found.stage is Stage.FORWARD
    assert orjson.loads(found.payload) == dict(parse_qsl(body.decode()))
