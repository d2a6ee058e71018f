"""Visitors: one resolved person each, with everything that AudienceLab and AudiencePoint told about them.

The id is AudienceLab's UUID, else its EDID, else the SHA-256 of the address they were resolved by. Hashes of
all known addresses point to the visitor. Merging is pure (`merge`); writing happens inside a move that checks
that nobody else changed the visitor meanwhile (`moves.Move.save_visitor` and `Move.versions`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import orjson

from pipeline import hashes, keys
from pipeline.addresses import digest
from pipeline.outcomes import Person, VisitorEvent

if TYPE_CHECKING:
    from redis.asyncio import Redis

PAGES = 50
#: what a person is known by, by the names that `Person` and `Visitor` share
_IDS = ("uuid", "edid", "hem_sha256")
_LISTS = ("personal_emails", "business_emails", "verified_emails", "hashes", "phones")


@dataclass(slots=True)
class Visitor:
    """One person as kept. Times are ISO-8601 UTC; addresses plain and lower-case; hashes SHA-256 hex."""

    id: str
    version: str = ""
    uuid: str | None = None
    edid: str | None = None
    hem_sha256: str | None = None
    fields: dict[str, str | list[str]] = field(default_factory=dict)
    personal_emails: list[str] = field(default_factory=list)
    business_emails: list[str] = field(default_factory=list)
    verified_emails: list[str] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    phones: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    pages: list[dict[str, str]] = field(default_factory=list)
    first_seen_at: str | None = None
    last_seen_at: str | None = None
    scores: dict[str, str] = field(default_factory=dict)
    scores_changed_at: str | None = None
    enriched_at: str | None = None
    enrichment: str | None = None

    @property
    def emails(self) -> list[str]:
        """Return every known plain address, verified ones first."""
        return unique([*self.verified_emails, *self.personal_emails, *self.business_emails])

    @property
    def digests(self) -> list[str]:
        """Return the hash of every known address."""
        own = [digest(address) for address in self.emails]
        return unique([*own, *self.hashes, *([self.hem_sha256] if self.hem_sha256 else [])])

    @property
    def identities(self) -> list[str]:
        """Return everything a tombstone may stand on."""
        return [
            name
            for name in unique([self.id, self.uuid or "", self.edid or "", *self.digests])
            if name
        ]

    @property
    def is_named(self) -> bool:
        """Tell whether a first or last name is known."""
        return bool(self.fields.get("FIRST_NAME") or self.fields.get("LAST_NAME"))

    def identified_address(self) -> str | None:
        """Return the address (or its hash) that this person was identified by.

        The known one whose SHA-256 is `hem_sha256`, else that hash; without it the first verified, else the
        first personal, else the first business one.
        """
        if self.hem_sha256:
            known = (mail for mail in self.emails if digest(mail) == self.hem_sha256)
            return next(known, self.hem_sha256)
        return next(
            iter([*self.verified_emails, *self.personal_emails, *self.business_emails]), None
        )

    def document(self) -> bytes:
        """Return the stored form."""
        kept = {
            name: getattr(self, name) for name in self.__slots__ if name not in ("id", "version")
        }
        return orjson.dumps({name: value for name, value in kept.items() if value})

    @classmethod
    def read(cls, visitor_id: str, version: str, document: bytes) -> Visitor:
        """Read what `document` wrote."""
        return cls(id=visitor_id, version=version, **orjson.loads(document))

    def view(self) -> dict[str, Any]:
        """Return everything that is known, for `relay visitors show --json`."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "version"}


def unique(items: Iterable[str]) -> list[str]:
    """Return *items* without repetitions, in their order."""
    return list(dict.fromkeys(items))


def visitor_id(person: Person) -> str | None:
    """Return the id of the visitor that *person* is, as far as the event alone tells; None for nobody."""
    name = person.uuid or person.edid or person.hem_sha256
    if name:
        return name[:128]
    for address in (*person.verified_emails, *person.personal_emails, *person.business_emails):
        return digest(address)
    for known in person.hashes:
        return known
    for phone in person.phones:
        return "phone:" + sha256(phone.encode()).hexdigest()
    return None


def merge(visitor: Visitor, event: VisitorEvent, *, source: str, tag: str | None, now: str) -> None:
    """Add what *event* tells to *visitor*: newer non-empty values win, nothing is ever blanked out.

    *now* stands in for an event without a time of its own. A row about somebody that tells of nothing that happened
    is a sighting only where it is news: lists of people are read again and again, and must not keep anybody by that.
    """
    person, seen_at = event.person, event.seen_at or now
    visitor.sources = unique([*visitor.sources, source])
    if tag:
        visitor.tags = unique([*visitor.tags, tag])
    if visitor.last_seen_at and not tells_of_sighting(event) and not has_news(visitor, person):
        return
    last = visitor.last_seen_at
    is_newer = last is None or _moment(seen_at) >= _moment(last)
    add_facts(visitor, person, is_newer=is_newer)
    visitor.first_seen_at = min(visitor.first_seen_at or seen_at, seen_at, key=_moment)
    visitor.last_seen_at = seen_at if is_newer else last
    if page := page_of(event, seen_at):
        add_page(visitor, page, is_dated=event.seen_at is not None)


def tells_of_sighting(event: VisitorEvent) -> bool:
    """Tell whether *event* says that something happened, or when."""
    return bool(event.seen_at or event.event_type or event.url)


