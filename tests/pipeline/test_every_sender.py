"""What holds for the bodies of every sender alike: sender_facts.py says what each of them looks like."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.deliveries import Delivery
from pipeline.outcomes import Invalid, MailEvent, Outcome, Probe, Reason, ScoreChange, Unreadable
from pipeline.sources import Malformed, Rules
from pipeline.sources.audiencelab import AUDIENCE, PIXEL, WORKFLOW
from pipeline.sources.form_body import MULTIPART, URLENCODED
from pipeline.sources.registry import SOURCES
from tests.pipeline.mangled import ANY_JSON, mangled
from tests.pipeline.sample_outcomes import NOW, delivery, samples_of, shown
from tests.pipeline.sender_facts import (
    FACTS,
    IN_PARTS,
    JSON,
    OTHER_RULES,
    as_forms,
    fields,
    posted,
    sampled,
    told,
)

#: their bodies are forms, or may be
_FORMS = ("mailgun", "mandrill", "mailchimp")
#: only JSON is their form
_ONLY_JSON = [name for name in FACTS if name not in _FORMS]
_READS_JSON = [name for name in FACTS if name != "mailchimp"]
_BATCHES = [name for name, facts in FACTS.items() if facts.is_batch]
_DATED = [name for name in FACTS if name != "scores"]
_NO_EVENTS: tuple[object, ...] = ({}, 1, "x", None)
_NOT_JSON = (
    *(b"", b" \n", b"{", b'{"event":', b"event=open", b"\xff", b'"\xff"'),
    *(b'{"a":NaN}', b'"\\ud80"', b"1e999", b"[" * 5000),
)
_RULES = st.sampled_from([Rules(), OTHER_RULES])
_PART = b'--b\r\nContent-Disposition: form-data; name="event"\r\n'
_BYTES = st.one_of(
    st.binary(max_size=200),
    st.text('{}[]":,\n 1', max_size=20).map(str.encode),
    st.binary(max_size=99).map(_PART.__add__),
)
# for each of the senders: together they try every rule many times. The first of all reads tables for a while
_few = settings(max_examples=25, deadline=None)


def test_every_source_is_held_to_it() -> None:
    """A sender that is new in the registry has to say here what its bodies look like."""
    assert set(FACTS) == set(SOURCES) - {one.name for one in (PIXEL, AUDIENCE, WORKFLOW)}


@pytest.mark.parametrize(("source", "sample"), samples_of(FACTS))
def test_a_sample_gives_what_it_expects(source: str, sample: dict[str, Any]) -> None:
    """Every sample body gives exactly the outcomes beside it, in their order, in each form it is posted in."""
    rules = Rules(**sample.get("rules", {}))
    for one in sampled(source, sample):
        assert [shown(outcome) for outcome in told(one, rules)] == sample["expect"]


@pytest.mark.parametrize(
    ("source", "body"),
    [
        *((source, body) for source, facts in FACTS.items() for body in facts.unknown),
        *((source, body) for source in _READS_JSON for body in _NO_EVENTS),
    ],
    ids=lambda value: f"{value!r:.40}",
)
def test_a_body_without_events_is_of_unknown_shape(source: str, body: object) -> None:
    """What has the sender's form and holds no event is let in, and unreadable as a whole."""
    for one in posted(source, orjson.dumps(body)):
        with pytest.raises(Unreadable) as caught:
            told(one)
        assert caught.value.reason is Reason.UNKNOWN_SHAPE


@pytest.mark.parametrize("source", [*_ONLY_JSON, "mailgun"])
def test_what_is_not_json_is_malformed(source: str) -> None:
    """The receiver answers 400, and the worker says the same of what got past it."""
    calls = [replace(delivery(source, body), content_type=JSON) for body in _NOT_JSON]
    assert [one.body for one in calls if not _is_malformed_at_the_door(one)] == []
    assert [one.body for one in calls if not _is_malformed_to_the_worker(one)] == []


@pytest.mark.parametrize("source", _ONLY_JSON)
def test_json_is_known_by_itself(source: str) -> None:
    """A mark before it changes nothing, nor does what the Content-Type says."""
    body = b"\xef\xbb\xbf" + FACTS[source].body(FACTS[source].right)
    for content_type in (JSON, "text/plain; charset=UTF-8", ""):
        (found,) = told(replace(delivery(source, body), content_type=content_type))
        assert isinstance(found, MailEvent | ScoreChange)


@pytest.mark.parametrize(
    ("source", "body"),
    [(source, body) for source, facts in FACTS.items() for body in facts.probes],
    ids=lambda value: f"{value!r:.40}",
)
def test_what_tells_of_nothing_is_a_probe(source: str, body: object) -> None:
    """An empty batch and a sender's own handshake are answered and counted, and nobody has to look at them."""
    for one in posted(source, orjson.dumps(body)):
        with pytest.raises(Probe):
            told(one)


