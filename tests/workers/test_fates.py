"""The table of fates: what `decide` says of every kind of failure, and how back-off grows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from pipeline.outcomes import Reason
from pipeline.scripts import script
from workers.clients.errors import CallFailed, Misconfigured, QuotaExceeded, Rejected, Unavailable
from workers.fates import Case, Fate, decide, last_line, same_words
from workers.timing import Timing

NOW = datetime(2026, 3, 1, 22, 30, tzinfo=UTC)
TIMING = Timing()
E500 = Unavailable("500", status=500)
E504 = Unavailable("504", status=504, maybe_stored=True)
E429 = Unavailable("429", status=429)
DOWN = Unavailable("no network")
BROKEN = Unavailable("reset", maybe_stored=True)
E403 = Misconfigured("403", status=403)
E405 = Misconfigured("405", status=405)
ODD = Unavailable("an answer without its keys", status=200)
E401 = Misconfigured("401", status=401)
E400 = Rejected("400", status=400)
BUG = ValueError("jane@example.com")
#: single items: one that failed again though others succeeded, and one of which all others have passed
STRUCK = Case(1, tries=3, was_held=True, others_succeeded=True)
LEFT = Case(1, tries=3, was_held=True, is_part=True)


@pytest.mark.parametrize(
    ("failure", "case", "fate"),
    [
        # the destination's fault: as it is, after three tries behind the others
        (E500, Case(30, tries=0), Fate.RETRY),
        (E500, Case(30, tries=2), Fate.HOLD),
        # a probe, while others wait to be the next one
        (E500, Case(30, tries=1, failures=1), Fate.RETRY),
        (E500, Case(30, tries=1, failures=1, others_wait=True), Fate.HOLD),
        (E500, Case(30, tries=1, others_wait=True), Fate.RETRY),
        (DOWN, Case(30, tries=1, failures=1, others_wait=True), Fate.RETRY),
        (E429, Case(30, tries=9, was_held=True, others_succeeded=True), Fate.HOLD),
        (DOWN, Case(30, tries=9, was_held=True, others_succeeded=True), Fate.HOLD),
        (E500, Case(1, tries=99, was_held=True), Fate.HOLD),
        (E500, Case(30, tries=3, was_held=True), Fate.SPLIT),
        (E500, Case(30, tries=3, was_held=True, others_held=True), Fate.HOLD),
        # others succeeded in between: strikes
        (E500, Case(30, tries=3, was_held=True, others_succeeded=True), Fate.SPLIT),
        (E504, Case(30, tries=3, was_held=True, others_succeeded=True), Fate.SPLIT),
        (E500, Case(1, tries=2, others_succeeded=True), Fate.HOLD),
        (E500, Case(1, tries=5, was_held=True, others_succeeded=True), Fate.HOLD),
        (E500, Case(1, tries=6, was_held=True, others_succeeded=True), Fate.BURY),
        (E403, Case(1, tries=6, was_held=True, others_succeeded=True), Fate.BURY),
        # the less well the vendor is, the more of them are wanted
        (E500, Case(9, tries=5, was_held=True, others_succeeded=True, unwell=0.5), Fate.HOLD),
        (E500, Case(9, tries=7, was_held=True, others_succeeded=True, unwell=0.5), Fate.SPLIT),
        (E500, Case(1, tries=20, was_held=True, others_succeeded=True, unwell=0.5), Fate.HOLD),
        (E500, Case(1, tries=22, was_held=True, others_succeeded=True, unwell=0.5), Fate.BURY),
        (E500, Case(1, tries=130, was_held=True, others_succeeded=True, unwell=0.9), Fate.HOLD),
        # what stands alone is struck once in a while only
        (E500, replace(STRUCK, tries=99, has_rested=False), Fate.HOLD),
        (
            E500,
            Case(9, tries=5, was_held=True, others_succeeded=True, has_rested=False),
            Fate.SPLIT,
        ),
        # of what it was split from, it is all that is left: the others have passed
        (E500, replace(LEFT, tries=6), Fate.HOLD),
        (E500, replace(LEFT, tries=7), Fate.BURY),
        (E403, replace(LEFT, tries=7), Fate.BURY),
        (E405, replace(LEFT, tries=7), Fate.BURY),
        (E401, replace(LEFT, tries=7), Fate.HOLD),
        (E429, replace(LEFT, tries=7), Fate.HOLD),
        (BROKEN, replace(LEFT, tries=7), Fate.HOLD),
        (E500, replace(LEFT, tries=7, unwell=0.5), Fate.HOLD),
        (E500, replace(LEFT, tries=99, has_rested=False), Fate.HOLD),
        (E500, replace(LEFT, tries=99, is_part=False), Fate.HOLD),
        (E500, replace(LEFT, tries=99, is_explained=True), Fate.HOLD),
        (E500, replace(LEFT, tries=99, others_held=True), Fate.HOLD),
        (E500, replace(LEFT, tries=99, others_wait=True), Fate.HOLD),
        # an answer that is none may be about one item, no answer is not
        (ODD, Case(1, tries=3, was_held=True), Fate.HOLD),
        (ODD, Case(1, tries=6, was_held=True, others_succeeded=True), Fate.BURY),
        (BROKEN, Case(9, tries=9, was_held=True, others_succeeded=True), Fate.SPLIT),
        (BROKEN, Case(1, tries=99, was_held=True, others_succeeded=True), Fate.HOLD),
        (
            BROKEN,
            Case(is_collective=True, tries=9, was_held=True, others_succeeded=True),
            Fate.BURY,
        ),
        # only held ones are left: one of them is parted
        (E500, Case(9, tries=3, was_held=True, others_held=True, is_parted=True), Fate.SPLIT),
        (E403, Case(9, tries=3, was_held=True, others_held=True, is_parted=True), Fate.SPLIT),
        # key or path
        (E401, Case(1), Fate.RETRY),
        (E401, Case(1, tries=99, was_held=True, others_succeeded=True), Fate.HOLD),
        (E405, Case(30, tries=3, was_held=True), Fate.SPLIT),
        (E405, Case(30, tries=3, was_held=True, others_wait=True), Fate.HOLD),
        (E405, Case(9, tries=3, was_held=True, others_held=True), Fate.HOLD),
        (E405, Case(9, tries=3, was_held=True, others_held=True, is_parted=True), Fate.SPLIT),
        (E405, Case(30, tries=3, was_held=True, others_succeeded=True), Fate.SPLIT),
        (E405, Case(1, tries=6, was_held=True, others_succeeded=True), Fate.BURY),
        (E403, Case(30, others_wait=True), Fate.HOLD),
        (E403, Case(30), Fate.SPLIT),
        (E403, Case(1), Fate.HOLD),
        (E403, Case(30, others_succeeded=True), Fate.SPLIT),
        (E403, Case(1, others_succeeded=True), Fate.HOLD),
        (E403, Case(1, tries=5, was_held=True, others_succeeded=True), Fate.HOLD),
        (E403, Case(1, tries=99, was_held=True), Fate.HOLD),
        # the item's fault
        (E400, Case(2), Fate.SPLIT),
        (E400, Case(1, others_succeeded=True, refusals=1), Fate.BURY),
        (E400, Case(1, refusals=1), Fate.HOLD),
        (E400, Case(1, was_held=True, refusals=1, refused_batches=1), Fate.BURY),
        (E400, Case(1, was_held=True, others_wait=True, refusals=1), Fate.HOLD),
        (E400, Case(1, was_held=True, refusals=2, refused_batches=2), Fate.HOLD),
        (E400, Case(1, others_succeeded=True, refusals=20), Fate.HOLD),
        # ours: three tries of its own, whatever failed before
        (BUG, Case(30), Fate.HOLD),
        (BUG, Case(30, bugs=2), Fate.SPLIT),
        (BUG, Case(1, bugs=1), Fate.HOLD),
        (BUG, Case(1, bugs=2), Fate.BURY),
        (BUG, Case(1, tries=99, was_held=True, others_succeeded=True), Fate.HOLD),
        (E500, Case(1, bugs=2), Fate.RETRY),
    ],
)
def test_the_table(failure: Exception, case: Case, fate: Fate) -> None:
    """Each failure and what is known about its batch give one fate."""
    assert decide(failure, case, TIMING, NOW).fate is fate


@pytest.mark.parametrize("failure", [E500, E504, E429, DOWN, E401, E403])
@pytest.mark.parametrize("tries", [0, 3, 50])
@pytest.mark.parametrize("was_held", [True, False])
def test_an_outage_never_buries(failure: CallFailed, tries: int, *, was_held: bool) -> None:
    """Without a success of others since the last failure nothing but a refusal is ever buried."""
    for size in (1, 2, 30):
        case = Case(size, tries=tries, was_held=was_held)
        verdict = decide(failure, case, TIMING, NOW)
        assert verdict.fate is not Fate.BURY
        assert verdict.setback is not None


def test_the_same_words_are_the_same_whatever_call_they_are_about() -> None:
    """A reference or a position of its own makes no refusal another one; other words or another status do."""
    first = same_words(Rejected("no: event 3 (ref. 7f-3a9)", status=400))
    assert same_words(Rejected("no: event 12 (ref. 0c-81b)", status=400)) == first
    assert same_words(Rejected("never: event 3 (ref. 7f-3a9)", status=400)) != first
    assert same_words(Rejected("no: event 3 (ref. 7f-3a9)", status=422)) != first


def test_a_held_probe_keeps_count_of_its_failures() -> None:
    """A batch that made room for another one, as a probe, is split at its third failure as it would have been."""
    verdict = decide(E500, Case(30, tries=1, failures=1, others_wait=True), TIMING, NOW)
    assert (verdict.fate, verdict.tries) == (Fate.HOLD, 2)
    again = decide(E500, Case(30, tries=2, was_held=True, failures=1), TIMING, NOW)
    assert again.fate is Fate.SPLIT


def test_what_is_left_alone_is_asked_about_soon() -> None:
    """A 403 that may be of one last item is not probed as slowly as a wrong key: a second, not a minute."""
    for case, probe_s in ((LEFT, TIMING.probe_min_s), (Case(1, was_held=True), 60.0)):
        setback = decide(E403, case, TIMING, NOW).setback
        assert setback is not None
        assert (setback.at_once, setback.probe_s) == (True, probe_s)


def test_a_quota_waits_for_the_next_utc_day_or_retry_after() -> None:
    """Without `Retry-After` nothing more is tried before midnight UTC, wherever the clock stands."""
    here = NOW.astimezone()
    verdict = decide(QuotaExceeded("quota", status=429), Case(), TIMING, here)
    assert verdict.setback is not None
    assert verdict.setback.at_least_s == timedelta(hours=1, minutes=30, seconds=1).total_seconds()
    told = QuotaExceeded("quota", status=429, retry_after_s=7.0)
    assert decide(told, Case(), TIMING, NOW).setback.at_least_s == 7.0  # type: ignore[union-attr]


def test_a_quota_that_is_used_up_right_after_midnight_may_be_yesterdays() -> None:
    """The vendor's clock may be behind ours: it is asked again within minutes, not a day later."""
    midnight = datetime(2026, 1, 2, tzinfo=UTC)
    for late_s, wait_s in ((1, 600), (1_790, 600), (1_800, 84_601)):
        now = midnight + timedelta(seconds=late_s)
        verdict = decide(QuotaExceeded("quota", status=429), Case(), TIMING, now)
        assert verdict.setback is not None
        assert verdict.setback.at_least_s == wait_s


