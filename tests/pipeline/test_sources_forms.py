"""Forms: every field in order, files left out, and what is no form is refused with a reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.outcomes import Reason, Unreadable
from pipeline.sources import Malformed
from pipeline.sources.form_body import MULTIPART, URLENCODED, check_form, is_form, read_form

PARTS = (
    b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1 \xc3\xa9\r\n'
    b'--b\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\nzz\r\n'
    b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n--b--\r\n'
)


def test_a_form_is_read_in_order() -> None:
    """Repeated and empty fields stay; a semicolon is part of a value."""
    body = b"a=1&b=%C3%A9+x&a=&c=1;2"
    assert read_form(body, URLENCODED) == [("a", "1"), ("b", "\u00e9 x"), ("a", ""), ("c", "1;2")]


def test_a_form_in_parts_is_read_without_its_files() -> None:
    """An attachment is no field."""
    assert read_form(PARTS, f"{MULTIPART}; boundary=b") == [("a", "1 \u00e9"), ("a", "")]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", URLENCODED),
        (b"\xff\xfe=1", URLENCODED),
        (b"a=1&" * 20_000, URLENCODED),
        (PARTS, MULTIPART),
        (PARTS, f"{MULTIPART}; boundary=other"),
    ],
)
def test_what_is_no_form_is_malformed(body: bytes, content_type: str) -> None:
    """It is refused at the door, with a reason that quotes nothing."""
    with pytest.raises(Malformed) as caught:
        check_form(body, content_type)
    assert "body" in str(caught.value)


@pytest.mark.parametrize("name", ['name="a"', 'name="a"; filename="x"'])
def test_a_form_of_endless_parts_is_malformed(name: str) -> None:
    """Each part costs, a file like a field: a body of nothing else is refused before it has cost seconds."""
    part = b"--b\r\nContent-Disposition: form-data; %b\r\n\r\n1\r\n" % name.encode()
    check_form(part * 1000 + PARTS, f"{MULTIPART}; boundary=b")
    with pytest.raises(Malformed, match="too many fields"):
        check_form(part * 2001 + PARTS, f"{MULTIPART}; boundary=b")


def test_a_wrong_form_is_unreadable_later_too() -> None:
    """What got past an older release's check is a dead letter, not an exception."""
    with pytest.raises(Unreadable) as caught:
        read_form(PARTS, MULTIPART)
    assert caught.value.reason is Reason.MALFORMED


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        (URLENCODED, True),
        (f"{MULTIPART.upper()}; boundary=b", True),
        ("application/json", False),
        ("", False),
    ],
)
def test_a_form_is_known_by_its_content_type(content_type: str, expected: bool) -> None:
    """Parameters and case do not matter."""
    assert is_form(content_type) is expected


@given(st.binary(max_size=300), st.sampled_from([URLENCODED, f"{MULTIPART}; boundary=b", ""]))
def test_any_bytes_at_all_are_read_or_refused(body: bytes, content_type: str) -> None:
    """Nothing else is raised."""
    try:
        check_form(body, content_type)
        read_form(body, content_type)
    except Malformed:
        pass
