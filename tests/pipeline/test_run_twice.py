"""Scripts that run twice: redis-py sends a call again when its reply is lost, and nothing may come of it.

Every test runs one script over a connection that breaks after the server has done the work and before its
answer is heard. Where the second run may change something, the test says what, and why it does no harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha1
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from pipeline import (
    audit,
    books,
    calls,
    dead_letters,
    heartbeats,
    imports,
    keys,
    paces,
    pauses,
    retry_runs,
    scripts,
    seen,
)
from pipeline.clock import HOUR_MS, redis_now_ms
from pipeline.connections import Role, connection_pool
from pipeline.dead_letters import Filter
from pipeline.imports import Import, Kind
from pipeline.inbox import Inbox
from pipeline.moves import Move, Result
from pipeline.outcomes import Reason, Stage
from pipeline.queues import Entry, Queues, Sealed, create_groups
from pipeline.scripts import GIVEN_UP_S, TOLD_APART, script
from pipeline.settings import Settings
from tests.pipeline.burials import bury
from tests.pipeline.work import (
    META,
    ORIGIN,
    add,
    apply,
    check_books,
    claim,
    delivery,
    full,
    image,
    numbers,
    put,
    refuse,
    seal,
    set_back,
    succeed,
    take,
)

pytestmark = pytest.mark.anyio

LUA = Path(__file__).parents[2] / "pipeline" / "lua"
FORWARD = keys.destination(Stage.FORWARD)
Image = dict[bytes, bytes]


async def nothing() -> None:
    """Let nothing happen."""


@dataclass
class Broken:
    """A worker's line to Redis that breaks once in every call of a script, just before its answer."""

    redis: Redis
    client: Redis
    #: what the server held when each line broke
    images: list[Image] = field(default_factory=list)
    #: what happens before the call is sent again
    meanwhile: Callable[[], Awaitable[object]] = nothing
    #: the one script that it breaks in; None for every one
    script: str | None = None

    async def breaks(self) -> None:
        """Note what the first run did."""
        self.images.append(await image(self.redis))
        await self.meanwhile()

    def breaks_in(self, call: tuple[object, ...]) -> bool:
        """Tell whether the reply to *call* is lost."""
        digest = self.script and sha1(scripts.text(self.script).encode()).hexdigest()  # noqa: S324 - Redis's
        return call[0] == "EVALSHA" and digest in (None, call[1])

    async def check_nothing_more(self) -> None:
        """The second run of the one call so far changed nothing at all, and the books are right."""
        (after_the_first,) = self.images
        assert await image(self.redis) == after_the_first
        await check_books(self.redis)


class Breaking:
    """What makes a connection of redis-py one that breaks."""

    broken: Broken
    _call: tuple[object, ...] = ("",)
    _unheard: tuple[object, ...] | None = None

    async def send_packed_command(self, *args: Any, **options: Any) -> None:
        """Send several at a time: a pipeline, which is left alone."""
        self._call = ("",)
        await super().send_packed_command(*args, **options)  # type: ignore[misc] # a connection's

    async def send_command(self, *args: Any, **options: Any) -> None:
        """Send a command, and remember which; another one may have to be sent first, to see if the line is good."""
        await super().send_command(*args, **options)  # type: ignore[misc] # a connection's
        self._call = args

    async def read_response(self, *args: Any, **options: Any) -> object:
        """Read the reply; lose it when it is the first one to a script's call."""
        reply: object = await super().read_response(*args, **options)  # type: ignore[misc] # as above
        if self.broken.breaks_in(self._call) and self._call != self._unheard:
            self._unheard = self._call
            await self.broken.breaks()
            raise RedisConnectionError("the line broke")
        self._unheard = None if self._call == self._unheard else self._unheard
        return reply


@pytest.fixture
async def broken(redis: Redis, redis_url: str, tmp_path: Path) -> AsyncIterator[Broken]:
    """Give a broken line to the emptied server, with the patience of a worker."""
    settings = Settings(redis_url=SecretStr(redis_url), relay_home=tmp_path)
    pool = connection_pool(settings, Role.WORKER)
    line = Broken(redis, Redis.from_pool(pool))
    kind = pool.connection_class
    pool.connection_class = type("BreakingConnection", (Breaking, kind), {"broken": line})
    yield line
    await line.client.aclose()


