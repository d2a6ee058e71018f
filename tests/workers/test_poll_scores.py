"""Polling of scores: subscribed addresses are asked about while nothing is pushed, behind all other calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest
from redis.exceptions import ResponseError

from pipeline import forgetting, keys, pauses, polls, visitors
from pipeline.addresses import digest
from pipeline.endpoints import Endpoint
from pipeline.outcomes import Person, Stage
from pipeline.scripts import script
from sandbox.faults import broken, firewalled, poisoned, refused_alike, slow, throttled
from tests.pipeline.work import use_up
from tests.workbench import PATIENCE_S, QUICK, Workbench, mail_events
from tests.workers.endpoints import outcomes
from tests.workers.test_enrich import named, score_of, see
from workers import poll_scores
from workers.poll_scores import QUIET_MS, SHARE, keep_polling

pytestmark = pytest.mark.anyio

MakeBench = Callable[..., Workbench]
POLL = replace(QUICK, poll_s=0.02, poll_lease_s=30.0)
MAIL = "ada@example.com"
DESTINATION = f"{keys.PREFIX}destination:polling"


@pytest.fixture
def make_polling(make_bench: MakeBench) -> MakeBench:
    """Give a maker of relays that poll; keywords are settings."""

    def make(**changed: object) -> Workbench:
        bench = make_bench(**{"email_format": "plain", **changed})
        bench.timing = POLL
        return bench

    return make


@pytest.fixture
def polling(make_polling: MakeBench) -> Workbench:
    """Give a relay that polls, and sends plain addresses, which are easier to compare."""
    return make_polling()


async def subscribed(bench: Workbench, *mails: str) -> None:
    """Let somebody with each of *mails* be subscribed, by a worker that does not poll."""
    timing, bench.timing = bench.timing, QUICK
    for start in range(0, len(mails), 9):
        await see(bench, *(named(mail, f"U-{mail}") for mail in mails[start : start + 9]))
    await bench.work_until(bench.is_idle)
    bench.timing = timing


def asked(bench: Workbench) -> list[str]:
    """Return every address that was asked about, in the order of the calls."""
    return [each for call in bench.box.memory.score_requests for each in call["emailAddresses"]]


async def place(bench: Workbench) -> str:
    """Return where the walk stands."""
    return (await bench.redis.hget(keys.POLL, "place") or b"").decode()


async def is_over(bench: Workbench) -> bool:
    """Tell whether the walk is over and what it found is kept."""
    return (await place(bench)).endswith(":end") and await bench.is_idle()


async def walk(bench: Workbench) -> None:
    """Walk once over everybody, whenever the last walk was."""
    await bench.redis.hdel(keys.POLL, "place")
    await bench.work_until(lambda: is_over(bench))


async def scores_of(bench: Workbench, mail: str) -> dict[str, str]:
    """Return the scores that are kept with whoever has *mail*."""
    visitor = await visitors.find(bench.redis, mail)
    assert visitor is not None
    return visitor.scores


@pytest.mark.parametrize("email_format", ["plain", "sha256"])
async def test_what_is_asked_is_kept_with_the_visitor(
    make_polling: MakeBench, email_format: str
) -> None:
    """Subscribed addresses are asked about as they leave; all fields of the model are kept, changes counted."""
    bench = make_polling(email_format=email_format)
    await subscribed(bench, MAIL)
    bench.box.settings.change_scores(MAIL, score="5", send_time="10")
    await walk(bench)
    assert asked(bench) == [MAIL if email_format == "plain" else digest(MAIL)]
    kept = await scores_of(bench, MAIL)
    assert kept.keys() == score_of(MAIL).keys() - {"emailAddress"}
    assert (kept["score"], kept["send_time"], kept["matched"]) == ("5", "10", "yes")
    assert await bench.row(Stage.SCORES) == {"in": 1, "done": 1}
    await bench.assert_balanced()


async def test_only_changes_go_through_the_stage(polling: Workbench) -> None:
    """What is as it was costs a call and nothing else; what has changed is one more change."""
    await subscribed(polling, MAIL, "b@example.com")
    for mail in (MAIL, "b@example.com"):
        polling.box.settings.change_scores(mail, score="5")
    for _ in range(2):
        await walk(polling)
    polling.box.settings.change_scores(MAIL, score="1")
    await walk(polling)
    assert len(asked(polling)) == 6
    assert await polling.row(Stage.SCORES) == {"in": 3, "done": 3}
    assert (await scores_of(polling, MAIL))["score"] == "1"


async def test_two_addresses_of_one_visitor_do_not_take_turns(make_polling: MakeBench) -> None:
    """Each is compared with what it was answered last, not with what the other one left."""
    bench = make_polling(subscribe="all")
    both = ["a@example.com", "b@example.com"]
    await see(bench, Person(uuid="U", personal_emails=both, fields={"FIRST_NAME": "A"}))
    await bench.work_until(bench.is_idle)
    for number, mail in enumerate(both):
        bench.box.settings.change_scores(mail, score=str(number))
    for _ in range(3):
        await walk(bench)
    assert sorted(asked(bench)) == sorted(both * 3)
    assert await bench.row(Stage.SCORES) == {"in": 2, "done": 2}


async def test_addresses_are_asked_about_in_thirties_once_a_walk(polling: Workbench) -> None:
    """Whoever is not subscribed is not asked about; the next walk waits for its time."""
    mails = [f"p{n}@example.com" for n in range(63)]
    await subscribed(polling, *mails)
    await polling.redis.hset(keys.address(digest(mails[0])), "subscription", "dead")
    await walk(polling)
    sizes = [len(call["emailAddresses"]) for call in polling.box.memory.score_requests]
    assert sorted(sizes, reverse=True) == [30, 30, 2]
    assert sorted(asked(polling)) == sorted(mails[1:])

    await polling.work_until(lambda: _rests(polling))
    assert len(asked(polling)) == 62
    began = int((await place(polling)).split(":")[0])
    await polling.redis.hset(keys.POLL, "place", f"{began - 24 * 3_600_000}:end")
    await polling.work_until(lambda: len(asked(polling)) == 124)


async def _rests(bench: Workbench) -> bool:
    args: list[str | float] = ["audiencepoint", 0, 2, 5, QUIET_MS, 86_400_000, 1]
    return bool((await script(bench.redis, "poll")(args=args))[0] == b"rest")


async def test_scores_that_are_typed_or_in_another_order_are_kept(polling: Workbench) -> None:
    """Each object finds its address by name; numbers and truths become the model's texts."""
    mails = [MAIL, "b@example.com"]
    await subscribed(polling, *mails)
    polling.box.settings.scores_reversed = polling.box.settings.scores_typed = True
    for number, mail in enumerate(mails):
        polling.box.settings.change_scores(mail, score=str(number))
    await walk(polling)
    assert [(await scores_of(polling, mail))["score"] for mail in mails] == ["0", "1"]
    assert (await scores_of(polling, MAIL))["last_seen_auto_open"] == "FALSE"


