"""Subscribe: each address once, thirty a call, invalid ones alone, and none once it is switched off."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline import keys, pauses
from pipeline.addresses import digest
from pipeline.outcomes import Person, Stage
from sandbox import audiencepoint
from sandbox.faults import broken
from tests.vendors import KEY
from tests.workbench import Workbench
from tests.workers.test_enrich import named, see

pytestmark = pytest.mark.anyio

MakeBench = Callable[..., Workbench]


async def test_an_address_is_subscribed_once(bench: Workbench) -> None:
    """The same person seen again only makes a duplicate."""
    for _ in range(2):
        await see(bench, named("a@example.com", "U"))
        await bench.work_until(bench.is_idle)
    assert bench.box.memory.addresses == ["a@example.com"]
    assert await bench.row(Stage.SUBSCRIBE) == {"in": 2, "done": 1, "duplicate": 1}
    assert await bench.redis.hget(keys.address(digest("a@example.com")), "subscription") == (
        b"subscribed"
    )


async def test_addresses_leave_thirty_a_call(bench: Workbench) -> None:
    """Forty addresses make two calls."""
    await see(bench, *(named(f"p{n}@example.com", f"U-{n}") for n in range(10)))
    people = [
        Person(uuid=f"V-{n}", hem_sha256=digest(f"q{n}@example.com"), fields={"FIRST_NAME": "A"})
        for n in range(9)
    ]
    await see(bench, *people)
    await bench.work_until(bench.is_idle)

    calls = bench.box.memory.calls_to("list-subscription")
    assert len(bench.box.memory.subscribed) == 19
    assert 2 <= calls <= 4  # plain and hashed ones never share a call
    assert bench.box.memory.counts["largest_subscription"] <= 30


async def test_an_invalid_address_is_isolated_by_halving(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer counts invalid addresses without naming them; the others are subscribed."""
    monkeypatch.setattr(audiencepoint, "is_valid", lambda address: address != "p3@example.com")
    await see(bench, *(named(f"p{n}@example.com", f"U-{n}") for n in range(8)))
    await bench.work_until(bench.is_idle)

    assert await bench.row(Stage.SUBSCRIBE) == {"in": 8, "done": 7, "dead": 1}
    (letter,) = await bench.dead()
    assert letter.payload == b"p3@example.com"
    assert "invalid" in letter.error
    assert await bench.redis.hget(keys.address(digest("p3@example.com")), "subscription") == b"dead"


# switched off ------------------------------------------------------------------------------------


async def leave_waiting(bench: Workbench) -> None:
    """Queue four addresses while AudiencePoint is away: two of them sealed, two not yet."""
    bench.box.faults.add(broken("list-subscription"))
    await see(bench, *(named(f"p{n}@example.com", f"U-{n}") for n in range(2)))
    await bench.work_until(lambda: bench.is_paused(Stage.SUBSCRIBE))
    await pauses.pause(bench.redis, Stage.SUBSCRIBE, "so that nothing more is sealed")
    await see(bench, *(named(f"p{n}@example.com", f"U-{n}") for n in range(2, 4)))
    await bench.work_until(lambda: _waits(bench, Stage.SUBSCRIBE, 4))
    await pauses.pause(bench.redis, Stage.SUBSCRIBE, "down", by="relay")
    assert await bench.redis.xlen(keys.queue("subscribe")) == 2
    bench.box.faults.clear()


async def _waits(bench: Workbench, stage: Stage, n: int) -> bool:
    return await bench.count(stage, "waiting") == n


@pytest.mark.parametrize("key", [KEY, None])
async def test_subscribe_off_sends_no_address_that_waits(
    make_bench: MakeBench, key: str | None
) -> None:
    """What waits is counted as ignored, with or without a key and whatever pause the relay had made."""
    bench = make_bench()
    await leave_waiting(bench)
    calls = bench.box.memory.calls_to("list-subscription")

    off = make_bench(subscribe="off", audiencepoint_api_key=key)
    await off.work_until(bench.is_idle)
    assert bench.box.memory.calls_to("list-subscription") == calls
    assert await bench.row(Stage.SUBSCRIBE) == {"in": 4, "ignored": 4}
    assert await bench.pause(Stage.SUBSCRIBE) is None
    await bench.assert_balanced()


async def test_switched_on_again_who_comes_again_is_subscribed(make_bench: MakeBench) -> None:
    """An address that was ignored does not count as waiting or watched."""
    bench = make_bench()
    await leave_waiting(bench)
    await make_bench(subscribe="off").work_until(bench.is_idle)

    await see(bench, named("p0@example.com", "U-0"), named("p3@example.com", "U-3"))
    await bench.work_until(bench.is_idle)
    assert len(bench.box.memory.subscribed) == 2
    assert await bench.row(Stage.SUBSCRIBE) == {"in": 6, "done": 2, "ignored": 4}


async def test_switched_off_an_operators_pause_still_holds(make_bench: MakeBench) -> None:
    """An operator who paused the stage finds everything where it was."""
    bench, off = make_bench(), make_bench(subscribe="off")
    await leave_waiting(bench)
    await pauses.pause(bench.redis, Stage.SUBSCRIBE, "wait")
    await off.work()
    assert await bench.row(Stage.SUBSCRIBE) == {"in": 4, "waiting": 4}

    await pauses.resume(bench.redis, Stage.SUBSCRIBE)
    await off.work_until(bench.is_idle)
    assert await bench.row(Stage.SUBSCRIBE) == {"in": 4, "ignored": 4}
