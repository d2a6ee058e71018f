"""Verify: each plain address once before it is subscribed, whatever ends in between; who is unwanted is ignored."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest

from pipeline import dead_letters, forgetting, keys, paces, pauses, verifications, visitors
from pipeline.addresses import digest
from pipeline.clock import redis_now_ms
from pipeline.endpoints import Endpoint
from pipeline.outcomes import Person, Stage
from sandbox.faults import Fault, broken, poisoned, refused_alike, slow, throttled
from tests.workbench import Workbench
from tests.workers.endpoints import calls_of, outcomes
from tests.workers.test_enrich import named, see
from workers.clients.http import DEADLINE_S
from workers.timing import Timing

pytestmark = pytest.mark.anyio

MakeBench = Callable[..., Workbench]
FORMATS = pytest.mark.parametrize("email_format", ["plain", "sha256"])
EVERY_RESULT = ["verified", "invalid", "spamtrap", "role", "caution", "abandoned", "somebody"]


def addresses(*words: str) -> list[str]:
    """Return an address for each of *words*, by which the stand-in judges it."""
    return [f"{word}.1@example.com" for word in words]


async def see_all(bench: Workbench, *mails: str) -> None:
    """Queue a sighting of somebody with each of *mails*."""
    await see(bench, *(named(mail, f"U-{mail}") for mail in mails))


@pytest.fixture
def verifying(make_bench: MakeBench) -> Workbench:
    """Give a relay that verifies, and sends plain addresses, which are easier to compare."""
    return make_bench(email_format="plain", verify="before_subscribe")


def test_a_probe_outlives_all_that_is_done_in_it() -> None:
    """A batch may be verified for a while before its call: until both are over no second probe begins."""
    timing = Timing()
    assert timing.probe_lease_s > timing.verify_s + DEADLINE_S


async def subscription(bench: Workbench, mail: str) -> bytes | None:
    """Return what is kept of the subscription of *mail*."""
    kept: bytes | None = await bench.redis.hget(keys.address(digest(mail)), "subscription")
    return kept


@FORMATS
async def test_invalid_and_spamtrap_are_not_subscribed(
    make_bench: MakeBench, email_format: str
) -> None:
    """All other results are; each address is asked about in plain, once, by POST, and leaves as EMAIL_FORMAT says."""
    bench = make_bench(email_format=email_format, verify="before_subscribe")
    mails = addresses(*EVERY_RESULT)
    await see_all(bench, *mails)
    await bench.work_until(bench.is_idle)

    memory, unwanted = bench.box.memory, addresses("invalid", "spamtrap")
    assert sorted(memory.verified) == sorted(mails)
    assert memory.counts["verified_by_get"] == 0
    wanted = {mail for mail in mails if mail not in unwanted}
    as_they_leave = wanted if email_format == "plain" else {digest(mail) for mail in wanted}
    assert set(memory.addresses) == as_they_leave
    assert await bench.row(Stage.SUBSCRIBE) == {"in": 7, "done": 5, "ignored": 2}
    assert [await subscription(bench, mail) for mail in unwanted] == [None, None]
    await bench.assert_balanced()


async def test_off_verifies_nobody(bench: Workbench) -> None:
    """Nothing is asked without the setting, whatever the address."""
    await see_all(bench, *addresses("invalid"))
    await bench.work_until(bench.is_idle)
    assert bench.box.memory.verified == []
    assert await bench.row(Stage.SUBSCRIBE) == {"in": 1, "done": 1}


async def test_who_is_known_by_a_hash_goes_straight_through(verifying: Workbench) -> None:
    """There is nothing to ask by."""
    await see(verifying, Person(uuid="U", hem_sha256=digest("a@x.com"), fields={"FIRST_NAME": "A"}))
    await verifying.work_until(verifying.is_idle)
    assert verifying.box.memory.verified == []
    assert verifying.box.memory.addresses == [digest("a@x.com")]


async def test_a_result_is_remembered_and_asked_for_again_when_it_is_old(
    verifying: Workbench,
) -> None:
    """Who is unwanted is ignored at each sighting without a call, until the result is thirty days old."""
    [mail] = addresses("invalid")
    await see_all(verifying, mail)
    await verifying.work_until(verifying.is_idle)
    await see_all(verifying, mail)
    await verifying.work_until(verifying.is_idle)
    assert verifying.box.memory.verified == [mail]
    assert await verifying.row(Stage.SUBSCRIBE) == {"in": 2, "ignored": 2}
    assert verifying.box.memory.calls_to("list-subscription") == 0

    key = keys.address(digest(mail))
    said_ms = int(await verifying.redis.hget(key, "verified_ms") or 0)
    await verifying.redis.hset(key, "verified_ms", said_ms - verifications.HOLDS_MS)
    await see_all(verifying, mail)
    await verifying.work_until(verifying.is_idle)
    assert verifying.box.memory.verified == [mail, mail]


async def test_what_is_known_without_a_call_tells_nothing_of_the_vendor(
    verifying: Workbench,
) -> None:
    """A batch that is ignored from memory is no success of a call, by which others would be judged."""
    [mail] = addresses("invalid")
    await see_all(verifying, mail)
    await verifying.work_until(verifying.is_idle)
    before = await verifying.redis.hget(keys.destination(Stage.SUBSCRIBE), "successes")
    await see_all(verifying, mail)
    await verifying.work_until(verifying.is_idle)
    assert await verifying.redis.hget(keys.destination(Stage.SUBSCRIBE), "successes") == before


async def test_a_suggestion_is_kept_with_the_address_until_it_is_forgotten(
    verifying: Workbench,
) -> None:
    """The better address, or the sentence, is read back with the visitor's addresses."""
    mail = "ada@gnail.com"
    await see_all(verifying, mail)
    await verifying.work_until(verifying.is_idle)
    visitor = await visitors.find(verifying.redis, mail)
    assert visitor is not None
    (said,) = (await verifications.read(verifying.redis, visitor.digests)).values()
    assert (said.result, said.suggestion) == ("Invalid", "ada@gmail.com")
    assert said.view()["verified_at"]
    await forgetting.forget(verifying.redis, mail)
    assert await verifications.read(verifying.redis, visitor.digests) == {}


