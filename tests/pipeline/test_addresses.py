"""Addresses: one normal form, one hash, and none of them left in a text."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.addresses import clean, digest, domain_of, is_address, is_hash, mask, normal

# the vendor's own example: "Hashing Email Addresses", APIs 1.5
_VENDORS_HASH = "05afa6c180d5afea44d44edcb1189d3b6cc883bd91337a58a82b2b0dd8609ec8"


@pytest.mark.parametrize(
    "address",
    [
        "bigtest39336@ignore.marketing",
        "BIGTEST39336@ignore.marketing",
        "  BigTest39336@Ignore.Marketing\t\n",
    ],
)
def test_the_vendors_example_hashes_as_the_vendor_says(address: str) -> None:
    """Case and surrounding white space do not change the hash."""
    assert digest(address) == _VENDORS_HASH


@pytest.mark.parametrize("text", [_VENDORS_HASH, _VENDORS_HASH.upper(), f" {_VENDORS_HASH} "])
def test_a_hash_is_never_hashed_again(text: str) -> None:
    """64 hex digits are a hash already: lower-cased and nothing else."""
    assert digest(text) == _VENDORS_HASH


@given(st.text(st.characters()))
def test_any_text_has_one_digest(text: str) -> None:
    """Every text, lone surrogates too, gives 64 hex digits, and those again the same."""
    once = digest(text)
    assert is_hash(once)
    assert digest(once) == once
    assert digest(normal(text)) == once


def test_dots_and_tags_are_part_of_an_address() -> None:
    """Gmail dots and plus-tags are not normalised: the vendor does not do it either."""
    expected = hashlib.sha256(b"a.da+x@gmail.com").hexdigest()
    assert digest("A.da+x@gmail.com") == expected


def test_cleaning_keeps_the_case() -> None:
    """Only white space goes; the case is the person's."""
    assert clean(" Ada@Example.com\r\n") == "Ada@Example.com"
    assert normal(" Ada@Example.com\r\n") == "ada@example.com"


@pytest.mark.parametrize(
    "text", ["", "a" * 63, "a" * 65, "g" * 64, "a" * 63 + "\n", "٣" * 64, " " + "a" * 64]
)
def test_only_64_hex_digits_are_a_hash(text: str) -> None:
    """A hash has 64 ASCII hex digits and nothing around them."""
    assert not is_hash(text)


@pytest.mark.parametrize(
    "address",
    [
        "ada@example.com",
        "Ada.Byron+news@mail.example.co.uk",
        "o'neill@example.com",
        "a..b.@docomo.example",
        "tag=x_y{z}!#$%&*/?^`|~@example.com",
        "jürgen@müller.example",
        "invalid@invalid",
        "a@under_score.example",
        "1@2.3",
        "a" * 308 + "@example.com",
    ],
)
def test_real_addresses_are_addresses(address: str) -> None:
    """What senders really deliver to is accepted, however odd."""
    assert is_address(address)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "ada",
        "ada@",
        "@example.com",
        "ada@@example.com",
        "ada@b@example.com",
        "ada@example..com",
        "ada@.example.com",
        "ada@example.com.",
        " ada@example.com",
        "ada@example.com ",
        "ada @example.com",
        "ada\u00a0@example.com",
        "ada\t@example.com",
        "ada\x00@example.com",
        "ada@exam\nple.com",
        "ada@example.com\n",
        "ada\u200b@example.com",
        "ada\udcff@example.com",
        "Ada <ada@example.com>",
        "<ada@example.com>",
        '"ada"@example.com',
        "mailto:ada@example.com",
        "ada@example.com,bob@example.com",
        "ada@example.com;bob@example.com",
        "ada@[192.0.2.1]",
        "a" * 309 + "@example.com",
        "a" * 5_000_000,
        "a" * 64,
    ],
    ids=lambda text: f"{text[:24]!r} {len(text)}",
)
def test_what_is_no_bare_address_is_refused(text: str) -> None:
    """Spaces, controls, names, lists, missing parts and more than 320 characters are refused."""
    assert not is_address(text)


@pytest.mark.parametrize(
    ("address", "domain"),
    [
        (" Ada@Mail.Example.COM ", "mail.example.com"),
        ("a@b@c.example", "c.example"),
        ("ada", None),
        ("ada@", None),
        (_VENDORS_HASH, None),
    ],
)
def test_the_domain_is_what_follows_the_last_at(address: str, domain: str | None) -> None:
    """The domain is lower-cased; a hash has none."""
    assert domain_of(address) == domain


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("550 ada@example.com: unknown", "550 [address]: unknown"),
        ("to <ada@example.com>, 'bob@example.com'", "to <[address]>, [address]"),
        ('{"email":"ada@example.com","n":1}', '{"email":"[address]","n":1}'),
        ("GET /verify?email=ada%40example.com failed", "GET [address] failed"),
        ('"Ada Byron"@example.com', "[address]"),
        (f"no {_VENDORS_HASH.upper()}!", "no [hash]!"),
        (f"id {'ab' * 16}", f"id {'ab' * 16}"),
        ("ada\x00@exam\x7fple.com", "[address]"),
        ("one\r\ntwo\tthree\x1b[31m", "one two three[31m"),
        ("ada\u200b@example.com", "[address]"),
        ("", ""),
    ],
)
def test_masking_leaves_no_address_and_no_hash(text: str, masked: str) -> None:
    """Addresses and hashes become a word, breaks a space, other controls nothing."""
    assert mask(text) == masked


def test_masking_cuts_after_masking() -> None:
    """An address that lies across the limit does not show its first half."""
    assert mask("x" * 495 + " ada@example.com") == "x" * 495 + " [add"
    assert mask("abcdef", limit=3) == "abc"


def test_masking_a_huge_text_ends() -> None:
    """A megabyte without a break costs linear time: no pattern walks back over it."""
    assert mask("a" * 1_000_000) == "[hash]"
    assert mask("x" * 1_000_000 + "@") == "[address]"


@given(st.text(st.characters()), st.emails(), st.text(st.characters()))
def test_no_address_survives_in_any_text(before: str, address: str, after: str) -> None:
    """Wherever an address stands in a text, the masked text has no @ any more."""
    assert "@" not in mask(f"{before} {address} {after}", limit=10_000)
