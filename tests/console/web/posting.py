"""A form of the console, posted as a browser does, and what a sender may have written into it."""

from __future__ import annotations

import asyncio

import httpx

from tests.console.web.conftest import form_token

#: what a sender may write, and no page may take for anything but text
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}",
    "\u202egnp.exe",
    "\x1b[31m\x00",
    "javascript:alert(1)",
    "x" * 1_000_000,
)


async def post(console: httpx.AsyncClient, path: str, **fields: object) -> httpx.Response:
    """Post *fields* to *path* with the session's token, and do not follow where that leads."""
    token = form_token((await console.get("/visitors")).text)
    return await console.post(path, data={"form_token": token, **fields})


async def post_and_follow(
    console: httpx.AsyncClient, path: str, **fields: object
) -> httpx.Response:
    """Post a form, and get the page that it leads to."""
    answer = await post(console, path, **fields)
    return await console.get(answer.headers["location"]) if answer.status_code == 303 else answer


async def ended(console: httpx.AsyncClient, path: str) -> str:
    """Return the page at *path* once it does not ask to be loaded again."""
    async with asyncio.timeout(60):
        while True:
            text = (await console.get(path)).text
            if 'http-equiv="refresh"' not in text:
                return text
            await asyncio.sleep(0.02)
