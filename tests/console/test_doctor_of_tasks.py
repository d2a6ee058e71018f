"""`relay doctor` about work that is no stage's own: reconciling, polling, bulk jobs; and whom scores are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from pipeline import imports, keys
from pipeline.clock import DAY_MS, HOUR_MS, redis_now_ms
from pipeline.imports import Import, Kind
from pipeline.outcomes import Stage
from pipeline.pauses import pause as pause_stage
from tests.console.conftest import HOOK_TOKEN, Relay
from tests.console.test_command_doctor import diagnose

pytestmark = pytest.mark.anyio

SECRET = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"
URL = "https://crm.example.com/hooks/hidden-word"


@pytest.fixture
def own(relay_at_vendors: Relay, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Relay]:
    """Give a maker of the command with settings of its own."""

    def make(**settings: str) -> Relay:
        for name, value in settings.items():
            monkeypatch.setenv(name.upper(), value)
        return relay_at_vendors

    return make


# reconciling --------------------------------------------------------------------------------------------


async def begin(redis: Redis, name: str, **changed: Any) -> None:
    """Begin the import of a segment, and leave it as *changed*."""
    one, _ = await imports.take(redis, Import(Kind.SEGMENT, name, 10), "one")
    await imports.leave(redis, one, "one", **changed)


async def test_each_id_that_is_reconciled_is_told(own: Callable[..., Relay], redis: Redis) -> None:
    """When it was over last, that it is under way, or that nobody ever walked it."""
    now_ms = await redis_now_ms(redis)
    await begin(redis, "good", rows=7, finished_at_ms=now_ms)
    await begin(redis, "begun", rows=3)
    found = await diagnose(own(reconcile_segments="good,begun", reconcile_pixels="new"))
    assert found.state("reconciling segment good") == "ok"
    assert "7 rows" in found.text("reconciling segment good")
    assert found.state("reconciling segment begun") == "ok"
    assert "finished never; under way" in found.text("reconciling segment begun")
    assert found.state("reconciling pixel new") == "warn"
    assert "RECONCILE_PIXELS" in found.text("reconciling pixel new")


async def test_one_that_fails_is_bad_with_its_reason(
    own: Callable[..., Relay], redis: Redis
) -> None:
    """The error, until when it was put off, when it was over last, what to do; no token and no address of anybody."""
    await begin(redis, "wrong", finished_at_ms=1_767_225_600_000)
    again, _ = await imports.take(redis, Import(Kind.SEGMENT, "wrong", 10), "one", anew=True)
    words = f"not so, ada@example.com, with ?token={HOOK_TOKEN}."
    await imports.leave(redis, again, "one", error=words, again_at_ms=1_767_312_000_000)
    found = await diagnose(own(reconcile_segments="wrong"))
    told = found.text("reconciling segment wrong")
    assert found.state("reconciling segment wrong") == "bad"
    assert "last finished 2026-01-01T00:00:00.000Z; put off: not so, " in told
    assert "tried again at 2026-01-02T00:00:00.000Z" in told
    assert "`relay segments import wrong`" in told
    assert HOOK_TOKEN not in found.answer.out
    assert "ada@" not in found.answer.out


async def test_a_list_that_gave_less_than_it_told_of_is_a_warning(
    own: Callable[..., Relay], redis: Redis
) -> None:
    """Finished as short, or about to be: nobody can mend it, but somebody should know that rows may be missing."""
    now_ms = await redis_now_ms(redis)
    await begin(redis, "few", rows=90, total=100, short=1, finished_at_ms=now_ms)
    await begin(redis, "breaks", rows=90, error="it breaks off", breaks=2, again_at_ms=now_ms)
    found = await diagnose(own(reconcile_segments="few,breaks"))
    assert found.state("reconciling segment few") == "warn"
    assert "90 rows of the 100 that AudienceLab tells of" in found.text("reconciling segment few")
    assert found.state("reconciling segment breaks") == "warn"
    assert "after 3 tries it ends there" in found.text("reconciling segment breaks")


async def test_one_that_nobody_walks_any_more_is_told(
    own: Callable[..., Relay], redis: Redis
) -> None:
    """Two periods after it was begun the next walk should long have begun."""
    now_ms = await redis_now_ms(redis)
    for name, hours in (("late", 5), ("in-time", 3)):
        await begin(redis, name, finished_at_ms=now_ms, started_at_ms=now_ms - hours * HOUR_MS)
    found = await diagnose(own(reconcile_segments="late,in-time", reconcile_every_h="2"))
    assert found.state("reconciling segment late") == "warn"
    assert found.state("reconciling segment in-time") == "ok"


async def test_without_an_id_nothing_is_reconciled(own: Callable[..., Relay], redis: Redis) -> None:
    """What an operator imports by hand is nobody's to look after."""
    await begin(redis, "by-hand", error="no")
    found = await diagnose(own())
    assert found.state("reconciling") == "ok"
    assert "by-hand" not in found.answer.out


# polling ------------------------------------------------------------------------------------------------


async def put_off(redis: Redis) -> None:
    """Put polling off as a call that failed does."""
    since, until = 1_767_225_600_000, 1_767_312_000_000
    told = {"by": "relay", "reason": "check the path", "since_ms": since, "until_ms": until}
    await redis.hset(keys.PAUSED, "polling", orjson.dumps(told))
    await redis.hset(f"{keys.PREFIX}destination:polling", mapping={"failures": 1, "due": until})


