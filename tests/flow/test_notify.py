"""Score changes told to a CRM: from a pushed score to a signed message, whatever happens in between."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest

from pipeline import dead_letters, forgetting, keys, pauses, visitors
from pipeline.addresses import digest
from pipeline.outcomes import Person, Stage
from pipeline.visitors import Visitor
from sandbox import crm
from sandbox.faults import Fault, broken, poisoned, refused_alike, reset, slow, throttled
from sandbox.samples import SAMPLES, fresh
from tests.console.conftest import Relay, relay
from tests.flow.processes import stopped, worker
from tests.flow.test_flow import post
from tests.vendors import Sandbox
from tests.workbench import Workbench
from tests.workers.test_enrich import named, see
from tests.workers.test_sweep import context_of, rung, wait_in
from workers.ringing import ring_for_work

__all__ = ["relay"]
pytestmark = pytest.mark.anyio

MakeBench = Callable[..., Workbench]
ADA = "ada@example.com"


@pytest.fixture
def wanted(box: Sandbox) -> dict[str, str]:
    """Return the settings with which the stand-in of a CRM is told."""
    return {"scores_webhook_url": f"{box.url}/crm", "scores_webhook_secret": crm.KEY}


@pytest.fixture
def bench(make_bench: MakeBench, wanted: dict[str, str]) -> Workbench:
    """Give a workbench that tells a CRM, with plain addresses, which are easier to compare."""
    return make_bench(email_format="plain", **wanted)


async def change(bench: Workbench, *emails: str, **scores: str) -> None:
    """Let AudiencePoint push *scores* of each of *emails*."""
    changes = [{"emailAddress": email, "matched": "yes", **scores} for email in emails]
    await bench.put("scores", orjson.dumps(changes))


def told(bench: Workbench) -> list[dict[str, Any]]:
    """Return the messages that the CRM took, in their order."""
    return [orjson.loads(each["body"]) for each in bench.box.memory.told]


def told_of(bench: Workbench) -> list[str]:
    """Return whom they were about."""
    return [message["data"]["emailAddress"] for message in told(bench)]


# what is told ----------------------------------------------------------------------------------------


async def test_a_pushed_score_goes_the_whole_way(
    make_bench: MakeBench, wanted: dict[str, str]
) -> None:
    """Posted to the receiver over HTTP, a change is kept and told once, hashed, signed, in the standard's shape."""
    bench = make_bench(**wanted)
    (sample,) = [fresh(each, time.time()) for each in SAMPLES["scores"]]
    for _ in range(2):
        assert await post(bench, [sample]) == [202]
        await bench.work_until(bench.is_idle)

    (message,) = told(bench)
    assert message["id"] == bench.box.memory.told[0]["id"]
    assert message["type"] == "score.changed"
    (pushed,) = orjson.loads(sample.body)
    address_hash = digest(pushed.pop("emailAddress"))
    found = await visitors.find(bench.redis, address_hash)
    assert found is not None
    assert message["timestamp"] == found.scores_changed_at
    assert message["data"] == {
        "visitor": found.id,
        "emailAddress": address_hash,
        "scores": pushed,
        "before": dict.fromkeys(pushed),
    }
    assert await bench.row(Stage.SCORES) == {"in": 2, "done": 1, "ignored": 1}
    assert await bench.row(Stage.NOTIFY) == {"in": 1, "done": 1}
    await bench.assert_balanced()


async def test_only_what_changed_is_told_of_before(bench: Workbench) -> None:
    """A message has all scores as they are now, and the earlier values of those that are others now."""
    await see(bench, named(ADA, "U"))
    await change(bench, ADA, score="3", frequency="Weekly")
    await bench.work_until(bench.is_idle)
    await change(bench, ADA, score="4", frequency="Weekly", send_time="33")
    await bench.work_until(bench.is_idle)

    first, second = told(bench)
    assert second["data"] == {
        "visitor": "U",
        "emailAddress": ADA,
        "scores": {"matched": "yes", "score": "4", "frequency": "Weekly", "send_time": "33"},
        "before": {"score": "3", "send_time": None},
    }
    assert first["id"] != second["id"]
    assert first["timestamp"] < second["timestamp"]


