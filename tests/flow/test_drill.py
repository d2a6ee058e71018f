"""`relay doctor`'s event: in at a real receiver, through a real worker, to its dry end, and to no vendor."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import orjson
import pytest
import uvicorn
from pydantic import SecretStr

from console import findings_of_drill
from console.commands import Failed
from console.drill import drill
from console.findings import Finding, State
from console.findings_of_drill import of_drill
from pipeline import arrivals, books, drills, heartbeats, keys, pauses, senders
from pipeline.outcomes import Stage
from pipeline.sources.registry import SOURCES
from tests.patience import patient_receiver
from tests.workbench import TOKEN, Workbench, mail_events

pytestmark = pytest.mark.anyio

NUMBER = "0123456789abcdef"


@asynccontextmanager
async def receiver(bench: Workbench) -> AsyncIterator[str]:
    """Serve a receiver; give its address."""
    app = patient_receiver(bench.settings)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await task


async def drilled(bench: Workbench, url: str) -> Finding:
    """Return what the drill found."""
    [finding] = await of_drill(bench.redis, bench.settings, url)
    assert finding.do or finding.state is State.OK
    assert TOKEN not in finding.found
    return finding


async def test_it_comes_to_its_dry_end(bench: Workbench) -> None:
    """No vendor is called, no sender has delivered, the books balance, and all of it is gone but a mark."""
    async with receiver(bench) as url, bench.at_work():
        finding = await drilled(bench, url)
    assert finding.state is State.OK, finding
    assert await bench.row(Stage.UNPACK) == {"in": 1, "done": 1}
    assert await bench.row(Stage.FORWARD) == {"in": 1, "ignored": 1}
    await bench.assert_balanced()
    assert not bench.box.memory.calls
    sender = (await senders.read(bench.redis, ["events"]))["events"]
    assert (sender.last_ms, sum(sender.deliveries.values()), sender.taken) == (None, 0, {})
    marks = await bench.redis.keys(keys.drill("*", Stage.FORWARD))
    assert 0 < await bench.redis.pttl(marks[0]) <= drills.KEEP_MS


@pytest.mark.parametrize("email_format", ["plain", "sha256"])
async def test_it_joins_no_batch(bench: Workbench, email_format: str) -> None:
    """Among real events it is taken out: they arrive, and nothing of it does."""
    settings = bench.settings.model_copy(update={"email_format": email_format})
    bench = Workbench(bench.redis, bench.box, settings)
    await bench.put(
        "events", mail_events(40), drills.body(NUMBER, 1_767_225_600), mail_events(5, 40)
    )
    await bench.work_until(bench.is_idle)
    assert len(bench.arrived) == 45
    assert not any(NUMBER in event["send_id"] for event in bench.box.memory.events)
    assert await bench.row(Stage.FORWARD) == {"in": 46, "done": 45, "ignored": 1}
    assert await drills.came_to(bench.redis, NUMBER) == list(drills.PLACES)
    await bench.assert_balanced()


async def test_it_is_not_sent_where_it_would_rest(bench: Workbench) -> None:
    """Without a worker, and while the way is paused, nothing is sent."""
    assert "no worker" in (await drilled(bench, "http://127.0.0.1:1")).found
    async with bench.at_work():
        await pauses.pause(bench.redis, Stage.FORWARD, "lunch")
        finding = await drilled(bench, "http://127.0.0.1:1")
    assert (finding.state, "forward is paused" in finding.found) == (State.WARN, True)
    assert await bench.row(Stage.UNPACK) == {}


async def test_a_receiver_elsewhere_and_one_that_refuses(bench: Workbench) -> None:
    """That none answers is a warning with what to do; one that refuses our own token is bad."""
    async with bench.at_work():
        assert (await drilled(bench, "http://127.0.0.1:1")).state is State.WARN
        async with receiver(bench) as url:
            changed = {"hook_tokens": "another-token-0123456789"}
            values = bench.settings.model_dump(exclude_unset=True) | changed
            other = type(bench.settings).model_validate(values)
            [finding] = await of_drill(bench.redis, other, url)
    assert (finding.state, "401" in finding.found) == (State.BAD, True)


async def test_a_worker_that_does_not_take_it_is_found(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A heartbeat without work behind it: the place where the event stays is told."""
    monkeypatch.setattr(findings_of_drill, "WITHIN_S", 0.2)
    await heartbeats.beat(bench.redis, "idle")
    async with receiver(bench) as url:
        finding = await drilled(bench, url)
    assert (finding.state, "not through unpack" in finding.found) == (State.BAD, True)
    await bench.work_until(bench.is_idle)
    await bench.assert_balanced()


@pytest.mark.parametrize(
    "changed",
    [{"send_id": "newsletter"}, {"email": "doctor@example.com"}, {"send_id": NUMBER.upper()}],
)
async def test_only_a_drill_is_one(bench: Workbench, changed: dict[str, str]) -> None:
    """Another address or another number is an event as any other, and leaves."""
    event = orjson.loads(drills.body(NUMBER, 1_767_225_600)) | changed
    await bench.put("events", orjson.dumps(event))
    await bench.work_until(bench.is_idle)
    assert await bench.row(Stage.FORWARD) == {"in": 1, "done": 1}