async def held(redis: Redis, queue: str) -> dict[str, list[str]]:
    """Return the entries in each consumer's hands."""
    rows = await redis.xpending_range(keys.queue(queue), keys.GROUP, "-", "+", 1_000)
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row["consumer"].decode(), []).append(row["message_id"].decode())
    return found


async def adopt_as(redis: Redis, worker: str) -> None:
    """Let *worker* find every other one dead."""
    await heartbeats.beat(redis, worker)
    await Queues(redis, worker).adopt()


def test_every_script_says_what_a_second_run_does() -> None:
    """Its head says it, or that it only reads; those told apart take name and word before their arguments."""
    for path in LUA.glob("*.lua"):
        if path.stem in ("prelude", "pace"):
            continue
        head = path.read_text().split("\nlocal ")[0]
        assert "-- Second run: " in head or "rites nothing" in head, path.name
        assert ("ARGV: the caller's name, the call's word" in head) == (path.stem in TOLD_APART), (
            path.name
        )


async def test_a_line_breaks_once_in_every_call(broken: Broken) -> None:
    """The tests here test something: each script's call runs twice, and other commands once."""
    raise_bells = script(broken.client, "raise_bells")
    assert [await raise_bells(args=[Stage.SCORES]) for _ in range(3)] == [2, 4, 6]
    assert await broken.client.incr("number") == 1
    assert len(broken.images) == 3


# taking ---------------------------------------------------------------------------------------------


async def test_claim_answers_with_the_same_batch(broken: Broken) -> None:
    """No second batch is stranded in the worker's hands, none is suspected to be sent twice, one call is spent."""
    for payload in (b"1", b"2"):
        await seal(broken.redis, Stage.FORWARD, [payload], "g", "1-1", "t", "3:0:1")
    claimed = await claim(broken.client, gap_ms=60_000)
    assert (claimed.payloads, claimed.attempts, claimed.others) == ([b"1"], "3:0:1", 1)
    await broken.check_nothing_more()
    assert await held(broken.redis, "forward:batches") == {"one": [claimed.id]}
    assert (await books.snapshot(broken.redis))["maybe_duplicate"] == 1
    await broken.redis.hset(keys.PREFIX + "rate:audiencepoint", "next", 1)
    assert (await claim(broken.client, gap_ms=60_000)).payloads == [
        b"2"
    ]  # another call, another batch


async def test_claim_answers_with_the_same_held_batch(broken: Broken) -> None:
    """A batch that waited for others is told as one, its probe still lasts, and so many others wait."""
    await seal(broken.redis, Stage.FORWARD, [b"1"])
    await seal(broken.redis, Stage.FORWARD, [b"2"])
    first = await claim(broken.redis)
    move = Move(first.queue, [first.id])
    move.pass_on(keys.held(Stage.FORWARD), ["p", b"1", "m", META, "g", first.id, "t", "1:0:0"])
    await apply(broken.redis, move)
    await set_back(broken.redis, held=1)
    await broken.redis.hincrby(FORWARD, "successes", 1)
    claimed = await claim(broken.client)
    assert (claimed.queue, claimed.attempts) == ("forward:held", "1:0:0")
    assert (claimed.others, claimed.others_held) == (1, 0)
    await broken.check_nothing_more()
    assert (await claim(broken.redis, consumer="two")).word == "wait"


async def test_claim_does_not_give_what_was_taken_over(broken: Broken) -> None:
    """When the line was gone for so long that another worker has the batch, the next one is given."""
    for payload in (b"1", b"2"):
        await seal(broken.redis, Stage.FORWARD, [payload])

    async def take_over() -> None:
        await adopt_as(broken.redis, "two")
        assert (await claim(broken.redis, consumer="two")).payloads == [b"1"]

    broken.meanwhile = take_over
    assert (await claim(broken.client)).payloads == [b"2"]
    await check_books(broken.redis)


async def test_claim_looks_again_when_there_was_no_batch(broken: Broken) -> None:
    """Nothing to do, a pause and a wait are found twice, and change nothing."""
    await create_groups(broken.redis)
    assert (await claim(broken.client)).word == "empty"
    await seal(broken.redis, Stage.FORWARD, [b"1"])
    await pauses.pause(broken.redis, Stage.FORWARD, "lunch")
    assert (await claim(broken.client)).word == "paused"
    await pauses.resume(broken.redis, Stage.FORWARD)
    soon = await redis_now_ms(broken.redis) + 60_000
    await broken.redis.hset(keys.PREFIX + "rate:audiencepoint", "next", soon)
    assert (await claim(broken.client, gap_ms=60_000)).word == "wait"
    assert broken.images.pop() == await image(broken.redis)
    assert await held(broken.redis, "forward:batches") == {}


