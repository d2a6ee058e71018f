"""Calls: how long an endpoint takes to answer, what its calls came to, and how the last of them failed.

Workers count in their memory and add it up here every two seconds. Counts are kept in slots: of ten minutes for two
hours, from which the last hour is read, and of an hour for a bit over a day. So *the last hour* is sixty to
seventy minutes, and *the day* 24 to 25 hours. All of them are also counted for good, for who looks at how fast a number
grows (Prometheus): so that is told alike whichever worker made the calls, and lives longer than it. They are
statistics: a worker that is killed takes two seconds of them with it, and nothing is decided by them.

How long is known in buckets only; a percentile is where it would lie if the calls of a bucket were spread evenly.
A call that never reached the vendor took no time of the vendor's and is in no bucket.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pipeline import keys
from pipeline.addresses import mask
from pipeline.clock import DAY_MS, HOUR_MS, iso, redis_now_ms
from pipeline.scripts import script

if TYPE_CHECKING:
    from redis.asyncio import Redis

#: seconds; each bucket ends at one of them, and what took longer is in one more
BOUNDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0)
#: where that last one ends: no call takes longer
LONGEST_S = 45.0
#: milliseconds: an hour in slots of ten minutes, a day in slots of an hour; kept a little longer than they are shown
HOUR_SLOT_MS, HOUR_SLOTS, HOUR_KEPT_MS = 600_000, 6, 2 * HOUR_MS
DAY_SLOT_MS, DAY_SLOTS, DAY_KEPT_MS = HOUR_MS, 24, 26 * HOUR_MS
MOST_FAILURES = 20
#: failures are let go a week after the last one
FAILURES_KEPT_MS = 7 * DAY_MS
#: characters of the vendor's own words
MOST_WORDS = 200
PERCENTILES = (50, 95, 99)
#: the field that holds how many milliseconds the calls in the buckets took together
TOOK_MS = "ms"


class Outcome(StrEnum):
    """What a call came to."""

    OK = "ok"
    REFUSED = "refused"  # the vendor takes it not: the items, the key or the path
    FAILED = "failed"  # not reached, broken off, 5xx, an answer without its keys
    TIMED_OUT = "timed_out"
    THROTTLED = "throttled"  # 429


@dataclass(frozen=True, slots=True)
class Failure:
    """One call that failed: when, and what was said, addresses masked. *status* is None when no answer came."""

    at_ms: int
    outcome: str
    status: int | None
    words: str

    def view(self) -> dict[str, str | int | None]:
        """Return it as /api shows it."""
        return {
            "at": iso(self.at_ms),
            "outcome": self.outcome,
            "status": self.status,
            "words": self.words,
        }


@dataclass(frozen=True, slots=True)
class Stretch:
    """The calls of some time: how many came to what, and how many took how long, by bucket."""

    outcomes: Mapping[str, int]
    buckets: Sequence[int]

    def percentile(self, percent: float) -> float | None:
        """Return in how many seconds *percent* of the calls were answered; None when there were none."""
        wanted, passed = sum(self.buckets) * percent / 100, 0
        edges = (0.0, *BOUNDS, LONGEST_S)
        for count, (begin, end) in zip(self.buckets, pairwise(edges), strict=True):
            if count and passed + count >= wanted:
                return round(begin + (end - begin) * (wanted - passed) / count, 3)
            passed += count
        return None

    def view(self) -> dict[str, Any]:
        """Return it as /api shows it."""
        return {
            "outcomes": dict(self.outcomes),
            "seconds": {f"p{percent}": self.percentile(percent) for percent in PERCENTILES},
        }


@dataclass(frozen=True, slots=True)
class Ever:
    """All calls that an endpoint has ever had: *seconds* is what those in the buckets of *calls* took together."""

    calls: Stretch
    seconds: float


@dataclass(frozen=True, slots=True)
class Calls:
    """What is known of an endpoint's calls; *due_ms* is when the next one goes after a failure, if that is to come."""

    hour: Stretch
    day: Stretch
    failures: Sequence[Failure]
    due_ms: int | None


def bucket(n: int) -> str:
    """Return the field that counts the calls of the *n*th bucket."""
    return f"b{n}"


