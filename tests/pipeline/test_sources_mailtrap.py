"""The source `mailtrap`: both of its formats are read, and each is told from the other."""

from __future__ import annotations

import orjson
import pytest

from pipeline.outcomes import Ignored, Invalid, MailEvent, Probe, Stage
from pipeline.sources import Malformed, Rules
from pipeline.sources.mailtrap import MAILTRAP
from tests.pipeline.sample_outcomes import NOW, delivery

_EVENT = b'{"event":"delivery","timestamp":1685620800,"message_id":"m","email":"a@example.com","event_id":"e"}'


def test_an_empty_batch_in_several_lines_is_a_probe() -> None:
    """A line of it is no JSON, yet the whole is one document, in which nothing happened."""
    body = b'{"events": [],\n"x": 1}'
    MAILTRAP.check(body, "application/json")
    with pytest.raises(Probe):
        MAILTRAP.parse(delivery("mailtrap", body), Rules(), NOW)


@pytest.mark.parametrize("between", [b"\n", b"\r\n", b"\n\n", b" \n"])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_json_lines_are_one_event_each(between: bytes, end: bytes) -> None:
    """The payload format JSON Lines is the same as the array, whatever ends its lines."""
    body = _EVENT + between + _EVENT.replace(b"delivery", b"reject") + end
    MAILTRAP.check(body, "application/jsonl")
    found = MAILTRAP.parse(delivery("mailtrap", body), Rules(), NOW)
    assert [type(outcome) for outcome in found] == [MailEvent, Ignored]


def test_json_that_was_broken_into_lines_is_one_document() -> None:
    """Printed prettily, or cut after an object, it is still the one envelope."""
    pretty = orjson.dumps({"events": [orjson.loads(_EVENT)] * 2}, option=orjson.OPT_INDENT_2)
    cut = b'{"events":[' + _EVENT + b"\n,\n" + _EVENT + b"\n]}"
    for body in (pretty, cut):
        MAILTRAP.check(body, "application/json")
        assert len(MAILTRAP.parse(delivery("mailtrap", body), Rules(), NOW)) == 2


def test_lines_of_which_one_is_cut_are_malformed() -> None:
    """Half an event cannot be kept apart from its neighbours: the sender is told 400."""
    with pytest.raises(Malformed):
        MAILTRAP.check(_EVENT + b"\n" + _EVENT[:-5], "application/jsonl")


@pytest.mark.parametrize("lines", [b"1\n2\n", b"[]\n[]\n", b"{}\n" * 100_001, b"{}\n1\n{}"])
def test_lines_that_are_no_events_are_malformed(lines: bytes) -> None:
    """Each line has to be an object, and no call has a hundred thousand of them."""
    with pytest.raises(Malformed):
        MAILTRAP.check(lines, "application/jsonl")


def test_a_wrong_event_of_json_lines_is_kept_as_it_came() -> None:
    """It is buried alone in the stage `forward`, with its numbers as they were sent, as in JSON."""
    wrong = b'{"event":"open","email":"a@example.com","x":123456789012345678901234567890}'
    found = MAILTRAP.parse(delivery("mailtrap", _EVENT + b"\n" + wrong + b"\n"), Rules(), NOW)
    assert isinstance(found[0], MailEvent)
    assert isinstance(found[1], Invalid)
    assert (found[1].stage, found[1].payload) == (Stage.FORWARD, wrong)