@pytest.mark.parametrize("matched", ["err", "invalid", None])
async def test_an_address_without_an_answer_changes_nothing(
    polling: Workbench, matched: str | None
) -> None:
    """The vendor's trouble with an address, or its leaving one out, is nobody's score."""
    await subscribed(polling, MAIL)
    left_out: dict[str, Any] = {MAIL: None if matched is None else {"matched": matched}}
    polling.box.settings.scores = left_out
    await walk(polling)
    assert asked(polling) == [MAIL]
    assert await polling.row(Stage.SCORES) == {}
    assert await scores_of(polling, MAIL) == {}


async def test_whom_nobody_has_seen_is_known_so(polling: Workbench) -> None:
    """`no` is an answer, as when it is pushed."""
    await subscribed(polling, MAIL)
    await walk(polling)
    assert await scores_of(polling, MAIL) == {"matched": "no"}


# when it rests -----------------------------------------------------------------------------------


async def test_its_calls_are_counted(polling: Workbench) -> None:
    """Under its own name, with what they came to."""
    await subscribed(polling, MAIL)
    polling.box.faults.add(broken("scores", times=1))
    await walk(polling)
    made = polling.box.memory.calls_to("scores")
    assert await outcomes(polling, Endpoint.POLLING) == {"ok": made - 1, "failed": 1}


