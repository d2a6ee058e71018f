"""The tally: what the calls of this process came to since it was last told, and how long the vendor took.

It is counted in memory, for the price of a bisect and a few additions a call, and told with the heartbeat
(`pipeline.calls`). What cannot be told is lost: it is statistics.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

from pipeline import calls
from pipeline.calls import BOUNDS, Outcome
from workers.clients.errors import CallFailed, Misconfigured, Rejected, TimedOut
from workers.clients.http import Answered, calls_noted

if TYPE_CHECKING:
    from redis.asyncio import Redis

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
        self._rows: dict[str, _Row] = {}

    @contextmanager
    def counted(self, endpoint: str) -> Iterator[None]:
        """Count the calls that this task makes inside, for what is called beside the batches of a stage."""
        began = monotonic()
        with calls_noted() as calls:
            try:
                yield
            except CallFailed as failure:
                self.failed(endpoint, calls, failure, monotonic() - began)
                failure.is_counted = True
                raise
            except BaseException:  # ours, about what was answered, or a stop
                self.answered(endpoint, calls)
                raise
            self.answered(endpoint, calls)

    def answered(self, endpoint: str, answers: Sequence[Answered]) -> None:
        """Count calls of *endpoint* that went well."""
        counts = self._row(endpoint).counts
        for answer in answers:
            if answer.is_counted:
                continue
            _add_seconds(counts, answer.seconds)
            counts[Outcome.OK] += 1

    def failed(
        self, endpoint: str, answers: Sequence[Answered], failure: CallFailed, seconds: float
    ) -> None:
        """Count a call that was *failure*, *seconds* after its batch was begun, and the *answers* before it.

        An answer is among *answers* whatever it said, so with a status the last of them is the failure's own.
        """
        if failure.is_counted:
            self.answered(endpoint, answers)
            return
        row, outcome = self._row(endpoint), outcome_of(failure)
        well = len(answers)
        if failure.status is not None and answers:
            well -= 1
            seconds = answers[-1].seconds
        else:
            seconds = max(0.0, seconds - sum(answer.seconds for answer in answers))
        self.answered(endpoint, answers[:well])
        row.counts[outcome] += 1
        if failure.status is not None or outcome is Outcome.TIMED_OUT:
            _add_seconds(row.counts, seconds)
        text = calls.failure_text(outcome, failure.status, failure.sentence)
        row.failures.append((monotonic(), text))

    async def tell(self, redis: Redis) -> None:
        """Add what was counted since the last time to what Redis knows."""
        rows, self._rows = self._rows, {}
        for endpoint, row in rows.items():
            if row.counts:
                now = monotonic()
                ago = [(int((now - at) * 1000), text) for at, text in row.failures]
                await calls.add(redis, endpoint, row.counts, ago)

    def _row(self, endpoint: str) -> _Row:
        row = self._rows.get(endpoint)
        if row is None:
            row = self._rows[endpoint] = _Row()
        return row


def _add_seconds(counts: Counter[str], seconds: float) -> None:
    counts[_BUCKETS[bisect_left(BOUNDS, seconds)]] += 1
    counts[calls.TOOK_MS] += round(seconds * 1000)


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
