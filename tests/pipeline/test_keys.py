"""The legend of Redis keys: every key that is ever written stands in it, and everything in it is written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from redis.asyncio import ConnectionPool, Redis

from pipeline import (
    bulk_jobs,
    calls,
    dead_index,
    dead_letters,
    dialects,
    heartbeats,
    history,
    imports,
    keys,
    paces,
    pauses,
    recipients,
    senders,
)
from pipeline.clock import HOUR_MS
from pipeline.imports import Import, Kind
from pipeline.inbox import Inbox
from pipeline.moves import Move
from pipeline.origins import Form, Origin
from pipeline.outcomes import Reason, SetUp, Stage
from pipeline.queues import Queues, create_groups
from pipeline.scripts import script, shared_parts, text
from pipeline.spill import Piece
from pipeline.tombstones import Tombstones
from pipeline.wake import Bell, arq_redis
from tests.pipeline.work import (
    META,
    ORIGIN,
    add,
    apply,
    claim,
    delivery,
    put,
    refuse,
    seal,
    set_back,
    take,
)

ROOT = Path(__file__).parents[2]
LUA = ROOT / "pipeline" / "lua"
PACKAGES = ("pipeline", "workers", "receiver", "console")
#: written by the workers or the console themselves; their own tests make them
ELSEWHERE = {
    *("bells", "sweeping", "audit", "retry-run", "arq:queue:health-check", "proof:KIND:DIGEST"),
    *("explained:STAGE:BATCH", "half:STAGE:BATCH"),
}


def legend() -> dict[str, str]:
    """Return the type of every name in the legend, words in capitals standing for anything."""
    rows = re.findall(r"^\| (\S+)\s+\| (\w+)\s+\|", keys.__doc__ or "", re.MULTILINE)
    return {name: kind for name, kind in rows if name != "key"}


def entry_of(key: str) -> str | None:
    """Return the legend's name for *key*; the longest that fits."""
    fitting = [
        name
        for name in legend()
        if re.fullmatch(re.sub(r"[A-Z]{2,}", ".+", name.replace("{", r"\{")), key)
    ]
    return max(fitting, key=len, default=None)


async def everything(redis: Redis, url: str) -> None:
    """Make every kind of key that the package writes."""
    await create_groups(redis)
    inbox = Inbox(redis)
    await inbox.bury(delivery(b"<"), Reason.MALFORMED, "not JSON")
    await inbox.count_refused({"token": 1})
    await inbox.put_spilled("file", [Piece(5, 9, [b"elsewhere"])], 5)
    await heartbeats.beat(redis, "one")
    await Tombstones(redis).put(["somebody"])
    await recipients.resolve(redis, Tombstones(redis), [("sfmc", "1:2", "ann@example.com")])
    await senders.keep_set_up(redis, "sfmc", 5, SetUp("callback", "key"))
    await put(redis)
    (entry,) = await take(redis)
    move = Move("unpack", [entry.id], "", "1")
    move.append_fresh(Stage.FORWARD, "one", b"event", META)
    move.subscribe("digest", "ann@example.com", ORIGIN)
    move.alias("digest", "v", HOUR_MS)
    move.save_visitor("v", "1", b"{}", 5, HOUR_MS)
    move.remember(keys.enrichment("digest"), HOUR_MS)
    for _ in range(2):
        move.pass_on(keys.batches(Stage.ENRICH), ["p", b"{}", "m", META])
    await apply(redis, move)
    assert await bulk_jobs.seal(redis, 1) == 2
    (job,) = await redis.zrange(keys.BULK, 0, 0)
    await script(redis, "give_up")(args=[job, HOUR_MS, "refused"])
    await Queues(redis, "one").failed(entry)
    await seal(redis, Stage.FORWARD, [b"1"])
    await set_back(redis, await claim(redis, gap_ms=60_000), at_once=1)
    await refuse(redis, "words", "1-1")
    await paces.slow_down(redis, "audiencepoint", 5.0, "429", 1)
    await paces.tell_widths(redis, "one", {Stage.FORWARD: (4, "late")})
    await calls.add(redis, Stage.FORWARD, {"ok": 1}, [(5, "failed||words")])
    await script(redis, "lease")(args=["polling", "one", HOUR_MS])
    await script(redis, "poll")(args=["audiencepoint", 0, 2, 5, HOUR_MS, HOUR_MS, 0])
    await pauses.pause(redis, Stage.SCORES, "lunch")
    await history.note(redis)
    await imports.take(redis, Import(Kind.SEGMENT, "s-1", 10), "one")
    await script(redis, "lease")(args=["reconciling", "one", HOUR_MS])
    await script(redis, "lease")(args=["mending", "one", HOUR_MS])
    assert [wrong async for wrong in dead_index.mend(redis) if wrong] == []
    await dialects.keep(redis, "enrich", "observed")
    await put(redis)
    (entry,) = await take(redis)
    drill = Move(entry.queue, [entry.id])
    drill.append(Stage.FORWARD, b'{"send_id":"n"}', Origin("events", 5, Form.DRILL))
    await apply(redis, drill)
    await Queues(redis, "one").seal(Stage.FORWARD, most=30, batches=1, ripe_s=60)
    arq = arq_redis(ConnectionPool.from_url(url))
    await Bell(arq).ring(Stage.FORWARD, 1)
    await arq.aclose(close_connection_pool=True)