async def test_take_answers_with_the_same_entries(broken: Broken) -> None:
    """What was given back and what is new, each with its past, and nothing more in the worker's hands."""
    for _ in range(4):
        await put(broken.redis)
    first, second = await take(broken.redis, most=2)
    queues = Queues(broken.redis, "one")
    await apply(broken.redis, Move("unpack", [first.id], "", "500/900"))
    await queues.failed(first)
    await queues.give_back("unpack", [first.id, second.id])
    entries = await take(broken.client, most=3)
    await broken.check_nothing_more()
    assert [(entry.cursor, entry.attempts) for entry in entries] == [
        ("500/900", 1),
        ("", 0),
        ("", 0),
    ]
    assert await held(broken.redis, "unpack") == {"one": [entry.id for entry in entries]}
    (last,) = await take(broken.client, most=3)  # another call, another entry
    assert last.id > entries[-1].id


async def test_take_does_not_give_what_was_taken_over(broken: Broken) -> None:
    """Of what it took the first time a worker is only told what is still its own."""
    await create_groups(broken.redis)
    for _ in range(3):
        await put(broken.redis)
    ids = [row[0].decode() for row in await broken.redis.xrange(keys.queue("unpack"))]

    async def lose(*lost: str) -> None:
        one, two = Queues(broken.redis, "one"), Queues(broken.redis, "two")
        await one.give_back("unpack", lost)
        await two.take("unpack", Stage.UNPACK, most=len(lost))

    broken.meanwhile = lambda: lose(ids[0])
    assert [entry.id for entry in await take(broken.client, most=2)] == [ids[1]]
    broken.meanwhile = lambda: lose(ids[2])
    assert await take(broken.client, most=2) == []
    await check_books(broken.redis)


async def test_seal_seals_what_the_next_call_would(broken: Broken) -> None:
    """More complete batches may come about, never an unripe one; each event is in one batch."""
    await add(broken.redis, Stage.FORWARD, [b"%d" % n for n in range(7)])
    sealed = await Queues(broken.client, "one").seal(Stage.FORWARD, most=2, batches=2, ripe_s=60)
    assert isinstance(sealed, Sealed)
    assert await broken.redis.xlen(keys.queue("forward")) == 1
    found = [(await claim(broken.redis)).payloads for _ in range(3)]
    assert found == [[b"0", b"1"], [b"2", b"3"], [b"4", b"5"]]
    await check_books(broken.redis)


# giving back ----------------------------------------------------------------------------------------


async def test_give_back_happens_once(broken: Broken) -> None:
    """The second run finds the entry given back already."""
    await put(broken.redis)
    (entry,) = await take(broken.redis)
    await Queues(broken.client, "one").give_back("unpack", [entry.id])
    await broken.check_nothing_more()
    assert await held(broken.redis, "unpack") == {"released": [entry.id]}


async def test_give_back_may_take_away_what_was_taken_again(broken: Broken) -> None:
    """Then two may work on an entry, and only the first of their moves happens."""
    await put(broken.redis)
    (entry,) = await take(broken.redis)
    broken.meanwhile = lambda: take(broken.redis)
    await Queues(broken.client, "one").give_back("unpack", [entry.id])
    await take(broken.redis, consumer="two")
    move = Move("unpack", [entry.id])
    move.append(Stage.FORWARD, b"event", ORIGIN)
    move.settle(Stage.UNPACK, "done")
    results = [(await apply(broken.redis, move, consumer=name)).results for name in ("two", "one")]
    assert results == [[Result.DONE], [Result.GONE]]
    assert await numbers(broken.redis, Stage.FORWARD) == {"in": 1, "waiting": 1}
    await check_books(broken.redis)


async def test_release_happens_once(broken: Broken) -> None:
    """The second run finds nothing left in the worker's hands; the entries can be taken at once."""
    await put(broken.redis)
    await take(broken.redis)
    assert await script(broken.client, "release")(args=[9, "one", 1, "unpack"]) == 0
    await broken.check_nothing_more()
    assert len(await take(broken.redis, consumer="two")) == 1


