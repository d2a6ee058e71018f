"""Forgetting: a person's visitor, addresses and dead letters go, and a tombstone keeps them from coming back.

The order makes a crash in between harmless. Tombstones first: from then on no move brings the person back.
Dead letters and addresses next, and the visitor, who alone knows the other identities, last: whoever forgets
again after a crash finds what is left. What may go wrong: a letter that says who it is about in a way nobody
thought of (an address in base64, a hash that is not SHA-256) stays until `DEAD_KEEP_D`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

import orjson

from pipeline import dead_letters, keys, recipients, visitors
from pipeline.addresses import digest, is_address, is_hash
from pipeline.dead_letters import Filter
from pipeline.tombstones import Tombstones
from pipeline.visitors import Visitor

if TYPE_CHECKING:
    from redis.asyncio import Redis

VISITORS_PAGE = 500
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# Two ways to find where an address begins and ends: as far as a sender may mean it, and as it mostly is
# (`?email=ada@example.com&list=2`). A text is split first, so that a long one costs linear time.
_SEPARATORS = re.compile(r"""[\s<>()\[\],;:"\\]+""")
_ADDRESS = re.compile(r"[\w.+'-]{1,255}@[\w.-]{1,255}")


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What went, in numbers."""

    visitors: int
    addresses: int
    dead_letters: int
    tombstones: int


async def forget(
    redis: Redis, wanted: str, tell: Callable[[int], None] = lambda n: None
) -> Forgotten:
    """Forget whoever *wanted* means: an address, its hash, a UUID or an EDID.

    When nobody is known by it, what was given is kept from coming. Everybody who is known by the same address
    is forgotten with it. *tell* hears how many visitors and letters were looked at.
    """
    tombstones = Tombstones(redis)
    names = set(names_of(wanted))
    await tombstones.put(names)
    found = await _holders(redis, names | set(_spelt(wanted)), tell)
    people: list[Visitor] = []
    for visitor_id in found:
        people += await _bury(redis, tombstones, visitor_id)
    names |= {name for person in people for name in person.identities}
    addresses = {address for person in people for address in person.emails}
    if is_address(wanted.strip()):
        addresses.add(wanted.strip().lower())
    dropped = await _drop_letters(redis, Traces(names, addresses), tell)
    hashes = [name for name in names if is_hash(name)]
    addresses_gone = await recipients.forget(redis, hashes)
    addresses_gone += await _remove(redis, people, hashes)
    return Forgotten(len(people), addresses_gone, dropped, len(names))


async def _remove(redis: Redis, people: Sequence[Visitor], hashes: Sequence[str]) -> int:
    """Remove address keys, then visitors, in one round trip; return how many address keys there were."""
    ids = [person.id for person in people]
    # no MULTI: a Redis that is full by now would refuse all of it, and keep the person
    async with redis.pipeline(transaction=False) as pipe:
        for name in hashes:
            pipe.unlink(keys.address(name))
        for visitor_id in ids:
            pipe.unlink(keys.enrichment(digest(visitor_id)), keys.visitor(visitor_id))
            pipe.zrem(keys.VISITORS, visitor_id)
        removed = await pipe.execute()
    return sum(removed[: len(hashes)])


async def allow(redis: Redis, wanted: str) -> int:
    """Lift the tombstones of what *wanted* says; return how many there were.

    The other identities of the person are written down nowhere, so each has to be allowed by its own name.
    """
    return await Tombstones(redis).lift(visitors.unique([*names_of(wanted), *_spelt(wanted)]))


NOBODY = "That is no address, no SHA-256 and no UUID, and nobody is known by it"


def is_spelt_right(wanted: str) -> bool:
    """Tell whether *wanted* can be somebody whom nobody knows yet; an id of AudienceLab's own may be any text."""
    word = wanted.strip()
    return is_address(word) or is_hash(word) or _UUID.fullmatch(word) is not None


def names_of(wanted: str) -> list[str]:
    """Return the identities that an operator's word stands for: an address's hash, or the id as written."""
    word = wanted.strip()
    if is_address(word):
        return [digest(word)]
    if is_hash(word):
        return [word.lower()]
    return _spelt(word)


