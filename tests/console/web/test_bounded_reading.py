"""No page of the console asks Redis for anything that grows with the letters, the visitors, or what waits.

Redis itself tells what it was asked while every page is read, what scripts ask it included.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest
from redis.asyncio import Redis
from starlette.routing import Route

from console.web.app import _routes
from pipeline import audit, dead_letters, heartbeats, history, keys
from pipeline.clock import HOUR_MS
from pipeline.dead_letters import Filter
from pipeline.moves import Move, Mover
from pipeline.outcomes import Reason, Stage
from pipeline.sources.registry import SOURCES
from tests.console.web.conftest import Open
from tests.console.web.posting import post
from tests.pipeline.burials import bury, bury_delivery
from tests.pipeline.work import put, take

pytestmark = pytest.mark.anyio

ADDRESS = "ada@example.com"
#: what grows with the traffic, with who was seen, and with what failed
GROWING = {
    *(keys.DEAD, keys.VISITORS, keys.TOMBSTONES, keys.ARRIVALS, keys.HISTORY, keys.AUDIT),
    *(keys.ATTEMPTS, keys.CURSORS, keys.BULK),
}
GROWING_EACH = (keys.dead_of(""), keys.queue(""), keys.SEEN + ":")
WHOLE = {
    *("KEYS", "SORT", "SMEMBERS", "HGETALL", "HKEYS", "HVALS", "SUNION", "SINTER", "SDIFF"),
    *("ZUNION", "ZINTER", "ZDIFF", "ZUNIONSTORE", "ZINTERSTORE", "ZDIFFSTORE"),
}
RANGES = {
    *("XRANGE", "XREVRANGE", "ZRANGEBYSCORE", "ZREVRANGEBYSCORE"),
    *("ZRANGEBYLEX", "ZREVRANGEBYLEX", "SCAN", "ZSCAN", "HSCAN", "SSCAN"),
}
BY_PLACE = {"ZRANGE", "ZREVRANGE", "LRANGE"}


def is_unbounded(words: list[str]) -> bool:
    """Tell whether a command answers with as much as there is."""
    name, key, *rest = [words[0].upper(), *words[1:], ""]
    if name == "KEYS":
        return True
    if key not in GROWING and not key.startswith(GROWING_EACH):
        return False
    if name in BY_PLACE:
        first, last = int(rest[0]), int(rest[1])
        return last < 0 <= first or not 0 <= last - first <= 2_000
    return name in WHOLE or (name in RANGES and not 0 <= _most(rest) <= 2_000)


def _most(rest: list[str]) -> int:
    """Return how many a range asks for at most, -1 for all there are."""
    words = [word.upper() for word in rest]
    if "COUNT" in words:
        return int(words[words.index("COUNT") + 1])
    return int(words[words.index("LIMIT") + 2]) if "LIMIT" in words else -1


@pytest.mark.parametrize(
    ("command", "is_one"),
    [
        ("KEYS *", True),
        ("ZRANGE {relay}:dead 0 -1", True),
        ("zrevrange {relay}:visitors 0 49", False),
        ("XRANGE {relay}:queue:unpack - +", True),
        ("XRANGE {relay}:queue:unpack - + COUNT 1", False),
        ("XRANGE {relay}:queue:unpack - + COUNT 100000", True),
        ("ZREVRANGEBYSCORE {relay}:dead-of:a/b/c 5 -inf WITHSCORES", True),
        ("ZREVRANGEBYSCORE {relay}:dead 5 -inf LIMIT 0 1000 WITHSCORES", False),
        ("SMEMBERS {relay}:tombstones", True),
        ("HGETALL {relay}:books", False),
        ("HGETALL {relay}:dead:0123456789abcdef01234567", False),
        ("HGETALL {relay}:attempts", True),
    ],
)
def test_what_is_unbounded(command: str, is_one: bool) -> None:
    """The test knows a whole range when it sees one."""
    assert is_unbounded(command.split()) is is_one


async def asked(redis: Redis, work: Callable[[], Awaitable[None]]) -> list[list[str]]:
    """Return every command that Redis was sent while *work* went on, those of scripts too."""
    commands: list[list[str]] = []
    async with redis.monitor() as monitor:
        watching = asyncio.create_task(_collect(monitor, commands))
        await work()
        await redis.echo("this is the end")
        async with asyncio.timeout(60):
            await watching
    return commands


async def _collect(monitor: object, commands: list[list[str]]) -> None:
    while True:
        told = await monitor.next_command()  # type: ignore[attr-defined] # not typed by redis-py
        commands.append(told["command"].split())
        if told["command"].startswith("ECHO this is the end"):
            return


async def fill(redis: Redis) -> str:
    """Make some of everything that a page shows; return a letter's id."""
    for number in range(60):
        source = ("sendgrid", "mailgun", "events")[number % 3]
        await bury(redis, source=source, payloads=[b'{"email": "ada@example.com"}'] * 2)
    [letter] = await bury(redis, Stage.SCORES, source="scores", reason=Reason.INVALID)
    await bury_delivery(redis, b"not json")
    await put(redis)
    (entry,) = await take(redis)
    move = Move("unpack", [entry.id])
    move.save_visitor("v-1", "1", b'{"personal_emails":["ada@example.com"]}', 5, HOUR_MS)
    move.alias("a" * 64, "v-1", HOUR_MS)
    await Mover(redis, "one", HOUR_MS).apply([move])
    await heartbeats.beat(redis, "one")
    await history.note(redis)
    await audit.record(redis, "retry", who="console", count=1)
    return letter