# samples that end where they are read ---------------------------------------------------------------------


@pytest.mark.parametrize("source", sorted(SOURCES))
async def test_a_sample_ends_where_it_is_read(bench: Workbench, source: str) -> None:
    """Of every source: it is answered, read as what it is, counted as ignored by unpack, and leaves only its mark."""
    async with receiver(bench) as url, bench.at_work():
        settings = bench.settings.model_copy(update={"public_url": url})
        told = await drill(bench.redis, settings, source)
    assert re.fullmatch(r"Answered 20[02], and a worker read: .+\. Nothing of it goes on\.", told)
    assert TOKEN not in told
    assert "@" not in told
    assert await bench.row(Stage.UNPACK) == {"in": 1, "ignored": 1}
    await bench.assert_balanced()
    rows = (await books.snapshot(bench.redis))["stages"]
    assert {stage for stage, row in rows.items() if row["in"]} == {"unpack"}
    assert not bench.box.memory.calls
    sender = (await senders.read(bench.redis, [source]))[source]
    assert (sender.last_ms, sum(sender.deliveries.values()), sender.taken) == (None, 0, {})
    assert (sender.ignored, sender.invalid, sender.set_ups) == ({}, 0, [])
    assert (await arrivals.look(bench.redis, None, None, 1))[0] == []
    assert not await bench.redis.keys(keys.PREFIX + "recipient*")
    assert not await bench.redis.keys(keys.PREFIX + "seen*")


async def test_what_a_sample_says_is_told_by_word(bench: Workbench) -> None:
    """The page tells how many events of each kind were read, and what was ignored, by our word for it."""
    async with receiver(bench) as url, bench.at_work():
        settings = bench.settings.model_copy(update={"public_url": url})
        told = await drill(bench.redis, settings, "sendgrid")
    assert "Click 1" in told
    assert "(ignored) " in told


async def test_a_sample_that_cannot_be_read_is_told_and_not_buried(bench: Workbench) -> None:
    """What is no event of its source ends here too: the mark says why, and no dead letter is left."""
    await bench.put("sendgrid", b'{"no": "event"}', tag=drills.tag(NUMBER))
    await bench.work_until(bench.is_idle)
    told = await drills.read_as(bench.redis, NUMBER)
    assert told is not None
    assert told["error"].startswith("unknown_shape: ")
    assert await bench.row(Stage.UNPACK) == {"in": 1, "ignored": 1}


async def test_a_tag_that_only_looks_like_a_drills_is_a_tag(bench: Workbench) -> None:
    """Deliveries with a tag of their own go on, whatever it begins with."""
    await bench.put("events", mail_events(1), tag="drill-of-monday")
    await bench.work_until(bench.is_idle)
    assert await bench.row(Stage.FORWARD) == {"in": 1, "done": 1}


async def test_a_signature_that_is_asked_for_refuses_a_sample(
    make_bench: Callable[..., Workbench],
) -> None:
    """The receiver cannot be led to believe an unsigned sample: that it refuses is what the page tells."""
    bench = make_bench(mailgun_signing_key="a-signing-key-0123456789")
    async with receiver(bench) as url, bench.at_work():
        settings = bench.settings.model_copy(update={"public_url": url})
        with pytest.raises(
            Failed, match=r"refuses it: 401, .*\. So it should: mailgun's signature"
        ):
            await drill(bench.redis, settings, "mailgun")
    assert await bench.row(Stage.UNPACK) == {}


async def test_a_sample_is_sent_only_where_it_can_arrive(bench: Workbench) -> None:
    """Without a worker, with unpack paused or without a token nothing is posted."""
    settings = bench.settings.model_copy(update={"public_url": "http://127.0.0.1:1"})
    with pytest.raises(Failed, match="no worker is alive"):
        await drill(bench.redis, settings, "pixel")
    await heartbeats.beat(bench.redis, "one")
    with pytest.raises(Failed, match="No answer from"):
        await drill(bench.redis, settings, "pixel")
    other = settings.model_copy(
        update={"hook_tokens": SecretStr("sendgrid:another-token-0123456789")}
    )
    with pytest.raises(Failed, match="no token of HOOK_TOKENS is valid for pixel"):
        await drill(bench.redis, other, "pixel")
    await pauses.pause(bench.redis, Stage.UNPACK, "lunch")
    with pytest.raises(Failed, match="unpack is paused"):
        await drill(bench.redis, settings, "pixel")


async def test_a_sample_that_nobody_reads_in_time_is_told(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stored, and the page says that it waits."""
    monkeypatch.setattr("console.drill.WITHIN_S", 0.1)
    await heartbeats.beat(bench.redis, "one")
    async with receiver(bench) as url:
        settings = bench.settings.model_copy(update={"public_url": url})
        with pytest.raises(Failed, match=r"Answered 202, and not read after 0\.1 s"):
            await drill(bench.redis, settings, "pixel")
    assert await bench.row(Stage.UNPACK) == {"in": 1, "waiting": 1}
