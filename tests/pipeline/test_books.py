"""The books balance after every single step, whatever order puts, takes, crashes, retries and drops come in."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from redis.asyncio import Redis

from pipeline import books, dead_letters, heartbeats, keys, pauses
from pipeline.clock import HOUR_MS
from pipeline.inbox import Inbox
from pipeline.moves import Argument, Move, Mover
from pipeline.origins import Origin
from pipeline.outcomes import Reason, Stage
from pipeline.queues import Entry, Queues
from tests.pipeline.work import (
    META,
    ORIGIN,
    Claimed,
    add,
    apply,
    batch,
    check_books,
    claim,
    delivery,
    put,
    seal,
    set_back,
    take,
)

T = TypeVar("T")
WORKERS = st.sampled_from(["one", "two", "three"])
ANY = st.integers(0, 1_000_000)
#: what a delivery may tell of; fingerprints repeat, so that duplicates come about
FACTS = st.lists(st.sampled_from(["a", "b", "c", "ignored", "invalid", "address"]), max_size=7)


class Relay(RuleBasedStateMachine):
    """Three workers on one Redis. What a crashed worker had in its hands stays here and may still be tried."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.redis: Redis = Redis.from_url(self.url)
        self.run(self.redis.flushall())
        self.entries: dict[str, list[Entry]] = {}
        self.claims: dict[str, list[Claimed]] = {}
        self.moves: list[tuple[str, Move]] = []

    def run(self, step: Coroutine[Any, Any, T]) -> T:
        """Do one step."""
        return self.runner.run(step)

    def apply(self, worker: str, *moves: Move) -> None:
        """Carry out *moves*, and keep them to be carried out again."""
        self.moves += [(worker, move) for move in moves]
        self.run(apply(self.redis, *moves, consumer=worker))

    @rule(deliveries=st.integers(1, 3))
    def put(self, deliveries: int) -> None:
        """A flush is stored."""
        self.run(put(self.redis, deliveries))

    @rule(body=st.sampled_from([b"<", b">"]))
    def put_malformed(self, body: bytes) -> None:
        """A body that was answered 400 is kept."""
        self.run(Inbox(self.redis).bury(delivery(body), Reason.MALFORMED, "not JSON"))

    @rule(worker=WORKERS)
    def beat(self, worker: str) -> None:
        """A worker lives."""
        self.run(heartbeats.beat(self.redis, worker))

    @rule(worker=WORKERS, adopter=WORKERS)
    def crash(self, worker: str, adopter: str) -> None:
        """A worker dies, and another one looks for what it left."""
        self.run(heartbeats.stop(self.redis, worker))
        self.run(Queues(self.redis, adopter).adopt())

    @rule(worker=WORKERS, stage=st.sampled_from(list(Stage)))
    def release(self, worker: str, stage: Stage) -> None:
        """A worker lets go of what it holds."""
        self.run(Queues(self.redis, worker).release(stage))

    @rule(worker=WORKERS, most=st.integers(1, 3))
    def take(self, worker: str, most: int) -> None:
        """A worker takes deliveries."""
        self.entries[worker] = self.run(take(self.redis, most=most, consumer=worker))

    @rule(worker=WORKERS, facts=FACTS, slices=st.integers(1, 3), is_readable=st.booleans())
    def unpack(self, worker: str, facts: list[str], slices: int, is_readable: bool) -> None:
        """A worker takes apart what it holds, in slices; some deliveries cannot be read."""
        for entry in self.entries.get(worker, []):
            moves = []
            start = int(entry.cursor or 0)
            for n in range(start, max(slices, start + 1)):
                is_last = n == max(slices, start + 1) - 1
                move = Move("unpack", [entry.id], str(n or ""), "" if is_last else str(n + 1))
                for fact in facts:
                    tell(move, fact)
                moves.append(move)
            done = len(entry.payloads)
            if not is_readable:
                done -= 1
                payload = entry.payloads[0]
                moves[-1].bury(Stage.UNPACK, Reason.UNKNOWN_SHAPE, "what?", payload, ORIGIN)
                moves[-1].settle(Stage.UNPACK, "dead")
            moves[-1].settle(Stage.UNPACK, "done", done)
            self.apply(worker, *moves)

    @rule(pick=ANY)
    def run_again(self, pick: int) -> None:
        """A move that was carried out already is carried out again, by whoever thinks it was not."""
        if self.moves:
            worker, move = self.moves[pick % len(self.moves)]
            self.run(apply(self.redis, move, consumer=worker))

    @rule(worker=WORKERS, stage=st.sampled_from([Stage.FORWARD, Stage.SUBSCRIBE]))
    def seal(self, worker: str, stage: Stage) -> None:
        """A worker seals what waits."""
        entries = self.run(take(self.redis, stage, most=4, consumer=worker))
        if entries:
            move = Move(stage, [entry.id for entry in entries])
            move.pass_on(keys.batches(stage), batch([entry.payloads[0] for entry in entries]))
            self.apply(worker, move)

    @rule(worker=WORKERS, stage=st.sampled_from([Stage.FORWARD, Stage.SUBSCRIBE]))
    def claim(self, worker: str, stage: Stage) -> None:
        """A worker takes a batch to call the vendor with."""
        claimed = self.run(claim(self.redis, stage, consumer=worker))
        if claimed.word == "batch":
            self.claims.setdefault(worker, []).append(claimed)

    @rule(worker=WORKERS, pick=ANY, fate=st.sampled_from(["done", "split", "hold", "back"]))
    def answer(self, worker: str, pick: int, fate: str) -> None:
        """The vendor answers a call; when the batch was taken over meanwhile, that changes nothing."""
        claims = self.claims.get(worker)
        if not claims:
            return
        claimed = claims.pop(pick % len(claims))
        stage = Stage(claimed.queue.partition(":")[0])
        move = Move(claimed.queue, [claimed.id])
        more: list[Argument] = ["g", claimed.id, "t", claimed.attempts]
        if fate == "back":
            self.run(set_back(self.redis, claimed, stage=stage, consumer=worker, sent=pick % 2))
            return
        if fate == "hold":
            move.pass_on(keys.held(stage), batch(claimed.payloads, *more))
        elif fate == "split" and len(claimed.payloads) > 1:
            move.pass_on(keys.batches(stage), batch(claimed.payloads[:1], *more))
            move.pass_on(keys.batches(stage), batch(claimed.payloads[1:], *more))
        elif fate == "split":
            move.bury(stage, Reason.REFUSED, "no", claimed.payloads[0], ORIGIN, digest="d0")
            move.settle(stage, "dead")
        else:
            move.settle(stage, "done", len(claimed.payloads))
            move.succeeded(stage)
        self.apply(worker, move)

    @rule(pick=ANY, drops=st.booleans())
    def decide(self, pick: int, drops: bool) -> None:
        """An operator retries or drops a dead letter, and perhaps does so twice."""
        letters = self.run(dead_letters.newest(self.redis, dead_letters.Filter()))
        if letters:
            dead_id = letters[pick % len(letters)].id
            for _ in range(1 + pick % 2):
                if drops:
                    self.run(dead_letters.drop(self.redis, [dead_id]))
                else:
                    self.run(dead_letters.retry(self.redis, dead_id))

    @rule(stage=st.sampled_from(list(Stage)), is_paused=st.booleans())
    def pause(self, stage: Stage, is_paused: bool) -> None:
        """An operator pauses or resumes a stage."""
        if is_paused:
            self.run(pauses.pause(self.redis, stage, "lunch"))
        else:
            self.run(pauses.resume(self.redis, stage))

    @invariant()
    def the_books_balance(self) -> None:
        """The rule that all of this proves."""
        self.run(check_books(self.redis))

    def teardown(self) -> None:
        """Close the connection and the loop."""
        self.run(self.redis.aclose())
        self.runner.close()