async def read_all(console: httpx.AsyncClient, letter: str) -> None:
    """Read every page that can be got, and the plans that are posted."""
    words = {"{id}": letter, "{source}": "sendgrid"}
    for route in _routes():
        if not isinstance(route, Route) or "GET" not in (route.methods or ()):
            continue
        path = route.path
        for name, word in words.items():
            path = path.replace(name, "v-1" if path.startswith("/visitors/") else word)
        if path != "/api/live":  # it lasts a minute, and shows what / shows
            answer = await console.get(path)
            assert answer.status_code in (200, 303, 405), (path, answer.text)
    kind = "stage=scores&source=scores&reason=invalid"
    for path in ("/?range=week", "/dead?since=1h", "/dead?stage=forward", f"/dead?{kind}"):
        assert (await console.get(path)).status_code == 200
    for source in SOURCES:
        assert (await console.get(f"/deliveries?source={source}")).status_code == 200
    for fields in ({}, {"stage": "forward"}, {"since": "1h"}):
        answer = await post(console, "/dead/plan", verb="retry", which="all", **fields)
        assert answer.status_code == 200
    for path in ("/visitors/find", "/visitors/forget/plan"):
        assert (await post(console, path, who=ADDRESS)).status_code in (200, 303, 404)


async def test_no_page_asks_for_a_whole_range(open_console: Open, redis: Redis) -> None:
    """Neither KEYS nor a range without an end of what grows is sent while all pages are read."""
    letter = await fill(redis)
    console = await open_console()
    commands = await asked(redis, lambda: read_all(console, letter))
    names = {words[0].upper() for words in commands}
    assert {"ZREVRANGEBYSCORE", "XRANGE", "ZCOUNT"} <= names  # it was listening, to scripts too
    assert [words for words in commands if is_unbounded(words)] == []


async def test_a_walk_of_all_letters_would_be_noticed(redis: Redis) -> None:
    """What scripts and clients send is told: a walk is seen, and so is a range without an end."""
    await bury(redis, payloads=[b"1"] * 3)

    async def work() -> None:
        async for _ in dead_letters.places(redis, Filter()):
            pass
        await redis.zrange(keys.DEAD, 0, -1)

    found = [words for words in await asked(redis, work) if is_unbounded(words)]
    assert [words[:2] for words in found] == [["ZRANGE", keys.DEAD]]
