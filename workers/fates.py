"""What happens to work that fails: the one place that decides.

A failure is about the item, about the destination, or about us.

- The destination's fault (network, time-out, 429, 5xx, an answer without its keys): the batch goes back, the
  stage backs off with full jitter; after five in a row it pauses itself and probes. Work waits as long as it
  takes: an outage never creates dead letters.
- Key or path wrong, or the quota is used up: the stage pauses at once and keeps everything.
- The item's fault (400, 413, 422): the batch is split in halves until the culprit stands alone. A single
  refused item is buried only when others have succeeded since it was last tried, or when nothing else is left
  to compare it with. Until then it is *held*; refused items that pile up with the same words and no success
  between them are nobody's fault but a setting's, so the stage pauses and nothing is buried.
- A 403, 404 or 5xx that keeps following one batch while others succeed: a firewall or a bug over there trips over
  one item. The batch is held, others are tried first. Each time it fails again although others have succeeded
  in between counts as a *strike*: it is split, and its last single item is buried after enough strikes. How many
  are enough depends on how well the vendor is (`unwell`): an innocent one hardly ever fails so often in a row by
  chance, neither where one call in ten fails, nor where nine do. A single item *rests* between two strikes, as an
  outage is over after some seconds. When it is all that is left of what it was split from, it needs no others.
- Ours (an exception in our code): three tries, then the culprit is buried with the traceback's last line. Failures
  of any other kind do not count among the three.

`decide` is pure; `dispatch`, `bulk` and `poll_scores` carry out what it says.
"""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from math import ceil, log

from pipeline.addresses import mask
from pipeline.outcomes import Reason
from workers.clients.errors import CallFailed, Misconfigured, QuotaExceeded, Rejected, Throttled
from workers.timing import Timing

#: what an exception's text may quote of the data: quoted texts, long numbers
_VALUES = re.compile(r"'[^']*'|\"[^\"]*\"|\d{5,}")
#: a number, or an id with one in it: of the call, not of what is wrong
_NUMBERED = re.compile(r"[\w.-]*\d[\w.-]*")
BUG_TRIES = 3
#: a random 500 must not look like a poisoned batch; from here on a batch's tries count its strikes
HOLD_AFTER = 3
#: of what is right, so large a part may be put down to an item where the vendor is to blame, and be parted for nothing
BURIED_BY_CHANCE = 1e-6
PARTED_BY_CHANCE = 0.05
#: of a vendor that was well so far one call in so many may fail: an outage begins unannounced
AT_LEAST_UNWELL = 1 / 32
#: one of which nothing is ever learnt lets twice as many others pass each time, so often
MOST_DOUBLINGS = 5
SINGLES_IN_A_ROW = 20
#: how long a quota that is used up may be yesterday's, and how soon it is asked for again then
A_NEW_DAY, QUOTA_AGAIN_S = timedelta(minutes=30), 600.0
#: the pause ends within the new day, not at the last millisecond of the old one
A_MOMENT_S = 1.0
BATCHES_IN_A_ROW = 2
#: so many strikes more are needed where nothing else is there that could pass
MORE_ALONE = 1


class Fate(StrEnum):
    """What becomes of a batch whose call failed."""

    RETRY = "retry"  # goes back as it is and is the next to be tried
    HOLD = "hold"  # goes back as it is and waits until others have succeeded
    SPLIT = "split"  # two halves, each a batch
    BURY = "bury"  # its one item becomes a dead letter


@dataclass(frozen=True, slots=True)
class Case:
    """What is known about a batch when its call failed."""

    size: int = 1
    #: one call about many items that cannot be parted: it is given up instead of buried, and nothing is lost by that
    is_collective: bool = False
    #: failures before this one, up to `HOLD_AFTER`; above it, strikes
    tries: int = 0
    #: it was split off, for failures that may be of an item
    is_part: bool = False
    #: another part of what it was split from was buried, and may be what they all failed for
    is_explained: bool = False
    #: exceptions of ours before this one
    bugs: int = 0
    #: others have succeeded since this batch was first tried, last held, or split off; by no call begun before its own
    others_succeeded: bool = False
    #: how large a part of calls the vendor fails while it answers others: found by what failed and passed later
    unwell: float = 0.0
    #: other work waits in the stage that has not been held
    others_wait: bool = False
    #: other batches are held
    others_held: bool = False
    #: it was held before, so everything else was tried first
    was_held: bool = False
    #: its last failure is `rest_s` ago
    has_rested: bool = True
    #: nothing else can be tried, and of all that is held this is what may be parted to find out more
    is_parted: bool = False
    #: the stage's failures in a row before this one
    failures: int = 0
    #: single items refused in a row with the same words, and of how many batches
    refusals: int = 0
    refused_batches: int = 0

    @property
    def is_alone(self) -> bool:
        """Tell whether nothing else can show that the vendor works."""
        return not (self.others_wait or self.others_held)

    @property
    def is_all_that_is_left(self) -> bool:
        """Tell whether the others that it was split from have passed, and nothing else is there."""
        return self.size == 1 and self.is_alone and self.is_part and not self.is_explained


