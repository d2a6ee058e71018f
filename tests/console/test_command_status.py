"""`relay status`, `relay pause` and `relay resume`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from redis.asyncio import Redis

from pipeline import dead_letters, heartbeats, keys, paces
from pipeline.home import Home
from pipeline.inbox import Inbox
from pipeline.outcomes import Stage
from pipeline.queues import Queues
from pipeline.spill import Spill, files_in
from tests.console.conftest import Relay
from tests.pipeline.burials import bury
from tests.pipeline.work import delivery

pytestmark = pytest.mark.anyio


async def test_status_has_the_contracts_shape(relay: Relay, redis: Redis) -> None:
    """The machine form names every stage with its seven numbers, and the vendors with their rates."""
    await bury(redis)
    answer = await relay("status", "--json")
    assert (answer.status, answer.err) == (0, "")
    nothing = dict.fromkeys(keys.COUNTERS, 0)
    idle = {"now": 0, "most": 0, "why": None}
    empty = {"single": 0, "batches": 0, "held": 0}
    assert answer.json == {
        "stages": {
            **{str(stage): nothing for stage in Stage},
            "unpack": {**nothing, "in": 1, "done": 1},
            "forward": {**nothing, "in": 1, "dead": 1},
        },
        "balanced": True,
        "paused": dict.fromkeys(map(str, Stage), None),
        "maybe_duplicate": 0,
        "refused": {"token": 0, "signature": 0, "too_large": 0},
        "workers": 0,
        "oldest_waiting_s": 0.0,
        "rates": {
            "audiencepoint": {"configured": 5.0, "now": 5.0, "why": None, "slowed_at": None},
            "audiencelab": {"configured": 0.5, "now": 0.5, "why": None, "slowed_at": None},
        },
        "calls": {
            **dict.fromkeys(("enrich", "subscribe", "forward"), idle),
            "notify": {**idle, "why": "switched off"},
        },
        "retried": dict.fromkeys(("enrich", "subscribe", "forward", "notify"), empty),
    }


async def test_status_tells_what_was_slowed_and_why(relay: Relay, redis: Redis) -> None:
    """Rate and calls at a time, now and as configured, of all workers that live, in the vendor's words."""
    await paces.slow_down(redis, "audiencepoint", 5, "it asks for fewer", 1)
    for worker in ("one", "two"):
        await heartbeats.beat(redis, worker)
    await paces.tell_widths(redis, "one", {Stage.FORWARD: (3, "late | answers")})
    await paces.tell_widths(redis, "gone", {Stage.FORWARD: (1, "it is no more")})
    told = (await relay("status", "--json")).json
    pace = told["rates"]["audiencepoint"]
    assert (pace["configured"], pace["now"], pace["why"]) == (5, 2.5, "it asks for fewer")
    assert told["calls"]["forward"] == {"now": 11, "most": 16, "why": "late | answers"}
    assert told["calls"]["enrich"] == {"now": 16, "most": 16, "why": None}
    words = (await relay("status")).out
    assert "audiencepoint is asked 2.50 times a second, not 5, since" in words
    assert "forward makes 11 calls at a time, not 16: late | answers" in words
    await paces.tell_widths(redis, "one", {})
    assert (await relay("status", "--json")).json["calls"]["forward"]["now"] == 16