def failure_text(outcome: Outcome, status: int | None, words: str) -> str:
    """Return a failure as it is kept, the vendor's *words* masked and cut."""
    return f"{outcome}|{status or ''}|{mask(words, MOST_WORDS)}"


async def add(
    redis: Redis, endpoint: str, counts: Mapping[str, int], failures: Sequence[tuple[int, str]]
) -> None:
    """Add *counts* by field, and *failures*: how many milliseconds ago each was, and its text, the oldest first."""
    slots = (HOUR_SLOT_MS, HOUR_KEPT_MS, DAY_SLOT_MS, DAY_KEPT_MS)
    fields = [word for row in counts.items() for word in row]
    texts = [word for row in failures for word in row]
    args: list[str | int] = [endpoint, len(slots), *slots, MOST_FAILURES, FAILURES_KEPT_MS]
    await script(redis, "calls")(args=[*args, len(fields), *fields, len(texts), *texts])


async def read(redis: Redis, endpoints: Sequence[str]) -> dict[str, Calls]:
    """Return what is known of the calls of each of *endpoints*."""
    now = await redis_now_ms(redis)
    async with redis.pipeline(transaction=False) as pipe:
        for endpoint in endpoints:
            for width, most in ((HOUR_SLOT_MS, HOUR_SLOTS), (DAY_SLOT_MS, DAY_SLOTS)):
                for back in range(most + 1):
                    pipe.hgetall(keys.calls(endpoint, width, now // width - back))
            pipe.lrange(keys.failed_calls(endpoint), 0, -1)
            pipe.hmget(keys.destination(endpoint), "failures", "due")
        answers = iter(await pipe.execute())
    return {endpoint: _calls(answers, now) for endpoint in endpoints}


async def read_all(redis: Redis, endpoints: Sequence[str]) -> dict[str, Ever]:
    """Return what all calls of each of *endpoints* ever came to."""
    async with redis.pipeline(transaction=False) as pipe:
        for endpoint in endpoints:
            pipe.hgetall(keys.all_calls(endpoint))
        answers = await pipe.execute()
    return {
        endpoint: Ever(_stretch([counted]), int(counted.get(TOOK_MS.encode(), 0)) / 1000)
        for endpoint, counted in zip(endpoints, answers, strict=True)
    }


async def counts(redis: Redis, endpoints: Sequence[str], at_ms: int) -> dict[str, dict[int, int]]:
    """Return how many calls each of *endpoints* had in the slot of *at_ms* and the one before, by slot."""
    slots = [at_ms // HOUR_SLOT_MS - back for back in (1, 0)]
    async with redis.pipeline(transaction=False) as pipe:
        for endpoint in endpoints:
            for slot in slots:
                pipe.hmget(keys.calls(endpoint, HOUR_SLOT_MS, slot), *Outcome)
        answers = iter(await pipe.execute())
    return {
        endpoint: {slot: sum(map(int, filter(None, next(answers)))) for slot in slots}
        for endpoint in endpoints
    }


def _calls(answers: Any, now: int) -> Calls:
    """Take one endpoint's answers from all of them."""
    hour = _stretch([next(answers) for _ in range(HOUR_SLOTS + 1)])
    day = _stretch([next(answers) for _ in range(DAY_SLOTS + 1)])
    failures = [_failure(text.decode(errors="replace")) for text in next(answers)]
    failed, due = next(answers)
    due_ms = int(float(due or 0))
    return Calls(hour, day, failures, due_ms if int(failed or 0) and due_ms > now else None)


def _stretch(slots: Sequence[Mapping[bytes, bytes]]) -> Stretch:
    counted: Counter[str] = Counter()
    for slot in slots:
        counted.update({name.decode(): int(count) for name, count in slot.items()})
    buckets = [counted[bucket(n)] for n in range(len(BOUNDS) + 1)]
    return Stretch({str(outcome): counted[outcome] for outcome in Outcome}, buckets)


def _failure(text: str) -> Failure:
    at_ms, outcome, status, words = text.split("|", 3)
    return Failure(int(at_ms), outcome, int(status) if status else None, words)