@dataclass(frozen=True, slots=True)
class Setback:
    """What the failure means for the stage's next calls."""

    reason: str
    at_once: bool = False
    probe_s: float | None = None
    at_least_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """A fate, why (for a dead letter), and what it means for the stage, if anything.

    *tries* is what a held batch or a half begins its next life with. Before a held one is tried again *pass_by* more
    others have to succeed than one.
    """

    fate: Fate
    setback: Setback | None = None
    reason: Reason = Reason.REFUSED
    tries: int = 0
    pass_by: int = 0


def decide(failure: Exception, case: Case, timing: Timing, now: datetime) -> Verdict:
    """Return what happens to the batch of *case* after *failure*."""
    match failure:
        case QuotaExceeded():
            wait = failure.retry_after_s or _until_tomorrow_s(now)
            return _again(case, Setback(failure.sentence, at_once=True, at_least_s=wait))
        case Misconfigured(status=401):
            return _again(
                case, Setback(failure.sentence, at_once=True, probe_s=timing.misconfigured_probe_s)
            )
        case Misconfigured():
            return _turned_away(failure, case, timing)
        case Rejected():
            return _rejected(failure, case, timing)
        case CallFailed():
            return _unavailable(failure, case)
        case _:
            return _bug(case)


def last_line(failure: BaseException) -> str:
    """Return the last line of a traceback without the values it may quote: they may be personal."""
    line = traceback.format_exception_only(failure)[-1].strip()
    return mask(_VALUES.sub("[value]", line))


def sentence(failure: Exception) -> str:
    """Return what an operator reads about *failure*: the vendor's words, or the traceback's last line."""
    return failure.sentence if isinstance(failure, CallFailed) else last_line(failure)


def same_words(failure: CallFailed) -> str:
    """Return what a refusal says, whichever call it was said to: its status, and its words without numbers and ids."""
    return f"{failure.status} {_NUMBERED.sub('#', failure.sentence)}"


def _one_more(case: Case) -> int:
    return max(case.tries, HOLD_AFTER) + 1


def _again(case: Case, setback: Setback) -> Verdict:
    """Not the batch's fault: it is tried again as it is, after a while behind the others."""
    if case.was_held or case.tries + 1 >= HOLD_AFTER:
        return _held(case, setback)
    return Verdict(Fate.RETRY, setback)


def _not_yet(case: Case, setback: Setback) -> Verdict:
    """It may be the batch's fault, of which its next failures tell more: others are tried meanwhile."""
    if case.was_held or (case.failures and case.others_wait):  # a probe uses another batch
        return Verdict(Fate.HOLD, setback, tries=case.tries + 1)
    return Verdict(Fate.RETRY, setback)


def _strike(case: Case, setback: Setback | None, *, may_be_item: bool = True) -> Verdict:
    """It failed, others succeeded, and it failed again: split it, or bury what stands alone after enough strikes.

    One of which nothing is ever said (not *may_be_item*) is never buried, and waits ever longer. What stands alone is
    struck once in a while only: what is wrong with it stays so, while an outage of some seconds is over.
    """
    if case.size == 1 and not case.has_rested:
        return _held(case, setback)
    tries = _one_more(case)
    strikes = tries - HOLD_AFTER
    if case.size > 1:
        if strikes >= strikes_needed(PARTED_BY_CHANCE, case.unwell):
            return _split(setback)
    elif may_be_item and strikes >= strikes_needed(BURIED_BY_CHANCE, case.unwell):
        return Verdict(Fate.BURY, setback, tries=tries)
    pass_by = 0 if may_be_item else 2 ** min(strikes, MOST_DOUBLINGS) - 1
    return Verdict(Fate.HOLD, setback, tries=tries, pass_by=pass_by)