async def test_an_operator_can_pause_it(polling: Workbench) -> None:
    """Nobody is asked, and the place stays, until it is resumed; the relay's own pause is none of that kind."""
    await subscribed(polling, MAIL)
    await walk(polling)
    at_begin = (await place(polling)).partition(":")[
        0
    ] + ":0"  # of today: when it is over, none is due
    await polling.redis.hset(keys.POLL, "place", at_begin)
    await pauses.pause(polling.redis, Endpoint.POLLING, "they asked us to")
    assert (await _looked(polling))[0] == b"rest"
    async with polling.at_work():
        await polling.until(lambda: polling.redis.exists(keys.POLLING))
        await polling.put("events", mail_events(3))
        await polling.until(polling.is_idle)
    assert (asked(polling), await place(polling)) == ([MAIL], at_begin)
    assert await pauses.resume(polling.redis, Endpoint.POLLING)
    await polling.work_until(lambda: is_over(polling))
    assert asked(polling) == [MAIL, MAIL]
    await pauses.pause(polling.redis, Endpoint.POLLING, "it failed", by="relay")
    await polling.redis.hset(keys.POLL, "place", "1000:0")
    assert (await _looked(polling))[0] == b"go"


async def test_nothing_is_asked_for_within_a_week_of_a_push(polling: Workbench) -> None:
    """A walk does not even begin, also when the last one was long ago; then it does."""
    await subscribed(polling, MAIL)
    await polling.put("scores", orjson.dumps([score_of(MAIL)]))
    await polling.work_until(polling.is_idle)
    pushed = int(await polling.redis.hget(keys.SENDERS, "scores:pushed:last") or 0)
    for long_ago in ("", "1000:end"):
        if long_ago:
            await polling.redis.hset(keys.POLL, "place", long_ago)
        state, ms, stands_at = await _looked(polling)
        assert (state, stands_at) == (b"rest", b"")
        assert QUIET_MS - 600_000 < int(ms) <= QUIET_MS
    await polling.redis.hset(keys.SENDERS, "scores:pushed:last", pushed - QUIET_MS)
    assert (await _looked(polling))[0] == b"go"


async def _looked(bench: Workbench) -> list[bytes]:
    args: list[str | float] = ["audiencepoint", 0, 2, 5, QUIET_MS, 86_400_000, 0]
    looked: list[bytes] = await script(bench.redis, "poll")(args=args)
    return looked


async def test_a_worker_takes_a_fifth_of_the_rate_for_it(make_polling: MakeBench) -> None:
    """After one of its calls the vendor may be called again after one gap, and for scores after five."""
    await subscribed(make_polling(), MAIL)
    bench = make_polling(audiencepoint_rate=10)
    await bench.work_until(lambda: asked(bench) == [MAIL])
    others, own = [
        float(await bench.redis.hget(f"{keys.PREFIX}rate:{name}", "next") or 0)
        for name in ("audiencepoint", "audiencepoint:polling")
    ]
    assert own - others == pytest.approx(4 * 100)


