"""The tally: what the calls of this process came to since it was last told, and how long the vendor took.

It is counted in memory, for the price of a bisect and a few additions a call, and told with the heartbeat
(`pipeline.calls`). What cannot be told is lost: it is statistics.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

from pipeline import calls
from pipeline.calls import BOUNDS, Outcome
from workers.clients.errors import CallFailed, Misconfigured, Rejected, TimedOut

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from pipeline.outcomes import Stage
    from workers.clients.http import Answered

_BUCKETS = [calls.bucket(n) for n in range(len(BOUNDS) + 1)]


@dataclass(slots=True)
class _Row:
    counts: Counter[str] = field(default_factory=Counter)
    #: when, by our clock, and what was said
    failures: deque[tuple[float, str]] = field(
        default_factory=lambda: deque(maxlen=calls.MOST_FAILURES)
    )


class Tally:
    """Counts the calls of one process."""

    def __init__(self) -> None:
        self._rows: dict[Stage, _Row] = {}

    def answered(self, stage: Stage, answers: Sequence[Answered]) -> None:
        """Count calls of *stage* that went well."""
        counts = self._row(stage).counts
        for answer in answers:
            counts[_BUCKETS[bisect_left(BOUNDS, answer.seconds)]] += 1
            counts[Outcome.OK] += 1

    def failed(
        self, stage: Stage, answers: Sequence[Answered], failure: CallFailed, seconds: float
    ) -> None:
        """Count a call that was *failure*, *seconds* after it was begun, and the *answers* before it.

        An answer is among *answers* whatever it said, so with a status the last of them is the failure's own.
        """
        row, outcome = self._row(stage), outcome_of(failure)
        well = len(answers)
        if failure.status is not None and answers:
            well -= 1
            seconds = answers[-1].seconds
        self.answered(stage, answers[:well])
        row.counts[outcome] += 1
        if failure.status is not None or outcome is Outcome.TIMED_OUT:
            row.counts[_BUCKETS[bisect_left(BOUNDS, seconds)]] += 1
        text = calls.failure_text(outcome, failure.status, failure.sentence)
        row.failures.append((monotonic(), text))

    async def tell(self, redis: Redis) -> None:
        """Add what was counted since the last time to what Redis knows."""
        rows, self._rows = self._rows, {}
        for stage, row in rows.items():
            if row.counts:
                now = monotonic()
                ago = [(int((now - at) * 1000), text) for at, text in row.failures]
                await calls.add(redis, stage, row.counts, ago)

    def _row(self, stage: Stage) -> _Row:
        row = self._rows.get(stage)
        if row is None:
            row = self._rows[stage] = _Row()
        return row


def outcome_of(failure: CallFailed) -> Outcome:
    """Return what a call that failed came to."""
    match failure:
        case CallFailed(status=429):
            return Outcome.THROTTLED
        case TimedOut():
            return Outcome.TIMED_OUT
        case Rejected() | Misconfigured(status=int()):
            return Outcome.REFUSED
        case _:
            return Outcome.FAILED
