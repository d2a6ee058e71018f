"""The whole way: what is posted to the receiver arrives at the vendors, and the books show it."""

from __future__ import annotations

import time
from collections.abc import Callable

import orjson
import pytest
from httpx import ASGITransport, AsyncClient

from pipeline import visitors
from pipeline.addresses import digest
from pipeline.outcomes import Stage
from sandbox.samples import SAMPLES, Sample, fresh
from tests.patience import patient_receiver
from tests.workbench import TOKEN, Workbench, mail_event, mail_events

pytestmark = pytest.mark.anyio


async def post(bench: Workbench, samples: list[Sample], query: str = "") -> list[int]:
    """Post *samples* to a receiver; return the statuses."""
    app = patient_receiver(bench.settings)
    transport = ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=transport, base_url="http://relay.test") as client,
    ):
        return [await post_one(client, sample, query) for sample in samples]


async def post_one(client: AsyncClient, sample: Sample, query: str = "") -> int:
    """Post *sample*, and again after a 503, which a busy machine may cause, as senders do; return the status."""
    headers = {"Content-Type": sample.content_type, **sample.headers}
    url = f"/hooks/{sample.source}/{TOKEN}{query}"
    for _ in range(20):
        answer = await client.post(url, content=sample.body, headers=headers)
        if answer.status_code != 503:
            break
    return answer.status_code


def of(source: str) -> list[Sample]:
    """Return the samples of *source* as if they had happened now."""
    now = time.time()
    return [fresh(sample, now) for sample in SAMPLES[source]]


async def test_every_source_goes_the_whole_way(bench: Workbench) -> None:
    """Samples of every source, posted over HTTP, are taken apart and delivered, and the books balance."""
    samples = [sample for source in SAMPLES for sample in of(source)]

    statuses = await post(bench, samples)
    await bench.work_until(bench.is_idle)

    assert set(statuses) <= {200, 202}
    assert await bench.row(Stage.UNPACK) == {"in": len(samples), "done": len(samples)}
    assert not await bench.dead()
    assert await bench.count(Stage.FORWARD, "done") == len(bench.box.memory.events) > 45
    assert await bench.count(Stage.SUBSCRIBE, "done") == len(bench.box.memory.subscribed) > 0
    assert bench.box.memory.enrich_requests
    assert await bench.count(Stage.SCORES, "done") == 1
    await bench.assert_balanced()


async def test_forty_five_events_leave_as_thirty_and_fifteen(bench: Workbench) -> None:
    """Events leave in batches of at most thirty, and none before its time when more are coming."""
    await post(bench, of("events"))
    await bench.work_until(bench.is_idle)

    sizes = [len(orjson.loads(batch)["events"]) for batch in bench.box.memory.batches]
    assert sorted(sizes) == [15, 30]


async def test_what_is_sent_twice_arrives_once(bench: Workbench) -> None:
    """A delivery that comes again, byte for byte, only makes duplicates."""
    await bench.put("events", mail_events(45))
    await bench.work_until(bench.is_idle)
    await bench.put("events", mail_events(45))
    await bench.work_until(bench.is_idle)

    assert await bench.row(Stage.FORWARD) == {"in": 90, "done": 45, "duplicate": 45}
    assert len(bench.arrived) == 45
    await bench.assert_balanced()


async def test_a_window_sent_again_in_other_bytes_makes_duplicates(bench: Workbench) -> None:
    """The pixel's second window repeats three events of the first; they are recognised."""
    samples = of("pixel")
    await bench.put("pixel", *(sample.body for sample in samples))
    await bench.work_until(bench.is_idle)

    assert await bench.count(Stage.ENRICH, "duplicate") == 3
    await bench.assert_balanced()


async def test_a_tag_of_the_url_stays_with_the_visitor(bench: Workbench) -> None:
    """`?tag=` is the only thing that says which audience an audience webhook is about."""
    await post(bench, of("audience"), "?tag=spring-sale")
    await bench.work_until(bench.is_idle)

    ids = [name async for name in visitors.ids(bench.redis)]
    kept = await visitors.fetch(bench.redis, ids)
    assert kept
    assert all(visitor.tags == ["spring-sale"] for visitor in kept.values())


async def test_who_is_on_two_lists_has_both_tags(bench: Workbench) -> None:
    """Two audiences may send the same person in the same bytes; only what comes again under one tag is a duplicate."""
    bodies = [sample.body for sample in of("audience")]
    for tag in ("spring-sale", "autumn-sale", "autumn-sale"):
        await bench.put("audience", *bodies, tag=tag)
        await bench.work_until(bench.is_idle)
    row = await bench.row(Stage.ENRICH)
    assert row["duplicate"] == row["in"] / 3

    ids = [name async for name in visitors.ids(bench.redis)]
    kept = await visitors.fetch(bench.redis, ids)
    assert {tuple(visitor.tags) for visitor in kept.values()} == {("spring-sale", "autumn-sale")}


async def test_addresses_leave_hashed_unless_told_otherwise(
    make_bench: Callable[..., Workbench],
) -> None:
    """With the default EMAIL_FORMAT no plain address is in anything AudiencePoint gets."""
    bench = make_bench()
    await bench.put("events", mail_events(3))
    await bench.put("pixel", *(sample.body for sample in of("pixel")))
    await bench.work_until(bench.is_idle)

    assert set(bench.arrived) == {digest(f"person{n}@example.com") for n in range(3)}
    assert bench.box.memory.addresses
    assert not [address for address in bench.box.memory.addresses if "@" in address]


async def test_the_events_of_a_batch_leave_oldest_first(bench: Workbench) -> None:
    """Senders give them in any order; AudiencePoint asks for none, so that theirs is the one that cannot be wrong."""
    numbers = [*range(20, 30), *range(19, -1, -1)]
    await bench.put("events", orjson.dumps([mail_event(n) for n in numbers]))
    await bench.work_until(bench.is_idle)

    (batch,) = [orjson.loads(each)["events"] for each in bench.box.memory.batches]
    moments = [event["occurred_at_utc"] for event in batch]
    assert len(moments) == len(numbers)
    assert moments == sorted(moments)


async def test_plain_and_hashed_addresses_never_share_a_batch(bench: Workbench) -> None:
    """A sender's own hashes leave in batches of their own."""
    hashed = [mail_event(n, email=digest(f"other{n}@example.com")) for n in range(5)]
    mixed = [event for n in range(5) for event in (mail_event(n), hashed[n])]
    await bench.put("events", orjson.dumps(mixed))
    await bench.work_until(bench.is_idle)

    assert len(bench.arrived) == 10
    assert bench.box.memory.counts["mixed_batches"] == 0


async def test_wrong_events_are_buried_alone_and_go_out_after_a_fix(bench: Workbench) -> None:
    """One wrong event of a delivery is dead in `forward`, the others leave, the delivery is done."""
    body = orjson.dumps([mail_event(1), mail_event(2, type="Bounce"), mail_event(3)])
    await bench.put("events", body)
    await bench.work_until(bench.is_idle)

    assert await bench.row(Stage.UNPACK) == {"in": 1, "done": 1}
    assert await bench.row(Stage.FORWARD) == {"in": 3, "done": 2, "dead": 1}
    assert [letter.reason for letter in await bench.dead()] == ["invalid"]
    await bench.assert_balanced()


async def test_a_burst_drains_everything_and_ends(bench: Workbench) -> None:
    """`--burst` works through all stages and comes to an end by itself."""
    await bench.put("events", mail_events(100))
    await bench.work()

    assert len(bench.arrived) == 100
    assert await bench.is_idle()