async def test_a_stage_that_makes_no_calls_tells_none(
    relay: Relay, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paused by somebody none, while the relay's own pause probes one, switched off none of none."""
    monkeypatch.setenv("SUBSCRIBE", "off")
    await heartbeats.beat(redis, "one")
    await relay("pause", "forward")
    until = {"by": "relay", "reason": "down", "since_ms": 1, "until_ms": 9_999_999_999_999}
    await redis.hset(keys.PAUSED, "enrich", orjson.dumps(until))
    calls = (await relay("status", "--json")).json["calls"]
    assert calls == {
        "enrich": {"now": 1, "most": 8, "why": "paused until one goes well"},
        "subscribe": {"now": 0, "most": 0, "why": "switched off"},
        "forward": {"now": 0, "most": 8, "why": "paused"},
        "notify": {"now": 0, "most": 0, "why": "switched off"},
    }
    assert "calls at a time" not in (await relay("status")).out  # the pause is told already


async def test_status_tells_how_much_of_what_was_retried_waits(relay: Relay, redis: Redis) -> None:
    """So that one sees why a retry takes its time."""
    ids = await bury(redis, payloads=[b"1"] * 9)
    await dead_letters.retry_all(redis, ids[:5])
    await Queues(redis, "one").seal(Stage.FORWARD, most=2, batches=9, ripe_s=0)
    await dead_letters.retry_all(redis, ids[5:])
    told = (await relay("status", "--json")).json["retried"]
    assert told["forward"] == {"single": 4, "batches": 3, "held": 0}
    words = "Retried, in forward: 4 to be made into batches, 3 batches, 0 held back."
    out = (await relay("status")).out
    assert words in out
    assert "Retried, in enrich" not in out


@pytest.fixture
def spill(tmp_path: Path) -> Iterator[Spill]:
    """Give the spill of a receiver that runs in the home of `relay`."""
    spill = Spill(Home(tmp_path / "home"), 1 << 20)
    yield spill
    spill.close()


async def test_what_is_spilled_is_in_the_books(relay: Relay, redis: Redis, spill: Spill) -> None:
    """What lies on disk is `in` and `waiting`, but for what has been stored already; its age counts."""
    spill.append([delivery(b"%d" % n).pack() for n in range(3)])
    segment = spill.next()
    assert segment is not None
    pieces = segment.pieces(0, most=1, most_bytes=1000, count=1)
    await Inbox(redis).put_spilled(segment.name, pieces, 5)
    told = (await relay("status", "--json")).json
    assert told["stages"]["unpack"]["in"] == told["stages"]["unpack"]["waiting"] == 3
    assert told["balanced"]
    assert told["spilled"] == 2
    assert "2 lie in the spill" in (await relay("status")).out
    spill.finish(segment)
    told = (await relay("status", "--json")).json
    assert told["stages"]["unpack"]["in"] == 1
    assert "spilled" not in told


async def test_the_oldest_work_may_lie_in_the_spill(relay: Relay, home_of_old: Home) -> None:
    """`oldest_waiting_s` regards what is spilled, by when its file was begun."""
    assert files_in(home_of_old.spill_dir)
    assert (await relay("status", "--json")).json["oldest_waiting_s"] > 1_000_000


@pytest.fixture
def home_of_old(tmp_path: Path, redis: Redis, spill: Spill) -> Home:
    """Give a home with a spilled file that was begun in 2001."""
    spill.append([b"1"])
    spill.close()
    home = Home(tmp_path / "home")
    (path,) = files_in(home.spill_dir)
    path.rename(path.with_name(f"{10**15:017d}-{path.stem.partition('-')[2]}.log"))
    return home


async def test_a_spill_that_cannot_be_read_is_told(relay: Relay, tmp_path: Path) -> None:
    """What lies there may be missing in the books: nobody takes them for whole."""
    home = Home(tmp_path / "home")
    home.spill_dir.parent.mkdir(parents=True, exist_ok=True)
    home.spill_dir.symlink_to(home.spill_dir)  # root may read everything, but not this
    assert (await relay("status", "--json")).json["spill_unreadable"] == 1
    assert "THE SPILL CANNOT BE READ" in (await relay("status")).out


async def test_without_redis_the_spill_is_told(
    relay: Relay, spill: Spill, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command fails, and says all the same how much lies on this machine's disk."""
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    assert set((await relay("status", "--json")).json) == {"error"}
    spill.append([b"1", b"2"])
    answer = await relay("status", "--json")
    assert (answer.status, answer.json["spilled"]["deliveries"]) == (1, 2)
    assert "Up to 2 deliveries lie in the spill" in (await relay("status")).err


async def test_status_for_people(relay: Relay, redis: Redis) -> None:
    """People read a table, the pauses, and whether the books balance."""
    await relay("pause", "forward", "--reason", "announced [work]\x1b[31m")
    answer = await relay("status")
    assert answer.status == 0
    assert "The books balance." in answer.out
    assert "forward is paused by the operator" in answer.out
    assert "announced [work]" in answer.out
    assert "\x1b" not in answer.out
    assert "`relay resume forward` lifts it" in answer.out
    assert "Workers alive: 0. Nothing is worked on" in answer.out
    assert "relay dead list" not in answer.out
    await bury(redis)
    assert "`relay dead list`" in (await relay("status")).out
    await redis.hincrby(keys.BOOKS, "forward:in", 1)
    assert "DO NOT BALANCE" in (await relay("status")).out


async def test_a_stage_is_paused_and_resumed(relay: Relay, redis: Redis) -> None:
    """A pause has its reason and no end; resuming lifts it and wakes a worker."""
    paused = (await relay("pause", "forward", "--reason", "maintenance", "--json")).json
    assert paused["stage"] == "forward"
    assert paused["paused"]["by"] == "operator"
    assert paused["paused"]["reason"] == "maintenance"
    assert paused["paused"]["until"] is None
    assert (await relay("status", "--json")).json["paused"]["forward"] == paused["paused"]
    resumed = (await relay("resume", "forward", "--json")).json
    assert resumed == {"stage": "forward", "paused": None, "was_paused": True}
    assert await redis.exists("arq:job:drain:forward:0")
    assert (await relay("status", "--json")).json["paused"]["forward"] is None
    assert "was not paused" in (await relay("resume", "forward")).out


async def test_pauses_are_audited(relay: Relay, redis: Redis) -> None:
    """The audit tells who did what."""
    await relay("pause", "scores")
    await relay("resume", "scores")
    entries = [entry for _, entry in await redis.xrange(keys.AUDIT)]
    assert [entry[b"what"] for entry in entries] == [b"pause", b"resume"]
    assert entries[0][b"filter"] == b'{"stage":"scores"}'


async def test_a_full_server_can_be_paused_and_resumed(relay: Relay, redis: Redis) -> None:
    """An operator stops a stage and lets it go on with no memory left, and both stand in the audit."""
    limit = (await redis.config_get("maxmemory"))["maxmemory"]
    await redis.config_set("maxmemory", 1)
    try:
        paused = await relay("pause", "forward", "--json")
        resumed = await relay("resume", "forward", "--json")
    finally:
        await redis.config_set("maxmemory", limit)
    assert (paused.status, paused.json["paused"]["by"]) == (0, "operator")
    assert (resumed.status, resumed.json["was_paused"]) == (0, True)
    entries = [entry for _, entry in await redis.xrange(keys.AUDIT)]
    assert [entry[b"what"] for entry in entries] == [b"pause", b"resume"]