def test_a_first_403_is_probed_soon_when_something_else_can_tell() -> None:
    """Key or firewall: another batch shows within a second; after that once a minute."""
    soon = decide(E403, Case(30, others_wait=True), TIMING, NOW).setback
    later = decide(E403, Case(30, others_wait=True, failures=1), TIMING, NOW).setback
    assert soon is not None
    assert later is not None
    assert (soon.probe_s, later.probe_s) == (TIMING.probe_min_s, TIMING.misconfigured_probe_s)
    assert soon.at_once
    assert later.at_once


@pytest.mark.parametrize("tries", [0, 2, 7])
def test_a_bug_leaves_the_other_failures_as_they_were(tries: int) -> None:
    """A batch held for a bug of ours goes on with the failures of the vendor's that it had."""
    assert decide(BUG, Case(tries=tries), TIMING, NOW).tries == tries


def test_a_bug_says_so_without_personal_data() -> None:
    """The dead letter's reason is `bug`, its error the traceback's last line, masked."""
    assert decide(BUG, Case(bugs=2), TIMING, NOW).reason is Reason.BUG
    assert last_line(BUG) == "ValueError: [address]"


@pytest.mark.anyio
async def test_backoff_grows_with_full_jitter_then_pauses(redis: Redis) -> None:
    """Delays double from the base to the cap; the fifth failure in a row pauses and probes."""
    setback = script(redis, "setback")
    told = []
    for _ in range(7):
        batch: list[str | float] = ["forward", "me", "", "", 0]
        args = [*batch, 1.0, 200, 1000, 0, 5, 2000, 5000, "down", 0, 0]
        told.append(await setback(args=args))
        await redis.hset("{relay}:destination:forward", "due", 0)
    assert told == [[200, 0], [400, 0], [800, 0], [1000, 0], [2000, 1], [4000, 1], [5000, 1]]