async def test_a_push_ends_it_and_a_week_of_silence_begins_it_again(polling: Workbench) -> None:
    """Nothing is asked for while scores are pushed."""
    await subscribed(polling, MAIL)
    await polling.put("scores", orjson.dumps([score_of("b@example.com")]))
    await polling.work_until(polling.is_idle)
    assert await _rests(polling)
    asked_before = len(asked(polling))

    last = int(await polling.redis.hget(keys.SENDERS, "scores:pushed:last") or 0)
    await polling.redis.hset(keys.SENDERS, "scores:pushed:last", last - QUIET_MS)
    await walk(polling)
    assert len(asked(polling)) == asked_before + 1


@pytest.mark.parametrize("body", [b'{"hello":"world"}', b"[]", b"no JSON"])
async def test_what_holds_no_score_is_no_push(polling: Workbench, body: bytes) -> None:
    """Somebody who tries the address out does not end it: only a score that arrived does."""
    await subscribed(polling, MAIL)
    await polling.put("scores", body)
    await polling.work_until(polling.is_idle)
    assert await polling.redis.hexists(keys.SENDERS, "scores:last")
    await walk(polling)
    assert set(asked(polling)) == {MAIL}


@pytest.mark.parametrize(
    "changed", [{"score_poll_every_h": 0}, {"audiencepoint_api_key": None}], ids=str
)
async def test_it_can_be_switched_off(make_polling: MakeBench, changed: dict[str, object]) -> None:
    """With SCORE_POLL_EVERY_H=0, and without AudiencePoint's key, the task ends at once and leaves no walk behind."""
    bench = make_polling(**changed)
    async with bench.at_work() as worker, asyncio.timeout(PATIENCE_S):
        await keep_polling(worker.ctx["context"])
    assert await place(bench) == ""


@pytest.mark.parametrize("queue", ["batches", "held"])
@pytest.mark.parametrize("stage", [Stage.FORWARD, Stage.SUBSCRIBE])
async def test_it_waits_for_what_forward_and_subscribe_have_to_send(
    polling: Workbench, stage: Stage, queue: str
) -> None:
    """A call may be made once nothing there is ready to be sent, or what is ready is kept by a pause."""
    await subscribed(polling, MAIL)
    await polling.redis.xadd(keys.queue(f"{stage}:{queue}"), {"p": "x", "m": "y"})
    args: list[str | float] = ["audiencepoint", 0, 2, 5, QUIET_MS, 86_400_000, 1]
    assert (await script(polling.redis, "poll")(args=args))[0] == b"wait"
    await pauses.pause(polling.redis, stage, "lunch")
    assert (await script(polling.redis, "poll")(args=args))[0] == b"go"
    await pauses.resume(polling.redis, stage)
    for name in (keys.batches(stage), keys.held(stage)):  # resuming lets what is held go on
        await polling.redis.xtrim(keys.queue(name), 0)
    assert (await script(polling.redis, "poll")(args=args))[0] == b"go"


async def test_events_that_ripen_do_not_keep_it_waiting(make_polling: MakeBench) -> None:
    """Steady light traffic always has something that waits for a batch to fill: addresses are asked about beside it."""
    await subscribed(make_polling(), MAIL)
    bench = make_polling(forward_max_wait_s=60)
    await bench.put("events", mail_events(3))
    async with bench.at_work():
        await bench.until(lambda: asked(bench) == [MAIL])
        assert await bench.count(Stage.FORWARD, "waiting") == 3


async def test_it_takes_a_fifth_of_the_rate_after_all_others(polling: Workbench) -> None:
    """One of its calls keeps it from the next for five gaps, and others for one; whoever waits goes first."""
    args: list[str | float] = ["audiencepoint", 60_000, 2, 5, QUIET_MS, 86_400_000, 1]
    poll, turn = script(polling.redis, "poll"), script(polling.redis, "turn")
    assert (await poll(args=args))[0] == b"go"
    state, ms, _ = await poll(args=args)
    assert state == b"wait"
    assert 240_000 < ms <= 300_000
    assert 0 < await turn(args=["audiencepoint", 60_000, 0]) <= 60_000
    await polling.redis.delete(f"{keys.PREFIX}rate:audiencepoint:polling")
    await polling.redis.hset(f"{keys.PREFIX}rate:audiencepoint", "next", 1)
    assert (await poll(args=args))[0] == b"wait"  # rank 0 waits for this call
    assert await turn(args=["audiencepoint", 60_000, 0]) == 0


