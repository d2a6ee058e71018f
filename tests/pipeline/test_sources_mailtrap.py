"""The source `mailtrap`: both of its formats are read, only true signatures are believed."""

from __future__ import annotations

import hmac
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.outcomes import Ignored, Invalid, MailEvent, Probe, Reason, Stage, Unreadable
from pipeline.sources import Malformed, Rules, Unauthentic
from pipeline.sources.mailtrap import MAILTRAP
from tests.pipeline.sample_outcomes import NOW, delivery, samples, shown

_BODY = b'{"events":[{"event":"open"}]}\r\n'
_OLD, _NEW = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
_SIGNATURE = "mailtrap-signature"
_EVENT = b'{"event":"delivery","timestamp":1685620800,"message_id":"m","email":"a@example.com","event_id":"e"}'


def _sign(secret: str, body: bytes = _BODY) -> str:
    return hmac.digest(secret.encode(), body, "sha256").hex()


@pytest.mark.parametrize("sample", samples("mailtrap"))
def test_a_sample_gives_what_it_expects(sample: dict[str, Any]) -> None:
    """Every sample body gives exactly the outcomes beside it, in the order of the body."""
    rules = Rules(**sample.get("rules", {}))
    found = MAILTRAP.parse(delivery("mailtrap", sample["body"]), rules, NOW)
    assert [shown(outcome) for outcome in found] == sample["expect"]


@pytest.mark.parametrize(
    "body", [{}, {"email": "a@example.com"}, {"events": None}, {"events": {}}, 1, "x", None]
)
def test_a_body_without_events_is_of_unknown_shape(body: object) -> None:
    """JSON in which no event can be found is unreadable as a whole, and has the form all the same."""
    MAILTRAP.check(orjson.dumps(body), "application/json")
    with pytest.raises(Unreadable) as caught:
        MAILTRAP.parse(delivery("mailtrap", body), Rules(), NOW)
    assert caught.value.reason is Reason.UNKNOWN_SHAPE


@pytest.mark.parametrize("body", [b"", b" \n", b"event=open", b'{"event":', b"\xff"])
def test_what_is_not_json_is_malformed(body: bytes) -> None:
    """The receiver answers 400, and the worker says the same of it."""
    with pytest.raises(Malformed):
        MAILTRAP.check(body, "application/json")
    with pytest.raises(Unreadable) as caught:
        MAILTRAP.parse(delivery("mailtrap", body), Rules(), NOW)
    assert caught.value.reason is Reason.MALFORMED


@pytest.mark.parametrize("body", [b"[]", b'{"events":[]}', b'{"events": [],\n"x": 1}'])
def test_an_empty_batch_is_a_probe(body: bytes) -> None:
    """Nothing happened: it is answered and counted, and nobody has to look at it."""
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


@pytest.mark.parametrize("form", [b'{"events":[%b,%b]}', b"%b\n%b\n"], ids=["json", "lines"])
def test_a_wrong_event_is_kept_as_it_came(form: bytes) -> None:
    """It is buried alone in the stage `forward`, with its numbers as they were sent, in both formats."""
    wrong = b'{"event":"open","email":"a@example.com","x":123456789012345678901234567890}'
    found = MAILTRAP.parse(delivery("mailtrap", form % (_EVENT, wrong)), Rules(), NOW)
    assert isinstance(found[0], MailEvent)
    assert isinstance(found[1], Invalid)
    assert (found[1].stage, found[1].payload) == (Stage.FORWARD, wrong)


def test_a_time_far_ahead_is_invalid() -> None:
    """A time more than a day ahead is what AudiencePoint could not make sense of."""
    body = _EVENT.replace(b"1685620800", b"8589934592")
    (found,) = MAILTRAP.parse(delivery("mailtrap", body), Rules(), NOW)
    assert shown(found) == {"invalid": "occurred_at_utc is more than 24 hours ahead"}


def test_without_a_secret_everything_is_accepted() -> None:
    """A sender whose secret is not set is believed by its token alone."""
    MAILTRAP.verify({}, _BODY, {}, NOW)
    MAILTRAP.verify({_SIGNATURE: "false"}, _BODY, {"MAILTRAP_SIGNING_SECRET": ""}, NOW)