def _left_alone(case: Case, setback: Setback | None) -> Verdict:
    """It failed, and nothing is there that could pass: it waits.

    But a single item that is all that is left of those it was split from is struck, too: they have passed, or it would
    not be all that is left. Who buries it takes the vendor for well again.
    """
    if not (case.is_all_that_is_left and case.has_rested):
        return _held(case, setback)
    tries = _one_more(case)
    if tries - HOLD_AFTER >= strikes_needed(BURIED_BY_CHANCE, case.unwell) + MORE_ALONE:
        return Verdict(Fate.BURY, tries=tries)
    return Verdict(Fate.HOLD, setback, tries=tries)


def strikes_needed(by_chance: float, unwell: float) -> int:
    """Return after how many strikes a batch would be innocent only *by_chance*, of a vendor that is so *unwell*."""
    part = min(max(unwell, AT_LEAST_UNWELL), 0.999)
    return ceil(log(by_chance) / log(part))


def _held(case: Case, setback: Setback | None) -> Verdict:
    return Verdict(Fate.HOLD, setback, tries=max(case.tries, HOLD_AFTER))


def _split(setback: Setback | None) -> Verdict:
    """Let the halves be compared, from the beginning."""
    return Verdict(Fate.SPLIT, setback, tries=HOLD_AFTER)


def _turned_away(failure: Misconfigured, case: Case, timing: Timing) -> Verdict:
    """403, 404 and the like: a wrong key or path, or a firewall that trips over one item while others pass."""
    if case.others_succeeded:  # key and path are right, so the stage goes on
        if case.size > 1 or case.was_held or case.tries >= HOLD_AFTER:
            return _strike(case, None)
        return Verdict(Fate.HOLD, tries=HOLD_AFTER)
    # while another batch, or a half, can tell the two apart, the first probe need not wait a minute
    is_unsure = case.is_all_that_is_left or (
        case.failures == 0 and (case.size > 1 or not case.is_alone)
    )
    probe_s = timing.probe_min_s if is_unsure else timing.misconfigured_probe_s
    setback = Setback(failure.sentence, at_once=True, probe_s=probe_s)
    if case.size > 1 and (case.is_alone or case.is_parted):
        return _split(setback)
    return _left_alone(case, setback)


def _unavailable(failure: CallFailed, case: Case) -> Verdict:
    setback = Setback(failure.sentence, at_least_s=failure.retry_after_s or 0.0)
    is_answer = failure.status not in (None, 429) and not isinstance(failure, Throttled)
    if not (is_answer or failure.maybe_stored):  # no network, too many requests: nobody's item
        return _again(case, setback)
    if case.tries + 1 < HOLD_AFTER:
        return _not_yet(case, setback)
    if case.others_succeeded and (case.was_held or case.tries >= HOLD_AFTER):
        # who gave no answer said nothing of an item: others are parted from it, and it waits
        return _strike(case, setback, may_be_item=is_answer or case.is_collective)
    if case.was_held and case.size > 1 and (case.is_alone or case.is_parted):
        return _split(setback)
    return _left_alone(case, setback) if is_answer else _held(case, setback)


def _rejected(failure: Rejected, case: Case, timing: Timing) -> Verdict:
    if case.size > 1:
        return Verdict(Fate.SPLIT)
    is_last = case.was_held and not case.others_wait
    is_everything = case.refusals >= SINGLES_IN_A_ROW or (
        is_last and not case.others_succeeded and case.refused_batches >= BATCHES_IN_A_ROW
    )
    if is_everything:
        reason = f"everything is refused: {failure.sentence}"
        pause = Setback(reason, at_once=True, probe_s=timing.misconfigured_probe_s)
        return Verdict(Fate.HOLD, pause)
    return Verdict(Fate.BURY if case.others_succeeded or is_last else Fate.HOLD)


def _bug(case: Case) -> Verdict:
    if case.bugs + 1 < BUG_TRIES:
        return Verdict(Fate.HOLD, reason=Reason.BUG, tries=case.tries)
    return Verdict(Fate.SPLIT if case.size > 1 else Fate.BURY, reason=Reason.BUG)


def _until_tomorrow_s(now: datetime) -> float:
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    tomorrow_s = (today + timedelta(days=1) - now).total_seconds()
    # right after midnight it may still be yesterday for the vendor, whose clock is not ours
    return QUOTA_AGAIN_S if now - today < A_NEW_DAY else tomorrow_s + A_MOMENT_S
