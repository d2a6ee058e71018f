"""Recipients: what an event with an address teaches helps those without one, for a while, and for that sender."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from pipeline import keys, recipients
from pipeline.addresses import digest
from pipeline.recipients import Step
from pipeline.tombstones import Tombstones

pytestmark = pytest.mark.anyio

ADA = "ada@example.com"


async def resolve(redis: Redis, *steps: Step) -> list[str]:
    """Go through *steps*."""
    return await recipients.resolve(redis, Tombstones(redis), steps)


def named(ident: str, address: str = "", source: str = "sfmc") -> Step:
    """Return one step."""
    return source, ident, address


async def test_what_was_told_is_known_afterwards(redis: Redis) -> None:
    """In the order of the steps: before it was told nobody is known, then the newest address."""
    steps = [named("1"), named("1", ADA), named("1"), named("1", "new@example.com"), named("1")]
    assert await resolve(redis, *steps) == ["", ADA, ADA, "new@example.com", "new@example.com"]
    assert await resolve(redis, named("1"), named("2")) == ["new@example.com", ""]


async def test_a_number_means_somebody_for_its_sender_only(redis: Redis) -> None:
    """Two senders number their people alike, and no two names run together."""
    await resolve(redis, named("1:23", ADA))
    others = [named("1:23", source="braze"), named("12:3"), named("1"), named("")]
    assert await resolve(redis, *others) == [""] * 4


async def test_it_is_forgotten_after_thirty_days_without_a_mail(redis: Redis) -> None:
    """Every entry has its time to live, which a mail starts anew and a question does not."""
    await resolve(redis, named("1", ADA))
    (key,) = await redis.keys(keys.recipient("*"))
    assert 0 <= recipients.KEEP_MS - await redis.pttl(key) < 60_000
    await redis.pexpire(key, 5_000)
    await resolve(redis, named("1"))
    assert await redis.pttl(key) <= 5_000
    await resolve(redis, named("1", ADA))
    assert await redis.pttl(key) > 5_000


async def test_no_key_has_an_address_or_a_senders_number_in_its_name(redis: Redis) -> None:
    """Names of keys stand in logs and dumps; an id may be an address, and of any signs."""
    await resolve(redis, named(ADA, ADA), named("\ud800\n", ADA), named("x" * 9_000, ADA))
    names = await redis.keys(keys.recipient("*"))
    assert {len(name) for name in names} == {len(keys.recipient("")) + 32}
    assert len(names) == 3


async def test_more_than_one_script_takes_keeps_its_order(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long deliveries take several scripts; who was told in the first is known in the last."""
    monkeypatch.setattr(recipients, "MOST_STEPS", 3)
    steps = [named(str(n), f"p{n}@example.com") for n in range(4)]
    asked = [named(str(n)) for n in range(5)]
    told = [address for _, _, address in steps]
    assert await resolve(redis, *steps, *asked) == [*told, *told, ""]


async def test_nothing_is_asked_for_nothing(redis: Redis) -> None:
    """No step is no call."""
    before = (await redis.info("stats"))["total_commands_processed"]
    assert await resolve(redis) == []
    assert (await redis.info("stats"))["total_commands_processed"] == before + 1


async def test_it_may_run_twice(redis: Redis) -> None:
    """The same steps again change nothing and answer the same."""
    steps = [named("1", ADA), named("1"), named("2")]
    first = await resolve(redis, *steps)
    assert await resolve(redis, *steps) == first
    assert len(await redis.keys(keys.recipient("*"))) == 1


async def test_a_full_server_remembers_all_the_same(redis: Redis) -> None:
    """A refusal would keep the delivery from leaving, and with it the server from draining."""
    limit = (await redis.config_get("maxmemory"))["maxmemory"]
    await redis.config_set("maxmemory", 1)
    try:
        assert await resolve(redis, named("1", ADA), named("1")) == [ADA, ADA]
    finally:
        await redis.config_set("maxmemory", limit)


async def test_somebody_with_a_tombstone_is_not_remembered(redis: Redis) -> None:
    """What still comes of a forgotten person is told on, and leaves nothing; others are remembered."""
    await Tombstones(redis).put([digest(ADA)])
    steps = [named("1", "Ada@Example.com"), named("2", "bob@example.com"), named("1"), named("2")]
    told = await resolve(redis, *steps)
    assert told == ["Ada@Example.com", "bob@example.com", "", "bob@example.com"]
    assert len(await redis.keys(keys.recipient("*"))) == 1


async def test_whoever_is_forgotten_leaves_the_memory(redis: Redis) -> None:
    """By the hash of the address, whatever its case, or of one that came hashed; others stay."""
    hashed = digest("eve@example.com").upper()
    await resolve(redis, named("1", "Ada@Example.com"), named("2", "bob@example.com"))
    await resolve(redis, named("3", "ada@example.com"), named("4", hashed))
    assert await recipients.forget(redis, {digest(ADA), digest("eve@example.com")}) == 3
    assert await resolve(redis, *map(named, "1234")) == ["", "bob@example.com", "", ""]
    assert await recipients.forget(redis, {digest(ADA)}) == 0


async def test_an_entry_costs_about_200_bytes(redis: Redis) -> None:
    """As its module says: what ten thousand people take of the server's memory."""
    await resolve(redis, named("0", ADA))
    before = (await redis.info("memory"))["used_memory"]
    steps = [named(f"1476266:{n}", f"person{n:06}@example.com") for n in range(10_000)]
    await resolve(redis, *steps)
    used = (await redis.info("memory"))["used_memory"] - before
    assert 100 < used / 10_000 < 260