@pytest.mark.parametrize(
    ("email_format", "pushed", "leaves"),
    [
        ("sha256", " Ada@Example.com", digest(ADA)),
        ("sha256", digest(ADA).upper(), digest(ADA)),
        ("plain", " Ada@Example.com", ADA),
        ("plain", digest(ADA), ADA),
        ("plain", digest("bob@example.com"), digest("bob@example.com")),
    ],
)
async def test_the_address_leaves_as_every_other(
    make_bench: MakeBench, wanted: dict[str, str], email_format: str, pushed: str, leaves: str
) -> None:
    """Hashed by default and nowhere plain; plain where that is wanted and the address is known."""
    bench = make_bench(email_format=email_format, subscribe="off", **wanted)
    await see(bench, named(ADA, "U"))
    await bench.work_until(bench.is_idle)
    await change(bench, pushed, score="1")
    await bench.work_until(bench.is_idle)

    assert told_of(bench) == [leaves]
    assert email_format == "plain" or "@" not in bench.box.memory.told[0]["body"]


async def test_two_changes_of_one_address_are_two_messages(bench: Workbench) -> None:
    """Nothing is coalesced while it waits: each change that was kept is told."""
    await pauses.pause(bench.redis, Stage.NOTIFY, "wait")
    for score in "123":
        await change(bench, ADA, score=score)
        await bench.work()
    assert await bench.row(Stage.NOTIFY) == {"in": 3, "waiting": 3}
    await pauses.resume(bench.redis, Stage.NOTIFY)
    await bench.work_until(bench.is_idle)

    messages = sorted(told(bench), key=lambda message: message["timestamp"])
    scores = [
        (each["data"]["before"]["score"], each["data"]["scores"]["score"]) for each in messages
    ]
    assert scores == [(None, "1"), ("1", "2"), ("2", "3")]
    assert len({each["id"] for each in messages}) == 3


async def test_the_later_of_two_changes_has_the_later_time(bench: Workbench) -> None:
    """Whoever gets two messages in the wrong order can tell, also when Redis's clock was ahead for a while."""
    ahead = Visitor(digest(ADA), scores_changed_at="2099-01-01T00:00:00.009Z")
    await bench.redis.hset(
        keys.visitor(ahead.id), mapping={"version": 1, "document": ahead.document()}
    )
    for score in "12":
        await change(bench, ADA, score=score)
        await bench.work_until(bench.is_idle)
    times = [message["timestamp"] for message in told(bench)]
    assert times == ["2099-01-01T00:00:00.010Z", "2099-01-01T00:00:00.011Z"]


async def test_two_workers_tell_one_story(bench: Workbench) -> None:
    """However they meet at one visitor: a message for each change that was kept, each beginning where one ended."""
    # more than a worker takes at once
    changes = [{"emailAddress": ADA, "score": str(n)} for n in range(150)]
    await bench.put("scores", orjson.dumps(changes))
    async with bench.at_work(), bench.at_work():
        await bench.until(bench.is_idle)

    assert await bench.row(Stage.SCORES) == {"in": 150, "done": 150}
    assert await bench.row(Stage.NOTIFY) == {"in": 150, "done": 150}
    messages = sorted(told(bench), key=lambda message: message["timestamp"])
    assert len({message["id"] for message in messages}) == 150
    now = [message["data"]["scores"]["score"] for message in messages]
    assert [message["data"]["before"]["score"] for message in messages] == [None, *now[:-1]]
    await bench.assert_balanced()


async def test_without_an_address_nobody_is_told(make_bench: MakeBench) -> None:
    """The stage stands in the books, and stays empty."""
    bench = make_bench()
    await change(bench, ADA, score="1")
    await bench.work_until(bench.is_idle)
    assert await bench.row(Stage.SCORES) == {"in": 1, "done": 1}
    assert await bench.row(Stage.NOTIFY) == {}
    assert not bench.box.memory.calls_to("crm")


