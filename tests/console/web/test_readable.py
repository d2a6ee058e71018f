"""Readable: what a page shows of a payload, and what the names of its fields say is masked."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.web.readable import LONGEST, readable
from console.web.veil import clear, veil
from pipeline.deliveries import Delivery

MASKED = veil()
HOSTILE = [
    b"",
    b'{"a":',
    b'"' * 50_000,
    b'\\"' * 50_000,
    b"a=" * 50_000,
    b"[" * 5_000,
    b'{"a":' * 5_000,
    b"\xff\x00",
    b"\\" * 99_000,
    b'"' + b"\\" * 99_000,
    b'{"a":"' + b"\\\\" * 40_000 + b'"}',
    b'\\"a\\":' * 15_000,
    b'"a" ' + b" " * 90_000 + b":",
    b'{"ip":"\\ud800"}',
]


def event(**fields: object) -> bytes:
    """Return JSON of some fields."""
    return orjson.dumps(fields)


def test_fields_that_somebody_is_reached_by_are_masked() -> None:
    """Streets, IP addresses, numbers and profiles go by the names of their fields; what else stands there is shown."""
    payload = event(
        PERSONAL_ADDRESS="12 Main St", clientIp="192.0.2.7", MOBILE_PHONE=15551234567, name="Ada",
        LINKEDIN_URL="linkedin.com/in/ada-l", count=3, ip_address="192.0.2.8", score=0.5, city="Springfield",
    )  # fmt: skip
    shown = orjson.loads(readable(payload, MASKED))
    assert shown == {
        "PERSONAL_ADDRESS": "…", "clientIp": "…", "MOBILE_PHONE": "…67", "name": "Ada", "count": 3,
        "LINKEDIN_URL": "linkedin.com/…", "ip_address": "…", "score": 0.5, "city": "Springfield",
    }  # fmt: skip
    assert orjson.loads(readable(payload, clear)) == orjson.loads(payload)


def test_what_lies_below_such_a_field_is_masked() -> None:
    """An address of several lines is one, also in a list; an e-mail address is left to the veil, for its domain."""
    payload = event(
        address={"line1": "12 Main St", "lines": ["Apt 4", {"zip": 62704}]},
        email_address="a@example.com",
    )
    shown = orjson.loads(readable(payload, MASKED))
    assert shown["address"] == {"line1": "…", "lines": ["…", {"zip": "…"}]}
    assert shown["email_address"] == "\u2026@example.com"


def test_numbers_that_are_no_telephones_are_shown() -> None:
    """Times, ids and places of a map are what a letter is about; what may be a telephone number is a masked text."""
    payload = event(
        timestamp=1768478430, at="1768478430123", ts_event=1768478430, user_id=814119123456, lat=48.858370123,
        value=15551234567, call="15551234567", code=62704,
    )  # fmt: skip
    assert orjson.loads(readable(payload, MASKED)) == {
        "timestamp": 1768478430, "at": "1768478430123", "ts_event": 1768478430, "user_id": 814119123456,
        "lat": 48.858370123, "value": "…67", "call": "…67", "code": 62704,
    }  # fmt: skip


def test_an_address_on_the_net_is_known_by_itself() -> None:
    """Whatever its field is called; a program's version is none."""
    payload = event(
        remote="192.0.2.7", peer="2001:db8::7", agent="Chrome/120.0.0.0 (X11)", version="1.2.3"
    )
    shown = orjson.loads(readable(payload, MASKED))
    assert shown == {
        "remote": "…",
        "peer": "…",
        "agent": "Chrome/120.0.0.0 (X11)",
        "version": "1.2.3",
    }


def test_one_strange_byte_lifts_no_veil() -> None:
    """A text in another charset is veiled as the text that it is."""
    payload = b'{"email":"zoe@example.com","name":"Zo\xeb","street":"12 Main St"}'
    shown = readable(payload, MASKED)
    assert "z…@example.com" in shown
    assert "Main" not in shown


def test_a_name_is_veiled_as_any_text() -> None:
    """A sender may use addresses as keys."""
    assert "zoe@" not in readable(event(**{"zoe@example.com": 1}), MASKED)


def test_json_inside_a_text_is_masked_too() -> None:
    """Amazon's envelope holds the event as a text."""
    inner = event(open={"ipAddress": "192.0.2.7", "userAgent": "Mozilla"})
    shown = readable(event(Type="Notification", Message=inner.decode()), MASKED)
    assert "192.0.2.7" not in shown
    assert "Mozilla" in shown


@pytest.mark.parametrize(
    ("body", "hidden", "kept"),
    [
        (event(STREET="12 Main St", name="Ada"), "12 Main", '"name": "Ada"'),
        (b"type=unsubscribe&data%5Bip_opt%5D=192.0.2.7&data[merges][ADDRESS]=12+Main+St&x=1", "12+Main", "x=1"),
        (b"type=unsubscribe&data%5Bip_opt%5D=192.0.2.7&x=1", "192.0.2.7", "type=unsubscribe"),
        (b'{"street":"12 Main St","name":"Ada', "12 Main", '"name":"Ada'),
    ],
)  # fmt: skip
def test_a_delivery_is_a_line_and_its_body(body: bytes, hidden: str, kept: str) -> None:
    """The body is masked as what it is: JSON, a form, or what looks like either."""
    payload = Delivery("id-1", "sendgrid", body, 1_700_000_000_000).pack()
    shown = readable(payload, MASKED)
    assert '"s":"sendgrid"' in shown
    assert hidden not in shown
    assert kept in shown
    assert hidden in readable(payload, clear)


def test_of_a_long_payload_the_beginning_is_masked() -> None:
    """It is not read as JSON, and yet no field in it is shown; nor is one whose end is cut off."""
    one = event(STREET="12 Main St", inner=event(clientIp="192.0.2.7").decode(), name="Ada")
    payload = b"[" + b",".join([one] * 5_000) + b"]"
    shown = readable(payload, MASKED)
    assert len(shown) <= LONGEST
    assert "Main" not in shown
    assert "192.0" not in shown
    assert '"name":"Ada"' in shown


@pytest.mark.parametrize("payload", HOSTILE, ids=range(len(HOSTILE)))
def test_whatever_came_is_shown(payload: bytes) -> None:
    """Broken, endless and deep texts are shown as far as they go."""
    assert isinstance(readable(payload, MASKED), str)
    assert isinstance(readable(Delivery("i", "s", payload, 1).pack(), MASKED), str)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["a", "ip", "b"]), inner),
    )
)
def test_only_texts_change(value: object) -> None:
    """Every key, list and value that names nobody stands where it stood."""
    shown = orjson.loads(readable(orjson.dumps(value), MASKED))
    assert shape(shown) == shape(value)


def shape(value: object) -> object:
    """Return a value without its leaves."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    return [shape(inner) for inner in value] if isinstance(value, list) else None
