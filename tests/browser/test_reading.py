"""How the pages read: without scripts, in the reader's zone, without anything that jumps, and in read-only mode."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect
from redis.asyncio import Redis

from pipeline import keys, pauses
from pipeline.outcomes import Stage
from tests.browser.conftest import Console, Look, Serve
from tests.browser.filled import ben, fill
from tests.browser.test_operating import ALL_OF_TWO, figure
from tests.console.web.conftest import TOKEN
from tests.pipeline.burials import bury

pytestmark = pytest.mark.anyio


async def test_all_works_without_scripts(console: Console, look: Look, redis: Redis) -> None:
    """Log in, filter, plan, retry, pause and resume are forms and links; times are told in UTC."""
    await bury(redis, payloads=[b'{"n":1}', b'{"n":2}'])
    page = await look(console, is_in=False, has_scripts=False)
    await page.goto("/dead")
    await page.get_by_label("CONSOLE_TOKEN").fill(TOKEN)
    await page.get_by_role("button", name="Log in").click()
    await page.get_by_label("stage").select_option("forward")
    await page.get_by_role("button", name="Filter").click()
    assert "stage=forward" in page.url
    assert "UTC" in await page.locator("td.time").first.inner_text()
    await page.get_by_label("all letters that match").check()
    await page.get_by_role("button", name="Plan a retry").click()
    await page.get_by_role("button", name="Retry 2 letters").click()
    # the page loads itself again
    await expect(page.get_by_text(ALL_OF_TWO)).to_be_visible()
    await page.goto("/")
    await page.locator("summary", has_text="Pause forward").click()
    await page.get_by_role("button", name="Pause forward").click()
    await page.get_by_role("button", name="Resume forward").click()
    await expect(page.get_by_role("button", name="Resume forward")).to_be_hidden()


async def test_times_are_the_readers(console: Console, look: Look, redis: Redis) -> None:
    """A time is told in the reader's zone; UTC stands behind it."""
    await fill(redis)  # the set-up came when 2026 began in UTC
    page = await look(console)  # in Newfoundland, three and a half hours behind
    await page.goto("/senders/sfmc")
    shown = page.locator("td.time time").first
    await expect(shown).to_have_text("31/12/2025, 20:30:00")
    await expect(shown).to_have_attribute("title", "2026-01-01 00:00:00 UTC")


async def _places(page: Page) -> list[object]:
    found: list[object] = await page.evaluate(
        """() => [...document.querySelectorAll('.picture > *, .picture .figures > div, h2, .wide, figure')]
            .map(it => { const box = it.getBoundingClientRect(); return [box.x, box.y, box.width, box.height]; })"""
    )
    return found


@pytest.mark.parametrize("width", [1600, 360])
async def test_nothing_jumps_when_a_number_grows(
    console: Console, look: Look, redis: Redis, width: int
) -> None:
    """The boxes of Flow stay where they are: figures grow to a million, a stage is paused, a letter comes."""
    page = await look(console, viewport={"width": width, "height": 900})
    await page.goto("/")
    await expect(figure(page, "forward-done")).to_have_text("0")
    before = await _places(page)
    stages = {
        f"{stage}:{name}" for stage in ("unpack", "forward", "enrich") for name in ("in", "done")
    }
    await redis.hset(keys.BOOKS, mapping=dict.fromkeys(stages, 1_234_567))
    await expect(figure(page, "forward-done")).not_to_have_text("0")
    assert await _places(page) == before
    await pauses.pause(redis, Stage.FORWARD, "the vendor moves house " * 20)
    await pauses.pause(redis, Stage.SUBSCRIBE, "so does this one")
    await bury(redis)
    await expect(page.get_by_role("button", name="Resume forward")).to_be_visible()
    await expect(page.locator(".verdict li", has_text="Dead letters wait")).to_be_visible()
    assert await _places(page) == before


async def test_a_console_that_is_gone_is_said(console: Console, look: Look, redis: Redis) -> None:
    """Figures that nobody renews do not look like figures of now, also where the browser goes on asking in silence."""
    page = await look(console)
    await page.clock.install()
    await page.route("**/api/live", lambda route: route.abort())
    await page.goto("/")
    await expect(page.locator(".verdict")).not_to_contain_text("The figures stand still")
    await page.clock.fast_forward(30_000)
    await expect(page.locator(".verdict")).to_contain_text("The figures stand still")


async def test_read_only_offers_nothing_that_changes(
    serve: Serve, look: Look, redis: Redis
) -> None:
    """With CONSOLE_READ_ONLY no page has a form but those that look, and the way out."""
    letter, *_ = await fill(redis)
    page = await look(serve(console_read_only=True))
    ones = (f"/dead/{letter}", f"/visitors/{ben().id}", "/senders/sfmc", "/dead/replay")
    looks = {"/logout", "/visitors/find", "/visitors/reveal", "/dead/plan", "/senders/sfmc/url"}
    pages = ("/", "/dead", "/visitors", "/senders", "/destinations", "/settings", *ones)
    for path in (*pages, "/settings/examination"):
        await page.goto(path)
        await expect(page.get_by_role("heading", level=1)).to_be_visible()
        forms = await page.locator("form[method=post]").evaluate_all(
            "all => all.map(it => new URL(it.action).pathname)"
        )
        assert set(forms) <= looks | {f"/dead/{letter}"}, path
        names = await page.get_by_role("button").all_inner_texts()
        for word in ("Pause", "Resume", "Plan", "Forget", "Send", "Probe", "Retry", "Drop"):
            assert not [name for name in names if name.startswith(word)], path
