"""What is known of one person, gathered from everywhere it is kept, and told in words.

Scores are AudiencePoint's texts; beside each stands what it counts, because `33` says little.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from pipeline import forgetting, keys, verifications, visitors
from pipeline.addresses import digest
from pipeline.scores import score_of
from pipeline.tombstones import Tombstones
from pipeline.verifications import Verification
from pipeline.visitors import Visitor

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from pipeline.scores import Score

_KINDS = ("verified", "personal", "business")
_REACHED_BY = (*(f"{kind}_emails" for kind in _KINDS), "hashes", "phones")

UNITS: Mapping[str, str] = {
    "matched": "yes, no (never seen), invalid (no address), err (could not be told)",
    "score": "0 to 5: how likely to interact",
    "frequency": "how often they interact",
    "last_touch": "the last open or click",
    "first_touch": "the first open or click",
    "last_seen": "the last open, click or unsubscribe",
    "last_seen_auto_open": "whether that was a machine of Apple, Gmail or Yahoo",
    "last_send_no_bounce": "the last mail that did not bounce",
    "codes": "codes of industries",
}


@dataclass(frozen=True, slots=True)
class Known:
    """One person, and what is kept beside the visitor."""

    visitor: Visitor
    #: by hash: waiting, subscribed, …
    subscriptions: dict[str, str]
    verifications: dict[str, Verification]
    #: those of the person's own names that are kept from coming
    tombstones: list[str]
    #: AudienceLab was, or is to be, asked, within the last thirty days
    is_asked_about: bool
    #: also where *visitor* holds only some of them
    address_count: int

    @property
    def score(self) -> Score | None:
        """Return the scores as typed values; None when there are none."""
        address = self.visitor.identified_address() or ""
        return score_of(address, self.visitor.scores) if self.visitor.scores else None

    def view(self) -> dict[str, Any]:
        """Return everything, for `relay visitors show --json`."""
        score = asdict(self.score) if self.score else None
        if score:
            for name in ("address", "raw", "other"):  # told above, as kept
                del score[name]
        return {
            **self.visitor.view(),
            "typed_scores": score,
            "subscriptions": self.subscriptions,
            "verifications": {name: said.view() for name, said in self.verifications.items()},
            "tombstones": self.tombstones,
            "is_asked_about": self.is_asked_about,
        }


async def look(redis: Redis, wanted: str, most: int | None = None) -> tuple[Known | None, bool]:
    """Return who *wanted* means, if anybody, and whether that name itself is kept from coming.

    With *most*, addresses and numbers are so many of each kind: a sender may tell a hundred thousand of somebody.
    """
    tombstones = Tombstones(redis)
    visitor = await forgetting.find(redis, wanted)
    if visitor is None:
        return None, any(await tombstones.found(forgetting.names_of(wanted)))
    address_count = len(visitor.emails) + len(visitor.hashes)
    if most is not None:
        visitor = replace(visitor, **{name: getattr(visitor, name)[:most] for name in _REACHED_BY})
    names = visitor.identities
    hits = await tombstones.found(names)
    known = Known(
        visitor,
        await visitors.subscriptions(redis, visitor),
        await verifications.read(redis, visitor.digests),
        [name for name, hit in zip(names, hits, strict=True) if hit],
        bool(await redis.exists(keys.enrichment(digest(visitor.id)))),
        address_count,
    )
    return known, bool(known.tombstones)


# in words -------------------------------------------------------------------------------------------------


def lines(known: Known) -> Iterator[str]:
    """Tell what is known, a line each; what is not known is left out."""
    visitor = known.visitor
    for name in ("id", "uuid", "edid", "hem_sha256", "first_seen_at", "last_seen_at"):
        if value := getattr(visitor, name):
            yield _line(name, value)
    for name in ("tags", "sources", "phones"):
        if values := getattr(visitor, name):
            yield _line(name, ", ".join(values))
    yield _line("enrichment", enrichment(known))
    if known.tombstones:
        yield _line(
            "tombstones", f"{len(known.tombstones)}: forgotten, `relay visitors allow` lifts"
        )
        yield from (f"  {name}" for name in known.tombstones)
    yield from _address_lines(known)
    yield from _score_lines(known)
    if visitor.fields:
        yield "fields of AudienceLab"
        for name, value in visitor.fields.items():
            yield _line(f"  {name}", ", ".join(value) if isinstance(value, list) else value)
    if visitor.pages:
        yield f"pages, the last {visitors.PAGES} at most"
        yield from ("  " + " ".join(map(str, page.values())) for page in visitor.pages)


def _line(name: str, value: object) -> str:
    return f"{name:<22} {value}"


def enrichment(known: Known) -> str:
    """Return what became of asking AudienceLab about the person."""
    visitor = known.visitor
    if visitor.enriched_at:
        return f"{visitor.enrichment or 'asked'}, at {visitor.enriched_at}"
    return "asked, or waiting to be" if known.is_asked_about else "not asked"


@dataclass(frozen=True, slots=True)
class Address:
    """One address, or the hash of one that is known only by it, with what is known of it."""

    name: str
    kinds: Sequence[str]
    subscription: str
    verification: Verification | None


def addresses(known: Known) -> Iterator[Address]:
    """Tell each address of the person."""
    visitor = known.visitor
    plain = {digest(address): address for address in visitor.emails}
    of_kind = {kind: set(getattr(visitor, f"{kind}_emails")) for kind in _KINDS}
    for name in visitor.digests:
        address = plain.get(name, name)
        kinds = [kind for kind, those in of_kind.items() if address in those]
        subscription = known.subscriptions.get(name, "none")
        yield Address(address, kinds, subscription, known.verifications.get(name))


def _address_lines(known: Known) -> Iterator[str]:
    if known.visitor.digests:
        yield "addresses"
    for address in addresses(known):
        facts = [*address.kinds, f"subscription: {address.subscription}"]
        yield f"  {address.name}  {', '.join(facts)}"
        if said := address.verification:
            view = said.view()
            yield f"    AudiencePoint's verification: {said.result}, at {view['verified_at']}"
            if said.suggestion:
                yield f"    its suggestion: {said.suggestion}"


def scores(known: Known) -> Iterator[tuple[str, str, str]]:
    """Tell each score by its name, as typed, else as it came, and what it means."""
    score = known.score
    if score is None:
        return
    for name, text in score.raw.items():
        value = getattr(score, name, None)
        if value in (None, ()):  # not of the model, or not readable
            yield name, text, ""
            continue
        shown = ", ".join(value) if isinstance(value, tuple) else str(value)
        yield name, shown, _hour(score) if name == "send_time" else UNITS.get(name, "")


def _score_lines(known: Known) -> Iterator[str]:
    if known.score is None:
        return
    changed_at = known.visitor.scores_changed_at
    yield f"scores, changed at {changed_at}" if changed_at else "scores"
    for name, shown, unit in scores(known):
        yield _line(f"  {name}", f"{shown}  ({unit})" if unit else shown)


def _hour(score: Score) -> str:
    return (
        f"hour {score.send_time} of the week, 0 to 167; with which day and in which time zone it begins"
        " is not documented"
    )
