"""`relay dead`: list, show, retry, drop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import orjson
import pytest
from redis.asyncio import Redis

from console.redis_server import EmbeddedRedis
from pipeline import books, dead_letters, heartbeats, keys, retry_runs
from pipeline.dead_letters import Filter
from pipeline.outcomes import Reason, Stage
from pipeline.retry_runs import Retrier
from tests.console.conftest import Relay
from tests.pipeline.burials import bury, bury_at, bury_delivery
from tests.pipeline.work import full

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


async def numbers(redis: Redis, stage: str = "forward") -> dict[str, int]:
    """Return the books of one stage, after checking that all balance."""
    snapshot = await books.snapshot(redis)
    assert snapshot["balanced"]
    row: dict[str, int] = snapshot["stages"][stage]
    return row


async def audited(redis: Redis) -> list[tuple[str, int, dict[str, object]]]:
    """Return what the audit tells: what, count, filter."""
    return [
        (entry[b"what"].decode(), int(entry[b"count"]), orjson.loads(entry[b"filter"]))
        for _, entry in await redis.xrange(keys.AUDIT)
    ]


async def test_list_is_newest_first_and_limited(relay: Relay, redis: Redis) -> None:
    """The machine form is an array of whole letters."""
    ids = [(await bury(redis))[0] for _ in range(3)]
    for at_ms, dead_id in enumerate(ids, start=1_700_000_000_000):
        await bury_at(redis, at_ms, dead_id)
    answer = await relay("dead", "list", "--json", "--limit", "2")
    assert answer.status == 0
    assert [letter["id"] for letter in answer.json] == [ids[2], ids[1]]
    assert answer.json[0]["payload"] == {"encoding": "json", "data": {"type": "Open"}}


async def test_list_takes_filters(relay: Relay, redis: Redis) -> None:
    """Stage, source, reason and age choose; an age is counted back from Redis's now."""
    [old] = await bury(redis)
    [new] = await bury(redis, Stage.SCORES, source="scores", reason=Reason.INVALID)
    await bury_at(redis, 1_700_000_000_000, old)

    async def listed(*words: str) -> list[str]:
        return [letter["id"] for letter in (await relay("dead", "list", "--json", *words)).json]

    assert await listed("--since", "2h") == [new]
    assert await listed("--since", "2023-01-01") == [new, old]
    assert await listed("--since", "2023-11-14T22:13:21Z") == [new]
    assert await listed("--stage", "forward") == [old]
    assert await listed("--source", "scores", "--reason", "invalid") == [new]
    assert await listed("--source", "mailgun") == []


async def test_list_for_people(relay: Relay, redis: Redis) -> None:
    """People read a table in which markup and control characters are only text."""
    assert "No dead letters." in (await relay("dead", "list")).out
    [dead_id] = await bury(redis, error="[red]no[/red] \x1b[31m")
    answer = await relay("dead", "list")
    assert dead_id in answer.out
    assert "[red]no[/red]" in answer.out
    assert "\x1b" not in answer.out


async def test_people_are_told_of_letters_that_are_not_shown(relay: Relay, redis: Redis) -> None:
    """Where the limit ends the table, a line says so; a table of all has none."""
    await bury(redis, payloads=[b"1"] * 3)
    assert "newest 2; there may be more" in (await relay("dead", "list", "--limit", "2")).out
    assert "may be more" not in (await relay("dead", "list")).out


async def test_show_prints_the_original(relay: Relay, redis: Redis) -> None:
    """A letter that is not there is a failure."""
    [dead_id] = await bury(redis)
    body = await bury_delivery(redis, b"\xff")
    assert (await relay("dead", "show", dead_id, "--json")).json["id"] == dead_id
    assert '"type": "Open"' in (await relay("dead", "show", dead_id)).out
    assert "(base64) /w==" in (await relay("dead", "show", body)).out
    missing = await relay("dead", "show", "nobody", "--json")
    assert missing.status == 1
    assert "nobody" in missing.json["error"]