async def test_adopt_then_removes_the_emptied_consumer(broken: Broken) -> None:
    """The second run does what the next sweep would, and the entries can be taken at once."""
    await put(broken.redis)
    await take(broken.redis, consumer="dead")
    adopt = script(broken.client, "adopt")
    assert await adopt(args=[9, "living", heartbeats.FRESH_MS, 1, "unpack"]) == 0
    rows = await broken.redis.xinfo_consumers(keys.queue("unpack"), keys.GROUP)
    assert [row["name"] for row in rows] == [b"released"]
    assert len(await take(broken.redis, consumer="living")) == 1
    await check_books(broken.redis)


async def test_a_failure_is_counted_once(broken: Broken) -> None:
    """Three tries are three: a lost reply buries nothing after two."""
    await put(broken.redis)
    (entry,) = await take(broken.redis)
    queues = Queues(broken.client, "one")
    assert await queues.failed(entry) == 1
    await broken.check_nothing_more()
    assert await queues.failed(entry) == 2
    stranger = Entry("unpack", "1-1", [], [])
    assert await queues.failed(stranger) == 0


# the destination ------------------------------------------------------------------------------------


async def test_a_failed_call_sets_back_once(broken: Broken) -> None:
    """One failure is counted and told, also when its back-off is over before the second run."""
    await seal(broken.redis, Stage.FORWARD, [b"1"])
    claimed = await claim(broken.redis)
    answer = await set_back(broken.client, claimed, pauses_after=2)
    assert answer == (0, False)
    await broken.check_nothing_more()
    assert await broken.redis.hget(FORWARD, "failures") == b"1"
    assert await held(broken.redis, "forward:batches") == {"released": [claimed.id]}


async def test_a_set_back_leaves_the_next_try_alone(broken: Broken) -> None:
    """A batch that the same worker has claimed again stays in its hands, and stays known as begun."""
    await seal(broken.redis, Stage.FORWARD, [b"1"])
    claimed = await claim(broken.redis)
    broken.meanwhile = lambda: claim(broken.redis)
    await set_back(broken.client, claimed, sent=0)
    assert await held(broken.redis, "forward:batches") == {"one": [claimed.id]}
    assert await broken.redis.hgetall(keys.ATTEMPTS) == {
        f"forward:batches/{claimed.id}".encode(): b"1:0:1"
    }
    await check_books(broken.redis)


async def test_a_pause_is_told_by_the_second_run(broken: Broken) -> None:
    """The answer of the first run comes again: the pause that it made, and how long it lasts."""
    await create_groups(broken.redis)
    assert await set_back(broken.client, at_once=1, probe_ms=5_000) == (5_000, True)
    await broken.check_nothing_more()


async def test_a_refusal_is_counted_once(broken: Broken) -> None:
    """Twenty in a row are twenty; the next one counts although its words are the same."""
    await create_groups(broken.redis)
    assert await refuse(broken.client, "words", "1-1") == (1, 1)
    await broken.check_nothing_more()
    assert await refuse(broken.client, "words", "1-1") == (2, 1)
    assert await refuse(broken.client, "words", "2-1") == (3, 2)


async def test_resume_lifts_one_pause(broken: Broken) -> None:
    """It tells that there was one, and leaves one that somebody made in between."""
    await create_groups(broken.redis)
    await pauses.pause(broken.redis, Stage.FORWARD, "lunch")
    assert await pauses.resume(broken.client, Stage.FORWARD)
    await broken.check_nothing_more()
    await pauses.pause(broken.redis, Stage.FORWARD, "lunch")
    broken.meanwhile = lambda: pauses.pause(broken.redis, Stage.FORWARD, "dinner")
    assert await pauses.resume(broken.client, Stage.FORWARD)
    snapshot = await books.snapshot(broken.redis)
    assert snapshot["paused"]["forward"]["reason"] == "dinner"
    broken.meanwhile = nothing
    assert not await pauses.resume(broken.client, Stage.SCORES)


async def test_a_probe_asked_for_twice_is_one(broken: Broken) -> None:
    """The second run finds the call due already, and says so again."""
    await seal(broken.redis, Stage.FORWARD, [b"1"])
    await set_back(broken.redis, await claim(broken.redis), at_least_ms=60_000, at_once=1)
    assert await pauses.probe(broken.client, Stage.FORWARD) == "due"
    assert (await claim(broken.redis)).payloads == [b"1"]
    await check_books(broken.redis)


