"""The source `mandrill`: a form with events in it, a signature over URL and fields, tests not forwarded."""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.deliveries import Delivery
from pipeline.outcomes import MailEvent, Probe, Reason, Unreadable
from pipeline.settings import SettingsError, load_settings
from pipeline.sources import Malformed, Rules, Unauthentic
from pipeline.sources.mandrill import MANDRILL
from tests.pipeline.mangled import ANY_JSON, mangled
from tests.pipeline.sample_outcomes import NOW, delivery, samples, shown
from tests.pipeline.sender_facts import OTHER_RULES

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


@pytest.mark.parametrize("sample", samples("mandrill"))
def test_a_sample_that_comes_back_bare_gives_what_it_expects(sample: dict[str, Any]) -> None:
    """What was a form's field is read without the form: so wrong events come back from the dead letters."""
    rules = Rules(**sample.get("rules", {}))
    found = MANDRILL.parse(_bare(sample["body"]), rules, NOW)
    assert [shown(outcome) for outcome in found] == sample["expect"]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        pytest.param(b"", _FORM, id="empty"),
        pytest.param(b"mandrill_events=", _FORM, id="field empty"),
        pytest.param(b"mandrill_events=%5B", _FORM, id="field no JSON"),
        pytest.param(b"events=%5B%5D", _FORM, id="another field"),
        pytest.param(b"\xff\xfe", _FORM, id="no text"),
        pytest.param(b"mandrill_events=%5B%5D", _MULTIPART, id="no parts"),
        pytest.param(b"{&mandrill_events=%5B%5D", "", id="neither JSON nor a form"),
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


def test_the_time_is_the_events_and_not_the_messages() -> None:
    """`msg.ts` says when the mail was sent, also on a click a month later."""
    item = {**_CLICK, "msg": {"email": "ada@example.com", "ts": 1_600_000_000}}
    (found,) = MANDRILL.parse(_posted([item]), Rules(), NOW)
    assert isinstance(found, MailEvent)
    assert found.occurred_at_utc == "2023-06-01T12:00:00"


@pytest.mark.parametrize("events", [[_EXAMPLE] * 9, [_EXAMPLE, _CLICK]])
def test_what_the_webhooks_own_key_signed_is_never_taken_for_a_test(events: list[object]) -> None:
    """Only the key tells a test from an event: an example signed with the real one is an event."""
    headers = _signed(_text(events))
    MANDRILL.verify(headers, _form(events), _SECRETS, NOW)
    found = MANDRILL.parse(_posted(events, {_SIGNATURE: headers[_SIGNATURE]}), Rules(), NOW)
    assert [type(one) for one in found] == [MailEvent] * len(events)


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


_GOOD = _signed(_text([_CLICK]))[_SIGNATURE]


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        pytest.param(_signed(_text([_CLICK]), url=_URL + "/"), _form([_CLICK]), id="another URL"),
        pytest.param({_SIGNATURE: _GOOD}, _form([_CLICK]) + b"+", id="one byte more"),
        pytest.param(
            {_SIGNATURE: _GOOD, "content-type": _MULTIPART}, _form([_CLICK]), id="no parts"
        ),
    ],
)
def test_a_false_signature_is_refused(headers: dict[str, str], body: bytes) -> None:
    """Another URL than was typed in at Mandrill, another value, another way to write a form."""
    with pytest.raises(Unauthentic):
        MANDRILL.verify(headers, body, _SECRETS, NOW)


@pytest.mark.parametrize("keys", [_KEY, _TEST_KEY, f"{_KEY},{_TEST_KEY}"])
@pytest.mark.parametrize("events", [[_EXAMPLE] * 9, [_EXAMPLE, _DENIED]])
def test_a_test_is_answered_and_never_stored(events: list[object], keys: str) -> None:
    """*Send Test* works with the key that everybody knows, and nothing comes of it."""
    secrets = {**_SECRETS, "MANDRILL_WEBHOOK_KEY": keys}
    with pytest.raises(Probe):
        MANDRILL.verify(_signed(_text(events), _TEST_KEY), _form(events), secrets, NOW)


@pytest.mark.parametrize("keys", [_KEY, _TEST_KEY])
def test_a_webhook_can_be_saved_with_the_key_that_everybody_knows(keys: str) -> None:
    """The empty batch comes before anybody knows the real key: it is taken, with nothing in it."""
    secrets = {**_SECRETS, "MANDRILL_WEBHOOK_KEY": keys}
    MANDRILL.verify(_signed(_text([]), _TEST_KEY), _form([]), secrets, NOW)


@pytest.mark.parametrize("keys", [_KEY, _TEST_KEY, f"{_KEY},{_TEST_KEY}"])
@pytest.mark.parametrize(
    "events", [[_CLICK], [_EXAMPLE, _CLICK], [_EXAMPLE, 7], {}, [{"event": "send"}], "[]"]
)
def test_nothing_else_may_carry_the_key_that_everybody_knows(events: object, keys: str) -> None:
    """Nobody can forge an event of a person with the published key, also where it is set as the key."""
    secrets = {**_SECRETS, "MANDRILL_WEBHOOK_KEY": keys}
    with pytest.raises(Unauthentic):
        MANDRILL.verify(_signed(_text(events), _TEST_KEY), _form(events), secrets, NOW)


def test_a_test_with_a_false_signature_is_refused() -> None:
    """Being about nobody does not replace a signature."""
    with pytest.raises(Unauthentic):
        MANDRILL.verify(_signed(_text([]), "another"), _form([]), _SECRETS, NOW)


@pytest.mark.parametrize("url", ["", "  "])
def test_the_settings_refuse_a_key_without_its_url(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str
) -> None:
    """Every call would be refused: the process says so at its start, with what is missing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MANDRILL_WEBHOOK_URL", url)
    load_settings()
    monkeypatch.setenv("MANDRILL_WEBHOOK_KEY", _KEY)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    (problem,) = caught.value.problems
    assert problem.startswith("MANDRILL_WEBHOOK_URL: should be set")
    monkeypatch.setenv("MANDRILL_WEBHOOK_URL", _URL)
    assert load_settings().sender_secrets() == _SECRETS


@given(ANY_JSON | mangled("mandrill"), st.sampled_from([Rules(), OTHER_RULES]))
def test_any_bare_json_gives_outcomes_or_is_unreadable(events: object, rules: Rules) -> None:
    """No JSON at all makes the parser raise anything else when it comes back from the dead letters."""
    with suppress(Unreadable, Probe):
        assert all(shown(outcome) for outcome in MANDRILL.parse(_bare(events), rules, NOW))