async def test_one_worker_polls_and_another_goes_on_when_it_is_gone(polling: Workbench) -> None:
    """While somebody has the lease nobody else asks; a worker that stops gives it back."""
    await subscribed(polling, MAIL)
    await polling.redis.set(keys.POLLING, "somebody", px=300)
    await walk(polling)
    assert asked(polling) == [MAIL]
    assert not await polling.redis.exists(keys.POLLING)


# failing -------------------------------------------------------------------------------------------


async def test_an_outage_is_waited_for_and_stops_nobody_else(polling: Workbench) -> None:
    """The place is kept, other stages go on, nothing is dead; afterwards the walk goes on where it was."""
    await subscribed(polling, MAIL)
    polling.box.settings.change_scores(MAIL, score="5")
    polling.box.faults.add(broken("scores"))
    async with polling.at_work():
        await polling.until(lambda: polling.box.memory.calls_to("scores") >= 6)
        await polling.put("events", mail_events(3))
        await polling.until(polling.is_idle)
        assert not (await place(polling)).endswith(":end")
        assert await polling.redis.hexists(keys.PAUSED, "polling")
        polling.box.faults.clear()
        await polling.until(lambda: is_over(polling))
    assert not await polling.redis.hexists(keys.PAUSED, "polling")
    assert (await scores_of(polling, MAIL))["score"] == "5"
    assert await polling.dead() == []
    assert [await polling.pause(stage) for stage in Stage if stage is not Stage.NOTIFY] == [
        None
    ] * 5


