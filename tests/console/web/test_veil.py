"""The veil: what is an address or a telephone number is masked, wherever it stands, and little else."""

from __future__ import annotations

import pytest

from console.web.veil import LONGEST, clear, mask_address, mask_field, mask_number, veil
from pipeline.sources.audiencelab_columns import COLUMNS, Kind


@pytest.mark.parametrize(
    ("address", "masked"),
    [
        ("ada@example.com", "a…@example.com"),
        ("a@example.com", "…@example.com"),
        ("@example.com", "…@example.com"),
        ("ada%40example.com", "a…@example.com"),
        ("ada\uff20example.com", "a…@example.com"),
        ("ada@list@example.com", "a…@example.com"),
        ("a" * 64, "a" * 64),
        ("", ""),
    ],
)
def test_an_address_keeps_its_domain(address: str, masked: str) -> None:
    """The first of several letters and the domain are left; what is no address is left whole."""
    assert mask_address(address) == masked
    assert mask_address(mask_address(address)) == masked


@pytest.mark.parametrize(
    ("number", "masked"),
    [("+1 (555) 123-4567", "…67"), ("12345", "…"), ("", ""), ("none", "none")],
)
def test_a_number_keeps_two_digits(number: str, masked: str) -> None:
    """The last two are left, of a short one none."""
    assert mask_number(number) == masked


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("https://a.example/x?email=ada@example.com&b=2", "https://a.example/x?email=a…@example.com&b=2"),
        ("https://a.example/?e=ada%2Blist%40example.com#x", "https://a.example/?e=a…@example.com#x"),
        ("https://a.example/?e=ada%2540example.com", "https://a.example/?e=a…@example.com"),
        ("https://a.example/ada@example.com/y", "https://a.example/a…@example.com/y"),
        ("mailto:ada@example.com", "mailto:a…@example.com"),
        ("Welcome, ada@example.com and bob@example.com!", "Welcome, a…@example.com and b…@example.com!"),
        ('"ada love"@example.com', '"…@example.com'),
        ("ada&#64;example.com &commat; x", "a…@example.com …@ x"),
        ('{"e":"ada\\u0040example.com"}', '{"e":"a…@example.com"}'),
        ("<ada@example.com>", "<a…@example.com>"),
        ("tel:+15551234567", "tel:+…67"),
        ("call (555) 123-4567 now", "call (…67 now"),
        ("?phone=%2B1%20555%20123%204567&x=1", "?phone=%2B…67&x=1"),
        ("phone_5551234567", "phone_…67"),
    ],
)  # fmt: skip
def test_a_text_is_masked_inside(text: str, masked: str) -> None:
    """An address or a number is found in URLs, titles and fields, also where it is encoded."""
    assert veil()(text) == masked
    assert veil()(masked) == masked
    assert clear(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
        "12345678-1234-1234-1234-123456789012",
        "0123456789abcdef" * 4,
        "1" * 64,
        "2026-01-12T09:00:00.000Z",
        "2026-01-12 09:04:00 AM",
        "94107-1234",
        "3-5 people, $1,000,000",
        "https://example.com/about?id=1234567",
        "Ada Lovelace",
        "",
    ],
)
def test_other_texts_stay(text: str) -> None:
    """Ids, hashes, times, postcodes, amounts and names are shown."""
    assert veil()(text) == text


def test_what_is_known_is_masked_as_a_whole() -> None:
    """An address that ends nowhere as a rule, and a number of few digits, are known by the visitor they are of."""
    masked = veil(["o/brien=x@example.com", "no address"], ["123 456", "12"])
    assert masked("see O/Brien=X@example.com, no address") == "see o…@example.com, no address"
    assert masked("123 456, 12 of 12345") == "…56, 12 of 12345"


@pytest.mark.parametrize(
    ("field", "text", "masked"),
    [
        ("PERSONAL_ADDRESS", "12 Main St, Apt 4", "…"),
        ("SKIPTRACE_B2B_ADDRESS", "1 Market Sq", "…"),
        ("COMPANY_ADDRESS", "1 Market Sq", "…"),
        ("PERSONAL_ZIP4", "1234", "…"),
        ("SKIPTRACE_IP", "192.0.2.7", "…"),
        ("remoteAddr", "10.0.0.1", "…"),
        ("x-forwarded-for", "10.0.0.1", "…"),
        ("iban", "DE00 0000", "…"),
        ("INSTAGRAM", "@ada", "…"),
        ("ALL_LANDLINES", "15551234567, 123", "…67, …"),
        ("SKIPTRACE_B2B_WIRELESS", "5551234567", "…67"),
        ("MOBILE_PHONE_DNC", "Y", "Y"),
        ("LINKEDIN_URL", "http://www.linkedin.com/in/ada-l", "www.linkedin.com/…"),
        ("INDIVIDUAL_TWITTER_URL", "@ada", "…"),
        ("COMPANY_LINKEDIN_URL", "linkedin.com/company/x", "linkedin.com/company/x"),
        ("PERSONAL_ADDRESS", "", ""),
        ("PERSONAL_CITY", "Springfield", "Springfield"),
        ("PERSONAL_ZIP", "62704", "62704"),
        ("ZIP_CODE", "62704", "62704"),
        ("DESCRIPTION", "ships and tips", "ships and tips"),
        ("FIRST_NAME", "Ada", "Ada"),
    ],
)
def test_what_somebody_is_reached_by_is_masked_whole(field: str, text: str, masked: str) -> None:
    """Streets, numbers, IP addresses and profiles go by their fields' names; names and towns are shown."""
    assert mask_field(field, text) == masked


def test_every_column_that_somebody_is_reached_by_is_masked() -> None:
    """Of all columns of AudienceLab these are shown as they are: none of them is a way to anybody's door."""
    told = {column.name for column in COLUMNS.values() if column.kind is not Kind.EVENT}
    shown = {
        name
        for name in told
        if mask_field(name, "reach me at 5551234567") == "reach me at 5551234567"
    }
    reached = ("PHONE", "NUMBER", "MOBILE", "LANDLINE", "WIRELESS", "ADDRESS", "IP", "ZIP4")
    assert not {name for name in shown if any(word in reached for word in name.split("_"))}
    assert {"FIRST_NAME", "PERSONAL_CITY", "COMPANY_LINKEDIN_URL", "PERSONAL_ZIP"} <= shown


def test_a_place_is_masked_wherever_it_stands() -> None:
    """Whoever writes the street of somebody into another text does not lift the veil."""
    assert (
        veil(places=["12 Main St", "1"])("lives at 12 MAIN st, since 2011")
        == "lives at …, since 2011"
    )


@pytest.mark.parametrize("sign", ["a", "1", "@", "%40", "1 ", "f", "a@", "(1)", "&#64"])
def test_a_long_text_is_not_read_to_its_end(sign: str) -> None:
    """Of a megabyte of whatever the beginning is masked; a page shows less."""
    assert len(veil(["ada@example.com"])(sign * (1_000_000 // len(sign)))) <= LONGEST + 1


def test_a_long_text_does_not_end_in_half_an_address() -> None:
    """Where a text is cut, the word that would lose its domain goes with the rest."""
    address = "x" * 300 + "@example.com"
    shown = veil()(" ".join([address] * 1_000))
    assert set(shown.split()) == {"x…@example.com", "…"}
