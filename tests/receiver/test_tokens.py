"""Tokens: where they may stand, which of them count, and that rotation works."""

from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.tokens import Tokens, parameters, presented

OLD, NEW, PIXEL_ONLY = b"old-token-0123456", b"new-token-0123456", b"pixel-token-01234"
VALID = [(None, OLD.decode()), (None, NEW.decode()), ("pixel", PIXEL_ONLY.decode())]


@pytest.fixture
def tokens() -> Tokens:
    """Give tokens in the middle of a rotation, one of them for `pixel` only."""
    return Tokens(VALID, ["pixel", "events"])


@pytest.mark.parametrize(
    ("source", "token", "admitted"),
    [
        ("pixel", OLD, True),
        ("pixel", NEW, True),
        ("events", NEW, True),
        ("pixel", PIXEL_ONLY, True),
        ("events", PIXEL_ONLY, False),
        ("pixel", b"", False),
        ("pixel", OLD[:-1], False),
        ("pixel", OLD + b"x", False),
        ("pixel", OLD.upper(), False),
        ("pixel", "tökén-öf-söme-kind".encode(), False),
    ],
)
def test_every_valid_token_opens_its_sources_and_nothing_else_does(
    tokens: Tokens, source: str, token: bytes, admitted: bool
) -> None:
    """All tokens in force open a source; one bound to a source opens only that."""
    assert tokens.admit(source, [token]) is admitted


def test_no_token_opens_nothing(tokens: Tokens) -> None:
    """A request that shows no token is not admitted."""
    assert tokens.admit("pixel", []) is False


def test_any_place_will_do(tokens: Tokens) -> None:
    """A valid token is enough, also beside a wrong one in another header."""
    assert tokens.admit("pixel", [b"somebody-else's", NEW])


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({b"authorization": b"Bearer " + OLD}, b""),
        ({b"authorization": b"bearer   " + OLD}, b""),
        ({b"authorization": b"Basic " + b64encode(b"anybody:" + OLD)}, b""),
        ({b"authorization": b"Basic " + b64encode(b":" + OLD)}, b""),
        ({b"authorization": OLD}, b""),
        ({b"authorization": b"  " + OLD + b" "}, b""),
        ({b"authorization": b"OAuth2 " + OLD}, b""),
        ({b"authorization": b"Token\t " + OLD}, b""),
        ({b"x-webhook-token": OLD}, b""),
        ({b"x-audiencelab-secret": OLD}, b""),
        ({}, b"token=" + OLD),
        ({}, b"tag=a&token=" + OLD + b"&token=other"),
    ],
)
def test_a_token_is_found_in_each_of_its_places(headers: dict[bytes, bytes], query: bytes) -> None:
    """Bearer, password, two headers and the query can carry the token, and `Authorization` alone or after any word."""
    assert presented("", headers, parameters(query)) == [OLD]


def test_the_path_comes_first() -> None:
    """A token in the path is the request's token; the other places are not looked at."""
    assert presented("in-the-path", {b"x-webhook-token": OLD}, {}) == [b"in-the-path"]


@pytest.mark.parametrize(
    "authorization",
    [
        *(b"", b" ", b"Basic", b"Basic !!!", b"Basic YQ", b"Basic " + OLD, b"Digest x", b"Bearer"),
        *(b"\xff\xfe", b"\x00", b"Bearer " + OLD + b" x", OLD + b"x", b"a " * 9000),
    ],
)
def test_a_malformed_authorization_opens_nothing(tokens: Tokens, authorization: bytes) -> None:
    """What cannot be read is no token of ours, and no error."""
    assert not tokens.admit("pixel", presented("", {b"authorization": authorization}, {}))


@settings(deadline=None)
@given(st.binary(), st.binary(), st.text())
def test_nothing_wild_raises_or_opens(authorization: bytes, query: bytes, path: str) -> None:
    """Whatever bytes come, the answer is no."""
    found = presented(path, {b"authorization": authorization}, parameters(query))
    assert Tokens(VALID, ["pixel"]).admit("pixel", found) is False


def test_a_query_of_thousands_of_parameters_is_not_read() -> None:
    """A query made to cost time is taken as empty."""
    assert parameters(b"&".join(b"a=1" for _ in range(5_000)) + b"&token=x") == {}