def _spelt(wanted: str) -> list[str]:
    """Return the ids that *wanted* may be: a sender may give any text for one, even what looks like an address."""
    word = wanted.strip()
    return visitors.unique([word, word.lower(), word.upper()])


async def find(redis: Redis, wanted: str) -> Visitor | None:
    """Return the visitor that *wanted* means, by an address rather than by an id, whatever the case of an id."""
    for name in visitors.unique([*names_of(wanted), *_spelt(wanted)]):
        if found := await visitors.find(redis, name):
            return found
    return None


async def _holders(redis: Redis, names: set[str], tell: Callable[[int], None]) -> list[str]:
    """Return the ids of all visitors who are known by one of *names*."""
    holders: list[str] = []
    page: list[str] = []

    async def look() -> None:
        for person in (await visitors.fetch(redis, page)).values():
            if not names.isdisjoint(person.identities):
                holders.append(person.id)
        tell(len(page))
        page.clear()

    async for visitor_id in visitors.ids(redis):
        page.append(visitor_id)
        if len(page) == VISITORS_PAGE:
            await look()
    await look()
    # one that the index lost, but that can still be found by its name
    known = await visitors.fetch(
        redis, [*names, *(await visitors.owners(redis, [*names])).values()]
    )
    return visitors.unique([*holders, *known])


async def _bury(redis: Redis, tombstones: Tombstones, visitor_id: str) -> list[Visitor]:
    """Set the tombstones of one visitor; return the visitor as it is when nothing can change it any more."""
    person = (await visitors.fetch(redis, [visitor_id])).get(visitor_id)
    while person is not None:
        await tombstones.put(person.identities)
        # a move that was under way may have added an address before the tombstone stood
        again = (await visitors.fetch(redis, [visitor_id])).get(visitor_id)
        if again is None or again.version == person.version:
            return [person]
        person = again
    return []


class Traces:
    """Tells whether a text is about a person: by an id, an address, or an address that hashes to theirs."""

    def __init__(self, names: Iterable[str], addresses: Iterable[str]) -> None:
        self._names = {name.lower() for name in names}
        words = "|".join(re.escape(name) for name in sorted(self._names))
        known = "|".join(re.escape(address) for address in sorted(addresses))
        # a short id may be a part of another word
        self._word = re.compile(rf"(?<![0-9a-z])(?:{words})(?![0-9a-z])") if words else None
        self._address = re.compile(rf"(?<![\w.+-])(?:{known})(?![\w-]|\.\w)") if known else None

    def are_in(self, payload: bytes) -> bool:
        """Tell whether *payload* is about the person."""
        return any(self._are_in(text) for text in _readings(payload))

    def _are_in(self, text: str) -> bool:
        if self._word and self._word.search(text):
            return True
        if self._address and self._address.search(text):
            return True
        words = {word for word in _SEPARATORS.split(text) if "@" in word}
        words |= {address for word in words for address in _ADDRESS.findall(word)}
        return any(digest(word.strip(".'")) in self._names for word in words)


def _readings(payload: bytes) -> Iterable[str]:
    r"""Return *payload* in lower case, as it is, without %40, and without \u0040."""
    text = payload.decode(errors="replace").lower()
    yield text
    if "%40" in text:
        yield unquote(text)
    if "\\u" in text:
        start = payload.find(b"\n") + 1  # a delivery begins with a line about itself
        for part in (payload, payload[start:]):
            try:
                yield orjson.dumps(orjson.loads(part)).decode().lower()
            except (ValueError, TypeError):
                continue


async def _drop_letters(redis: Redis, traces: Traces, tell: Callable[[int], None]) -> int:
    dropped = 0
    async for page in dead_letters.places(redis, Filter()):
        for start in range(0, len(page), dead_letters.FETCH):
            ids = [place.id for place in page[start : start + dead_letters.FETCH]]
            payloads = await dead_letters.originals(redis, ids)
            about = [dead_id for dead_id, payload in payloads.items() if traces.are_in(payload)]
            dropped += await dead_letters.drop(redis, about)
            tell(len(ids))
    return dropped