async def test_calls_told_twice_are_counted_twice(broken: Broken) -> None:
    """They are statistics: what is wrong by a lost reply is two seconds' worth, and no book knows of it."""
    await calls.add(broken.client, Stage.FORWARD, {"ok": 1}, [(0, "failed||x")])
    known = (await calls.read(broken.redis, [Stage.FORWARD]))[Stage.FORWARD]
    assert (known.hour.outcomes["ok"], len(known.failures)) == (2, 2)
    await check_books(broken.redis)


async def test_a_pause_is_the_same_made_twice(broken: Broken) -> None:
    """The second run writes the pause of the first one again; it stops nothing else and counts nothing."""
    await pauses.pause(broken.client, Stage.FORWARD, "lunch")
    snapshot = await books.snapshot(broken.redis)
    assert snapshot["paused"]["forward"]["reason"] == "lunch"
    assert [stage for stage, pause in snapshot["paused"].items() if pause] == ["forward"]
    assert await pauses.resume(broken.redis, Stage.FORWARD)
    assert not await pauses.resume(broken.redis, Stage.FORWARD)


async def test_an_entry_of_the_audit_may_stand_there_twice(broken: Broken) -> None:
    """Both times with the same time, so that a reader sees that it was one order."""
    await audit.record(broken.client, "drop", who="ann", count=1)
    first, second = [entry for _, entry in await broken.redis.xrange(keys.AUDIT)]
    assert first == second
    assert (first[b"what"], first[b"who"], first[b"filter"]) == (b"drop", b"ann", b"{}")


async def test_a_pause_without_a_key_is_made_once(broken: Broken) -> None:
    """The second run finds it, or what an operator has made of it in between, and leaves either as it is."""
    await pauses.pause_without_key(broken.client, Stage.FORWARD, f"{pauses.NO_KEY}: set it")
    await broken.check_nothing_more()
    broken.meanwhile = lambda: pauses.pause(broken.redis, Stage.ENRICH, "lunch")
    await pauses.pause_without_key(broken.client, Stage.ENRICH, f"{pauses.NO_KEY}: set it")
    snapshot = await books.snapshot(broken.redis)
    assert snapshot["paused"]["enrich"]["reason"] == "lunch"


# moving ---------------------------------------------------------------------------------------------


async def test_a_move_happens_once(broken: Broken) -> None:
    """The second run finds the entries gone; what followed the first time stays as it is."""
    await put(broken.redis)
    (entry,) = await take(broken.redis)
    move = Move(entry.queue, [entry.id])
    move.append(Stage.FORWARD, b"event", ORIGIN)
    move.append_fresh(Stage.FORWARD, "one", b"event", META)
    move.settle(Stage.UNPACK, "done")
    assert (await apply(broken.client, move)).results == [Result.GONE]
    await broken.check_nothing_more()
    assert await numbers(broken.redis, Stage.FORWARD) == {"in": 2, "waiting": 2}


async def test_a_slice_is_moved_once(broken: Broken) -> None:
    """The second run finds the cursor moved on."""
    await put(broken.redis)
    (entry,) = await take(broken.redis)
    move = Move(entry.queue, [entry.id], "", "500/900")
    move.append(Stage.FORWARD, b"event", ORIGIN)
    assert (await apply(broken.client, move)).results == [Result.GONE]
    await broken.check_nothing_more()
    assert await held(broken.redis, "unpack") == {"one": [entry.id]}


async def test_a_move_that_wrote_a_visitor_is_merged_again_for_nothing(broken: Broken) -> None:
    """The second run answers CHANGED, because of the first; the move made anew finds its entry gone."""
    await add(broken.redis, Stage.ENRICH, [b"event"])
    (entry,) = await take(broken.redis, Stage.ENRICH)

    def merging(version: str) -> Move:
        move = Move(entry.queue, [entry.id], versions={"v": version})
        move.save_visitor("v", str(int(version or 0) + 1), b"{}", 5, HOUR_MS)
        move.settle(Stage.ENRICH, "done")
        return move

    assert (await apply(broken.client, merging(""))).results == [Result.CHANGED]
    await broken.check_nothing_more()
    assert (await apply(broken.redis, merging("1"))).results == [Result.GONE]
    assert await broken.redis.hget(keys.visitor("v"), "version") == b"1"