async def test_a_change_is_told_without_waiting_for_a_sweep(bench: Workbench) -> None:
    """Whoever keeps the scores rings for the stage that tells them."""
    bench.timing = replace(bench.timing, sweep_s=3600.0)
    await change(bench, ADA, score="1")
    await bench.work_until(bench.is_idle)
    assert told_of(bench) == [ADA]


@pytest.mark.parametrize(
    ("url", "is_warned"),
    [("http://crm.example.com/hunter2", True), ("https://crm.example.com", False)],
)
async def test_an_address_without_tls_is_warned_of(
    make_bench: MakeBench,
    wanted: dict[str, str],
    caplog: pytest.LogCaptureFixture,
    url: str,
    *,
    is_warned: bool,
) -> None:
    """The worker says so when it starts, and does not show the address, which may be a secret."""
    await make_bench(**wanted | {"scores_webhook_url": url}).work()
    assert ("SCORES_WEBHOOK_URL is http" in caplog.text) == is_warned
    assert "hunter2" not in caplog.text
    assert crm.KEY not in caplog.text


# fates -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        broken("crm", times=6),
        throttled("crm", times=2, retry_after="0"),
        reset("crm", times=6),
        Fault(endpoint="crm", status=408, times=1),
    ],
    ids=["500", "429", "reset", "408"],
)
async def test_an_outage_only_delays(bench: Workbench, fault: Fault) -> None:
    """What is the CRM's fault is tried again as long as it takes, and nothing dies of it."""
    bench.box.faults.add(fault)
    await change(bench, ADA, "bob@example.com", score="1")
    await bench.work_until(bench.is_idle)

    assert bench.box.faults.hits == fault.times
    assert sorted(told_of(bench)) == [ADA, "bob@example.com"]
    assert await bench.row(Stage.NOTIFY) == {"in": 2, "done": 2}
    assert await bench.pause(Stage.NOTIFY) is None
    await bench.assert_balanced()


async def test_a_retry_is_the_same_message(bench: Workbench) -> None:
    """An answer that was lost: the same bytes go out under the same id, and are counted as possibly doubled."""
    bench.box.faults.add(reset("crm", "after", times=2))
    await change(bench, ADA, score="1")
    await bench.work_until(bench.is_idle)

    assert len(bench.box.memory.told) == 3
    assert len({(each["id"], each["body"]) for each in bench.box.memory.told}) == 1
    assert await bench.row(Stage.NOTIFY) == {"in": 1, "done": 1}
    assert await bench.redis.hget(keys.BOOKS, "maybe_duplicate") == b"2"


@pytest.mark.parametrize(
    ("status", "setting"),
    [
        *((status, "SCORES_WEBHOOK_SECRET") for status in (401, 403)),
        *((status, "SCORES_WEBHOOK_URL") for status in (404, 410, 302)),
    ],
)
async def test_a_wrong_address_or_secret_pauses_and_keeps_everything(
    bench: Workbench, status: int, setting: str
) -> None:
    """The reason names the setting; once it is mended, everything goes out."""
    bench.box.faults.add(refused_alike("crm", status=status))
    await change(bench, ADA, "bob@example.com", score="1")
    await bench.work_until(lambda: bench.is_paused(Stage.NOTIFY))

    pause = await bench.pause(Stage.NOTIFY) or {}
    assert pause["by"] == "relay"
    assert setting in str(pause["reason"])
    assert await bench.row(Stage.NOTIFY) == {"in": 2, "waiting": 2}
    await bench.assert_balanced()

    bench.box.faults.clear()
    await bench.work_until(bench.is_idle)
    assert await bench.row(Stage.NOTIFY) == {"in": 2, "done": 2}
    assert await bench.pause(Stage.NOTIFY) is None


