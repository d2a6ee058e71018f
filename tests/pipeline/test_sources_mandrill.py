"""The source `mandrill`: a form with events in it, a signature over URL and fields, tests not forwarded."""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.deliveries import Delivery
from pipeline.outcomes import Invalid, MailEvent, Probe, Reason, Stage, Unreadable
from pipeline.sources import Malformed, Rules, Unauthentic
from pipeline.sources.mandrill import MANDRILL
from tests.pipeline.sample_outcomes import NOW, delivery, samples, shown

_FORM = "application/x-www-form-urlencoded; charset=utf-8"
_MULTIPART = "multipart/form-data; boundary=cut"
_KEY = "the-webhooks-own-key"
_TEST_KEY = "test-webhook"
_URL = "https://user:pass@relay.example.com/hooks/mandrill?token=0123456789abcdef"
_SECRETS = {"MANDRILL_WEBHOOK_KEY": _KEY, "MANDRILL_WEBHOOK_URL": _URL}
_SIGNATURE = "x-mandrill-signature"

_CLICK = {
    "event": "click",
    "ts": 1_685_620_800,
    "_id": "m-1",
    "msg": {"email": "zoë@example.com", "subject": "1 + 1 = 2 & more; 100 %"},
}
_EXAMPLE = {**_CLICK, "msg": {"email": "example.webhook@mandrillapp.com"}}
_DENIED = {"type": "blacklist", "action": "add", "reject": {"email": "ada@example.com"}}


def _form(events: object) -> bytes:
    return urlencode({"mandrill_events": orjson.dumps(events).decode()}).encode()


def _multipart(events: object) -> bytes:
    head = b'--cut\r\nContent-Disposition: form-data; name="mandrill_events"\r\n\r\n'
    return head + orjson.dumps(events) + b"\r\n--cut--\r\n"


def _posted(
    events: object, headers: Mapping[str, str] | None = None, content_type: str = _FORM
) -> Delivery:
    body = _multipart(events) if content_type == _MULTIPART else _form(events)
    one = delivery("mandrill", body)
    return replace(one, content_type=content_type, headers=headers or {})


def _signed(text: str, key: str = _KEY, url: str = _URL) -> dict[str, str]:
    """Return the headers of a call whose fields, names and values one after another, are *text*."""
    digest = hmac.new(key.encode(), (url + text).encode(), "sha1").digest()
    return {_SIGNATURE: b64encode(digest).decode(), "content-type": _FORM}


def _text(events: object) -> str:
    return "mandrill_events" + orjson.dumps(events).decode()


def _bare(events: object) -> Delivery:
    return delivery("mandrill", events)


_ENVELOPES: dict[str, Callable[[object], Delivery]] = {
    "form": _posted,
    "multipart": lambda events: _posted(events, content_type=_MULTIPART),
    "bare JSON": _bare,
}


@pytest.mark.parametrize("envelope", _ENVELOPES.values(), ids=_ENVELOPES)
@pytest.mark.parametrize("sample", samples("mandrill"))
def test_a_sample_gives_what_it_expects(
    sample: dict[str, Any], envelope: Callable[[object], Delivery]
) -> None:
    """Every sample gives exactly the outcomes beside it, in a form, in parts, or brought back bare."""
    rules = Rules(**sample.get("rules", {}))
    found = MANDRILL.parse(envelope(sample["body"]), rules, NOW)
    assert [shown(outcome) for outcome in found] == sample["expect"]


