"""What holds on every page: axe finds nothing, nothing is wider than a telephone, Tab reaches everything."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.async_api import Page, expect
from redis.asyncio import Redis

from tests.browser.conftest import Console, Look
from tests.browser.filled import ben, fill

pytestmark = pytest.mark.anyio


def at(path: str) -> Callable[[Page], Awaitable[None]]:
    """Return how to get to a page that has an address."""

    async def go(page: Page) -> None:
        await page.goto(path)

    return go


async def to_a_plan(page: Page) -> None:
    await page.goto("/dead")
    await page.get_by_label("all letters that match").check()
    await page.get_by_role("button", name="Plan a retry").click()
    await expect(page.get_by_role("button", name="Retry 3 letters")).to_be_visible()


async def to_one_letter(page: Page) -> None:
    await page.goto("/dead")
    await page.locator("td.time a").first.click()
    await expect(page.get_by_text("what was said")).to_be_visible()


async def to_nobody(page: Page) -> None:
    await page.goto("/visitors")
    await page.get_by_label("An e-mail address").fill("nobody@example.com")
    await page.get_by_role("button", name="Find").click()
    await expect(page.get_by_text("No visitor has this")).to_be_visible()


async def to_a_forgetting(page: Page) -> None:
    await page.goto(f"/visitors/{ben().id}")
    await page.get_by_role("button", name="Forget…").click()
    await expect(page.get_by_role("button", name="Forget for good")).to_be_visible()


PAGES: dict[str, Callable[[Page], Awaitable[None]]] = {
    "flow": at("/"),
    "deliveries": at("/deliveries"),
    "letters": at("/dead"),
    "no-letters": at("/dead?stage=scores"),
    "letter": to_one_letter,
    "plan": to_a_plan,
    "replay": at("/dead/replay"),
    "visitors": at("/visitors"),
    "nobody": to_nobody,
    "visitor": at(f"/visitors/{ben().id}"),
    "forget": to_a_forgetting,
    "forgetting": at("/visitors/forgetting"),
    "senders": at("/senders"),
    "sender": at("/senders/sfmc"),
    "destinations": at("/destinations"),
    "settings": at("/settings"),
    "examination": at("/settings/examination"),
    "missing": at("/nowhere"),
}


async def findings(page: Page, rules: str = "") -> list[str]:
    """Return what axe finds on *page*, in a line each; of one of its *rules*, or of all."""
    if not await page.evaluate("() => 'axe' in window"):
        await page.evaluate(AXE_SCRIPT)
    options: dict[str, Any] = {"resultTypes": ["violations"], "preload": False}
    if rules:
        options["runOnly"] = [rules]
    found: dict[str, Any] = await page.evaluate("options => axe.run(document, options)", options)
    return [
        f"{each['impact']} {each['id']}: {node['html'][:200]} {node['failureSummary']}"
        for each in found["violations"]
        for node in each["nodes"]
    ]


# the page itself never scrolls to the side; a wide table does, in a box of its own
_TOO_WIDE = """() => document.documentElement.scrollWidth <= innerWidth ? [] : [...document.querySelectorAll('*')]
  .filter(it => it.scrollWidth > innerWidth && !it.closest('.wide')).map(it => it.outerHTML.slice(0, 150))"""


async def too_wide(page: Page) -> list[str]:
    """Return what makes *page* scroll to the side."""
    found: list[str] = await page.evaluate(_TOO_WIDE)
    return found


# notes where the focus is: the number of the element, and whether a line around it can be seen
_FOCUSED = """() => {
  const it = document.activeElement, box = it.getBoundingClientRect(), style = getComputedStyle(it);
  const isSeen = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2
    && box.width > 0 && box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth;
  return [it.dataset.stop, isSeen];
}"""
# of radio buttons of one name Tab reaches the one that is chosen
_STOPS = """() => [...document.querySelectorAll(
    'a[href], button, input:not([type=hidden]), select, summary, [tabindex]')]
  .filter(it => it.checkVisibility() && !(it.type === 'radio' && !it.checked))
  .map((it, n) => { it.dataset.stop = n; return it.outerHTML.slice(0, 150); })"""


async def unreached(page: Page) -> list[str]:
    """Return what Tab does not come to, or where it cannot be seen that it has."""
    stops: list[str] = await page.evaluate(_STOPS)
    left = dict(enumerate(stops))
    for _ in range(len(stops) + 5):
        await page.keyboard.press("Tab")
        number, is_seen = await page.evaluate(_FOCUSED)
        if number is not None and is_seen:
            left.pop(int(number), None)
        if not left:
            break
    return [*left.values()]


@pytest.mark.parametrize("name", [*PAGES, "log-in"])
async def test_a_page_is_for_everybody(
    console: Console, look: Look, redis: Redis, name: str
) -> None:
    """Axe finds nothing in light and dark, wide and narrow; a page never scrolls to the side; Tab comes everywhere."""
    await fill(redis)
    page = await look(console, is_in=name != "log-in")
    await PAGES.get(name, at("/login"))(page)
    found = [("Tab", each) for each in await unreached(page)]
    # but for contrast no rule asks for colours
    looks: list[Any] = [
        (1600, "light", ""),
        (1600, "dark", "color-contrast"),
        (360, "dark", ""),
        (360, "light", "color-contrast"),
    ]
    for width, scheme, rules in looks:
        await page.set_viewport_size({"width": width, "height": 900})
        await page.emulate_media(color_scheme=scheme)
        found += [(f"{width} {scheme}", each) for each in await findings(page, rules)]
        found += [(f"{width} {scheme}", f"too wide: {each}") for each in await too_wide(page)]
    assert found == []