async def test_a_dry_run_touches_nothing(relay: Relay, redis: Redis) -> None:
    """It counts per stage and reason what a retry or a drop would mean."""
    ids = await bury(redis, payloads=[b"1", b"2"])
    await bury(redis, Stage.SCORES, reason=Reason.INVALID)
    plan = {
        "dry_run": True,
        "count": 3,
        "by_stage": {"forward": {"refused": 2}, "scores": {"invalid": 1}},
    }
    assert (await relay("dead", "retry", "--all", "--dry-run", "--json")).json == plan
    assert (await relay("dead", "drop", "--all", "--dry-run", "--json")).json == plan
    named = (await relay("dead", "retry", ids[0], "--dry-run", "--json")).json
    assert named == {"dry_run": True, "count": 1, "by_stage": {"forward": {"refused": 1}}}
    missing = await relay("dead", "retry", ids[0], "nobody", "--dry-run", "--json")
    assert missing.status == 1
    assert missing.json == {**named, "error": missing.json["error"], "not_found": ["nobody"]}
    people = await relay("dead", "retry", "--stage", "forward", "--dry-run")
    assert "2 letters are meant; nothing was touched." in people.out
    assert await redis.zcard(keys.DEAD) == 3
    assert await redis.exists(keys.AUDIT, keys.RETRY_RUN) == 0


async def test_named_letters_are_retried_without_asking(relay: Relay, redis: Redis) -> None:
    """They wait in their stage again, its bell is rung, and what was not found fails the command."""
    ids = await bury(redis, payloads=[b"1", b"2", b"3"])
    answer = await relay("dead", "retry", ids[0], ids[1], ids[0], "--json")
    assert answer.status == 0
    assert answer.json == {"retried": 2, "skipped": 0, "not_found": []}
    assert (await numbers(redis))["waiting"] == 2
    assert await redis.exists("arq:job:drain:forward:0")
    partly = await relay("dead", "retry", ids[2], "ada@example.com", "--json")
    assert partly.status == 1
    assert partly.json["retried"] == 1
    assert partly.json["not_found"] == ["ada@example.com"]
    assert await audited(redis) == [
        ("retry", 2, {"ids": sorted(ids[:2])}),
        ("retry finished", 2, {"ids": sorted(ids[:2])}),
        ("retry", 1, {"ids": [ids[2]]}),
        ("retry finished", 1, {"ids": [ids[2]]}),
    ]


async def test_letters_of_a_filter_are_retried(relay: Relay, redis: Redis) -> None:
    """Only what the filter means goes back, and the audit keeps filter and count."""
    await bury(redis, payloads=[b"1"] * 3)
    [other] = await bury(redis, reason=Reason.BUG)
    words = ["dead", "retry", "--reason", "refused", "--yes", "--json", "--rate", "0"]
    answer = await relay(*words)
    assert answer.status == 0
    assert (answer.json["retried"], answer.json["skipped"]) == (3, 0)
    assert [letter.id for letter in await dead_letters.newest(redis, Filter())] == [other]
    assert await numbers(redis) == {
        **dict.fromkeys(keys.COUNTERS, 0), "in": 4, "waiting": 3, "dead": 1,
    }  # fmt: skip
    begun, finished = await audited(redis)
    assert begun[:2] == ("retry", 3)
    assert begun[2]["reason"] == "refused"
    assert finished[:2] == ("retry finished", 3)
    assert not await redis.exists(keys.RETRY_RUN)
    assert (await relay(*words[:-3])).out == "0 retried, 0 were gone already.\n"


async def test_letters_are_dropped(relay: Relay, redis: Redis) -> None:
    """By name or by filter, at a rate or not; they stay in the books."""
    ids = await bury(redis, payloads=[b"1"] * 5)
    named = await relay("dead", "drop", ids[0], "nobody", "--json")
    assert named.status == 1
    assert named.json["dropped"] == 1
    rest = await relay("dead", "drop", "--stage", "forward", "--yes", "--json", "--rate", "400")
    assert rest.status == 0
    assert rest.json == {"dropped": 4, "skipped": 0}
    assert (await numbers(redis))["dropped"] == 5
    assert await audited(redis) == [
        ("drop", 1, {"ids": [ids[0]]}),
        ("drop finished", 1, {"ids": [ids[0]]}),
        ("drop", 4, {"stage": "forward"}),
        ("drop finished", 4, {"stage": "forward"}),
    ]