def tell(move: Move, fact: str) -> None:
    """Add to *move* what *fact* means."""
    if fact == "ignored":
        move.new_ignored(Stage.FORWARD)
    elif fact == "invalid":
        move.bury(Stage.FORWARD, Reason.INVALID, "no time", b"event", ORIGIN)
        move.new_dead(Stage.FORWARD)
    elif fact == "address":
        move.subscribe(f"d{move.weight % 3}", "ann@example.com", ORIGIN)
    else:
        move.append_fresh(Stage.FORWARD, fact, fact.encode(), META)


def test_the_books_balance_at_every_instant(redis_url: str) -> None:
    """No interleaving of what the relay does leaves counters that differ from each other or from the data."""
    machine = type("RelayHere", (Relay,), {"url": redis_url})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=20, stateful_step_count=30, deadline=None)
    )


@pytest.mark.anyio
async def test_a_status_shows_everything(redis: Redis) -> None:
    """An empty relay shows every stage with all its numbers, nothing paused, nobody at work."""
    await redis.hset(keys.REFUSED, "token", 2)
    snapshot = await books.snapshot(redis)
    assert snapshot == {
        "stages": {str(stage): dict.fromkeys(keys.COUNTERS, 0) for stage in Stage},
        "balanced": True,
        "paused": dict.fromkeys(map(str, Stage)),
        "maybe_duplicate": 0,
        "refused": {"token": 2, "signature": 0, "too_large": 0},
        "workers": 0,
        "oldest_waiting_s": 0.0,
    }


@pytest.mark.anyio
async def test_the_oldest_work_is_seen_in_every_queue(redis: Redis) -> None:
    """The age of what waits longest is told, in whichever queue it lies, and living workers are counted."""
    await heartbeats.beat(redis, "one")
    await redis.zadd(keys.WORKERS, {"dead": 1})
    await put(redis)
    await redis.xadd(keys.queue("forward:held"), {"p": b"1"}, id="1-1")
    snapshot = await books.snapshot(redis)
    assert snapshot["oldest_waiting_s"] > 1_000_000
    assert snapshot["workers"] == 1


@pytest.mark.anyio
async def test_books_that_do_not_balance_are_shown(redis: Redis) -> None:
    """A lost count is never hidden."""
    await put(redis)
    await redis.hincrby(keys.BOOKS, "unpack:done", 1)
    assert not (await books.snapshot(redis))["balanced"]


@pytest.mark.anyio
async def test_recounting_reads_past_a_page(redis: Redis) -> None:
    """More work and more dead letters than fit one page are counted, batches by their items."""
    await add(redis, Stage.FORWARD, [b"x"] * 2_000)
    await seal(redis, Stage.FORWARD, [b"y"])
    await put(redis)
    (entry,) = await take(redis)
    move = Move("unpack", [entry.id])
    for _ in range(1_100):
        move.bury(Stage.SCORES, Reason.INVALID, "no", b"{}", Origin("scores", 1))
        move.new_dead(Stage.SCORES)
    await Mover(redis, "one", HOUR_MS).apply([move])
    counted = await books.recount(redis)
    assert counted[Stage.FORWARD] == {"waiting": 2_001, "dead": 0}
    assert counted[Stage.SCORES] == {"waiting": 0, "dead": 1_100}
    assert counted[Stage.UNPACK] == {"waiting": 0, "dead": 0}
