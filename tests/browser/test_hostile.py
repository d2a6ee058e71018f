"""What a sender, a vendor or a caller may write, before a real browser: it is text, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from playwright.async_api import Page, expect
from redis.asyncio import Redis

from pipeline import heartbeats, keys, pauses
from pipeline.outcomes import Stage
from pipeline.visitors import Visitor
from tests.browser.conftest import Console, Look
from tests.console.web.posting import HOSTILE
from tests.pipeline.acquaintances import meet
from tests.pipeline.burials import bury, bury_delivery
from tests.pipeline.test_arrivals import AT_MS, leave

pytestmark = pytest.mark.anyio


def batched(texts: Sequence[str], most: int) -> list[Sequence[str]]:
    """Return *texts* in their order, so many at a time."""
    return [texts[n : n + most] for n in range(0, len(texts), most)]


#: what would leave a mark on the page, were it taken for more than text
MARKING = (
    "<script>window.ran = 1</script>",
    "<img src=x onerror=window.ran=1>",
    "'\"><svg onload=window.ran=1>",
    "</title></script><iframe srcdoc='<script>parent.ran=1</script>'></iframe>",
    "javascript:window.ran=1",
    "\u202e\u05d0\u05d1\u05d2 <b>\u0645\u0631\u062d\u0628\u0627</b>",
)
ALL = (*MARKING, *HOSTILE)

# whatever of it became an element, a link or an order to run something
_BECAME = """() => [...document.querySelectorAll(
    'script:not([src^="/static/"]), img, iframe, object, [onload], [onerror], main b,'
    + '[href^="javascript" i], [src^="javascript" i]')]
  .map(it => it.outerHTML.slice(0, 200))"""


async def faults(page: Page) -> list[str]:
    """Return what the hostile texts did to *page*; at both ends of the widths that it is read at."""
    found: list[str] = await page.evaluate(_BECAME)
    if await page.evaluate("() => 'ran' in window"):
        found.append("a script ran")
    text = await page.evaluate("() => document.body.textContent")
    found += [f"{sign!r} is on the page" for sign in ("\u202e", "\x1b", "\x00") if sign in text]
    if len(text) > 500_000:
        found.append("a long text is not cut")
    for width in (1600, 360):
        await page.set_viewport_size({"width": width, "height": 900})
        if await page.evaluate("() => document.documentElement.scrollWidth") > width:
            found.append(f"wider than {width}")
    return found


async def still_leads_on(page: Page) -> None:
    """See that the page can be left by its navigation."""
    await page.get_by_role("navigation").get_by_role("link", name="Settings").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Settings")


async def test_dead_letters(console: Console, look: Look, redis: Redis) -> None:
    """A vendor's words and a payload are text on the list, on a letter's page, in the clear, and on a plan."""
    ids = [(await bury(redis, error=each, payloads=[each.encode()]))[0] for each in ALL]
    ids += [await bury_delivery(redis, b"\xff\xfe" + each.encode()) for each in ALL]
    page = await look(console)
    await page.goto("/dead")
    await expect(page.get_by_text(MARKING[0]).first).to_be_visible()
    assert await faults(page) == []
    for dead_id in ids:
        await page.goto(f"/dead/{dead_id}")
        assert (dead_id, await faults(page)) == (dead_id, [])
    await page.goto("/dead")
    await page.get_by_label("all letters that match").check()
    await page.get_by_role("button", name="Plan a retry").click()
    await expect(page.get_by_role("button", name=f"Retry {len(ids)} letters")).to_be_visible()
    assert await faults(page) == []
    await still_leads_on(page)


async def test_a_visitor(console: Console, look: Look, redis: Redis) -> None:
    """Names, addresses of pages, user agents, tags and scores are text, veiled and in the clear."""
    facts: dict[str, str | list[str]] = {f"FACT_{n}": each for n, each in enumerate(ALL)}
    facts.update({each[:99]: each for each in ALL})
    names = ("event_type", "url", "title", "referrer", "user_agent", "pixel_id")
    pages = [{"at": "2026-01-12T09:00:00Z", **dict.fromkeys(names, each)} for each in ALL]
    visitor = Visitor(
        "id-1", edid=ALL[0], fields=facts, phones=list(ALL),
        personal_emails=list(ALL), tags=list(ALL), sources=list(ALL), pages=pages,
        scores=dict.fromkeys(ALL, ALL[0]), enrichment=ALL[1], enriched_at=ALL[2], first_seen_at=ALL[3],
    )  # fmt: skip
    await meet(redis, visitor)
    page = await look(console)
    await page.goto("/visitors/id-1")
    await expect(page.get_by_text(MARKING[0]).first).to_be_visible()
    assert await faults(page) == []
    await page.get_by_role("button", name="Show").first.click()
    await expect(page.get_by_text(MARKING[0]).first).to_be_visible()
    assert await faults(page) == []
    await still_leads_on(page)


async def test_deliveries_and_senders(console: Console, look: Look, redis: Redis) -> None:
    """A tag of a delivery and the words of a sender's events are text."""
    for n, each in enumerate(ALL):
        await leave(redis, (f"{n:024x}", each, 1, 10, AT_MS, "hook", "done", 1, 0, 0, each))
    words = {f"sendgrid:{kind}:{each}": 1 for kind in ("taken", "ignored") for each in ALL}
    await redis.hset(keys.SENDERS, mapping=words)
    page = await look(console)
    for path in ("/deliveries", "/senders", "/senders/sendgrid"):
        await page.goto(path)
        assert (path, await faults(page)) == (path, [])
    await expect(page.get_by_text(MARKING[0]).first).to_be_attached()
    await page.goto("/deliveries")
    await expect(page.get_by_text(MARKING[0]).first).to_be_attached()
    await still_leads_on(page)


async def test_the_reason_of_a_pause(console: Console, look: Look, redis: Redis) -> None:
    """Why a stage is paused is text on Flow, when the page is loaded and when it is told of it later."""
    await heartbeats.beat(redis, "one")
    page = await look(console)
    await page.goto("/")
    told = [f"reason {n}: {each}" for n, each in enumerate(ALL)]
    for some in batched(told, len(Stage)):
        for stage, reason in zip(Stage, some, strict=False):
            await pauses.pause(redis, stage, reason)
        for reason in some:
            await expect(page.locator("#verdict")).to_contain_text(reason.partition(":")[0] + ":")
        assert await faults(page) == []
    for each in ALL:
        await pauses.pause(redis, Stage.FORWARD, each)
        await page.goto("/")
        await expect(page.locator("#verdict")).to_contain_text("forward is paused")
        assert (each[:50], await faults(page)) == (each[:50], [])
    await still_leads_on(page)
