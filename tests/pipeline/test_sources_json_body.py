"""What is kept of a wrong event: its JSON as it was sent, whatever numbers are in it."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.outcomes import Ignored, Invalid, Outcome, Probe, Stage, Unreadable
from pipeline.sources import Rules, Source
from pipeline.sources.audiencelab import PIXEL
from pipeline.sources.events import EVENTS
from pipeline.sources.json_body import as_json, as_sent, check_json, read_json
from pipeline.sources.registry import SOURCES
from pipeline.sources.scores import SCORES
from pipeline.sources.sendgrid import SENDGRID
from tests.pipeline.sample_outcomes import NOW, delivery

NUMBERS = st.from_regex(
    r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?", fullmatch=True
)
#: JSON text; the empty name is no field of any sender
TEXTS = st.recursive(
    NUMBERS | st.sampled_from(["null", "true"]) | st.text(max_size=9).map(json.dumps),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(inner, max_size=3).map(
            lambda items: (
                "{" + ",".join(f'"_{n % 2}": {item}' for n, item in enumerate(items)) + "}"
            )
        )
    ),
    max_leaves=12,
)
#: for each source an envelope with a right event before and after what is wrong
RIGHT: dict[Source, str] = {
    EVENTS: '{"email":"a@example.com","type":"Open","occurred_at_utc":"2023-01-01T00:00:00","send_id":"s"}',
    SCORES: '{"emailAddress":"a@example.com","score":7}',
    SENDGRID: '{"event":"click","email":"a@example.com","timestamp":1685620800,"sg_message_id":"m"}',
    PIXEL: '{"UUID":"u","resolution":[{"UUID":"u-1","AGE":1e2},{"UUID":"u-2","NET_WORTH":1.50}]}',
}


def exact(text: str | bytes) -> Any:
    """Read JSON with every digit of its numbers."""
    return json.loads(text, parse_int=Decimal, parse_float=Decimal)


def wrong(source: Source, body: str) -> list[Invalid]:
    """Return the wrong events in *body*."""
    found = source.parse(delivery(source.name, body.encode()), Rules(), NOW)
    return [outcome for outcome in found if isinstance(outcome, Invalid)]


@pytest.mark.parametrize("source", RIGHT, ids=lambda source: str(source.name))
@settings(max_examples=40)
@given(items=st.lists(TEXTS, min_size=1, max_size=3))
def test_a_wrong_event_keeps_its_numbers(source: Source, items: list[str]) -> None:
    """However long, and wherever in the body the wrong events are: no digit is lost, and nothing is mixed up."""
    try:
        orjson.loads(f"[{','.join(items)}]")
    except orjson.JSONDecodeError:
        # a number too large for a float is no JSON to anybody here; half of a surrogate pair is not kept as it was
        return
    right = RIGHT[source]
    found = wrong(source, f"[{right}, {f', {right}, '.join(items)}, {right}]")
    assert [exact(one.payload) for one in found] == [exact(item) for item in items]


@given(st.lists(st.text(st.sampled_from('\ud83d\udc4b\ude00\\u "d8')) | st.text(), max_size=3))
def test_half_of_a_surrogate_pair_is_replaced_and_nothing_else(texts: list[str]) -> None:
    """What JSON's grammar allows is read, as U+FFFD; pairs, and backslashes that only look like halves, stay."""
    # JSON tells two halves next to each other from no pair
    paired = [
        one.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass") for one in texts
    ]
    body = json.dumps(texts).encode()
    check_json(body)
    assert read_json(body) == [re.sub("[\ud800-\udfff]", "\ufffd", one) for one in paired]


def test_half_of_a_surrogate_pair_costs_no_event_of_the_call() -> None:
    """The event with it comes out as well as those around it; a wrong one is kept without the half."""
    right = RIGHT[EVENTS]
    odd = right.replace('"s"', '"s \\ud83d"')
    found = EVENTS.parse(delivery("events", f"[{right},{odd},{right}]".encode()), Rules(), NOW)
    assert [getattr(one, "send_id", None) for one in found] == ["s", "s \ufffd", "s"]
    (lost,) = wrong(EVENTS, '[{"email":"\\ud83d","rate":0.10000000000000000001}]')
    assert lost.payload == '{"email":"\ufffd","rate":0.10000000000000000001}'.encode()


def test_a_wrong_event_inside_envelopes_keeps_its_numbers() -> None:
    """The second reading finds the same events, around which the same envelopes are."""
    strange = '{"id":123456789012345678901234567890,"rate":0.10000000000000000001}'
    body = f'{{"payload":{{"job_id":1.0,"result":[{RIGHT[PIXEL]},{strange},7]}}}}'
    assert [one.payload.decode() for one in wrong(PIXEL, body)] == [strange, "7"]
    (found,) = wrong(EVENTS, f'\ufeff{{"events":[{strange}],"more":[1e5]}}')
    assert found.payload.decode() == strange
    (found,) = wrong(SENDGRID, '{"event":"open","id":-1E+2}')
    assert found.payload == b'{"event":"open","id":-1E+2}'


def test_numbers_that_were_not_rounded_cost_no_second_reading() -> None:
    """Nothing is read where nothing is wrong, nor where a wrong event has only numbers of 64 bits."""
    good: list[Outcome] = [Ignored(Stage.FORWARD, "unmapped")]
    assert as_sent(good, b"not JSON", lambda value: []) is good
    exact_ones = {"id": 2**64 - 1, "at": -(2**63), "ip": "192.0.2.1", "name": "1e5"}
    bad: list[Outcome] = [Invalid(Stage.FORWARD, "wrong", as_json(exact_ones))]
    assert as_sent(bad, b"not JSON", lambda value: []) is bad


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_an_event_too_deep_to_be_read_again_is_kept_all_the_same(opening: bytes) -> None:
    """Where Python's reader gives up, the event is kept with rounded numbers, and with all of its levels."""
    closing = b"]" if opening == b"[" else b"}"
    deep = opening * 1_000 + b"1.50" + closing * 1_000
    (found,) = EVENTS.parse(delivery("events", b"[" + deep + b"]"), Rules(), NOW)
    assert isinstance(found, Invalid)
    assert found.payload in (deep, deep.replace(b"1.50", b"1.5"))


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize(
    "number", ["123456789012345678901", "0.10000000000000000001", "1.50", "1E9"]
)
def test_no_source_rounds_what_it_buries(name: str, number: str) -> None:
    """Whatever a source finds wrong in an array, it is kept as it came; a new source is held to it, too."""
    body = f'[{{"strange":{number}}},[{number}],{number}]'.encode()
    try:
        found = SOURCES[name].parse(delivery(name, body), Rules(), NOW)
    except (Unreadable, Probe):
        return  # kept whole, or nothing to be kept
    payloads = [one.payload for one in found if isinstance(one, Invalid)]
    assert all(number.encode() in payload for payload in payloads)
