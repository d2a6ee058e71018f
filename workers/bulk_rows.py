"""Bulk rows: whom the rows of a bulk job's result are about.

A row names many addresses, some of them other people's: an address may stand in two rows, of which one only mentions
it. So a row of whom it is the own address goes before one that mentions it, in whatever order they come. When two
people fit alike, the result does not say who was asked about, and neither is taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipeline import visitors
from pipeline.addresses import digest, is_hash
from pipeline.outcomes import Person
from pipeline.visitors import Visitor
from workers.look_up import person_of

_BETWEEN = re.compile(r"[\s,;|]+")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a result says: the person behind an address hash or a telephone; None: it could be several.

    Of one that is not whole, silence about somebody says nothing.
    """

    people: Mapping[str, Person | None]
    is_whole: bool = True

    def about(self, names: Iterable[str]) -> tuple[Person | None, bool]:
        """Return whom it tells of under the first of *names* that it knows, and whether it says anything at all."""
        for name in names:
            if name in self.people:
                return self.people[name], self.people[name] is not None
        return None, self.is_whole


@dataclass(slots=True)
class _Fit:
    """The best row for a name so far: whether the name is its own, and whether no other person's is as good."""

    person: Person
    is_own: bool
    is_sole: bool = True


class Rows:
    """The rows of one result, for those of whom something is *wanted* (address hashes and telephones)."""

    def __init__(self, wanted: set[str]) -> None:
        self.count = 0
        self._wanted = wanted
        self._fits: dict[str, _Fit] = {}

    def add(self, row: Mapping[str, object]) -> None:
        """Take one row."""
        self.count += 1
        person = person_of([dict(row)])
        if person is None:
            return
        own = own_names(person)
        for name in (own | names_in(row, person)) & self._wanted:
            self._offer(name, person, is_own=name in own)

    def _offer(self, name: str, person: Person, *, is_own: bool) -> None:
        best = self._fits.get(name)
        if best is None or (is_own and not best.is_own):
            self._fits[name] = _Fit(person, is_own)
        elif is_own == best.is_own:
            is_same = visitors.visitor_id(person) == visitors.visitor_id(best.person)
            best.is_sole = best.is_sole and is_same

    def people(self) -> dict[str, Person | None]:
        """Return the person for each name that was found; None where it could be several."""
        return {name: fit.person if fit.is_sole else None for name, fit in self._fits.items()}


def own_names(person: Person) -> set[str]:
    """Return the names by which *person* is known first: verified addresses, and the first of each kind."""
    mails = [*person.verified_emails, *person.personal_emails[:1], *person.business_emails[:1]]
    hashes = [*([person.hem_sha256] if person.hem_sha256 else []), *person.hashes[:1]]
    return {*map(digest, mails), *hashes, *person.phones[:1]}


def names_in(row: Mapping[str, object], person: Person) -> set[str]:
    """Return every name in *row*, which tells of *person*."""
    visitor = Visitor("")
    visitors.add_facts(visitor, person)
    names = {*visitor.digests, *visitor.phones}
    for column, value in row.items():  # addresses also under names that pages do not use
        if "EMAIL" in column and isinstance(value, str):
            words = _BETWEEN.split(value.strip())
            names |= {digest(word) for word in words if "@" in word or is_hash(word)}
    return names