async def test_an_interrupted_retry_is_resumed(relay: Relay, redis: Redis) -> None:
    """It goes on with its own filter, and leaves alone what died after it began."""
    ids = await bury(redis, payloads=[b"1"] * 6)
    await bury(redis, reason=Reason.BUG)
    run = await retry_runs.begin(redis, Filter(reason=Reason.REFUSED))
    stopping = asyncio.Event()

    async def ring(stages: set[Stage]) -> None:
        stopping.set()

    retrier = Retrier(redis, rate=4, ring=ring, stopping=stopping)
    assert not await retrier.carry_on(run)
    assert retrier.retried == {Stage.FORWARD: 2}
    until_ms = run.wanted.until_ms or 0
    await bury_at(redis, until_ms + 1, ids[-1])
    dry = await relay("dead", "retry", "--resume", "--dry-run", "--json")
    assert dry.json["count"] == 3
    answer = await relay("dead", "retry", "--resume", "--json")
    assert answer.status == 0
    assert answer.json["retried"] == 5
    assert answer.json["filter"]["reason"] == "refused"
    assert await redis.zcard(keys.DEAD) == 2
    for words in (["--resume"], ["--resume", "--dry-run"]):
        nothing = await relay("dead", "retry", *words, "--json")
        assert nothing.status == 1
        assert "nothing to resume" in nothing.json["error"]


async def test_a_retry_of_nothing_takes_nobodys_place(relay: Relay, redis: Redis) -> None:
    """Filters that no letter meets begin no run, so that an interrupted one can still be resumed."""
    await bury(redis)
    run = await retry_runs.begin(redis, Filter(reason=Reason.REFUSED))
    await redis.hset(keys.RETRY_RUN, "beat_at_ms", 0)
    nothing = await relay("dead", "retry", "--reason", "bug", "--yes", "--json")
    assert (nothing.status, nothing.json["retried"]) == (0, 0)
    assert nothing.json["filter"]["reason"] == "bug"
    left = await retry_runs.interrupted(redis)
    assert left is not None
    assert left.id == run.id


@pytest.mark.parametrize("verb", ["list", "retry", "drop"])
async def test_a_source_that_there_is_not_is_bad_usage(relay: Relay, verb: str) -> None:
    """A slip would look like an all-clear; the answer names those that there are."""
    answer = await relay("dead", verb, "--source", "sendgird", "--json")
    assert answer.status == 2
    assert "sendgrid" in answer.json["error"]


async def test_there_is_one_retry_at_a_time(relay: Relay, redis: Redis) -> None:
    """While one goes on, another neither begins nor takes it over."""
    await bury(redis)
    await retry_runs.begin(redis, Filter())
    for words in (["--all", "--yes"], ["--resume"], ["--resume", "--dry-run"]):
        answer = await relay("dead", "retry", *words, "--json")
        assert answer.status == 1
        assert "goes on" in answer.json["error"]
    assert await redis.zcard(keys.DEAD) == 1


async def test_a_retry_that_was_replaced_stops(redis: Redis) -> None:
    """A run whose place another took does no more than the chunk under way."""
    await bury(redis, payloads=[b"1"] * 3)
    run = await retry_runs.begin(redis, Filter())

    async def ring(stages: set[Stage]) -> None:
        await redis.hset(keys.RETRY_RUN, "id", "another")

    retrier = Retrier(redis, rate=2, ring=ring, stopping=asyncio.Event())
    assert not await retrier.carry_on(run)
    assert await redis.zcard(keys.DEAD) == 2
    assert await redis.hget(keys.RETRY_RUN, "beat_at_ms") != b"0"


async def held_by(redis: Redis, rate: float = 10) -> list[tuple[Stage, int]]:
    """Begin a run over all letters; return why it has held back, if it has: it is stopped then."""
    held: list[tuple[Stage, int]] = []
    stopping = asyncio.Event()

    def hold(stage: Stage, waiting: int) -> None:
        held.append((stage, waiting))
        stopping.set()

    async def ring(stages: set[Stage]) -> None:
        """No worker listens."""

    run = await retry_runs.begin(redis, Filter())
    retrier = Retrier(redis, rate=rate, ring=ring, stopping=stopping, hold=hold)
    assert await retrier.carry_on(run) == (not held)
    return held


async def let_wait(redis: Redis, queue: str, entries: int, payloads: int = 1) -> None:
    """Put *entries* of so many payloads into *queue*."""
    async with redis.pipeline(transaction=False) as pipe:
        for _ in range(entries):
            pipe.execute_command("XADD", keys.queue(queue), "*", *("p", "1", "m", "2") * payloads)
        await pipe.execute()


