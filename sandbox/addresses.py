"""Mail addresses as AudiencePoint reads them, written apart from the relay's own rules on purpose.

Were the stand-in to share the relay's hashing, a mistake in it would be agreed upon by both sides.
"""

from __future__ import annotations

import re
from hashlib import sha256

_HASH = re.compile(r"[0-9a-fA-F]{64}")
_PLAIN = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+")


def is_hash(address: str) -> bool:
    """Tell whether *address* is a SHA-256 in hex."""
    return _HASH.fullmatch(address) is not None


def is_valid(address: str) -> bool:
    """Tell whether *address* is a hash or looks like a plain mail address."""
    return is_hash(address) or _PLAIN.fullmatch(address.strip()) is not None


def hash_of(address: str) -> str:
    """Return the SHA-256 by which the vendor knows *address*: of its trimmed lower-case form."""
    plain = address.strip().lower()
    return plain if is_hash(plain) else sha256(plain.encode()).hexdigest()
