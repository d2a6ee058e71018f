"""The pictures of the README: a trial with the stand-ins, busy with invented traffic, looked at in Chromium.

`scripts/screenshots` runs it. The hour that the charts show is written as the worker writes it, minute by minute, with
the trial's own books as its end.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import orjson
from playwright.async_api import Browser, async_playwright
from redis.asyncio import Redis

from pipeline import keys, pauses
from pipeline.connections import console_redis
from pipeline.history import MINUTE_MS
from pipeline.home import Home
from pipeline.outcomes import Reason, Stage
from pipeline.settings import Settings
from tests.browser.chromium import chromium, what_is_missing
from tests.pipeline.burials import bury
from tests.workbench import mail_event, mail_events

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
#: where each is, and how many pixels of its page are shown
PICTURES = {"flow": ("/", 1340), "dead-letters": ("/dead", 900)}
DELIVERIES = 150
PATIENCE_S = 180.0


@asynccontextmanager
async def trial(folder: Path) -> AsyncIterator[Settings]:
    """Run `relay up` without a key, all of it in *folder*, on ports that are free."""
    settings = Settings(relay_home=folder / "home", port=_free_port(), console_port=_free_port())
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        "RELAY_HOME": str(settings.relay_home),
        "PORT": str(settings.port),
        "CONSOLE_PORT": str(settings.console_port),
    }
    log = (folder / "log").open("wb")
    relay = [str(Path(sys.executable).parent / "relay"), "up"]
    process = subprocess.Popen(relay, cwd=folder, env=environment, stdout=log, stderr=log)  # noqa: ASYNC220
    try:
        yield settings
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
        log.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def ready(settings: Settings) -> None:
    """Wait until the console shows its page and the trial's own samples have arrived."""
    async with asyncio.timeout(PATIENCE_S), httpx.AsyncClient() as client:
        while True:
            try:
                status = (await client.get(_console(settings) + "/api/status")).json()
                if status["stages"]["forward"]["done"] and status["workers"]:
                    return
            except (httpx.TransportError, ValueError, KeyError):
                pass
            await asyncio.sleep(0.2)


def _console(settings: Settings) -> str:
    return f"http://127.0.0.1:{settings.console_port}"


async def post_traffic(settings: Settings) -> None:
    """Post what senders post on an ordinary day, some of it wrong."""
    token = Home(settings.relay_home).trial().read_tokens()
    hooks = f"http://127.0.0.1:{settings.port}/hooks"
    chance = random.Random(1)
    async with httpx.AsyncClient(timeout=30) as client:
        for n in range(DELIVERIES):
            body = mail_events(chance.randint(1, 30), first=30 * n)
            (await client.post(f"{hooks}/events/{token}", content=body)).raise_for_status()
        wrong = [mail_event(n, email=f"person{n}-at-example.com") for n in range(90_000, 90_007)]
        await client.post(f"{hooks}/events/{token}", content=orjson.dumps(wrong))
        for n in range(3):
            await client.post(f"{hooks}/pixel/{token}", content=b'{"pixel_id": %d, "ev' % n)


async def drained(redis: Redis) -> None:
    """Wait until nothing waits but what is paused."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            books = {name.decode(): int(n) for name, n in (await redis.hgetall(keys.BOOKS)).items()}
            if not any(n for name, n in books.items() if name.endswith(":waiting")):
                return
            await asyncio.sleep(0.2)


async def make_history(redis: Redis) -> None:
    """Let the books have grown within an hour, more in its middle."""
    books = {name: int(n) for name, n in (await redis.hgetall(keys.BOOKS)).items()}
    chance = random.Random(2)
    steps = [0.4 + chance.random() + (1.2 if 20 < n < 40 else 0) for n in range(60)]
    now = int((await redis.time())[0]) * 1000 // MINUTE_MS * MINUTE_MS
    await redis.delete(keys.HISTORY)
    for n in range(60):
        share = sum(steps[: n + 1]) / sum(steps)
        entry = {name: int(count * share) for name, count in books.items()}
        await redis.xadd(keys.HISTORY, entry, id=f"{now - (59 - n) * MINUTE_MS}-0")


async def fill(settings: Settings) -> None:
    """Give the trial a day's work."""
    redis = console_redis(settings)
    try:
        await post_traffic(settings)
        await drained(redis)
        refused = [orjson.dumps(mail_event(n)) for n in range(91_000, 91_012)]
        await bury(redis, payloads=refused, error="422 send_id: no such campaign")
        await bury(
            redis, Stage.SUBSCRIBE, source="pixel", reason=Reason.INVALID, error="no such domain"
        )
        await make_history(redis)
        await pauses.pause(redis, Stage.ENRICH, "AudienceLab's maintenance until 10:00")
    finally:
        await redis.aclose()


async def take(browser: Browser, settings: Settings) -> None:
    """Make each picture in light and in dark."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    for scheme in ("light", "dark"):
        page = await browser.new_page(
            color_scheme="dark" if scheme == "dark" else "light",
            locale="en-GB",
            timezone_id="Europe/Oslo",
        )
        for name, (path, height) in PICTURES.items():
            await page.set_viewport_size({"width": 1440, "height": height})
            await page.goto(_console(settings) + path)
            await page.get_by_role("heading", level=1).wait_for()
            picture = IMAGES / f"{name}-{scheme}.png"
            await page.screenshot(path=picture)
            print(f"{picture.relative_to(ROOT)}: {picture.stat().st_size // 1000} kB")
        await page.close()


async def main() -> None:
    """Make all pictures."""
    if missing := what_is_missing():
        raise SystemExit(missing)
    with tempfile.TemporaryDirectory() as folder:
        async with trial(Path(folder)) as settings, async_playwright() as driver:
            await ready(settings)
            await fill(settings)
            browser = await driver.chromium.launch(executable_path=chromium())
            await take(browser, settings)
            await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