@pytest.mark.parametrize("events", [{}, {"msg": {}}, {"mandrill_events": []}, 1, "x", None])
def test_a_field_without_events_is_of_unknown_shape(events: object) -> None:
    """JSON that is neither an array nor one event has the form, and is unreadable as a whole."""
    MANDRILL.check(_form(events), _FORM)
    with pytest.raises(Unreadable) as caught:
        MANDRILL.parse(_posted(events), Rules(), NOW)
    assert caught.value.reason is Reason.UNKNOWN_SHAPE


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        pytest.param(b"", _FORM, id="empty"),
        pytest.param(b"mandrill_events=", _FORM, id="field empty"),
        pytest.param(b"mandrill_events=%5B", _FORM, id="field no JSON"),
        pytest.param(b"events=%5B%5D", _FORM, id="another field"),
        pytest.param(b"\xff\xfe", _FORM, id="no text"),
        pytest.param(b"mandrill_events=%5B%5D", _MULTIPART, id="no parts"),
    ],
)
def test_what_is_no_form_of_mandrills_is_malformed(body: bytes, content_type: str) -> None:
    """The receiver answers 400, and the worker reads it no more leniently."""
    with pytest.raises(Malformed):
        MANDRILL.check(body, content_type)
    with pytest.raises(Unreadable) as caught:
        MANDRILL.parse(replace(delivery("mandrill", body), content_type=content_type), Rules(), NOW)
    assert caught.value.reason is Reason.MALFORMED


def test_events_as_the_whole_body_are_not_what_mandrill_posts() -> None:
    """Bare JSON is read again from the dead letters, but nobody may post it."""
    with pytest.raises(Malformed):
        MANDRILL.check(orjson.dumps([_CLICK]), "application/json")


def test_a_wrong_event_is_kept_as_it_came_and_can_be_read_again() -> None:
    """It is buried alone in `forward`, long numbers unrounded; alone it gives the same again."""
    wrong = b'{"event":"click","x":123456789012345678901234567890}'
    body = urlencode({"mandrill_events": b"[" + wrong + b"]"}).encode()
    (found,) = MANDRILL.parse(delivery("mandrill", body), Rules(), NOW)
    assert isinstance(found, Invalid)
    assert (found.stage, found.payload) == (Stage.FORWARD, wrong)
    assert MANDRILL.parse(delivery("mandrill", found.payload), Rules(), NOW) == [found]


def test_the_time_is_the_events_and_not_the_messages() -> None:
    """`msg.ts` says when the mail was sent, also on a click a month later."""
    item = {**_CLICK, "msg": {"email": "ada@example.com", "ts": 1_600_000_000}}
    (found,) = MANDRILL.parse(_posted([item]), Rules(), NOW)
    assert isinstance(found, MailEvent)
    assert found.occurred_at_utc == "2023-06-01T12:00:00"


def test_the_empty_batch_of_a_new_webhook_is_a_probe() -> None:
    """What Mandrill posts while a webhook is saved is answered and nothing else."""
    with pytest.raises(Probe):
        MANDRILL.parse(_posted([]), Rules(), NOW)


@pytest.mark.parametrize("events", [[_EXAMPLE] * 9, [_EXAMPLE, _DENIED]])
def test_a_signed_batch_of_examples_is_a_probe(events: list[object]) -> None:
    """*Send Test* is about nobody: what came with a signature and holds only examples stays here."""
    with pytest.raises(Probe):
        MANDRILL.parse(_posted(events, {_SIGNATURE: "x"}), Rules(), NOW)


def test_one_real_event_makes_a_batch_real() -> None:
    """Nothing is lost because an example stands beside it."""
    found = MANDRILL.parse(_posted([_EXAMPLE, _CLICK], {_SIGNATURE: "x"}), Rules(), NOW)
    assert len(found) == 2


def test_without_a_key_everything_is_accepted() -> None:
    """A sender whose secret is not set is believed by its token alone."""
    MANDRILL.verify({}, _form([_CLICK]), {}, NOW)
    MANDRILL.verify({}, _form([_CLICK]), {"MANDRILL_WEBHOOK_URL": _URL}, NOW)


@pytest.mark.parametrize("url", [None, "", "  "])
def test_a_key_without_its_url_refuses_and_says_so(url: str | None) -> None:
    """The URL is part of what is signed: without it nothing can be verified, and the operator is told."""
    secrets = {"MANDRILL_WEBHOOK_KEY": _KEY} | (
        {} if url is None else {"MANDRILL_WEBHOOK_URL": url}
    )
    with pytest.raises(Unauthentic, match="MANDRILL_WEBHOOK_URL is not"):
        MANDRILL.verify(_signed(_text([_CLICK])), _form([_CLICK]), secrets, NOW)


