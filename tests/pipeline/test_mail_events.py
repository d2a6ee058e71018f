"""A mail event on its way out: refused early, written exactly, recognised when it comes again."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.addresses import digest
from pipeline.mail_events import (
    fingerprint,
    is_hashed,
    iso_second,
    problem,
    unix_second,
    utc_second,
    valid_ip,
    wire,
)
from pipeline.outcomes import EventType, MailEvent

_NOW = 1_700_000_000.0  # 2023-11-14T22:13:20Z
_EVENT = MailEvent("Ada@Example.com", EventType.CLICK, "2023-06-01T12:00:00", "m-1")
_HASH = digest("ada@example.com")
_NOT_A_TYPE = cast(EventType, "open")


@pytest.mark.parametrize("kind", list(EventType))
def test_a_right_event_has_no_problem(kind: EventType) -> None:
    """Every type passes, with an address or with a hash."""
    assert problem(replace(_EVENT, type=kind), _NOW) is None
    assert problem(replace(_EVENT, type=kind, email=_HASH), _NOW) is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"email": ""}, "email is neither an address nor 64 hex digits"),
        ({"email": "ada"}, "email is neither an address nor 64 hex digits"),
        ({"email": _HASH[:-1]}, "email is neither an address nor 64 hex digits"),
        ({"type": _NOT_A_TYPE}, "type is not one of"),
        ({"send_id": ""}, "send_id is missing or empty"),
        ({"send_id": " \t"}, "send_id is missing or empty"),
        ({"send_id": "x" * 999}, "send_id is longer than 998 characters"),
        ({"send_id": "\ud800"}, "send_id is not valid Unicode"),
        ({"occurred_at_utc": "2023-06-01T12:00:00Z"}, "not YYYY-MM-DDThh:mm:ss"),
        ({"occurred_at_utc": "2023-06-01T12:00:00\n"}, "not YYYY-MM-DDThh:mm:ss"),
        ({"occurred_at_utc": "٢٠٢٣-06-01T12:00:00"}, "not YYYY-MM-DDThh:mm:ss"),
        ({"occurred_at_utc": "2023-06-01T24:00:00"}, "not YYYY-MM-DDThh:mm:ss"),
        ({"occurred_at_utc": "2023-02-29T12:00:00"}, "not a date of the calendar"),
        ({"occurred_at_utc": "0000-01-01T12:00:00"}, "not a date of the calendar"),
        ({"occurred_at_utc": "2023-11-15T22:13:21"}, "more than 24 hours ahead"),
        ({"occurred_at_utc": "9999-12-31T23:59:59"}, "more than 24 hours ahead"),
    ],
)
def test_what_audiencepoint_would_refuse_is_found(change: dict[str, Any], why: str) -> None:
    """Each rule of the event model has its own sentence."""
    found = problem(replace(_EVENT, **change), _NOW)
    assert found is not None
    assert why in found


@pytest.mark.parametrize(
    "change",
    [
        {"occurred_at_utc": "2023-11-15T22:13:20"},
        {"occurred_at_utc": "2024-02-29T00:00:00", "email": _HASH},
        {"occurred_at_utc": "0001-01-01T00:00:00"},
        {"send_id": "é" * 998},
    ],
)
def test_the_limits_themselves_are_right(change: dict[str, Any]) -> None:
    """Exactly 24 hours ahead, a leap day, the first day and 998 characters pass."""
    assert (
        problem(replace(_EVENT, **change), _NOW + 200 * 86_400 * ("02-29" in str(change))) is None
    )


def test_a_hashed_event_leaves_with_its_domain() -> None:
    """With `sha256` the address leaves as its hash, the domain is set, unset fields are absent."""
    assert wire(_EVENT, "sha256") == (
        b'{"email":"' + _HASH.encode() + b'","type":"Click","occurred_at_utc":"2023-06-01T12:00:00"'
        b',"send_id":"m-1","domain":"example.com"}'
    )


def test_a_plain_event_keeps_its_case() -> None:
    """With `plain` the address leaves trimmed, its case kept."""
    sent = orjson.loads(wire(replace(_EVENT, email=" Ada@Example.com "), "plain"))
    assert sent == {
        "email": "Ada@Example.com",
        "type": "Click",
        "occurred_at_utc": "2023-06-01T12:00:00",
        "send_id": "m-1",
    }


@pytest.mark.parametrize("email_format", ["plain", "sha256"])
def test_a_hash_leaves_as_it_is(email_format: Literal["plain", "sha256"]) -> None:
    """A hash is lower-cased in both formats, never hashed again, and its given domain is kept."""
    event = replace(_EVENT, email=_HASH.upper(), domain="example.com")
    sent = orjson.loads(wire(event, email_format))
    assert (sent["email"], sent["domain"]) == (_HASH, "example.com")
    assert "domain" not in orjson.loads(wire(replace(event, domain=None), email_format))


def test_every_optional_field_leaves_under_the_models_name() -> None:
    """An Open with everything set has the twelve fields of the model and no other."""
    event = MailEvent(
        email="ada@example.com",
        type=EventType.OPEN,
        occurred_at_utc="2023-06-01T12:00:00",
        send_id="m-1",
        domain="other.example",
        client="Hotmail",
        browser="Chrome",
        os="Windows",
        device="PC",
        ip_address=" 192.0.2.1 ",
        user_agent="Mozilla/5.0",
        machine_open=False,
        provider_id="never leaves",
    )
    assert orjson.loads(wire(event, "sha256")) == {
        "email": _HASH,
        "type": "Open",
        "occurred_at_utc": "2023-06-01T12:00:00",
        "send_id": "m-1",
        "domain": "example.com",
        "client": "Hotmail",
        "browser": "Chrome",
        "os": "Windows",
        "device": "PC",
        "ip_address": "192.0.2.1",
        "user_agent": "Mozilla/5.0",
        "machine_open": False,
    }


@pytest.mark.parametrize("kind", [kind for kind in EventType if kind is not EventType.OPEN])
def test_machine_open_leaves_only_on_open(kind: EventType) -> None:
    """The flag means something on an Open alone."""
    event = replace(_EVENT, type=kind, machine_open=True)
    assert "machine_open" not in orjson.loads(wire(event, "sha256"))


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("a\x00b\r\nc\x7f\u2028", "abc"),
        (" padded ", "padded"),
        ("\ud800x", "x"),
        ("x" * 5000, "x" * 1024),
        ("\x01" * 2000 + "y", "y"),
        ("naïve \u00a0 ☃", "naïve \u00a0 ☃"),
        ("\x00", None),
        ("  ", None),
        ("", None),
    ],
)
def test_free_texts_are_cleaned_and_cut(text: str, sent: str | None) -> None:
    """Control characters go, 1 024 characters stay, and nothing left means the field is unset."""
    event = replace(_EVENT, user_agent=text, browser=text)
    found = orjson.loads(wire(event, "sha256"))
    assert (found.get("user_agent"), found.get("browser")) == (sent, sent)


@pytest.mark.parametrize(
    ("text", "ip"),
    [
        ("192.0.2.1", "192.0.2.1"),
        (" 2001:db8::1\n", "2001:db8::1"),
        ("255.255.255.255", "255.255.255.255"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1"),
        ("192.0.2.256", None),
        ("192.0.2", None),
        ("192.0.2.1:80", None),
        ("192.0.2.1, 192.0.2.2", None),
        ("unknown", None),
        ("1\x002", None),
        ("\ud800", None),
        ("", None),
    ],
)
def test_only_a_valid_ip_leaves(text: str, ip: str | None) -> None:
    """What is not exactly one IPv4 or IPv6 address is dropped, the event is not."""
    assert valid_ip(text) == ip
    assert orjson.loads(wire(replace(_EVENT, ip_address=text), "plain")).get("ip_address") == ip


def test_plain_and_hashed_are_told_apart() -> None:
    """A batch is plain or hashed: a hash counts as hashed even where plain is asked for."""
    assert not is_hashed(_EVENT, "plain")
    assert is_hashed(_EVENT, "sha256")
    assert is_hashed(replace(_EVENT, email=_HASH), "plain")


def test_the_same_event_has_the_same_fingerprint() -> None:
    """Case of the address, plain or hashed, and all that is optional do not make it another one."""
    once = fingerprint("events", _EVENT)
    assert fingerprint("events", replace(_EVENT, email=" ADA@example.com")) == once
    assert fingerprint("events", replace(_EVENT, email=_HASH)) == once
    assert fingerprint("events", replace(_EVENT, user_agent="x", machine_open=True)) == once


def test_the_senders_id_takes_the_place_of_the_messages() -> None:
    """With an id of the event its send_id does not matter; without one it does."""
    event = replace(_EVENT, provider_id="e-1")
    assert fingerprint("sendgrid", event) == fingerprint("sendgrid", replace(event, send_id="m-2"))
    assert fingerprint("events", _EVENT) != fingerprint("events", replace(_EVENT, send_id="m-2"))


@pytest.mark.parametrize(
    "change",
    [
        {"email": "bob@example.com"},
        {"type": EventType.OPEN},
        {"occurred_at_utc": "2023-06-01T12:00:01"},
        {"provider_id": "e-2"},
        {"provider_id": None, "send_id": "e-1"},
    ],
)
def test_another_event_has_another_fingerprint(change: dict[str, Any]) -> None:
    """One provider id can tell of several people, types and seconds: each is its own event."""
    event = replace(_EVENT, provider_id="e-1")
    assert fingerprint("sendgrid", replace(event, **change)) != fingerprint("sendgrid", event)
    assert fingerprint("mailgun", event) != fingerprint("sendgrid", event)


@pytest.mark.parametrize(
    ("value", "second"),
    [
        (1685620800, "2023-06-01T12:00:00"),
        (1685620800.999, "2023-06-01T12:00:00"),
        (1685620800999, "2023-06-01T12:00:00"),
        (1685620800999999, "2023-06-01T12:00:00"),
        (1685620800999999999, "2023-06-01T12:00:00"),
        (1.685620800999e12, "2023-06-01T12:00:00"),
        ("1685620800", "2023-06-01T12:00:00"),
        (" 1685620800.5 ", "2023-06-01T12:00:00"),
        ("1685620800999", "2023-06-01T12:00:00"),
        (100_000_000_000, "5138-11-16T09:46:40"),
        (100_000_000_001, "1973-03-03T09:46:40"),
        (1, "1970-01-01T00:00:01"),
        ("2023-06-01T12:00:00Z", "2023-06-01T12:00:00"),
        ("2023-06-01t12:00:00z", "2023-06-01T12:00:00"),
        ("2023-06-01T12:00:00", "2023-06-01T12:00:00"),
        ("2023-06-01 12:00", "2023-06-01T12:00:00"),
        ("2023-06-01T08:00:00.3963933-04:00", "2023-06-01T12:00:00"),
        ("2023-06-01T12:00:00.9999999Z", "2023-06-01T12:00:00"),
        ("2023-06-01T12:00:00,5Z", "2023-06-01T12:00:00"),
        ("2023-06-01 17:30:00 +05:30", "2023-06-01T12:00:00"),
        ("2023-06-01T17:30:00+0530", "2023-06-01T12:00:00"),
        ("2023-06-01T14:00:00+02", "2023-06-01T12:00:00"),
        ("2023-06-01 12:00:00 UTC", "2023-06-01T12:00:00"),
        ("2024-01-01T00:30:00+01:00", "2023-12-31T23:30:00"),
    ],
    ids=repr,
)
def test_a_senders_time_becomes_a_utc_second(value: object, second: str) -> None:
    """Numbers by magnitude, texts by their offset, everything floored to the second."""
    assert utc_second(value) == second


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, [], {}, 0, -1, -1685620800000, float("nan"), float("inf"), 1e300),
        *(10**24, "", " ", "soon", "true", "-1", "0", "1e9", "0x10", "9" * 24, "9" * 9000),
        *("2023-06-01", "2023-13-01T00:00:00Z", "2023-02-29T00:00:00", "2023-06-01T25:00:00"),
        *("2023-06-01T12:00:60Z", "2023-06-01T12:00:00+24:00", "2023-06-01T12:00:00 EST"),
        *("0000-01-01T00:00:00", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"),
        *("2023-06-01T12:00:00Zx", "2023-06-01T12:00:00.Z", "20230601T120000Z", "\ud800"),
    ],
    ids=lambda value: f"{value!r:.32} {len(repr(value))}",
)
def test_nonsense_is_no_time(value: object) -> None:
    """Booleans, nothing, overflow and other words give None and never an exception."""
    assert utc_second(value) is None


@given(st.integers(1, 10**11 - 1))
def test_seconds_agree_with_the_calendar(second: int) -> None:
    """Unix seconds give what the standard library's calendar gives."""
    expected = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
    assert utc_second(second) == expected.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")