async def test_a_secret_of_its_own_is_no_ones_message(
    make_bench: MakeBench, wanted: dict[str, str]
) -> None:
    """The stand-in refuses a signature with another key: the stage pauses until the secret is put right."""
    wrong = wanted | {"scores_webhook_secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
    bench = make_bench(**wrong)
    await change(bench, ADA, score="1")
    await bench.work_until(lambda: bench.is_paused(Stage.NOTIFY))
    assert not told(bench)

    both = f"{wrong['scores_webhook_secret']},{crm.KEY}"
    await make_bench(**wanted | {"scores_webhook_secret": both}).work_until(bench.is_idle)
    assert told_of(bench) == [digest(ADA)]


@pytest.mark.parametrize("status", [400, 409, 413, 422])
async def test_a_refused_message_dies_alone(bench: Workbench, status: int) -> None:
    """One message that the CRM refuses is buried with its words; the others are told."""
    refusal = {"message": f"no {ADA} here"}
    bench.box.faults.add(Fault(endpoint="crm", status=status, body=refusal, addresses=[ADA]))
    await change(bench, ADA, "bob@example.com", "cid@example.com", score="1")
    await bench.work_until(bench.is_idle)

    assert sorted(told_of(bench)) == ["bob@example.com", "cid@example.com"]
    assert await bench.row(Stage.NOTIFY) == {"in": 3, "done": 2, "dead": 1}
    (letter,) = await bench.dead(Stage.NOTIFY)
    assert (letter.reason, letter.source) == ("refused", "scores")
    assert letter.error == f'the CRM refused the message ({status}: "no [address] here")'
    await bench.assert_balanced()


async def test_when_everything_is_refused_nothing_more_dies(bench: Workbench) -> None:
    """The same words for twenty messages in a row are nobody's message's fault: the stage pauses."""
    bench.box.faults.add(refused_alike("crm"))
    await change(bench, *(f"p{n}@example.com" for n in range(20)), score="1")
    await bench.work_until(lambda: bench.is_paused(Stage.NOTIFY))

    reason = str((await bench.pause(Stage.NOTIFY) or {})["reason"])
    assert reason.startswith("everything is refused: the CRM refused the message (400")
    assert await bench.row(Stage.NOTIFY) == {"in": 20, "waiting": 20}
    bench.box.faults.clear()
    await bench.work_until(bench.is_idle)
    assert await bench.row(Stage.NOTIFY) == {"in": 20, "done": 20}


async def test_a_retry_from_the_dead_letters_has_the_same_id(
    bench: Workbench, relay: Relay
) -> None:
    """`relay dead retry` sends the message that was refused, byte for byte: whoever took it knows it."""
    bench.box.faults.add(poisoned("crm", ADA))
    await change(bench, ADA, "bob@example.com", score="1")
    await bench.work_until(bench.is_idle)
    (letter,) = await bench.dead(Stage.NOTIFY)
    bench.box.faults.clear()

    shown = (await relay("dead", "show", letter.id, "--json")).json
    assert shown["payload"]["data"]["type"] == "score.changed"
    assert (await relay("dead", "retry", "--stage", "notify", "--yes", "--json")).status == 0
    await bench.work_until(bench.is_idle)

    (again,) = [each for each in bench.box.memory.told if ADA in each["body"]]
    assert again["id"] == shown["payload"]["data"]["id"]
    assert again["body"].encode() == letter.payload
    assert await bench.row(Stage.NOTIFY) == {"in": 2, "done": 2}


@pytest.mark.parametrize("payload", [b"?", b"{}", b'{"id": 5, "data": {}}'])
async def test_a_message_that_cannot_be_read_is_buried(bench: Workbench, payload: bytes) -> None:
    """What another version may have left is tried three times, and does not stay in the way for ever."""
    await bench.redis.xadd(keys.queue("notify"), {"p": payload, "m": "scores|0|o|"})
    for counter in ("in", "waiting"):
        await bench.redis.hincrby(keys.BOOKS, f"notify:{counter}", 1)
    await change(bench, ADA, score="1")
    await bench.work_until(bench.is_idle)

    assert told_of(bench) == [ADA]
    assert await bench.row(Stage.NOTIFY) == {"in": 2, "done": 1, "dead": 1}
    assert [(letter.reason, letter.attempts) for letter in await bench.dead()] == [("bug", 3)]


@pytest.mark.parametrize("queue", keys.QUEUES[Stage.NOTIFY])
async def test_a_paused_stage_is_left_alone(bench: Workbench, queue: str) -> None:
    """Nobody looks again and again at messages that may not be sent now."""
    await wait_in(bench, queue)
    await pauses.pause(bench.redis, Stage.NOTIFY, "down", by="relay")
    await ring_for_work(context_of(bench))
    assert not await rung(bench)


# a kill in between -----------------------------------------------------------------------------------


async def test_a_worker_killed_in_mid_call_tells_again_under_the_same_id(
    bench: Workbench, wanted: dict[str, str]
) -> None:
    """After kill -9 a new worker sends what was under way again, and the CRM can tell that it knows it."""
    more = {name.upper(): value for name, value in wanted.items()}
    bench.box.faults.add(slow("crm", 20.0, times=3))
    await change(bench, *(f"p{n}@example.com" for n in range(3)), score="1")
    with worker(bench, **more) as first:
        await bench.until(lambda: len(bench.box.memory.told) == 3)
        first.send_signal(signal.SIGKILL)
        await stopped(bench, first)
    for name in await bench.redis.zrange(keys.WORKERS, 0, -1):  # its last heartbeat was long ago
        await bench.redis.zadd(keys.WORKERS, {name: 1})
    assert await bench.row(Stage.NOTIFY) == {"in": 3, "waiting": 3}
    await bench.assert_balanced()

    with worker(bench, **more):
        await bench.until(bench.is_idle)
    assert await bench.row(Stage.NOTIFY) == {"in": 3, "done": 3}
    bodies = Counter((each["id"], each["body"]) for each in bench.box.memory.told)
    assert sorted(bodies.values()) == [2, 2, 2]
    assert await bench.redis.hget(keys.BOOKS, "maybe_duplicate") == b"3"
    await bench.assert_balanced()


# forgotten -------------------------------------------------------------------------------------------


async def waiting(bench: Workbench, *emails: str) -> None:
    """Let a change of each of *emails* wait, the first of them sealed."""
    bench.box.faults.add(throttled("crm", times=1, retry_after="3600"))
    await change(bench, emails[0], score="1")
    await bench.work_until(lambda: bench.box.faults.hits == 1)
    await pauses.pause(bench.redis, Stage.NOTIFY, "so that nothing more is sealed")
    await change(bench, *emails[1:], score="1")
    await bench.work()
    assert await bench.count(Stage.NOTIFY, "waiting") == len(emails)
    assert await bench.redis.xlen(keys.queue("notify")) == len(emails) - 1


@pytest.mark.parametrize("email_format", ["sha256", "plain"])
@pytest.mark.parametrize("wanted_as", ["sealed@example.com", "other@example.com", "V"])
async def test_whoever_is_forgotten_while_a_change_waits_is_not_told_of(
    make_bench: MakeBench, wanted: dict[str, str], email_format: str, wanted_as: str
) -> None:
    """Sealed or not yet, by whichever name they are forgotten: their messages are ignored, others leave."""
    bench = make_bench(email_format=email_format, subscribe="off", **wanted)
    person = Person(
        uuid="V",
        personal_emails=["sealed@example.com", "other@example.com"],
        fields={"FIRST_NAME": "Ada"},
    )
    await see(bench, person)
    await bench.work_until(bench.is_idle)
    await waiting(bench, "sealed@example.com", "bob@example.com")
    await forgetting.forget(bench.redis, wanted_as)
    await pauses.resume(bench.redis, Stage.NOTIFY)
    await bench.work_until(bench.is_idle)

    assert [digest(email) for email in told_of(bench)] == [digest("bob@example.com")]
    assert await bench.row(Stage.NOTIFY) == {"in": 2, "done": 1, "ignored": 1}
    await bench.assert_balanced()


@pytest.mark.parametrize("name", [ADA, "V"])
async def test_a_forgotten_person_who_had_left_already_is_not_told_of(
    bench: Workbench, name: str
) -> None:
    """A visitor may be gone by age while a change waits: the message itself says whom it is about."""
    await see(bench, named(ADA, "V"))
    await bench.work_until(bench.is_idle)
    await waiting(bench, ADA, "bob@example.com")
    await bench.redis.delete(keys.visitor("V"), keys.address(digest(ADA)))
    await forgetting.forget(bench.redis, name)
    await pauses.resume(bench.redis, Stage.NOTIFY)
    await bench.work_until(bench.is_idle)
    assert told_of(bench) == ["bob@example.com"]
    assert await bench.row(Stage.NOTIFY) == {"in": 2, "done": 1, "ignored": 1}


async def test_a_tombstone_keeps_changes_from_being_kept_or_told(bench: Workbench) -> None:
    """Scores of somebody who was forgotten are ignored, and make no message."""
    await forgetting.forget(bench.redis, ADA)
    await change(bench, ADA, score="1")
    await bench.work_until(bench.is_idle)
    assert await bench.row(Stage.SCORES) == {"in": 1, "ignored": 1}
    assert await bench.row(Stage.NOTIFY) == {}
    assert not bench.box.memory.calls_to("crm")


@pytest.mark.parametrize("email_format", ["sha256", "plain"])
async def test_dead_messages_of_whoever_is_forgotten_are_dropped(
    make_bench: MakeBench, wanted: dict[str, str], email_format: str
) -> None:
    """A refused message does not outlive its person."""
    bench = make_bench(email_format=email_format, **wanted)
    bench.box.faults.add(poisoned("crm", ADA))
    await change(bench, ADA, "bob@example.com", score="1")
    await bench.work_until(bench.is_idle)
    assert len(await bench.dead(Stage.NOTIFY)) == 1
    assert (await forgetting.forget(bench.redis, ADA)).dead_letters == 1
    assert await bench.row(Stage.NOTIFY) == {"in": 2, "done": 1, "dropped": 1}
    await bench.assert_balanced()


# switched off ----------------------------------------------------------------------------------------


async def test_without_an_address_what_waits_is_ignored(
    bench: Workbench, make_bench: MakeBench
) -> None:
    """Sealed or not, and whatever pause the relay had made: nobody is called; an operator's pause still holds."""
    await waiting(bench, ADA, "bob@example.com", "cid@example.com")
    off = make_bench()
    await off.work()
    assert await bench.row(Stage.NOTIFY) == {"in": 3, "waiting": 3}

    await pauses.resume(bench.redis, Stage.NOTIFY)
    await pauses.pause(bench.redis, Stage.NOTIFY, "down", by="relay")
    calls = bench.box.memory.calls_to("crm")
    await off.work_until(bench.is_idle)
    assert bench.box.memory.calls_to("crm") == calls
    assert await bench.row(Stage.NOTIFY) == {"in": 3, "ignored": 3}
    assert await bench.pause(Stage.NOTIFY) is None
    await bench.assert_balanced()


async def test_a_letter_retried_while_nobody_is_told_is_ignored(
    bench: Workbench, make_bench: MakeBench
) -> None:
    """A message that comes back from the dead letters after the address was taken away calls nobody."""
    bench.box.faults.add(poisoned("crm", ADA))
    await change(bench, ADA, "bob@example.com", score="1")
    await bench.work_until(bench.is_idle)
    letters: Sequence[dead_letters.DeadLetter] = await bench.dead(Stage.NOTIFY)
    await dead_letters.retry_all(bench.redis, [letter.id for letter in letters])
    await make_bench().work_until(bench.is_idle)
    assert await bench.row(Stage.NOTIFY) == {"in": 2, "done": 1, "ignored": 1}