async def test_the_log_says_why_and_names_nobody(
    verifying: Workbench, caplog: pytest.LogCaptureFixture
) -> None:
    """How many were unwanted, and by which result, stands in the line of the call; no address does."""
    caplog.set_level(logging.INFO, logger="workers")
    await see_all(verifying, *addresses("invalid", "spamtrap", "verified"))
    await verifying.work_until(verifying.is_idle)
    assert "Invalid=1" in caplog.text
    assert "Spamtrap=1" in caplog.text
    assert "example.com" not in caplog.text


# failing -----------------------------------------------------------------------------------------


async def test_an_outage_of_the_verification_is_waited_for(verifying: Workbench) -> None:
    """The stage pauses, nothing is dead and nothing subscribed unverified; afterwards all goes on."""
    verifying.box.faults.add(broken("email-verification"))
    await see_all(verifying, *addresses("invalid", "verified"))
    await verifying.work_until(lambda: verifying.is_paused(Stage.SUBSCRIBE))
    assert await verifying.row(Stage.SUBSCRIBE) == {"in": 2, "waiting": 2}
    verifying.box.faults.clear()
    await verifying.work_until(verifying.is_idle)
    assert verifying.box.memory.addresses == addresses("verified")
    assert await verifying.row(Stage.SUBSCRIBE) == {"in": 2, "done": 1, "ignored": 1}


async def test_its_calls_are_counted_apart(verifying: Workbench) -> None:
    """What fails here is no failure of the subscription, nor the other way round; each call is counted once."""
    verifying.box.faults.add(
        broken("email-verification", times=1), broken("list-subscription", times=1)
    )
    await see_all(verifying, *addresses("verified", "role"))
    await verifying.work_until(verifying.is_idle)
    assert await outcomes(verifying, Endpoint.VERIFY) == {"ok": 2, "failed": 1}
    made = verifying.box.memory.calls_to("list-subscription")
    assert await outcomes(verifying, Endpoint.SUBSCRIBE) == {"ok": made - 1, "failed": 1}


async def test_a_refusals_words_are_kept_without_addresses(verifying: Workbench) -> None:
    """The vendor's words about an address stand with the call, the address itself does not."""
    mail = "verified.1@example.com"
    verifying.box.faults.add(poisoned("email-verification", mail, words=f"<b>{mail}</b> no"))
    await see_all(verifying, mail)
    await verifying.work_until(verifying.is_idle)
    failures = (await calls_of(verifying, Endpoint.VERIFY)).failures
    assert {(failure.outcome, failure.status) for failure in failures} == {("refused", 400)}
    assert all("<b>" in failure.words and mail not in failure.words for failure in failures)


