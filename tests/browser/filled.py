"""A relay of which every page has something to tell: invented people, letters of several kinds, a pause, an hour."""

from __future__ import annotations

from redis.asyncio import Redis

from pipeline import audit, calls, heartbeats, keys, pauses
from pipeline.addresses import digest
from pipeline.calls import Outcome, failure_text
from pipeline.history import MINUTE_MS
from pipeline.inbox import Inbox
from pipeline.outcomes import Reason, SetUp, Stage
from pipeline.senders import keep_set_up
from pipeline.tombstones import Tombstones
from pipeline.visitors import Visitor
from tests.console.test_command_senders import FACTS
from tests.pipeline.acquaintances import meet
from tests.pipeline.burials import bury, bury_delivery
from tests.pipeline.test_arrivals import leave, note
from tests.pipeline.work import put, seal

BEN = "ben.example@example.com"
SEEN_AT = "2026-01-12T09:00:00Z"


def ben() -> Visitor:
    """Return somebody of whom all is known that a page shows."""
    return Visitor(
        "3f2504e0-4f89-41d3-9a0c-0305e82c3302",
        uuid="3f2504e0-4f89-41d3-9a0c-0305e82c3302",
        hem_sha256=digest(BEN),
        fields={"FIRST_NAME": "Ben", "MOBILE_PHONE": "15550123", "COMPANY_NAME": "Example Ltd"},
        personal_emails=[BEN],
        verified_emails=[BEN],
        phones=["15550123"],
        tags=["launch"],
        sources=["pixel"],
        pages=[
            {
                "at": SEEN_AT,
                "event_type": "page_view",
                "url": "https://example.org/" + "price/" * 30,
            }
        ],
        first_seen_at=SEEN_AT,
        last_seen_at=SEEN_AT,
        scores={"score": "4", "send_time": "33"},
        scores_changed_at="2026-01-13T00:00:00.000Z",
        enriched_at="2026-01-12T09:01:00.000Z",
        enrichment="found",
    )


async def fill(redis: Redis) -> list[str]:
    """Fill *redis*; return the ids of the dead letters, each of another kind."""
    await heartbeats.beat(redis, "one")
    await _hour(redis)
    await seal(redis, Stage.ENRICH, [b"1", b"2"])
    await leave(redis, note("a" * 24, "pixel"), note("b" * 24, "sendgrid", "dead"))
    await meet(redis, ben(), subscribed=[digest(BEN)])
    await Tombstones(redis).put([digest(BEN)])
    await redis.hset(keys.SENDERS, mapping=FACTS)
    await keep_set_up(redis, "sfmc", 1_767_225_600_000, SetUp("65b885ab", "verification-key-1"))
    words = failure_text(Outcome.REFUSED, 400, "no such list")
    await calls.add(redis, Stage.FORWARD, {"ok": 1_000, "b1": 1_000, "refused": 1}, [(0, words)])
    await pauses.pause(redis, Stage.FORWARD, "the vendor does maintenance")
    await audit.record(redis, "pause", who="console", count=1, wanted={"stage": "forward"})
    await Inbox(redis).count_refused({"token": 3})
    await put(redis, 3)
    return [
        *await bury(redis, error="“email” is not an address: " + "x" * 300),
        *await bury(
            redis, Stage.SUBSCRIBE, source="pixel", reason=Reason.INVALID, error="no domain"
        ),
        await bury_delivery(redis, b'{"what": "is this'),
    ]


async def _hour(redis: Redis) -> None:
    """Write an hour's history, with half of it missing in the middle."""
    now = int((await redis.time())[0]) * 1000 // MINUTE_MS * MINUTE_MS
    for n in (*range(60, 45, -1), *range(15, 0, -1)):
        grown = 60 - n
        entry = {"unpack:in": 40 * grown, "forward:done": 90 * grown, "forward:dead": grown // 9}
        await redis.xadd(keys.HISTORY, entry, id=f"{now - n * MINUTE_MS}-0")