_ISO_TEXTS = st.from_regex(
    r"[0-2][0-9]{3}-[0-3][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-6][0-9](:[0-6][0-9])?([.,][0-9]{0,7})?"
    r" ?([Zz]|UTC|GMT|[+-][0-2][0-9](:?[0-6][0-9])?)?",
    fullmatch=True,
)


@given(_ISO_TEXTS)
def test_the_short_way_of_a_text_is_the_long_one(text: str) -> None:
    """A text that is its own answer gives what reckoning gives; white space around it takes the long way."""
    second = unix_second(text)
    assert utc_second(text) == (None if second is None else iso_second(second))
    assert utc_second(f" {text}") == utc_second(text)


@given(st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()))
def test_any_value_gives_a_right_time_or_none(value: object) -> None:
    """Whatever comes in, what comes out passes the event model's own check."""
    second = utc_second(value)
    if second is not None:
        assert problem(replace(_EVENT, occurred_at_utc=second), now=1e12) is None


_TEXTS = st.none() | st.text(st.characters(), max_size=40)


@given(st.text(st.characters(), max_size=20), _TEXTS, st.sampled_from(EventType))
def test_any_event_without_a_problem_can_leave(
    send_id: str, text: str | None, kind: EventType
) -> None:
    """What passed the check is always written as JSON, whatever its texts hold."""
    event = MailEvent(
        "ada@example.com", kind, "2023-06-01T12:00:00", send_id, text, text, ip_address=text
    )
    if problem(event, _NOW) is None:
        assert orjson.loads(wire(event, "sha256"))["send_id"] == send_id
    assert len(fingerprint("events", event)) == 32