async def test_a_success_is_counted_once(broken: Broken) -> None:
    """A batch is done once, and its call has succeeded once."""
    await seal(broken.redis, Stage.FORWARD, [b"1"])
    await succeed(broken.client, await claim(broken.redis))
    await broken.check_nothing_more()
    assert await broken.redis.hget(FORWARD, "successes") == b"1"


# the inbox and the dead letters ---------------------------------------------------------------------


async def test_put_stores_again_what_the_seen_marks_recognise(broken: Broken) -> None:
    """A flush that is written twice is two entries, in the books, too; its events are moved on once."""
    await create_groups(broken.redis)
    await script(broken.client, "put")(args=[delivery().pack(), delivery().pack()])
    assert await numbers(broken.redis, Stage.UNPACK) == {"in": 4, "waiting": 4}
    for entry in await take(broken.redis, most=9):
        move = Move("unpack", [entry.id])
        move.append_fresh(Stage.FORWARD, "one", b"event", META)
        move.settle(Stage.UNPACK, "done", 2)
        await apply(broken.redis, move)
    assert await numbers(broken.redis, Stage.FORWARD) == {"in": 2, "waiting": 1, "duplicate": 1}
    await check_books(broken.redis)


async def test_what_was_spilled_is_stored_once(broken: Broken) -> None:
    """The second run finds that the file has come further, stores nothing, and answers the same."""
    packed = delivery().pack()
    args: list[str | bytes | float] = ["file", 0, 300, HOUR_MS, packed, packed]
    assert await script(broken.client, "put_spilled")(args=args) == [300, 0]
    await broken.check_nothing_more()
    assert await numbers(broken.redis, Stage.UNPACK) == {"in": 2, "waiting": 2}
    assert 0 < await broken.redis.pttl(keys.spilled("file")) <= HOUR_MS


async def test_a_malformed_body_is_counted_once(broken: Broken) -> None:
    """The second run finds the letter of the first; the same body from another delivery does count."""
    first, second = delivery(b"<"), delivery(b"<")
    dead_id = await Inbox(broken.client).bury(first, Reason.MALFORMED, "not JSON")
    await broken.check_nothing_more()
    assert dead_id == first.id
    assert await Inbox(broken.redis).bury(second, Reason.MALFORMED, "not JSON") == first.id
    letter = await dead_letters.fetch(broken.redis, dead_id)
    assert letter is not None
    assert letter.count == 2


async def test_retry_puts_a_letter_back_once(broken: Broken) -> None:
    """The second run finds it gone, and counts it as somebody else's."""
    (dead_id,) = await bury(broken.redis)
    assert await script(broken.client, "retry")(args=[dead_id]) == [0]
    await broken.check_nothing_more()
    assert await broken.redis.xlen(keys.queue("forward:retried")) == 1


async def test_drop_tells_how_many_there_were(broken: Broken) -> None:
    """The second run finds them gone, and answers as the first one did."""
    ids = await bury(broken.redis, payloads=[b"1", b"2"])
    assert await dead_letters.drop(broken.client, [*ids, "nobody"]) == 2
    await broken.check_nothing_more()
    assert await numbers(broken.redis, Stage.FORWARD) == {"in": 2, "dropped": 2}


async def test_a_retry_run_counts_a_chunk_once(broken: Broken) -> None:
    """What was done is written as a sum, so writing it twice adds nothing; a run goes on from there."""
    await bury(broken.redis, payloads=[b"%d" % n for n in range(150)])
    stopping = asyncio.Event()

    async def stop(stages: set[Stage]) -> None:
        stopping.set()

    broken.script = "note_run"
    run = await retry_runs.begin(broken.redis, Filter())
    retrier = retry_runs.Retrier(broken.client, rate=0, ring=stop, stopping=stopping)
    assert not await retrier.carry_on(run)
    for done in (100, 150):  # taken up again it counts from there
        left = await retry_runs.interrupted(broken.redis)
        assert left is not None
        assert (left.done, left.skipped) == (done, 0)
        stopping.clear()
        retrier = retry_runs.Retrier(broken.client, rate=0, ring=stop, stopping=stopping)
        assert await retrier.carry_on(left) is (done == 150)
    assert len(broken.images) > 3
    await check_books(broken.redis)


