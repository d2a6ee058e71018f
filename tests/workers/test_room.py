"""Room: how long an answer about Redis's memory holds."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from pipeline import keys
from pipeline.outcomes import Stage
from pipeline.queues import Entry
from tests.pipeline.work import limited_to
from workers import room
from workers.room import Room

pytestmark = pytest.mark.anyio

#: far more than the tests' server uses by itself
LIMIT = 100_000_000
MOST = LIMIT // 50


class Clock:
    """A clock that stands still."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
async def limited(redis: Redis) -> AsyncIterator[Redis]:
    """Give the server a limit, for this test only."""
    async with limited_to(redis, LIMIT):
        yield redis


async def fill(redis: Redis) -> None:
    """Lower the limit so far that the server is as good as full."""
    used = (await redis.info("memory"))["used_memory"]
    await redis.config_set("maxmemory", int(used / 0.95))


def of_size(size: int) -> Entry:
    """Return an entry of *size* bytes."""
    return Entry("unpack", "1-1", [b"x" * size], [])


async def test_an_answer_holds_for_its_bytes_however_many_takes_they_come_in(
    limited: Redis,
) -> None:
    """Small takes do not ask again; when the bytes are used up, the server is asked."""
    clock = Clock()
    asked = Room(limited, clock)
    assert await asked.bytes_to_unpack() == MOST
    await fill(limited)
    for taken in (1, 2):
        asked.take([of_size(MOST // 3)])
        assert await asked.bytes_to_unpack() == MOST - taken * (MOST // 3)
    asked.take([of_size(MOST)])
    assert await asked.bytes_to_unpack() == 1


async def test_an_answer_holds_for_a_moment(limited: Redis) -> None:
    """Others use the same memory, so that even unused bytes are asked for again soon."""
    clock = Clock()
    asked = Room(limited, clock)
    assert await asked.bytes_to_unpack() == MOST
    await fill(limited)
    clock.now += room.HOLDS_S
    assert await asked.bytes_to_unpack() == 1


async def test_without_room_every_look_asks(limited: Redis) -> None:
    """On a nearly full server each entry is taken on an answer of its own, and none is missed when it is over."""
    await fill(limited)
    asked = Room(limited, Clock())
    assert await asked.bytes_to_unpack() == 1
    asked.take([of_size(10)])
    await limited.xadd("{relay}:queue:forward", {"p": "{}", "m": "events|0|h|"})
    assert await asked.bytes_to_unpack() == 0
    await limited.config_set("maxmemory", LIMIT)
    assert await asked.bytes_to_unpack() == MOST


async def test_a_limit_that_is_set_later_is_noticed(limited: Redis) -> None:
    """Without a limit takes are free, and the server is asked now and then all the same."""
    await limited.config_set("maxmemory", 0)
    clock = Clock()
    asked = Room(limited, clock)
    for _ in range(3):
        assert await asked.bytes_to_unpack() == room.MOST_BYTES
        asked.take([of_size(room.MOST_BYTES)])
    await limited.config_set("maxmemory", LIMIT)
    assert await asked.bytes_to_unpack() == room.MOST_BYTES
    clock.now += room.HOLDS_WITHOUT_LIMIT_S
    assert await asked.bytes_to_unpack() == MOST


async def test_what_waits_for_a_bulk_job_is_not_on_its_way_out(limited: Redis) -> None:
    """A job takes as long as AudienceLab likes: small steps go on, as when nothing was there at all."""
    await fill(limited)
    await limited.xadd(keys.queue(keys.bulk(Stage.ENRICH)), {"p": "1"})
    assert await Room(limited).bytes_to_unpack() == 1
    await limited.xadd(keys.queue(keys.batches(Stage.ENRICH)), {"p": "1"})
    assert await Room(limited, Clock()).bytes_to_unpack() == 0
