"""Proving that a sender signed its call: what the schemes share. All comparisons take constant time.

A header can hold anything: whatever it is, the answer is `Unauthentic` (401) and never an exception.
"""

from __future__ import annotations

import binascii
import hmac
from base64 import b64decode
from collections.abc import Iterable, Mapping

from pipeline.sources import Unauthentic

#: Standard Webhooks and Svix: how far the sender's clock and ours may be apart
TOLERANCE_S = 300
#: a sender has one for each of its keys
_MOST_SIGNATURES = 20


def header(headers: Mapping[str, str], name: str) -> str:
    """Return the header *name* (lower case), trimmed; raises `Unauthentic` when it is missing."""
    value = headers.get(name, "").strip()
    if not value:
        raise Unauthentic(f"the header {name} is missing")
    return value


def keys_of(secret: str) -> list[bytes]:
    """Return the keys in a setting: one, or several with commas between while they are changed."""
    return [key.strip().encode("utf-8", "replace") for key in secret.split(",") if key.strip()]


def check_hex(given: str, keys: Iterable[bytes], message: bytes) -> None:
    """Raise `Unauthentic` unless *given* is the hexadecimal HMAC-SHA256 of *message* with one of *keys*."""
    expected = [hmac.new(key, message, "sha256").hexdigest().encode() for key in keys]
    _check(given.lower().encode("utf-8", "replace"), expected)


def check_base64(
    given: str, keys: Iterable[bytes], message: bytes, algorithm: str = "sha256"
) -> None:
    """Raise `Unauthentic` unless *given* is the base64 HMAC of *message* with one of *keys*."""
    expected = [hmac.new(key, message, algorithm).digest() for key in keys]
    _check(from_base64(given), expected)


def check_age(stamp: str, now: float, tolerance_s: float = TOLERANCE_S) -> None:
    """Raise `Unauthentic` unless *stamp*, Unix time in seconds, is at most *tolerance_s* from *now*."""
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) < 16):
        raise Unauthentic("the signature's time is not a Unix time")
    if abs(now - int(stamp)) > tolerance_s:
        raise Unauthentic("the signature is too old, or from the future")


def check_svix(
    headers: Mapping[str, str], body: bytes, secret: str, now: float, prefix: str = "svix"
) -> None:
    """Raise `Unauthentic` unless the call is signed as Svix and Standard Webhooks do.

    `{prefix}-id`, `{prefix}-timestamp`, `{prefix}-signature`: the last holds one `v1,<base64>` for each key in
    use at the sender; the key is the base64 after `whsec_`, with its padding, and one of several keys of ours that
    is no base64 is left out. https://docs.svix.com/receiving/verifying-payloads/how-manual
    """
    ident, stamp = header(headers, f"{prefix}-id"), header(headers, f"{prefix}-timestamp")
    given = header(headers, f"{prefix}-signature")
    check_age(stamp, now)
    texts = [key.decode("utf-8", "replace").removeprefix("whsec_") for key in keys_of(secret)]
    # one that was pasted wrongly is left out: with an empty key anybody can sign
    keys = [key for key in map(_bytes_or_nothing, texts) if key]
    if not keys:
        raise Unauthentic("no key of ours is base64")
    message = f"{ident}.{stamp}.".encode("utf-8", "replace") + body
    expected = [hmac.new(key, message, "sha256").digest() for key in keys]
    versions = [one.partition(",") for one in given.split(maxsplit=_MOST_SIGNATURES)]
    versions = versions[:_MOST_SIGNATURES]
    for_v1 = [_bytes_or_nothing(value) for version, _, value in versions if version == "v1"]
    matches = [hmac.compare_digest(one, right) for one in for_v1 for right in expected]
    if not any(matches):
        raise Unauthentic("the signature is false")


def from_base64(value: str) -> bytes:
    """Return the bytes that base64 text stands for; raises `Unauthentic`."""
    try:
        return b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise Unauthentic("the signature is not base64") from None


def _bytes_or_nothing(value: str) -> bytes:
    try:
        return from_base64(value)
    except Unauthentic:
        return b""


def _check(given: bytes, expected: Iterable[bytes]) -> None:
    # each is compared, also after one has matched: time must not tell which key it was
    matches = [hmac.compare_digest(given, one) for one in expected]
    if not any(matches):
        raise Unauthentic("the signature is false")
