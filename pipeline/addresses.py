"""What an e-mail address is: its normal form, its hash, and how it is kept out of texts.

AudiencePoint knows people by the SHA-256 of the trimmed lower-case address ("Hashing Email
Addresses", APIs 1.5): no salt, Gmail dots and plus-tags stay, no IDNA change. What may go wrong:
hashing a hash again, or before trimming, gives a value that matches nobody and nobody notices.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import sha256

# RFC 5321: 64 octets before the @, 255 after it
_LONGEST = 320
_HASH = re.compile(r"[0-9a-fA-F]{64}")
# Loose on purpose: docomo's `a..b.@`, IDN and dotless domains are seen in real deliveries; quoted
# local parts and address literals are not. A label of the domain is never empty.
_ADDRESS = re.compile(
    r"""[^ @<>()\[\]\\,;:"]+ @ (?:[^ @<>()\[\]\\,;:"'.]+\.)* [^ @<>()\[\]\\,;:"'.]+""", re.VERBOSE
)
# A word is taken whole and then looked at, so that a long text costs linear time.
_WORD = re.compile(r'"[^"]{0,64}"@[^\s<>()\[\],;:"]+|[^\s<>()\[\],;:"]+')
_AT_SIGNS = ("@", "%40", "\uff20")
_HASH_IN_TEXT = re.compile(r"[0-9a-fA-F]{64,}")
_BREAKS = re.compile(r"[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+")
_CONTROLS = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]+"
)


def clean(address: str) -> str:
    """Return *address* without white space around it, its case kept."""
    return address.strip()


def normal(address: str) -> str:
    """Return the form that is hashed and compared: trimmed and lower-cased."""
    return address.strip().lower()


@lru_cache(maxsize=1024)  # an event asks twice, for what leaves and for what identifies it
def digest(address: str) -> str:
    """Return the SHA-256 hex of the normal form; 64 hex digits are a hash already and stay one."""
    text = address.strip().lower()
    if len(text) == 64 and _HASH.fullmatch(text):
        return text
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def is_hash(text: str) -> bool:
    """Tell whether *text* is 64 hex digits, in either case."""
    return len(text) == 64 and _HASH.fullmatch(text) is not None


def is_address(text: str) -> bool:
    """Tell whether *text*, trimmed already, is a bare address: RFC-lite, at most 320 characters."""
    # isprintable() refuses controls, invisible characters, lone surrogates, every space but U+0020
    return len(text) <= _LONGEST and text.isprintable() and _ADDRESS.fullmatch(text) is not None


def domain_of(address: str) -> str | None:
    """Return what follows the last @, lower-cased; None for a hash or for a text without one."""
    _, at, domain = address.strip().lower().rpartition("@")
    return domain if at and domain else None


def mask(text: str, limit: int = 500) -> str:
    """Return *text* fit for a log: addresses and hashes masked, no control characters, cut."""
    line = _CONTROLS.sub("", _BREAKS.sub(" ", text))
    return _HASH_IN_TEXT.sub("[hash]", _WORD.sub(_masked_word, line))[:limit]


def _masked_word(found: re.Match[str]) -> str:
    word = found[0]
    folded = word.lower()
    return "[address]" if any(sign in folded for sign in _AT_SIGNS) else word
