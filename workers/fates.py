"""What happens to work that fails: the one place that decides.

A failure is about the item, about the destination, or about us.

- The destination's fault (network, time-out, 429, 5xx, an answer without its keys): the batch goes back, the
  stage backs off with full jitter; after five in a row it pauses itself and probes. Work waits as long as it
  takes: an outage never creates dead letters.
- Key or path wrong, or the quota is used up: the stage pauses at once and keeps everything.
- The item's fault (400, 413, 422): the batch is split in halves until the culprit stands alone. A single
  refused item is buried only when others have succeeded since its batch was first tried, or when nothing else
  is left to compare it with. Until then it is *held*; refused items that pile up with the same words and no
  success between them are nobody's fault but a setting's, so the stage pauses and nothing is buried.
- A 403 or 5xx that keeps following one batch while others succeed: a firewall or a bug over there trips over
  one item. The batch is held, others are tried first, and when they pass, it is treated as the item's fault.
- Ours (an exception in our code): three tries, then the culprit is buried with the traceback's last line.

`decide` is pure; `workers.dispatch` carries out what it says.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from pipeline.outcomes import Reason
from workers.clients.errors import CallFailed, Misconfigured, QuotaExceeded, Rejected
from workers.timing import Timing

BUG_TRIES = 3
#: a random 500 must not look like a poisoned batch
SPLIT_AFTER = 3
#: and much less bury anything: this many, with successes of others in between
BURY_AFTER = 10
SINGLES_IN_A_ROW = 20
BATCHES_IN_A_ROW = 2


class Fate(StrEnum):
    """What becomes of a batch whose call failed."""

    RETRY = "retry"  # goes back as it is, byte for byte
    HOLD = "hold"  # waits until others have succeeded
    SPLIT = "split"  # two halves, each a batch
    BURY = "bury"  # its one item becomes a dead letter


@dataclass(frozen=True, slots=True)
class Case:
    """What is known about a batch when its call failed."""

    size: int
    tries: int
    #: others have succeeded since this batch (or the one it was split from) was first tried
    others_succeeded: bool
    #: other work waits in the stage that has not been held
    others_wait: bool
    #: other batches are held
    others_held: bool
    #: it was held before, so everything else was tried first
    was_held: bool
    #: single items refused in a row with the same words, and of how many batches
    refusals: int = 0
    refused_batches: int = 0


@dataclass(frozen=True, slots=True)
class Setback:
    """What the failure means for the stage's next calls."""

    reason: str
    at_once: bool = False
    probe_s: float | None = None
    at_least_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """A fate, why (for a dead letter), and what it means for the stage, if anything."""

    fate: Fate
    setback: Setback | None = None
    reason: Reason = Reason.REFUSED


def decide(failure: Exception, case: Case, timing: Timing, now: datetime) -> Verdict:
    """Return what happens to the batch of *case* after *failure*."""
    match failure:
        case QuotaExceeded():
            wait = failure.retry_after_s or _until_tomorrow_s(now)
            return Verdict(Fate.RETRY, Setback(failure.sentence, at_once=True, at_least_s=wait))
        case Misconfigured():
            return _misconfigured(failure, case, timing)
        case Rejected():
            return _rejected(failure, case, timing)
        case CallFailed():
            return _unavailable(failure, case)
        case _:
            return _bug(case)


def _misconfigured(failure: Misconfigured, case: Case, timing: Timing) -> Verdict:
    setback = Setback(failure.sentence, at_once=True, probe_s=timing.misconfigured_probe_s)
    if failure.status != 403:
        return Verdict(Fate.RETRY, setback)
    if (
        case.others_succeeded
    ):  # so key and path are right, and something in this batch trips a firewall
        return _isolate(case, bury=case.tries >= SPLIT_AFTER)
    if case.size > 1 and not (case.others_wait or case.others_held):
        return Verdict(Fate.SPLIT, setback)  # the next probe is another request all the same
    return Verdict(Fate.HOLD, setback)


def _unavailable(failure: CallFailed, case: Case) -> Verdict:
    setback = Setback(failure.sentence, at_least_s=failure.retry_after_s or 0.0)
    is_answer = failure.status is not None and failure.status >= 500 and not failure.maybe_stored
    if not is_answer or case.tries < SPLIT_AFTER:
        return Verdict(Fate.RETRY, setback)
    if case.others_succeeded:
        verdict = _isolate(case, bury=case.tries >= BURY_AFTER)
        return Verdict(verdict.fate, setback, verdict.reason)
    is_alone = not (case.others_wait or case.others_held)
    if case.size > 1 and is_alone and case.tries >= 2 * SPLIT_AFTER:
        return Verdict(Fate.SPLIT, setback)
    return Verdict(Fate.HOLD, setback)


def _isolate(case: Case, *, bury: bool) -> Verdict:
    if case.size > 1:
        return Verdict(Fate.SPLIT)
    return Verdict(Fate.BURY if bury else Fate.HOLD)


def _rejected(failure: Rejected, case: Case, timing: Timing) -> Verdict:
    if case.size > 1:
        return Verdict(Fate.SPLIT)
    if case.others_succeeded:
        return Verdict(Fate.BURY)
    is_everything = case.refusals >= SINGLES_IN_A_ROW or (
        case.was_held and not case.others_wait and case.refused_batches >= BATCHES_IN_A_ROW
    )
    if is_everything:
        reason = f"everything is refused: {failure.sentence}"
        pause = Setback(reason, at_once=True, probe_s=timing.misconfigured_probe_s)
        return Verdict(Fate.HOLD, pause)
    return Verdict(Fate.BURY if case.was_held and not case.others_wait else Fate.HOLD)


def _bug(case: Case) -> Verdict:
    if case.tries + 1 < BUG_TRIES:
        return Verdict(Fate.RETRY, reason=Reason.BUG)
    return Verdict(Fate.SPLIT if case.size > 1 else Fate.BURY, reason=Reason.BUG)


def _until_tomorrow_s(now: datetime) -> float:
    tomorrow = (now.astimezone(UTC) + timedelta(days=1)).replace(
        hour=0, minute=0, second=0, microsecond=0
    )
    return (tomorrow - now).total_seconds()