@pytest.mark.parametrize("source", FACTS)
def test_a_wrong_event_is_kept_as_it_came_and_can_be_read_again(source: str) -> None:
    """It is buried in its stage with all digits of its numbers, and is the same when a retry reads it alone."""
    facts = FACTS[source]
    for one in posted(source, facts.body(facts.wrong)):
        (found,) = told(one)
        assert isinstance(found, Invalid)
        assert (found.stage, found.payload) == (facts.stage, facts.wrong)
        again = SOURCES[source].parse(delivery(source, found.payload), Rules(), NOW)
        assert again == [found]


@pytest.mark.parametrize("source", _BATCHES)
def test_a_wrong_event_is_buried_alone(source: str) -> None:
    """What stands beside it in a call is as right as without it, and in its place."""
    facts = FACTS[source]
    for one in posted(source, facts.body(facts.right, facts.wrong, facts.right)):
        first, wrong, last = told(one)
        assert first == last
        assert isinstance(first, MailEvent | ScoreChange)
        assert isinstance(wrong, Invalid)
        assert (wrong.stage, wrong.payload) == (facts.stage, facts.wrong)


@pytest.mark.parametrize("source", _DATED)
def test_a_time_far_ahead_is_invalid(source: str) -> None:
    """The same event is right on its day, and a century later what AudiencePoint could not make sense of."""
    facts = FACTS[source]
    ahead = facts.right.replace(b"1685620800", b"4841380800").replace(b"2023-06", b"2123-06")
    for one in posted(source, facts.body(facts.right)):
        (found,) = told(one)
        assert shown(found)["occurred_at_utc"] == "2023-06-01T12:00:00"
    for one in posted(source, facts.body(ahead)):
        (found,) = told(one)
        assert shown(found) == {"invalid": "occurred_at_utc is more than 24 hours ahead"}


@pytest.mark.parametrize("source", FACTS)
def test_errors_hold_no_personal_data(source: str) -> None:
    """The reason of an invalid event never quotes the event."""
    facts = FACTS[source]
    wrong = facts.right.replace(b"a@example.com", b"grace.example")
    for one in posted(source, facts.body(wrong)):
        (found,) = told(one)
        assert isinstance(found, Invalid)
        assert "grace" not in found.error


def _deliveries(source: str, value: object) -> list[Delivery]:
    if source == "mailgun":
        return posted(source, orjson.dumps(value)) + as_forms(source, fields(value))
    return posted(source, orjson.dumps(value))


def _is_whole(source: str, found: list[Outcome]) -> bool:
    """Tell whether a call has told as many events as its sender's calls can hold."""
    facts = FACTS[source]
    if facts.is_batch:
        return bool(found) or facts.may_tell_nothing
    # the two name several recipients in one event
    return len(found) == 1 or (source in ("resend", "ses") and len(found) > 1)


@pytest.mark.parametrize("source", FACTS)
@_few
@given(data=st.data(), rules=_RULES)
def test_any_json_gives_outcomes_or_ends_as_a_whole(
    source: str, data: st.DataObject, rules: Rules
) -> None:
    """No JSON at all, and no form, makes the parser raise anything but `Unreadable` or `Probe`."""
    value = data.draw(ANY_JSON | mangled(source))
    for one in _deliveries(source, value):
        with suppress(Unreadable, Probe, Malformed):
            found = told(one, rules)
            assert _is_whole(source, found)
            assert all(shown(outcome) for outcome in found)
            assert all(_is_text(outcome) for outcome in found if isinstance(outcome, ScoreChange))
            _stays_wrong(source, found, rules)


def _is_text(change: ScoreChange) -> bool:
    """Tell whether every score is kept as text, whatever its type was."""
    return all(isinstance(value, str) for value in change.scores.values())


def _stays_wrong(source: str, found: list[Outcome], rules: Rules) -> None:
    """Assert that nothing that was buried is taken for anything else when it is read again."""
    # where an event is a part of a call, strange parts may be calls themselves
    if FACTS[source].around == b"%b":
        for outcome in found:
            if isinstance(outcome, Invalid):
                again = SOURCES[source].parse(delivery(source, outcome.payload), rules, NOW)
                assert again == [outcome]


@pytest.mark.parametrize("source", FACTS)
@_few
@given(
    body=_BYTES,
    content_type=st.sampled_from([JSON, URLENCODED, MULTIPART, IN_PARTS, ""])
    | st.text(max_size=40),
)
def test_receiver_and_worker_agree_on_any_bytes(
    source: str, body: bytes, content_type: str
) -> None:
    """What the door lets in the worker can read, and the other way round; nothing else is raised."""
    one = replace(delivery(source, body), content_type=content_type)
    is_refused = _is_malformed_at_the_door(one)
    # these two doors ask for a form, and the worker reads bare JSON too: only wrong events come back as that
    if _is_malformed_to_the_worker(one) or source not in ("mandrill", "mailchimp"):
        assert is_refused == _is_malformed_to_the_worker(one)


def _is_malformed_at_the_door(one: Delivery) -> bool:
    try:
        SOURCES[one.source].check(one.body, one.content_type)
    except Malformed:
        return True
    return False


def _is_malformed_to_the_worker(one: Delivery) -> bool:
    try:
        SOURCES[one.source].parse(one, Rules(), NOW)
    except Unreadable as error:
        return error.reason is Reason.MALFORMED
    except Probe:
        return False
    return False