async def test_a_retry_run_begins_once(broken: Broken) -> None:
    """The second run finds its own run, not another one that goes on; a third one is another."""
    run = await retry_runs.begin(broken.client, Filter(stage=Stage.FORWARD))
    assert await broken.redis.hget(keys.RETRY_RUN, "id") == run.id.encode()
    with pytest.raises(retry_runs.RunExists):
        await retry_runs.begin(broken.client, Filter())
    await broken.redis.hset(keys.RETRY_RUN, "beat_at_ms", 0)
    assert await retry_runs.interrupted(broken.redis) == run


# imports --------------------------------------------------------------------------------------------


async def test_an_import_is_taken_noted_and_left_once(broken: Broken) -> None:
    """The second run takes what is in the same hands, writes the same, and finds it left."""
    one, is_ours = await imports.take(broken.client, Import(Kind.SEGMENT, "s", 10), "me")
    assert is_ours
    with pytest.raises(imports.Busy):
        await imports.take(broken.redis, one, "other")
    one = await imports.note(broken.client, one, "me", next_page=2, rows=10)
    assert await imports.read(broken.redis, Kind.SEGMENT, "s") == one
    one = await imports.leave(broken.client, one, "me", finished_at_ms=7)
    assert await imports.read(broken.redis, Kind.SEGMENT, "s") == one
    _, is_ours = await imports.take(broken.redis, one, "other")
    assert not is_ours


async def test_a_lease_is_whose_it_was(broken: Broken) -> None:
    """The second run finds it in the same hands; left, it is nobody's."""
    lease = script(broken.client, "lease")
    assert await lease(args=["reconciling", "me", 60_000]) == 1
    assert await script(broken.redis, "lease")(args=["reconciling", "other", 60_000]) == 0
    assert await lease(args=["reconciling", "me", 0]) == 1
    assert not await broken.redis.exists(keys.PREFIX + "reconciling")


async def test_a_turn_that_was_taken_twice_costs_one_call_of_the_rate(broken: Broken) -> None:
    """The second run has to wait for the next call, and the one before is made by nobody."""
    assert await script(broken.client, "turn")(args=["audiencelab", 60_000, 1]) > 0


async def test_a_rate_is_halved_once(broken: Broken) -> None:
    """The second run finds it lowered after the call was begun; so it does where nobody knows when that was."""
    assert not await paces.slow_down(broken.client, "audiencepoint", 5.0, "429", 1)
    await broken.check_nothing_more()
    assert not await paces.slow_down(broken.client, "audiencelab", 5.0, "429")
    for vendor in ("audiencepoint", "audiencelab"):
        assert await broken.redis.hget(keys.pace(vendor), "share") == b"0.5"


# the sweep ------------------------------------------------------------------------------------------


async def test_groups_are_made_once(broken: Broken) -> None:
    """The second run finds every group."""
    await create_groups(broken.client)
    await broken.check_nothing_more()


async def test_a_beat_may_come_twice(broken: Broken) -> None:
    """The worker lives, whichever of the two was heard."""
    await heartbeats.beat(broken.client, "one")
    age_s = await heartbeats.youngest_age_s(broken.redis)
    assert age_s is not None
    assert await broken.redis.zcard(keys.WORKERS) == 1


async def test_a_bell_that_was_raised_twice_is_only_higher(broken: Broken) -> None:
    """The answer is the number that counts now, so whoever rings with it makes a new job."""
    number = await script(broken.client, "raise_bells")(args=[Stage.FORWARD])
    assert await broken.redis.hgetall(keys.BELLS) == {b"forward": b"%d" % number}


async def test_a_sweep_may_be_left_out(broken: Broken) -> None:
    """The second run finds the lock taken, by itself: nobody sweeps until it is over, and it does end."""
    assert await script(broken.client, "lock_sweep")(args=["one", 60_000]) == 0
    await broken.check_nothing_more()
    assert 0 < await broken.redis.pttl(keys.PREFIX + "sweeping") <= 60_000


async def test_forgetting_marks_goes_on(broken: Broken) -> None:
    """The second run removes what the next sweep would have removed; marks that count stay."""
    await put(broken.redis)
    (entry,) = await take(broken.redis)
    move = Move("unpack", [entry.id])
    move.append_fresh(Stage.FORWARD, "fresh", b"event", META)
    move.settle(Stage.UNPACK, "done")
    await apply(broken.redis, move)
    await broken.redis.hset(keys.SEEN, "1", "3:300")
    await seen.forget_old_slots(broken.client, HOUR_MS, most=2)
    assert len(await broken.redis.hkeys(keys.SEEN)) == 1
    assert await seen.remembered(broken.redis) == 1