async def test_a_wrong_path_pauses_the_polling_only(
    make_polling: MakeBench, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the setting; no stage is paused, and nothing is asked before the next probe."""
    bench = make_polling(audiencepoint_scores_path="/nowhere")
    bench.timing = replace(POLL, misconfigured_probe_s=60.0)
    await subscribed(bench, MAIL)
    await bench.work_until(lambda: _is_put_off(bench))
    assert "AUDIENCEPOINT_SCORES_PATH" in caplog.text
    assert "polling" in caplog.text
    assert not await bench.is_paused(Stage.SUBSCRIBE)
    assert not await bench.is_paused(Stage.FORWARD)


async def _is_put_off(bench: Workbench) -> bool:
    return bool(await bench.redis.hexists(DESTINATION, "due"))


async def test_a_429_halves_the_rate_of_all(make_polling: MakeBench) -> None:
    """The poll shares AudiencePoint's rate, so what it is told holds for everybody; it goes on all the same."""
    polling = make_polling(audiencepoint_rate=500)
    await subscribed(polling, MAIL)
    polling.box.faults.add(throttled("scores", times=1))
    await walk(polling)
    share = await polling.redis.hget(keys.pace("audiencepoint"), "share")
    assert 0.5 <= float(share) < 0.51


async def test_one_address_that_is_refused_is_left_out(polling: Workbench) -> None:
    """Halves find it; all others are answered, and the walk ends."""
    mails = [f"p{n}@example.com" for n in range(8)]
    await subscribed(polling, *mails)
    polling.box.faults.add(poisoned("scores", mails[3]))
    await walk(polling)
    assert sorted(asked(polling)) == sorted(mail for mail in mails if mail != mails[3])
    assert await polling.row(Stage.SCORES) == {"in": 7, "done": 7}


async def test_one_address_that_breaks_the_call_is_left_out(polling: Workbench) -> None:
    """A 500 that follows one address is found by halves, and stops neither the walk nor the polling."""
    mails = [f"p{n}@example.com" for n in range(8)]
    await subscribed(polling, *mails)
    polling.box.faults.add(replace(poisoned("scores", mails[3]), status=500))
    await walk(polling)
    assert await polling.row(Stage.SCORES) == {"in": 7, "done": 7}
    assert not await polling.redis.hexists(keys.PAUSED, "polling")


async def test_when_everything_is_refused_it_is_put_off(
    polling: Workbench, caplog: pytest.LogCaptureFixture
) -> None:
    """A few refusals with no answer between them are a setting's fault, not the addresses'."""
    polling.timing = replace(POLL, misconfigured_probe_s=60.0)
    await subscribed(polling, *(f"p{n}@example.com" for n in range(9)))
    polling.box.faults.add(refused_alike("scores", "not today"))
    await polling.work_until(lambda: _is_put_off(polling))
    assert "everything is refused" in caplog.text
    assert not (await place(polling)).endswith(":end")


async def test_a_firewall_is_a_wrong_key_to_it(polling: Workbench) -> None:
    """A 403 puts it off for a minute and nothing is lost."""
    polling.timing = replace(POLL, misconfigured_probe_s=60.0)
    await subscribed(polling, MAIL)
    polling.box.faults.add(firewalled("scores", MAIL))
    await polling.work_until(lambda: _is_put_off(polling))
    assert not (await place(polling)).endswith(":end")


async def test_a_refusal_is_no_call_that_went_well(polling: Workbench) -> None:
    """What stopped the polling is over with an answer only: an address that is left out lifts no pause."""
    await subscribed(polling, MAIL)
    pause = {"by": "relay", "reason": "no answer", "since_ms": 1, "until_ms": 2}
    await polling.redis.hset(keys.PAUSED, "polling", orjson.dumps(pause))
    polling.box.faults.add(refused_alike("scores", "not today"))
    await walk(polling)
    assert await polling.redis.hexists(keys.PAUSED, "polling")
    polling.box.faults.clear()
    await walk(polling)
    assert not await polling.redis.hexists(keys.PAUSED, "polling")


async def test_a_fault_of_ours_is_put_off_as_a_call_is(polling: Workbench) -> None:
    """The same page would trip the code again: it is asked for ever more seldom, and the reason is told."""
    await subscribed(polling, MAIL)
    visitor = await visitors.find(polling.redis, MAIL)
    assert visitor is not None
    kept = visitor.document()
    spoilt = orjson.dumps({**orjson.loads(kept), "scores": [1]})
    await polling.redis.hset(keys.visitor(visitor.id), "document", spoilt)
    await polling.redis.hdel(keys.POLL, "place")
    async with polling.at_work():
        await polling.until(lambda: polling.redis.hexists(keys.PAUSED, "polling"))
        pause = (await polls.read(polling.redis)).pause
        assert pause is not None
        assert "TypeError" in str(pause["reason"])
        await polling.redis.hset(keys.visitor(visitor.id), "document", kept)
        await polling.until(lambda: is_over(polling))


async def test_nobody_is_asked_what_could_not_be_kept(polling: Workbench) -> None:
    """A full server refuses the call that is to be made, and uses up no call of the rate."""
    redis = polling.redis
    args: list[str | float] = ["audiencepoint", 1000, 2, 5, QUIET_MS, 86_400_000, 1]
    limit = (await redis.config_get("maxmemory"))["maxmemory"]
    await redis.hset(keys.POLL, "place", "99999999999999:0")
    await redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(ResponseError):
            await script(redis, "poll")(args=args)
    finally:
        await redis.config_set("maxmemory", limit)
    assert not await redis.exists(f"{keys.PREFIX}rate:audiencepoint")
    assert (await script(redis, "poll")(args=args))[0] == b"go"


# in between ----------------------------------------------------------------------------------------


async def test_a_stop_gives_the_call_up_and_the_next_worker_asks_again(polling: Workbench) -> None:
    """A call that hangs does not keep the worker from stopping, and nothing is counted twice."""
    await subscribed(polling, MAIL)
    polling.box.settings.change_scores(MAIL, score="5")
    polling.box.faults.add(slow("scores", 20.0, times=1))
    async with polling.at_work():
        await polling.until(lambda: bool(asked(polling)))
    await polling.work_until(lambda: is_over(polling))
    assert asked(polling) == [MAIL, MAIL]
    assert await polling.row(Stage.SCORES) == {"in": 1, "done": 1}


async def test_the_walk_goes_on_where_it_was(
    polling: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next worker asks only about whom the last one left; a page of a few may be asked about twice."""
    monkeypatch.setattr(poll_scores, "PAGE", 1)
    monkeypatch.setattr(poll_scores, "MOST_ADDRESSES", 1)
    mails = [f"p{n}@example.com" for n in range(18)]
    small = (await polling.redis.config_get("zset-max-ziplist-entries")).popitem()[1]
    await polling.redis.config_set("zset-max-ziplist-entries", 0)
    try:
        await subscribed(polling, *mails)
        async with polling.at_work():
            await polling.until(lambda: len(asked(polling)) >= 3)
            await polling.redis.hincrby(keys.BOOKS, "forward:waiting", 1)
        assert not (await place(polling)).endswith((":0", ":end"))
        await polling.redis.hincrby(keys.BOOKS, "forward:waiting", -1)
        await polling.work_until(lambda: is_over(polling))
    finally:
        await polling.redis.config_set("zset-max-ziplist-entries", small)
    largest = max(len(call["emailAddresses"]) for call in polling.box.memory.score_requests)
    assert set(asked(polling)) == set(mails)
    assert len(asked(polling)) <= len(mails) + largest < 2 * len(mails)
    assert await polling.row(Stage.SCORES) == {"in": 18, "done": 18}


async def test_what_was_handed_over_is_not_handed_over_again(polling: Workbench) -> None:
    """The script run twice, at the same place or after it, changes nothing more."""
    await subscribed(polling, MAIL)
    await polling.redis.set(keys.POLLING, "one")
    await polling.redis.hset(keys.POLL, "place", "5:0")
    change = orjson.dumps({"email": MAIL, "scores": {"score": "5"}})
    polled = script(polling.redis, "polled")

    async def hand_over(after: str) -> int:
        args: list[str | bytes | int] = ["one", "5:0", after, 1, "scores|5|o|", 6]
        for mail in (MAIL, "nobody@example.com"):
            args += (digest(mail), "mark", change)
        done, _ = await polled(args=args)
        return int(done)

    assert [await hand_over("5:0"), await hand_over("5:0")] == [1, 1]
    assert [await hand_over("5:end"), await hand_over("5:end")] == [1, 0]
    assert await polling.row(Stage.SCORES) == {"in": 1, "waiting": 1}
    await polling.assert_balanced()


async def test_who_is_forgotten_is_not_asked_about(make_polling: MakeBench) -> None:
    """Also when it happens while the walk waits for its turn."""
    await subscribed(make_polling(), MAIL, "b@example.com")
    bench = make_polling(audiencepoint_rate=1000)
    bench.timing = replace(POLL, poll_lease_s=4.0)  # whoever waits looks again in a fourth of it
    await use_up(bench.redis, "audiencepoint:polling", SHARE)
    async with bench.at_work():
        await bench.until(lambda: _has_begun(bench))
        await forgetting.forget(bench.redis, MAIL)
        for name in ("pace", "rate"):
            await bench.redis.delete(f"{keys.PREFIX}{name}:audiencepoint:polling")
        await bench.until(lambda: is_over(bench))
    assert asked(bench) == ["b@example.com"]
    assert await visitors.find(bench.redis, MAIL) is None


async def _has_begun(bench: Workbench) -> bool:
    return (await place(bench)).endswith(":0")