def has_news(visitor: Visitor, person: Person) -> bool:
    """Tell whether *person* says anything of *visitor* that is not known; the order of addresses is no news."""
    facts = (*person.fields.items(), *((name, getattr(person, name)) for name in _IDS))
    known = {**visitor.fields, **{name: getattr(visitor, name) for name in _IDS}}
    if any(value and _unordered(known.get(name)) != _unordered(value) for name, value in facts):
        return True
    return any(not set(getattr(person, name)) <= set(getattr(visitor, name)) for name in _LISTS)


def _unordered(value: str | list[str] | None) -> str | set[str] | None:
    return set(value) if isinstance(value, list) else value


def _moment(at: str) -> str:
    """Return what orders times: a whole second comes before its fractions, but `Z` after the dot."""
    return at.removesuffix("Z")


def add_page(visitor: Visitor, page: dict[str, str], *, is_dated: bool) -> None:
    """Add *page* unless it is there: a sighting may come again, in another form and after any time.

    It is the same when it was seen at the same moment and none of the known facts differ; one adds then what
    the other does not tell. Without a moment of its own it is the same wherever its facts are.
    """
    for known in visitor.pages:
        if is_dated and known["at"] != page["at"]:
            continue
        if all(known[name] == page[name] for name in known.keys() & page.keys() if name != "at"):
            known.update({name: value for name, value in page.items() if name not in known})
            return
    visitor.pages = sorted([*visitor.pages, page], key=lambda seen: _moment(seen["at"]))[-PAGES:]


def page_of(event: VisitorEvent, seen_at: str) -> dict[str, str] | None:
    """Return what is kept of a page that was seen, or None when the event tells of none."""
    facts = {
        "event_type": event.event_type,
        "url": event.url,
        "title": event.title,
        "referrer": event.referrer,
        "pixel_id": event.pixel_id,
    }
    known = {name: value for name, value in facts.items() if value}
    return {"at": seen_at, **known} if event.url or event.event_type else None


def add_facts(visitor: Visitor, person: Person, *, is_newer: bool = True) -> None:
    """Add a resolution to *visitor*; older facts only fill what is unknown."""
    for name, value in person.fields.items():
        if value and (is_newer or not visitor.fields.get(name)):
            visitor.fields[name] = value
    for name in _IDS:
        value = getattr(person, name)
        if value and (is_newer or not getattr(visitor, name)):
            setattr(visitor, name, value)
    for name in _LISTS:
        fresh, known = list(getattr(person, name)), getattr(visitor, name)
        setattr(visitor, name, unique([*fresh, *known] if is_newer else [*known, *fresh]))


def absorb(visitor: Visitor, other: Visitor) -> None:
    """Merge *other*, who turned out to be the same person, into *visitor*; what *visitor* knows wins."""
    add_facts(
        visitor,
        Person(
            uuid=other.uuid, edid=other.edid, hem_sha256=other.hem_sha256, fields=other.fields,
            personal_emails=other.personal_emails, business_emails=other.business_emails,
            verified_emails=other.verified_emails, hashes=other.hashes, phones=other.phones,
        ),
        is_newer=False,
    )  # fmt: skip
    visitor.tags = unique([*visitor.tags, *other.tags])
    visitor.sources = unique([*visitor.sources, *other.sources])
    pages = [*visitor.pages, *(page for page in other.pages if page not in visitor.pages)]
    visitor.pages = sorted(pages, key=lambda seen: _moment(seen["at"]))[-PAGES:]
    visitor.scores = visitor.scores or other.scores
    visitor.scores_changed_at = visitor.scores_changed_at or other.scores_changed_at
    seen = [at for at in (visitor.first_seen_at, other.first_seen_at) if at]
    visitor.first_seen_at = min(seen, key=_moment, default=None)
    seen = [at for at in (visitor.last_seen_at, other.last_seen_at) if at]
    visitor.last_seen_at = max(seen, key=_moment, default=None)


async def fetch(redis: Redis, ids: Sequence[str]) -> dict[str, Visitor]:
    """Return the visitors of *ids* that exist."""
    rows = await hashes.read(redis, [keys.visitor(name) for name in ids], "version", "document")
    return {
        name: Visitor.read(name, (version or b"").decode(), document)
        for name, (version, document) in zip(ids, rows, strict=True)
        if document
    }


async def owners(redis: Redis, digests: Sequence[str]) -> dict[str, str]:
    """Return for each address hash the visitor it points to, where there is one."""
    return await _of_addresses(redis, digests, "visitor")


async def find(redis: Redis, wanted: str) -> Visitor | None:
    """Return the visitor that an address, an address's hash, or its id (UUID, else EDID) means."""
    for name in (wanted, *(await owners(redis, [digest(wanted)])).values()):
        found = await fetch(redis, [name])
        if found:
            return found[name]
    return None


async def subscriptions(redis: Redis, visitor: Visitor) -> dict[str, str]:
    """Return the subscription state of each of the visitor's addresses, by hash."""
    return await _of_addresses(redis, visitor.digests, "subscription")


async def _of_addresses(redis: Redis, digests: Sequence[str], field: str) -> dict[str, str]:
    rows = await hashes.read(redis, [keys.address(name) for name in digests], field)
    return {name: value.decode() for name, (value,) in zip(digests, rows, strict=True) if value}


async def ids(redis: Redis) -> AsyncIterator[str]:
    """Walk all visitors, each at least once, in no order."""
    cursor = 0
    while True:
        cursor, rows = await redis.zscan(keys.VISITORS, cursor, count=500)
        for name, _ in rows:
            yield name.decode()
        if cursor == 0:
            return