def test_a_true_signature_is_accepted_at_any_time() -> None:
    """URL, name and decoded value are signed, also beyond ASCII; nothing in it tells its age."""
    for now in (NOW, NOW + 6 * 365 * 86_400, 0.0):
        MANDRILL.verify(_signed(_text([_CLICK])), _form([_CLICK]), _SECRETS, now)


def test_every_field_is_signed_in_the_order_of_the_names() -> None:
    """Fields in any order give the same signature, which covers those that we do not read."""
    events = orjson.dumps([_CLICK]).decode()
    body = urlencode([("z", "26"), ("mandrill_events", events), ("a", "")]).encode()
    MANDRILL.verify(_signed(f"amandrill_events{events}z26"), body, _SECRETS, NOW)
    with pytest.raises(Unauthentic):
        MANDRILL.verify(_signed(_text([_CLICK])), body, _SECRETS, NOW)


def test_a_form_in_parts_is_signed_alike() -> None:
    """The signature is over the fields, whichever way they are packed."""
    headers = _signed(_text([_CLICK])) | {"content-type": _MULTIPART}
    MANDRILL.verify(headers, _multipart([_CLICK]), _SECRETS, NOW)


@pytest.mark.parametrize("keys", [f"{_KEY},next", f" next , {_KEY} "])
def test_while_the_key_is_changed_both_are_believed(keys: str) -> None:
    """Several keys with commas between are all in force."""
    secrets = {**_SECRETS, "MANDRILL_WEBHOOK_KEY": keys}
    MANDRILL.verify(_signed(_text([_CLICK])), _form([_CLICK]), secrets, NOW)
    MANDRILL.verify(_signed(_text([_CLICK]), "next"), _form([_CLICK]), secrets, NOW)
    with pytest.raises(Unauthentic):
        MANDRILL.verify(_signed(_text([_CLICK]), "last"), _form([_CLICK]), secrets, NOW)


_GOOD = _signed(_text([_CLICK]))[_SIGNATURE]


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        pytest.param({}, _form([_CLICK]), id="missing"),
        pytest.param({_SIGNATURE: ""}, _form([_CLICK]), id="empty"),
        pytest.param({_SIGNATURE: "%%%"}, _form([_CLICK]), id="not base64"),
        pytest.param({_SIGNATURE: "é"}, _form([_CLICK]), id="not ASCII"),
        pytest.param({_SIGNATURE: "\udcff"}, _form([_CLICK]), id="no text"),
        pytest.param({_SIGNATURE: _GOOD[:-4]}, _form([_CLICK]), id="cut"),
        pytest.param({_SIGNATURE: "A" * 9000}, _form([_CLICK]), id="endless"),
        pytest.param({_SIGNATURE: _GOOD[::-1]}, _form([_CLICK]), id="turned"),
        pytest.param(_signed(_text([_CLICK]), "another"), _form([_CLICK]), id="another key"),
        pytest.param(_signed(_text([_CLICK]), url=_URL + "/"), _form([_CLICK]), id="another URL"),
        pytest.param({_SIGNATURE: _GOOD}, _form([_CLICK]) + b"+", id="one byte more"),
        pytest.param({_SIGNATURE: _GOOD}, _form([_CLICK]).replace(b"m-1", b"m-2"), id="flipped"),
        pytest.param({_SIGNATURE: _GOOD}, b"", id="body empty"),
        pytest.param({_SIGNATURE: _GOOD}, b"\xff", id="body no text"),
        pytest.param(
            {_SIGNATURE: _GOOD, "content-type": _MULTIPART}, _form([_CLICK]), id="no parts"
        ),
    ],
)
def test_a_false_signature_is_refused(headers: dict[str, str], body: bytes) -> None:
    """Missing, malformed, flipped: always `Unauthentic`, never another exception."""
    with pytest.raises(Unauthentic):
        MANDRILL.verify(headers, body, _SECRETS, NOW)


