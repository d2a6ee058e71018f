"""Forms: every field in order, files left out, and what is no form is refused with a reason."""

from __future__ import annotations

import logging
import tempfile
from base64 import b64encode
from pathlib import Path
from urllib.parse import parse_qsl

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


def test_what_is_uploaded_is_stepped_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """However long it is and however it is coded: nothing of it is written to a disk, or to the log."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no-such-directory"))
    caplog.set_level(logging.DEBUG)
    head = b'--b\r\nContent-Disposition: form-data; name="f"; filename="a.pdf"\r\n'
    long = head + b"\r\n" + b"\r\n--x" * 600_000 + b"\r\n"
    coded = head + b"Content-Transfer-Encoding: base64\r\n\r\n" + b"%" * 3_000_000 + b"\r\n"
    body = long + coded + PARTS
    assert len(body) > 6_000_000
    check_form(body, f"{MULTIPART}; boundary=b")
    assert read_form(body, f"{MULTIPART}; boundary=b") == [("a", "1 \u00e9"), ("a", "")]
    assert caplog.records == []


@pytest.mark.parametrize(
    ("coding", "coded"),
    [
        (b"base64", b64encode(b"=1 \xc3\xa9")),
        (b"BASE64", b64encode(b"=1 \xc3\xa9")[:4] + b"\r\n" + b64encode(b"=1 \xc3\xa9")[4:]),
        (b"quoted-printable", b"=3D1 =C3=\r\n=A9"),
        (b"8bit", b"=1 \xc3\xa9"),
        (b"of-its-own", b"=1 \xc3\xa9"),
    ],
)
def test_a_part_says_how_it_is_coded(coding: bytes, coded: bytes) -> None:
    """Base64 and quoted-printable are undone, everything else is taken as it is."""
    head = b"--b\r\nContent-Disposition: form-data; name=a\r\nContent-Transfer-Encoding: "
    body = head + coding + b"\r\n\r\n" + coded + b"\r\n--b--\r\n"
    assert read_form(body, f"{MULTIPART}; boundary=b") == [("a", "=1 \u00e9")]


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Disposition: form-data",
        b"Content-Type: text/plain",
        b"",
        b"Content-Disposition: form-data; name=a\r\nContent-Transfer-Encoding: base64",
    ],
    ids=["no name", "no disposition", "no header", "not base64"],
)
def test_a_part_that_is_no_field_makes_a_form_malformed(head: bytes) -> None:
    """A part has a name, and is coded as it says."""
    body = b"--b\r\n" + head + (b"\r\n" if head else b"") + b"\r\nabcde\r\n" + PARTS
    with pytest.raises(Malformed, match="not the form"):
        check_form(body, f"{MULTIPART}; boundary=b")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", URLENCODED),
        (b"\xff\xfe=1", URLENCODED),
        (b"a=1&" * 20_000, URLENCODED),
        (PARTS, MULTIPART),
        (PARTS, f"{MULTIPART}; boundary=other"),
        (PARTS.replace(b"\r\n--b\r", b"\r\n--b" + b" \t" * 50 + b"\r"), f"{MULTIPART}; boundary=b"),
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
    with pytest.raises(Malformed, match="too many fields"):
        check_form(PARTS.replace(b"zz", b"\r\n--bzz" * 2001), f"{MULTIPART}; boundary=b")


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


@given(
    st.lists(
        st.sampled_from(
            [
                *"%=&+a\n\r \u00e9.\x1e\x1f",
                *("%41", "%3D", "%0D%0A", "%C3", "%A9", "%26", "%1E", "%1F", "%1e"),
            ]
        )
    )
)
def test_a_form_is_decoded_as_by_the_standard_library(pieces: list[str]) -> None:
    """Percent signs, also bare ones and broken letters, line breaks and equals signs mean what `urllib` says."""
    body = "".join(pieces)
    wanted = parse_qsl(body, keep_blank_values=True, errors="replace")
    if wanted:
        assert read_form(body.encode(), URLENCODED) == wanted
    else:
        with pytest.raises(Unreadable):
            read_form(body.encode(), URLENCODED)