async def test_polling_that_is_put_off_is_bad(own: Callable[..., Relay], redis: Redis) -> None:
    """Since when, why, and when the next call is."""
    assert "not begun" in (await diagnose(own())).text("polling of scores")
    await put_off(redis)
    found = await diagnose(own())
    assert found.state("polling of scores") == "bad"
    assert found.text("polling of scores").startswith(
        "put off since 2026-01-01T00:00:00.000Z: check the path; tried again at 2026-01-02"
    )


async def test_what_an_operator_has_paused_is_a_warning(
    own: Callable[..., Relay], redis: Redis
) -> None:
    """Imports and polling say why, and which command lifts it; paused by `relay pause`."""
    relay = own(reconcile_segments="one")
    for task in ("imports", "polling"):
        assert (await relay("pause", task, "--reason", "they asked")).status == 0
    found = await diagnose(relay)
    for check in ("reconciling", "polling of scores"):
        assert found.state(check) == "warn"
        assert found.text(check).startswith("paused by the operator since ")
        assert ": they asked; `relay resume " in found.text(check)
    assert (await relay("resume", "polling")).status == 0
    assert "paused" not in (await diagnose(relay)).text("polling of scores")


async def test_a_few_failures_of_polling_are_a_warning(
    own: Callable[..., Relay], redis: Redis
) -> None:
    """Before it is paused the number is told; without one, which walk it is."""
    await redis.hset(keys.POLL, "place", "1767225600000:end")
    found = await diagnose(own())
    assert found.state("polling of scores") == "ok"
    assert "2026-01-01T00:00:00.000Z is over" in found.text("polling of scores")
    await redis.hset(f"{keys.PREFIX}destination:polling", mapping={"failures": 3, "due": 5})
    found = await diagnose(own())
    assert found.state("polling of scores") == "warn"
    assert "3 calls failed" in found.text("polling of scores")


@pytest.mark.parametrize("why", ["pushed", "off"])
async def test_polling_that_nobody_needs_is_well(
    own: Callable[..., Relay], redis: Redis, why: str
) -> None:
    """Once scores are pushed, or it is switched off, what put it off before matters no more."""
    await put_off(redis)
    if why == "pushed":
        await redis.hset(keys.SENDERS, "scores:pushed:last", await redis_now_ms(redis))
    found = await diagnose(own(**({"score_poll_every_h": "0"} if why == "off" else {})))
    assert found.state("polling of scores") == "ok"
    assert why in found.text("polling of scores")


# bulk jobs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("days", "state"), [(1, "warn"), (8, "ok")])
async def test_bulk_jobs_that_were_given_up_are_told(
    own: Callable[..., Relay], redis: Redis, days: int, state: str
) -> None:
    """How many, of how many visitors, when the last one and why; for a week somebody should know of it."""
    found = await diagnose(own())
    assert found.state("bulk jobs") == "ok"
    assert "none was ever given up" in found.text("bulk jobs")
    last_ms = await redis_now_ms(redis) - days * DAY_MS
    told: dict[str, str | int] = {"jobs": 2, "visitors": 900, "last_ms": last_ms, "why": "no"}
    await redis.hset(keys.GIVEN_UP, mapping=told)
    await redis.zadd(keys.BULK, {"relay-1": 1e15})
    found = await diagnose(own())
    assert found.state("bulk jobs") == state
    assert "1 under way; 2 given up so far, of 900 visitors, the last at" in found.text("bulk jobs")


# score changes ------------------------------------------------------------------------------------------


async def test_whom_changes_are_told_is_shown_by_its_host(
    own: Callable[..., Relay], redis: Redis
) -> None:
    """Nobody; or a host, with how many keys; never the rest of the address, nor the secret."""
    assert "nobody hears" in (await diagnose(own())).text("setting SCORES_WEBHOOK_URL")
    found = await diagnose(own(scores_webhook_secret=SECRET))
    assert found.state("setting SCORES_WEBHOOK_URL") == "warn"
    found = await diagnose(own(scores_webhook_url=URL))
    assert found.state("setting SCORES_WEBHOOK_URL") == "ok"
    assert "https://crm.example.com, signed with one key" in found.answer.out
    assert "hidden-word" not in found.answer.out
    assert SECRET not in found.answer.out
    found = await diagnose(own(scores_webhook_url=URL.replace("https", "http")))
    assert found.state("setting SCORES_WEBHOOK_URL") == "warn"


async def test_how_the_telling_goes(own: Callable[..., Relay], redis: Redis) -> None:
    """What was told, waits and is dead; a pause of the relay's own is bad, with its reason."""
    relay = own(scores_webhook_secret=SECRET, scores_webhook_url=URL)
    assert (await diagnose(relay)).state("score changes") == "ok"
    await redis.hset(keys.BOOKS, mapping={"notify:in": 3, "notify:done": 1, "notify:dead": 2})
    found = await diagnose(relay)
    assert found.state("score changes") == "warn"
    assert "1 told, 0 wait, 2 are dead" in found.text("score changes")
    await pause_stage(redis, Stage.NOTIFY, "the CRM has no usable address", by="relay")
    found = await diagnose(relay)
    assert found.state("score changes") == "bad"
    assert "no usable address" in found.text("score changes")
    await pause_stage(redis, Stage.NOTIFY, "lunch")
    assert (await diagnose(relay)).state("score changes") == "warn"