@pytest.mark.parametrize("events", [[], [_EXAMPLE] * 9, [_EXAMPLE, _DENIED]])
def test_a_test_is_accepted_with_the_key_that_everybody_knows(events: list[object]) -> None:
    """Saving and testing a webhook work, and what they post is never forwarded."""
    headers = _signed(_text(events), _TEST_KEY)
    MANDRILL.verify(headers, _form(events), _SECRETS, NOW)
    with pytest.raises(Probe):
        MANDRILL.parse(_posted(events, {_SIGNATURE: headers[_SIGNATURE]}), Rules(), NOW)


@pytest.mark.parametrize(
    "events", [[_CLICK], [_EXAMPLE, _CLICK], [_EXAMPLE, 7], {}, [{"event": "send"}], "[]"]
)
def test_nothing_else_may_carry_the_key_that_everybody_knows(events: object) -> None:
    """Whoever knows the token cannot forge an event of a person with the published test key."""
    with pytest.raises(Unauthentic):
        MANDRILL.verify(_signed(_text(events), _TEST_KEY), _form(events), _SECRETS, NOW)


def test_a_test_with_a_false_signature_is_refused() -> None:
    """Being about nobody does not replace a signature."""
    with pytest.raises(Unauthentic):
        MANDRILL.verify(_signed(_text([]), "another"), _form([]), _SECRETS, NOW)


def test_the_test_key_may_be_the_real_one() -> None:
    """With `test-webhook` set as the key, as before the first webhook is saved, it is in force."""
    secrets = {**_SECRETS, "MANDRILL_WEBHOOK_KEY": _TEST_KEY}
    MANDRILL.verify(_signed(_text([_CLICK]), _TEST_KEY), _form([_CLICK]), secrets, NOW)


@given(st.text(max_size=120), st.binary(max_size=120), st.text(max_size=40) | st.just(_MULTIPART))
def test_any_call_is_refused_and_never_crashes(
    signature: str, body: bytes, content_type: str
) -> None:
    """Whatever headers and body hold, only a true signature passes and nothing else is raised."""
    headers = {_SIGNATURE: signature, "content-type": content_type}
    with pytest.raises(Unauthentic):
        MANDRILL.verify(headers, body, _SECRETS, NOW)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(width=64) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_WORDS = st.sampled_from(
    [
        *("send", "delivered", "deferral", "hard_bounce", "open", "click", "inbound", "blacklist"),
        *("a@example.com", "example.webhook@mandrillapp.com", "192.0.2.1", "Email Client"),
    ]
)
_INNER = st.dictionaries(
    st.sampled_from(["email", "_id", "type", "ua_name", "os_name", "mobile"]), _JSON | _WORDS
)
_FIELDS = st.sampled_from(
    ["event", "type", "ts", "_id", "msg", "ip", "user_agent", "user_agent_parsed"]
)
_EVENTS = st.dictionaries(_FIELDS, _JSON | _WORDS | _INNER)


@given(
    st.one_of(_JSON, _EVENTS, st.lists(_EVENTS | _JSON, max_size=3)),
    st.sampled_from([Rules(), Rules("delivered", "SoftBounce", "campaign")]),
    st.sampled_from([{}, {_SIGNATURE: "x"}]),
)
def test_any_json_gives_outcomes_or_is_unreadable(
    events: object, rules: Rules, headers: dict[str, str]
) -> None:
    """No JSON at all, in a form or bare, makes the parser raise anything else."""
    for one in (_posted(events, headers), _bare(events)):
        try:
            found = MANDRILL.parse(one, rules, NOW)
        except (Unreadable, Probe):
            continue
        assert all(shown(outcome) for outcome in found)


@given(st.binary(max_size=200), st.sampled_from([_FORM, _MULTIPART, "", "multipart/form-data"]))
def test_any_bytes_raise_nothing_else(body: bytes, content_type: str) -> None:
    """Neither the check nor the parser raises anything but its own refusals."""
    with suppress(Malformed):
        MANDRILL.check(body, content_type)
    one = replace(delivery("mandrill", body), content_type=content_type)
    with suppress(Unreadable, Probe):
        MANDRILL.parse(one, Rules(), NOW)
