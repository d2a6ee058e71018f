"""A real Chromium before the console, which is served on loopback; one browser for a process, a context for each look.

Whatever a page does wrong fails its test: an error in the browser's console, a dialog, a request to anywhere else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from console.web.app import make_app
from console.web.sessions import COOKIE, Session, Sessions
from pipeline.connections import Role, connection_pool
from pipeline.settings import Settings
from pipeline.wake import arq_redis
from tests.browser.chromium import chromium, what_is_missing
from tests.console.web.conftest import TOKEN
from tests.given import GivenSettings
from tests.served import served_for_life

if TYPE_CHECKING:
    from playwright.async_api import Browser, ConsoleMessage, Dialog, Page, Request

collect_ignore = (
    [path.name for path in Path(__file__).parent.glob("test_*.py") if path.stem != "test_chromium"]
    if what_is_missing()
    else []
)

#: far more than anything here needs, so that a slow machine does not fail a test
PATIENCE_MS = 60_000
#: not UTC, nor anywhere that a machine of tests stands
ZONE = "America/St_Johns"


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Run Chromium as long as this process's tests in it need it."""
    from playwright.async_api import async_playwright, expect

    expect.set_options(timeout=PATIENCE_MS)
    async with async_playwright() as driver:
        # quiet: it asks nobody anything by itself
        options = ["--disable-background-networking", "--disable-component-update", "--disable-gpu"]
        running = await driver.chromium.launch(executable_path=chromium(), args=options)
        yield running
        await running.close()


@dataclass(frozen=True, slots=True)
class Console:
    """A console that is served."""

    url: str
    settings: Settings

    def cookie(self) -> dict[str, str]:
        """Return the cookie of somebody who has logged in."""
        value = Sessions(TOKEN).cookie(Session("a-session-of-tests"))
        return {"name": COOKIE, "value": value, "url": self.url}


Serve = Callable[..., Console]


@pytest.fixture
def serve(
    redis: Redis, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Serve]:
    """Give a function that serves a console with CONSOLE_TOKEN; keywords are settings."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    with ExitStack() as stack:

        def serve(**values: Any) -> Console:
            usual: dict[str, Any] = {
                "redis_url": redis_url,
                "relay_home": tmp_path / "home",
                "console_token": TOKEN,
            }
            settings = GivenSettings(**usual | values)
            app = make_app(settings, arq_redis(connection_pool(settings, Role.CONSOLE)))
            return Console(stack.enter_context(served_for_life(app)), settings)

        yield serve


@pytest.fixture
def console(serve: Serve) -> Console:
    """Serve a console as most are."""
    return serve()


@dataclass  # without slots: Playwright leaves a name of its own on who listens
class Faults:
    """What went wrong in one context, in words."""

    home: str
    found: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        """Note what goes wrong on *page*."""
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.found.append(f"error: {error}"))
        page.on("dialog", self._dialog)
        page.on("request", self._asked)

    async def _dialog(self, dialog: Dialog) -> None:
        self.found.append(f"dialog: {dialog.message}")
        await dialog.dismiss()

    def _said(self, message: ConsoleMessage) -> None:
        # a page that is refused is told so by its status; what a page needs is never refused
        is_refusal = "Failed to load resource" in message.text and "/static/" not in str(
            message.location
        )
        if message.type in ("error", "warning") and not is_refusal:
            self.found.append(f"{message.type}: {message.text}")

    def _asked(self, request: Request) -> None:
        wanted = urlsplit(request.url)
        if wanted.scheme in ("http", "https") and wanted.netloc != urlsplit(self.home).netloc:
            self.found.append(f"request to {request.url[:200]}")


class Look(Protocol):
    """Opens a context of its own and gives its page."""

    async def __call__(
        self, console: Console, *, is_in: bool = True, has_scripts: bool = True, **options: Any
    ) -> Page:
        """Open it; *options* are those of a context, as `viewport` or `color_scheme`."""
        ...


@pytest.fixture
async def look(browser: Browser, serve: Serve) -> AsyncIterator[Look]:
    """Give a function that opens a page before a console, of somebody who has logged in unless *is_in* is False."""
    watched: list[Faults] = []
    async with AsyncExitStack() as stack:

        async def look(
            console: Console, *, is_in: bool = True, has_scripts: bool = True, **options: Any
        ) -> Page:
            usual = {"locale": "en-GB", "timezone_id": ZONE, "base_url": console.url}
            context = await browser.new_context(java_script_enabled=has_scripts, **usual | options)
            stack.push_async_callback(context.close)
            context.set_default_timeout(PATIENCE_MS)
            if is_in:
                cookies: Any = [console.cookie()]
                await context.add_cookies(cookies)
            page = await context.new_page()
            watched.append(Faults(console.url))
            watched[-1].watch(page)
            return page

        yield look
    assert [fault for faults in watched for fault in faults.found] == []
