"""Imports: how far the walks over AudienceLab's segments and pixels have come.

What a segment's or a pixel's pages hold goes the way of every webhook: a page becomes a delivery in the inbox.
Here stands only which page is next. A page is noted after it was stored, so whoever dies in between tells one page
twice, which changes nothing. One process walks an import at a time: it holds a lease that it renews, and what it
notes after losing that is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pipeline import keys
from pipeline.clock import DAY_MS, iso
from pipeline.scripts import script

if TYPE_CHECKING:
    from redis.asyncio import Redis

#: longer than a call (45 s), the wait for the next one, and some patience with Redis
LEASE_MS = 120_000
#: how long the place of an import that nobody goes on with is kept, and what a finished one came to
KEEP_MS = 90 * DAY_MS
#: the name of the header that marks a page as no webhook of the sender's own
HEADER = "relay-import"


class Kind(StrEnum):
    """What can be imported."""

    SEGMENT = "segment"
    PIXEL = "pixel"


class Busy(Exception):
    """Somebody else walks this import at this moment."""


class Lost(Exception):
    """The import is in somebody else's hands now, or was begun anew."""


@dataclass(frozen=True, slots=True)
class Import:
    """One import as it is written down; times are Unix milliseconds of Redis's clock.

    *id* is what the operator called it by, *own_id* the id that AudienceLab's calls take and *version* the pixel's
    generation, once they are known. *total* is what the last page told, *first_total* what the first one did.
    *given* is the fewest rows that a page of this size came with: a service may give fewer than it is asked for.
    *digest* is the last page's, to notice that the next one is the same. *error* and *again_at_ms* say that it was put
    off, why and until when: both stay until a page is told. *breaks* is how often in a row it was because the list
    broke off there, before the end that it tells of; *short* is 1 when it was finished all the same, or with fewer rows
    than were told. *finished_before_ms* is the end of the walk before it.
    """

    kind: Kind
    id: str
    page_size: int
    tag: str | None = None
    version: str | None = None
    own_id: str | None = None
    next_page: int = 1
    pages: int = 0
    rows: int = 0
    total: int | None = None
    first_total: int | None = None
    given: int | None = None
    steps_back: int = 0
    digest: str | None = None
    breaks: int = 0
    short: int = 0
    started_at_ms: int = 0
    finished_at_ms: int | None = None
    finished_before_ms: int | None = None
    again_at_ms: int | None = None
    error: str | None = None

    @property
    def is_finished(self) -> bool:
        """Tell whether its last page was told."""
        return self.finished_at_ms is not None

    @property
    def last_finished_at_ms(self) -> int | None:
        """Return when its last page was told last, by this walk or the one before."""
        return self.finished_at_ms or self.finished_before_ms

    def with_page_size(self, page_size: int) -> Import:
        """Return the same import in pages of another size; some rows may be told again, none is skipped."""
        told = (self.next_page - 1) * self.rows_a_page
        next_page = told // page_size + 1
        return replace(self, page_size=page_size, next_page=next_page, given=None, digest=None)

    @property
    def rows_a_page(self) -> int:
        """Return how many rows the pages that were told have at least."""
        return min(self.given or self.page_size, self.page_size)

    def view(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        names = ("kind", "id", "tag", "page_size", "next_page", "pages", "rows", "total", "error")
        finished = self.finished_at_ms
        return {
            **{name: getattr(self, name) for name in names},
            "started_at": iso(self.started_at_ms),
            "finished_at": None if finished is None else iso(finished),
            "finished": self.is_finished,
            "short": bool(self.short),
        }


_NUMBERS = frozenset(field.name for field in fields(Import) if "int" in str(field.type))


async def read(redis: Redis, kind: Kind, import_id: str) -> Import | None:
    """Return what is known of an import; None when it was never begun, or is forgotten."""
    stored: Mapping[bytes, bytes] = await redis.hgetall(keys.import_of(kind, import_id))
    return _read(kind, import_id, stored) if stored else None


async def take(
    redis: Redis, wanted: Import, holder: str, *, anew: bool = False
) -> tuple[Import, bool]:
    """Begin the import *wanted*, or go on where it stands; return it, and whether it is in *holder*'s hands.

    It is not when it is finished already. With *anew* it begins at page 1 whatever there was. Raises `Busy`.
    """
    told = asdict(wanted).items()
    known = {k: v for k, v in told if v is not None and k not in ("kind", "id", "started_at_ms")}
    flat = _flat(known)
    name = f"{wanted.kind}:{wanted.id}"
    args = [name, holder, LEASE_MS, int(anew), KEEP_MS, len(flat), *flat]
    how, rows = await script(redis, "take_import")(args=args)
    if how == b"busy":
        raise Busy
    stored = dict(zip(rows[::2], rows[1::2], strict=True))
    return _read(wanted.kind, wanted.id, stored), how == b"taken"


async def note(redis: Redis, one: Import, holder: str, **changed: Any) -> Import:
    """Write down what has *changed* and renew the lease; return the import as it is now. Raises `Lost`."""
    if not await _note(redis, one, holder, LEASE_MS, changed):
        raise Lost
    return replace(one, **changed)


async def leave(redis: Redis, one: Import, holder: str, **changed: Any) -> Import:
    """Write down what has *changed* and let anyone go on; return the import as it is now. Raises `Lost`."""
    if not await _note(redis, one, holder, 0, changed):
        raise Lost
    return replace(one, **changed)


async def _note(
    redis: Redis, one: Import, holder: str, lease_ms: int, changed: Mapping[str, Any]
) -> bool:
    flat = _flat(changed)
    args = [f"{one.kind}:{one.id}", holder, lease_ms, KEEP_MS, len(flat), *flat]
    return bool(await script(redis, "note_import")(args=args))


def _flat(facts: Mapping[str, Any]) -> list[str | int]:
    """Return names and values in turn; an unknown value is an empty text."""
    return [
        part for name, value in facts.items() for part in (name, "" if value is None else value)
    ]


def _read(kind: Kind, import_id: str, stored: Mapping[bytes, bytes]) -> Import:
    known = {field.name for field in fields(Import)}
    words = {name.decode(): value.decode() for name, value in stored.items() if value}
    facts: dict[str, Any] = {
        name: int(word) if name in _NUMBERS else word
        for name, word in words.items()
        if name in known
    }
    return Import(kind, import_id, **facts)