async def test_a_wrong_path_is_named(make_bench: MakeBench) -> None:
    """The stage pauses at once and says which setting to look at."""
    bench = make_bench(verify="before_subscribe", audiencepoint_verification_path="/verify")
    await see_all(bench, *addresses("verified"))
    await bench.work_until(lambda: bench.is_paused(Stage.SUBSCRIBE))
    pause = await bench.pause(Stage.SUBSCRIBE)
    assert pause is not None
    assert "AUDIENCEPOINT_VERIFICATION_PATH" in str(pause["reason"])
    assert bench.box.memory.addresses == []


async def test_a_refused_address_is_buried_alone(verifying: Workbench) -> None:
    """Halves find it; its letter holds the vendor's words, the others are verified once and subscribed."""
    mails = [f"verified.{n}@example.com" for n in range(8)]
    verifying.box.faults.add(poisoned("email-verification", mails[3], words="cannot be read"))
    await see_all(verifying, *mails)
    await verifying.work_until(verifying.is_idle)
    assert await verifying.row(Stage.SUBSCRIBE) == {"in": 8, "done": 7, "dead": 1}
    (letter,) = await verifying.dead()
    assert "cannot be read" in letter.error
    assert sorted(verifying.box.memory.verified) == [mail for mail in mails if mail != mails[3]]

    verifying.box.faults.clear()
    await dead_letters.retry(verifying.redis, letter.id)
    await verifying.work_until(verifying.is_idle)
    assert await verifying.row(Stage.SUBSCRIBE) == {"in": 8, "done": 8}


async def test_a_verification_that_refuses_everything_buries_nothing(verifying: Workbench) -> None:
    """The stage pauses with the vendor's words instead."""
    verifying.box.faults.add(refused_alike("email-verification", "not today"))
    for ten in (0, 10, 20):
        await see_all(verifying, *(f"verified.{ten + n}@example.com" for n in range(9)))
    await verifying.work_until(lambda: _is_refused(verifying))
    assert verifying.box.memory.addresses == []
    assert await verifying.row(Stage.SUBSCRIBE) == {"in": 27, "waiting": 27}
    await verifying.assert_balanced()


async def _is_refused(bench: Workbench) -> bool:
    pause = await bench.pause(Stage.SUBSCRIBE)
    return pause is not None and str(pause["reason"]).startswith("everything is refused")


# in between ----------------------------------------------------------------------------------------


async def test_what_dies_between_the_calls_is_not_asked_again(verifying: Workbench) -> None:
    """The worker is gone after the verification and before the subscription: the next one goes on from there."""
    mails = addresses("verified", "role", "invalid")
    verifying.box.faults.add(broken("list-subscription"))
    await see_all(verifying, *mails)
    await verifying.work_until(lambda: verifying.is_paused(Stage.SUBSCRIBE))
    verifying.box.faults.clear()
    await verifying.work_until(verifying.is_idle)
    assert sorted(verifying.box.memory.verified) == sorted(mails)
    assert sorted(verifying.box.memory.addresses) == sorted(addresses("verified", "role"))
    assert await verifying.row(Stage.SUBSCRIBE) == {"in": 3, "done": 2, "ignored": 1}


async def test_a_stop_in_the_middle_loses_nothing(verifying: Workbench) -> None:
    """What was answered until then is kept, the rest waits for the next worker; nothing is asked twice."""
    verifying.box.faults.add(slow("email-verification", 0.05))
    mails = [f"verified.{n}@example.com" for n in range(9)]
    await see_all(verifying, *mails)
    async with verifying.at_work():
        await verifying.until(lambda: len(verifying.box.memory.verified) >= 3)
    assert 3 <= len(verifying.box.memory.verified) < 9
    verifying.box.faults.clear()
    await verifying.work_until(verifying.is_idle)
    assert sorted(verifying.box.memory.verified) == mails
    assert sorted(verifying.box.memory.addresses) == mails
    assert await verifying.row(Stage.SUBSCRIBE) == {"in": 9, "done": 9}
    await verifying.assert_balanced()


async def test_when_time_is_up_the_rest_goes_on_as_a_batch_of_its_own(verifying: Workbench) -> None:
    """However short the time is, each claim asks about one address at least, and all are subscribed in the end."""
    verifying.timing = replace(verifying.timing, verify_s=0.0)
    mails = [f"verified.{n}@example.com" for n in range(5)]
    await see_all(verifying, *mails)
    await verifying.work_until(verifying.is_idle)
    assert sorted(verifying.box.memory.verified) == mails
    assert await verifying.row(Stage.SUBSCRIBE) == {"in": 5, "done": 5}