@pytest.mark.anyio
async def test_every_key_stands_in_the_legend_with_its_type(redis: Redis, redis_url: str) -> None:
    """After everything was done once, no key is unknown, and each has the type that the legend says."""
    await everything(redis, redis_url)
    found = {}
    for name in await redis.keys("*"):
        entry = entry_of(name.decode())
        assert entry is not None, name
        found[entry] = (await redis.type(name)).decode()
    assert found == {name: legend()[name] for name in found}
    missing = {name.removeprefix(keys.PREFIX) for name in set(legend()) - set(found)}
    assert missing - ELSEWHERE == {"arq:in-progress:ID"}


def test_every_name_in_the_lua_files_stands_in_the_legend() -> None:
    """Scripts build their names from the prefix; each of them begins an entry of the legend."""
    known = {name.removeprefix(keys.PREFIX) for name in legend()}
    for path in LUA.glob("*.lua"):
        for name in re.findall(r"P \.\. '([^']*)'", path.read_text()):
            begins = [entry for entry in known if entry == name or entry.startswith(name)]
            assert begins, f"{path.name}: {name}"


def test_every_name_in_the_code_stands_in_the_legend() -> None:
    """No package writes a key of its own making beside those of the legend."""
    written = {
        name
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if path.name != "keys.py"
        for name in re.findall(
            r"(?:\{relay\}:|PREFIX ?\+ ?\"|\{keys\.PREFIX\}|\{PREFIX\})([\w:-]+)", path.read_text()
        )
    }
    names = {name.removeprefix(keys.PREFIX) for name in legend()}
    unknown = {name for name in written if not any(entry.startswith(name) for entry in names)}
    assert unknown - {"nothing"} == set()  # a key that never exists, for commands that want one


def test_the_functions_build_the_names_of_the_legend() -> None:
    """Each function and constant of the module makes names that the legend knows."""
    constants = [value for value in vars(keys).values() if isinstance(value, str)]
    built = [value for value in constants if value.startswith(keys.PREFIX) and value != keys.PREFIX]
    built += [keys.queue("forward:held"), keys.destination(Stage.FORWARD), keys.letter("1")]
    built += [keys.bulk_job("n"), keys.visitor("v"), keys.address("d"), keys.enrichment("d")]
    built += [keys.set_up("sfmc"), keys.recipient("d"), keys.import_of("segment", "s-1")]
    built += [keys.drill("n", Stage.FORWARD), keys.spilled("f"), keys.pace("audiencepoint")]
    built += [keys.width("one"), keys.calls(Stage.FORWARD, 1, 2), keys.failed_calls(Stage.FORWARD)]
    assert [name for name in built if entry_of(name) is None] == []
    assert keys.batches(Stage.ENRICH) in keys.QUEUES[Stage.ENRICH]
    assert keys.held(Stage.ENRICH) in keys.QUEUES[Stage.ENRICH]


def test_what_waits_for_calls_is_every_queue_but_those_worked_on_without() -> None:
    """Taking apart, merging and reading again call nobody; a call is made with batches, and parts of bulk jobs."""
    without = {name for stage in Stage for name in keys.QUEUES[stage]}
    for stage in (Stage.ENRICH, Stage.SUBSCRIBE, Stage.FORWARD, Stage.NOTIFY):
        without -= set(keys.calls_of(stage))
        assert set(keys.sealed(stage)) <= set(keys.calls_of(stage)) <= set(keys.QUEUES[stage])
    assert without == {
        *("unpack", keys.UNPROVEN, "enrich", "enrich:retried", "enrich:raw", "forward:raw"),
        *("scores", "scores:raw"),
    }
    assert keys.sealed(Stage.ENRICH) == (
        *("enrich:batches", "enrich:held", "enrich:retried:batches", "enrich:retried:held"),
        "enrich:bulk",
    )
    assert keys.sealed(Stage.SCORES) == ()


def test_every_script_knows_the_same_words() -> None:
    """What scripts share says prefix, group, consumer and stages as the code does."""
    prelude = "\n\n".join(shared_parts())
    for word in (keys.PREFIX, keys.GROUP, keys.RELEASED, *Stage):
        assert f"'{word}'" in prelude
    enrich = Stage.ENRICH
    for function, made in (
        ("retried_line(stage)", keys.retried(enrich)),
        ("batches_of(line)", keys.batches(enrich)),
        ("held_of(line)", keys.held(enrich)),
        ("raw_of(stage)", keys.raw(enrich)),
        ("bulk_of(stage)", keys.bulk(enrich)),
    ):
        of, end = function[:-1].split("(")[1], made.removeprefix(enrich)
        assert f"local function {function} return {of} .. '{end}' end" in prelude


def test_a_script_brings_what_it_uses() -> None:
    """Each one is what it says itself behind the shared parts that it speaks of, directly or by another; no others."""
    for path in LUA.glob("*.lua"):
        assert text(path.stem).endswith(path.read_text())
    assert text("put").startswith("-- Shared by every script")
    for name, is_used in (
        ("queue_key", True),
        ("close_books", True),
        ("faster", False),
        ("put_off", False),
    ):
        assert (f"local function {name}(" in text("put")) is is_used, name
    # told by `succeeded`, which speaks of `climb`, which speaks of `faster`
    assert "local function faster(" in text("went_well")


@pytest.mark.anyio
async def test_scripts_come_back_after_a_restart(redis: Redis) -> None:
    """A server that forgot the scripts is told them again, in the middle of work."""
    await add(redis, Stage.FORWARD, [b"1"])
    queues = Queues(redis, "one")
    await redis.script_flush()
    assert len((await queues.take("forward", Stage.FORWARD, most=1)).entries) == 1
    assert await dead_letters.drop(redis, ["nothing"]) == 0