@pytest.mark.parametrize("secret", [_NEW, f" {_NEW}\n", f"{_OLD},{_NEW}", f"{_NEW}, {_OLD}"])
@pytest.mark.parametrize("written", [str, str.upper, "  {} ".format], ids=["hex", "HEX", "padded"])
@pytest.mark.parametrize("late_s", [0, 86_400, 6 * 365 * 86_400])
def test_a_true_signature_is_accepted(secret: str, written: Any, late_s: int) -> None:
    """With any of the secrets that are set, one for each webhook; age is not judged, no time is signed."""
    headers = {_SIGNATURE: written(_sign(_NEW))}
    MAILTRAP.verify(headers, _BODY, {"MAILTRAP_SIGNING_SECRET": secret}, NOW + late_s)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        pytest.param({}, _BODY, id="missing"),
        pytest.param({_SIGNATURE: ""}, _BODY, id="empty"),
        pytest.param({_SIGNATURE: "  "}, _BODY, id="blank"),
        pytest.param({_SIGNATURE: "zz"}, _BODY, id="not hex"),
        pytest.param({_SIGNATURE: "é\u0130"}, _BODY, id="not ASCII"),
        pytest.param({_SIGNATURE: "\udcff"}, _BODY, id="no text"),
        pytest.param({_SIGNATURE: _sign(_NEW)[:-1]}, _BODY, id="cut"),
        pytest.param({_SIGNATURE: _sign(_NEW) * 200}, _BODY, id="endless"),
        pytest.param({_SIGNATURE: _sign(_OLD)}, _BODY, id="another secret"),
        pytest.param({_SIGNATURE: _sign(_NEW, b"")}, _BODY, id="of another body"),
        pytest.param({_SIGNATURE: _sign(_NEW)}, _BODY[:-2], id="trailing CRLF lost"),
        pytest.param({_SIGNATURE: _sign(_NEW)}, _BODY.replace(b"o", b"O"), id="flipped"),
        pytest.param({_SIGNATURE: _sign(_NEW)}, b"", id="body empty"),
    ],
)
def test_a_false_signature_is_refused(headers: dict[str, str], body: bytes) -> None:
    """Missing, malformed, flipped: always `Unauthentic`, never another exception."""
    with pytest.raises(Unauthentic):
        MAILTRAP.verify(headers, body, {"MAILTRAP_SIGNING_SECRET": _NEW}, NOW)


@pytest.mark.parametrize("secret", [",", " , ", "é", _OLD])
def test_with_a_wrong_secret_nothing_is_believed(secret: str) -> None:
    """A setting without any secret in it, or with another's, refuses instead of accepting all."""
    for key in (_NEW, "", ","):
        headers = {_SIGNATURE: _sign(key)}
        with pytest.raises(Unauthentic):
            MAILTRAP.verify(headers, _BODY, {"MAILTRAP_SIGNING_SECRET": secret}, NOW)


@given(st.text(max_size=120))
def test_any_header_is_refused_and_never_crashes(signature: str) -> None:
    """Whatever the header says, only a true signature passes and nothing else is raised."""
    with pytest.raises(Unauthentic):
        MAILTRAP.verify({_SIGNATURE: signature}, _BODY, {"MAILTRAP_SIGNING_SECRET": _NEW}, NOW)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(width=64) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_NAMES = st.sampled_from(
    ["event", "email", "timestamp", "message_id", "event_id", "ip", "user_agent"]
)
_WORDS = st.sampled_from(
    [
        "delivery",
        "open",
        "soft bounce",
        "reject",
        "inbound.message_received",
        "a@example.com",
        "192.0.2.1",
    ]
)
_OBJECTS = st.dictionaries(_NAMES, _JSON | _WORDS)


@given(
    st.one_of(
        _JSON, st.fixed_dictionaries({"events": _JSON | st.lists(_OBJECTS, max_size=3)}), _OBJECTS
    ),
    st.sampled_from([Rules(), Rules("delivered", "SoftBounce", "campaign")]),
)
def test_any_json_gives_outcomes_or_ends_as_a_whole(body: object, rules: Rules) -> None:
    """No JSON at all makes the parser raise anything but `Unreadable` or `Probe`."""
    try:
        found = MAILTRAP.parse(delivery("mailtrap", body), rules, NOW)
    except (Unreadable, Probe):
        return
    assert all(shown(outcome) for outcome in found)


def _is_malformed_to_the_worker(body: bytes) -> bool:
    try:
        MAILTRAP.parse(delivery("mailtrap", body), Rules(), NOW)
    except Unreadable as error:
        return error.reason is Reason.MALFORMED
    except Probe:
        return False
    return False


@given(st.binary(max_size=60) | st.text('{}[]":,\n 1', max_size=20).map(str.encode))
def test_receiver_and_worker_agree_on_any_bytes(body: bytes) -> None:
    """What `check` lets in, `parse` can read, and the other way round; nothing else is raised."""
    if _is_malformed_to_the_worker(body):
        with pytest.raises(Malformed):
            MAILTRAP.check(body, "application/json")
    else:
        MAILTRAP.check(body, "application/json")