@pytest.mark.parametrize(
    ("queue", "payloads"),
    [("forward:retried", 1), ("forward:retried:batches", 25), ("forward:raw", 1)],
)
async def test_a_retry_holds_back_while_much_of_it_waits(
    redis: Redis, queue: str, payloads: int
) -> None:
    """With a worker alive and much in the line of what was retried nothing more is; without a limit it is."""
    await bury(redis, payloads=[b"1"] * 2)
    most = retry_runs.MOST_WAITING
    await let_wait(redis, queue, most // payloads, payloads)
    await heartbeats.beat(redis, "worker")
    assert await held_by(redis) == [(Stage.FORWARD, most)]
    assert await redis.zcard(keys.DEAD) == 2
    await held_by(redis, rate=0)
    assert await redis.zcard(keys.DEAD) == 0


async def test_a_retry_has_its_share_behind_a_large_backlog(redis: Redis) -> None:
    """However much new work waits, the line of what was retried is filled; in `unpack` there is none, and it waits."""
    await bury(redis, payloads=[b"1"] * 2)
    await heartbeats.beat(redis, "worker")
    for stage in (Stage.FORWARD, Stage.UNPACK):
        await redis.hset(keys.BOOKS, f"{stage}:waiting", 1_000_000)
    assert await held_by(redis) == []
    assert await redis.xlen(keys.queue("forward:retried")) == 2
    await bury_delivery(redis, b"{")
    assert await held_by(redis) == [(Stage.UNPACK, 1_000_000)]
    assert await redis.zcard(keys.DEAD) == 1


async def test_without_a_worker_nothing_is_held_back(redis: Redis) -> None:
    """Nobody is kept waiting when nobody works."""
    await bury(redis)
    await let_wait(redis, "forward:retried", retry_runs.MOST_WAITING)
    assert await held_by(redis) == []
    assert await redis.zcard(keys.DEAD) == 0


async def start(redis_url: str, *words: str) -> asyncio.subprocess.Process:
    """Start `relay dead` with *words* as a process of its own."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "console.main", "dead", *words),
        env={**os.environ, "PYTHONPATH": str(ROOT), "REDIS_URL": redis_url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def until_less(
    redis: Redis, count: int, process: asyncio.subprocess.Process, stage: Stage = Stage.FORWARD
) -> None:
    """Wait until *stage* has fewer than *count* dead letters; *process* must not have ended by then."""
    async with asyncio.timeout(30):
        while int(await redis.hget(keys.BOOKS, f"{stage}:dead")) >= count:  # noqa: ASYNC110 - another process works
            await asyncio.sleep(0.01)
    assert process.returncode is None


async def test_ctrl_c_leaves_a_retry_resumable(relay: Relay, redis: Redis, redis_url: str) -> None:
    """Interrupted, the command ends with 1, says how to go on, and can be resumed at once."""
    await bury(redis, payloads=[b"1"] * 40)
    process = await start(redis_url, "retry", "--all", "--yes", "--rate", "2")
    await until_less(redis, 40, process)
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert process.returncode == 1
    assert out == b""
    assert b"--resume" in err
    answer = await relay("dead", "retry", "--resume", "--json", "--rate", "0")
    assert answer.json["retried"] == 40
    assert await redis.zcard(keys.DEAD) == 0
    assert [what for what, _, _ in await audited(redis)] == [
        *("retry", "retry interrupted", "retry resumed", "retry finished"),
    ]


@pytest.mark.parametrize("verb", ["retry", "drop"])
async def test_ctrl_c_stops_named_letters(redis: Redis, redis_url: str, verb: str) -> None:
    """The rate holds for named ids too: stopped while it waits, all but the first are still dead."""
    ids = await bury(redis, payloads=[b"1"] * 20)
    process = await start(redis_url, verb, *ids, "--rate", "0.01", "--json")
    await until_less(redis, 20, process)
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert (process.returncode, err) == (1, b"")
    answer = orjson.loads(out)
    assert answer == {
        "error": "Interrupted after 1 of the letters: the others are still there.",
        **{"retried" if verb == "retry" else "dropped": 1, "skipped": 0},
        **{"not_found": [], "finished": False},
    }
    assert await redis.zcard(keys.DEAD) == 19
    assert await audited(redis) == [
        (verb, 20, {"ids": sorted(ids)}),
        (f"{verb} interrupted", 1, {"ids": sorted(ids)}),
    ]


async def test_ctrl_c_stops_a_drop_at_its_rate(redis: Redis, redis_url: str) -> None:
    """A drop by filter goes at its rate too: stopped while it waits, the rest is still dead."""
    await bury(redis, payloads=[b"1"] * 20)
    process = await start(redis_url, "drop", "--all", "--yes", "--rate", "0.01")
    await until_less(redis, 20, process)
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert (process.returncode, out) == (1, b"")
    assert b"the others are still there" in err
    assert await redis.zcard(keys.DEAD) == 19
    assert (await numbers(redis))["dropped"] == 1
    assert await audited(redis) == [("drop", 20, {}), ("drop interrupted", 1, {})]


@pytest.mark.parametrize("words", [["drop", "--all", "--yes"], ["drop"], ["retry"]])
async def test_an_order_that_is_killed_stands_in_the_audit(
    redis: Redis, redis_url: str, words: list[str]
) -> None:
    """No letter goes before it is written down who lets how many go."""
    ids = await bury(redis, payloads=[b"1"] * 20)
    named = [] if "--all" in words else ids
    process = await start(redis_url, *words, *named, "--rate", "0.01")
    await until_less(redis, 20, process)
    process.kill()
    await process.communicate()
    assert await audited(redis) == [(words[0], 20, {"ids": sorted(ids)} if named else {})]


async def test_orders_that_lose_redis_tell_what_was_done(own_redis: EmbeddedRedis) -> None:
    """Redis dies in the middle: each command ends with 1 and says after how many letters.

    All at once, each on a stage of its own, because each tries for seconds to reach Redis again.
    """
    verbs = {Stage.FORWARD: "drop", Stage.ENRICH: "drop", Stage.SUBSCRIBE: "retry"}
    orders: dict[Stage, asyncio.subprocess.Process] = {}
    async with Redis.from_url(own_redis.url) as redis:
        for stage, verb in verbs.items():
            ids = await bury(redis, stage, payloads=[b"1"] * 20)
            named = ["--stage", stage, "--yes"] if stage is Stage.FORWARD else ids
            orders[stage] = await start(own_redis.url, verb, *named, "--rate", "2", "--json")
        for stage, process in orders.items():
            await until_less(redis, 20, process, stage)
    own_redis.stop()
    done = {stage: await broken_off(process, verbs[stage]) for stage, process in orders.items()}
    own_redis.start()
    async with Redis.from_url(own_redis.url) as redis:
        for stage, count in done.items():
            # one more may have gone unheard
            assert (await numbers(redis, stage))["dead"] in (20 - count, 19 - count)


async def broken_off(process: asyncio.subprocess.Process, verb: str) -> int:
    """Wait for an order that failed in the middle; return after how many letters it says that was."""
    out, err = await process.communicate()
    assert (process.returncode, err) == (1, b"")
    answer = orjson.loads(out)
    done: int = answer["retried" if verb == "retry" else "dropped"]
    assert f"failed in the middle of the {verb}" in answer["error"]
    assert f"after {done} of the letters" in answer["error"]
    assert answer["finished"] is False
    return done


@pytest.mark.parametrize(
    "words", [["drop", "--all", "--yes"], ["drop"], ["retry", "--all", "--yes"], ["retry"]]
)
async def test_orders_are_carried_out_on_a_full_server(
    relay: Relay, redis: Redis, words: list[str]
) -> None:
    """Letting letters go is what makes room: both lines of the audit are written, and the command ends well."""
    ids = await bury(redis, payloads=[b"1"] * 3)
    named = [] if "--all" in words else ids
    async with full(redis):
        answer = await relay("dead", *words, *named, "--json")
    assert answer.status == 0, answer.err or answer.json
    assert answer.json["retried" if words[0] == "retry" else "dropped"] == 3
    assert await redis.zcard(keys.DEAD) == 0
    assert not await redis.exists(keys.RETRY_RUN)
    meant = {"ids": sorted(ids)} if named else answer.json.get("filter", {})
    verb = words[0]
    assert await audited(redis) == [(verb, 3, meant), (f"{verb} finished", 3, meant)]


async def test_a_retry_that_loses_redis_says_how_to_go_on(
    relay: Relay, own_redis: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis dies in the middle: the command ends with 1 and names --resume, which does the rest."""
    async with Redis.from_url(own_redis.url) as redis:
        await bury(redis, payloads=[b"1"] * 20)
        process = await start(own_redis.url, "retry", "--all", "--yes", "--rate", "2")
        await until_less(redis, 20, process)
    own_redis.stop()
    _, err = await process.communicate()
    assert process.returncode == 1
    assert b"`relay dead retry --resume` goes on when it is back" in err
    own_redis.start()
    async with Redis.from_url(own_redis.url) as redis:
        await redis.hset(keys.RETRY_RUN, "beat_at_ms", 0)  # as it is some seconds later
        monkeypatch.setenv("REDIS_URL", own_redis.url)
        answer = await relay("dead", "retry", "--resume", "--json", "--rate", "0")
        assert answer.json["retried"] == 20
        assert await redis.zcard(keys.DEAD) == 0
