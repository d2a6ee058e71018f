"""The verdict: is everything somewhere, is every repetition explained, do the books say the same?

Pure: it knows numbers and times, no process and no Redis.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import orjson

from chaos.parts import Incident, incident_name
from chaos.sender import ACKS, EVENT, REFUSED, VISITOR, WRONG, Ledger
from chaos.vendors import CUT_OFF

#: how many ids a problem names
NAMED = 5
#: what a call that was answered so may be repeated for; 504 says that it may have been taken all the same
ANSWERS = {
    504: "504",
    0: "connection reset",
    CUT_OFF: "answer cut off",
    None: "vendors killed in mid-call",
}
#: whose mishaps explain that a call is made again although it was answered well: it could not be noted
NOTES_IT = ("worker", "redis", "vendors")


@dataclass(frozen=True, slots=True)
class Arrival:
    """One id that a vendor accepted: when (Unix time), and how that call was answered (None: nobody knows)."""

    id: int
    at: float
    status: int | None


def read_journal(lines: Iterable[bytes]) -> list[Arrival]:
    """Read what `chaos.vendors` wrote."""
    statuses: dict[str, int] = {}
    accepted: list[tuple[str, float, list[int]]] = []
    for line in lines:
        fact = orjson.loads(line)
        if "s" in fact:
            statuses[fact["c"]] = fact["s"]
        else:
            accepted.append((fact["c"], fact["t"], fact["i"]))
    return [Arrival(each, at, statuses.get(call)) for call, at, ids in accepted for each in ids]


def read_marks(lines: Iterable[bytes]) -> Counter[int]:
    """Read what `chaos.inside` wrote: how often each id was sent as one that may have been sent before."""
    return Counter(int(each) for line in lines for each in line.split())


@dataclass(slots=True)
class Evidence:
    """Everything the verdict rests on. *books* is what `pipeline.books.snapshot` says in the end."""

    ledger: Ledger
    arrivals: Sequence[Arrival]
    dead: AbstractSet[int]
    waiting: AbstractSet[int]
    incidents: Sequence[Incident]
    books: Mapping[str, Mapping[str, int]]
    recount: Mapping[str, Mapping[str, int]]
    maybe_duplicate: int
    marked: Mapping[int, int]
    problems: Sequence[str] = ()


@dataclass(slots=True)
class Verdict:
    """What came out. *problems* is empty when all is well."""

    sent: int = 0
    acknowledged: Counter[str] = field(default_factory=Counter)
    arrived: int = 0
    dead: int = 0
    waiting: int = 0
    lost: list[int] = field(default_factory=list)
    duplicates: Counter[str] = field(default_factory=Counter)
    marked: int = 0
    maybe_duplicate: int = 0
    problems: list[str] = field(default_factory=list)


def judge(evidence: Evidence) -> Verdict:
    """Return the verdict."""
    ledger, arrived = evidence.ledger, {arrival.id for arrival in evidence.arrivals}
    only_dead = evidence.dead - arrived
    only_waits = evidence.waiting - arrived - evidence.dead
    somewhere = arrived | only_dead | only_waits
    promised = [number for number, ack in enumerate(ledger.acks) if ack]
    verdict = Verdict(
        sent=len(ledger.acks),
        acknowledged=Counter(ACKS[ack] for ack in ledger.acks if ack),
        arrived=sum(number in arrived for number in promised),
        dead=sum(number in only_dead for number in promised),
        waiting=sum(number in only_waits for number in promised),
        lost=[each for each in promised if each not in somewhere],
        marked=sum(evidence.marked.values()),
        maybe_duplicate=evidence.maybe_duplicate,
        problems=list(evidence.problems),
    )
    if verdict.lost:
        verdict.problems.append(f"lost: {_named(verdict.lost)}")
    _explain(verdict, evidence)
    _check_the_dead(verdict, evidence)
    _check_the_books(verdict, evidence, arrived)
    return verdict


def _explain(verdict: Verdict, evidence: Evidence) -> None:
    """Find out why each id came that came more than once."""
    before: dict[int, Arrival] = {}
    unexplained: list[int] = []
    repeated = Counter[int]()
    for arrival in sorted(evidence.arrivals, key=lambda each: each.at):
        first = before.get(arrival.id)
        before[arrival.id] = arrival
        if first is None:
            continue
        repeated[arrival.id] += 1
        why = why_again(first, arrival, evidence.incidents)
        verdict.duplicates[why or "unexplained"] += 1
        if why is None:
            unexplained.append(arrival.id)
    if unexplained:
        verdict.problems.append(f"arrived twice, and nothing explains it: {_named(unexplained)}")
    if unmarked := [each for each, n in repeated.items() if n > evidence.marked.get(each, 0)]:
        verdict.problems.append(f"arrived twice, and was not marked: {_named(unmarked)}")
    if verdict.marked > evidence.maybe_duplicate:
        counted = f"only {evidence.maybe_duplicate} are counted in maybe_duplicate"
        verdict.problems.append(f"{verdict.marked} were marked, and {counted}")


def why_again(first: Arrival, second: Arrival, incidents: Sequence[Incident]) -> str | None:
    """Return why what had arrived with *first* was sent again, or None."""
    if first.status in ANSWERS:
        return ANSWERS[first.status]
    for incident in incidents:
        if (
            incident_name(incident.part) in NOTES_IT
            and incident.began <= second.at
            and incident.ended >= first.at
        ):
            return f"{incident_name(incident.part)}: {incident.what}"
    return None


def _check_the_dead(verdict: Verdict, evidence: Evidence) -> None:
    """An outage never makes a dead letter: dead is only what was wrong or refused."""
    kinds = evidence.ledger.kinds
    innocent = [each for each in evidence.dead if kinds[each] not in (WRONG, REFUSED)]
    if innocent:
        verdict.problems.append(f"dead without a fault of its own: {_named(innocent)}")


def _check_the_books(verdict: Verdict, evidence: Evidence, arrived: AbstractSet[int]) -> None:
    """Hold the books against themselves, against the data, and against what the vendors have."""
    kinds, problems = evidence.ledger.kinds, verdict.problems
    for stage, row in evidence.books.items():
        if row["in"] != sum(n for name, n in row.items() if name != "in"):
            problems.append(f"the books of {stage} do not balance: {dict(row)}")
        counted = evidence.recount[stage]
        if any(row[name] != n for name, n in counted.items()):
            problems.append(f"the books of {stage} say {dict(row)}, the data {dict(counted)}")
    if evidence.waiting:
        return  # what is in a call has arrived and still waits
    for stage, wanted in (("forward", (EVENT, REFUSED)), ("subscribe", (VISITOR,))):
        there = sum(kinds[each] in wanted for each in arrived)
        if evidence.books[stage]["done"] != there:
            done = evidence.books[stage]["done"]
            problems.append(f"{stage} has done {done}, and {there} ids have arrived")


def _named(ids: Iterable[int]) -> str:
    found = sorted(ids)
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return ", ".join(f"chaos-{each}-" for each in found[:NAMED]) + more