async def test_reading_changes_nothing(broken: Broken) -> None:
    """The status and the recount may be read as often as anybody likes."""
    await add(broken.redis, Stage.FORWARD, [b"1"])
    told = await books.snapshot(broken.client)
    await broken.check_nothing_more()
    assert told["stages"]["forward"]["waiting"] == 1
    assert (await script(broken.client, "payloads")(args=["forward", "-", 9]))[:2] == [1, 1]
    assert broken.images.pop() == await image(broken.redis)


# the answers ----------------------------------------------------------------------------------------


async def answers(redis: Redis) -> list[bytes]:
    """Return the names of the answers that are kept."""
    return list(await redis.keys(keys.PREFIX + "answer:*"))


async def fail(redis: Redis) -> None:
    """Take an entry, fail over it, and do whatever else is told apart, once each."""
    (entry,) = await take(redis)
    assert await Queues(redis, "one").failed(entry) == 1
    await set_back(redis, await claim(redis, lease_ms=0))
    await refuse(redis, "words", "1-1")
    await pauses.resume(redis, Stage.FORWARD)
    await dead_letters.drop(redis, ["nobody"])


async def test_there_are_no_more_answers_than_callers(redis: Redis) -> None:
    """However much fails, one caller's answers take one key; four that work at a time take four at most."""
    for _ in range(40):
        await put(redis)
    await seal(redis, Stage.FORWARD, [b"1"])
    for _ in range(8):
        await fail(redis)
    assert len(await answers(redis)) == 1
    for _ in range(8):
        await asyncio.gather(*(fail(redis) for _ in range(4)))
    assert 1 < len(await answers(redis)) <= 4


async def test_an_answer_is_kept_longer_than_anybody_tries(redis: Redis) -> None:
    """It leaves by itself, long after its call is given up."""
    await dead_letters.drop(redis, ["nobody"])
    (name,) = await answers(redis)
    assert GIVEN_UP_S * 1.9 < await redis.ttl(name) <= GIVEN_UP_S * 2


async def test_a_call_that_is_not_answered_is_given_up(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name is used by no other call, because the server may still come to it; it ends as if Redis were lost."""
    await dead_letters.drop(redis, ["nobody"])
    (lost,) = await answers(redis)
    monkeypatch.setattr(scripts, "GIVEN_UP_S", 0.01)
    async with Redis.from_url(redis_url) as operator:
        await operator.client_pause(60_000, all=False)
        try:
            with pytest.raises(TimeoutError):
                await dead_letters.drop(redis, ["nobody"])
        finally:
            await operator.client_unpause()
    monkeypatch.undo()
    await redis.delete(lost)
    await dead_letters.drop(redis, ["nobody"])
    assert lost not in await answers(redis)


async def test_a_refused_call_was_answered(redis: Redis) -> None:
    """Its name is used again: a script that fails all day leaves no more names than one that works."""
    await dead_letters.drop(redis, ["nobody"])
    (name,) = await answers(redis)
    with pytest.raises(ResponseError):
        await script(redis, "drop")(args=["not a number"])
    await dead_letters.drop(redis, ["nobody"])
    assert await answers(redis) == [name]


async def test_a_call_that_is_told_apart_joins_no_pipeline(redis: Redis) -> None:
    """There several calls of one caller would wait for their answers at a time."""
    async with redis.pipeline() as pipe:
        with pytest.raises(ValueError, match="two calls"):
            await script(redis, "drop")(args=[0], client=pipe)


async def test_answers_are_kept_on_a_full_server(broken: Broken) -> None:
    """With no memory left every script that is told apart still does its work, and is told apart."""
    redis, client = broken.redis, broken.client
    await seal(redis, Stage.FORWARD, [b"1"])
    await put(redis)
    async with full(redis):
        assert await dead_letters.drop(client, ["nobody"]) == 0
        assert not await pauses.resume(client, Stage.SCORES)
        assert await refuse(client, "words", "1-1") == (1, 1)
        (entry,) = await take(client)
        assert await Queues(client, "one").failed(entry) == 1
        claimed = await claim(client)
        assert claimed.payloads == [b"1"]
        assert await set_back(client, claimed) == (0, False)
    assert len(broken.images) == len(TOLD_APART) == 7
    await check_books(redis)
