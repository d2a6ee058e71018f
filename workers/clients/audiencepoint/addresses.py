"""Which addresses go into one call: at most thirty, no two the same, plain and hashed ones apart.

Thirty is documented for scores, events and send times, and taken for subscriptions too, where no
limit is stated. Whether one call may mix plain addresses and hashes is not documented, so none does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.addresses import clean, digest, is_hash, normal
from workers.clients.messages import json_bytes

#: Addresses, or events, per call.
MOST_ADDRESSES = 30


def one_call(addresses: Sequence[str]) -> list[str]:
    """Return *addresses* if one call may carry them.

    Raises `ValueError` for any number but 1 to 30, for repeated and for empty ones, and for plain
    ones beside hashes.
    """
    listed = _listed(addresses)
    if not 1 <= len(listed) <= MOST_ADDRESSES:
        raise ValueError(f"1 to {MOST_ADDRESSES} addresses a call, not {len(listed)}")
    if len({normal(address) for address in listed}) < len(listed) or not all(map(clean, listed)):
        raise ValueError("addresses must be different from each other and not empty")
    if len({is_hash(clean(address)) for address in listed}) > 1:
        raise ValueError("plain addresses and hashes go in calls of their own")
    return listed


def body_of(addresses: Sequence[str], **more: object) -> bytes:
    """Return the body that asks about *addresses*: `{"emailAddresses": […], …}`."""
    return json_bytes({"emailAddresses": one_call(addresses), **more})


def calls(addresses: Sequence[str], *, hashed: bool = False) -> Iterator[list[str]]:
    """Yield *addresses* as they leave, call by call, each of them once.

    They leave trimmed, hashes in lower case; with *hashed* every one of them as its hash. Raises
    `ValueError` for an empty one before anything is yielded.
    """
    listed = _listed(addresses)
    if not all(clean(address) for address in listed):
        raise ValueError("an address must not be empty")
    forms: dict[str, str] = {}
    for address in listed:
        form = digest(address) if hashed or is_hash(clean(address)) else clean(address)
        forms.setdefault(normal(form), form)
    for kind in (False, True):
        alike = [form for form in forms.values() if is_hash(form) is kind]
        for start in range(0, len(alike), MOST_ADDRESSES):
            yield alike[start : start + MOST_ADDRESSES]


def _listed(addresses: Sequence[str]) -> list[str]:
    if isinstance(addresses, str):
        raise ValueError("give a list of addresses, not one text")  # noqa: TRY004 - as the others
    return list(addresses)