async def test_each_question_is_a_call_of_the_rate(make_bench: MakeBench) -> None:
    """Six calls at a hundred a second: the next one is due five gaps after the first."""
    bench = make_bench(verify="before_subscribe", audiencepoint_rate=100, email_format="plain")
    before = await _now_ms(bench)
    await see_all(bench, *(f"verified.{n}@example.com" for n in range(5)))
    await bench.work_until(bench.is_idle)
    next_ms = float(await bench.redis.hget(keys.PREFIX + "rate:audiencepoint", "next") or 0)
    calls = len(bench.box.memory.verified) + bench.box.memory.calls_to("list-subscription")
    assert calls >= 6
    assert next_ms >= before + calls * 10


async def _now_ms(bench: Workbench) -> int:
    seconds, micros = await bench.redis.time()
    return int(seconds) * 1000 + int(micros) // 1000


async def test_a_429_to_a_later_question_is_news(make_bench: MakeBench) -> None:
    """It was begun after the rate was halved meanwhile, although its batch was claimed before: it is halved again."""
    bench = make_bench(email_format="plain", verify="before_subscribe", audiencepoint_rate=500)
    bench.box.faults.add(
        Fault(endpoint="email-verification", latency_s=0.3, times=1),
        throttled("email-verification", times=1),
    )
    await see_all(bench, *addresses("verified", "role"))
    async with bench.at_work():
        await bench.until(lambda: bool(bench.box.memory.verified))
        now_ms = await redis_now_ms(bench.redis)
        assert await paces.slow_down(bench.redis, "audiencepoint", 500, "another stage", now_ms)
        await bench.until(bench.is_idle)
    share = float(await bench.redis.hget(keys.pace("audiencepoint"), "share"))
    assert 0.25 < share < 0.26  # each answer that went well has raised it since
    assert await bench.row(Stage.SUBSCRIBE) == {"in": 2, "done": 2}


async def test_who_is_forgotten_meanwhile_is_neither_asked_about_nor_subscribed(
    verifying: Workbench,
) -> None:
    """Nothing more leaves of somebody who was forgotten after the batch was claimed."""
    mails = [f"verified.{n}@example.com" for n in range(4)]
    verifying.box.faults.add(slow("email-verification", 0.3, times=1))
    await see_all(verifying, *mails)
    async with verifying.at_work():
        await verifying.until(lambda: bool(verifying.box.memory.verified))
        for mail in mails:
            await forgetting.forget(verifying.redis, mail)
        await verifying.until(verifying.is_idle)
    assert len(verifying.box.memory.verified) == 1
    assert verifying.box.memory.addresses == []
    assert await verifying.row(Stage.SUBSCRIBE) == {"in": 4, "ignored": 4}
    assert not await verifying.redis.keys(keys.address("*"))


@pytest.mark.parametrize("first", ["off", "before_subscribe"])
async def test_the_setting_changes_while_work_waits(make_bench: MakeBench, first: str) -> None:
    """What waits, sealed or not, is verified or not as the setting says when it leaves."""
    bench = make_bench(verify=first)
    bench.box.faults.add(broken("list-subscription"))
    bench.box.faults.add(broken("email-verification"))
    await see_all(bench, *addresses("invalid", "role"))
    await bench.work_until(lambda: bench.is_paused(Stage.SUBSCRIBE))
    await pauses.pause(bench.redis, Stage.SUBSCRIBE, "so that nothing more is sealed")
    await see_all(bench, *addresses("spamtrap"))
    await bench.work_until(lambda: _waits(bench, 3))
    bench.box.faults.clear()
    await pauses.resume(bench.redis, Stage.SUBSCRIBE)

    after = make_bench(verify="off" if first != "off" else "before_subscribe")
    await after.work_until(after.is_idle)
    done = {"off": 1, "before_subscribe": 3}[first]
    row = {"in": 3, "done": done} | ({"ignored": 2} if done == 1 else {})
    assert await bench.row(Stage.SUBSCRIBE) == row
    assert len(bench.box.memory.verified) == (3 if first == "off" else 0)
    await bench.assert_balanced()


async def _waits(bench: Workbench, n: int) -> bool:
    return await bench.count(Stage.SUBSCRIBE, "waiting") == n


async def test_a_full_server_can_still_drain(verifying: Workbench) -> None:
    """What was said is kept, so that an address which waits for it leaves."""
    await see_all(verifying, *addresses("verified"))
    await verifying.redis.hset(keys.address("d"), "visitor", "v")
    limit = (await verifying.redis.config_get("maxmemory"))["maxmemory"]
    await verifying.redis.config_set("maxmemory", 1)
    try:
        await verifications.keep(verifying.redis, "d", "Role", None)
    finally:
        await verifying.redis.config_set("maxmemory", limit)
    assert (await verifications.read(verifying.redis, ["d"]))["d"].result == "Role"
