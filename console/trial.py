"""The trial: the sample deliveries go through the real HTTP endpoint, and what arrived is shown.

Everything here runs against this machine only: the trial's own receiver, its own Redis and the
stand-ins. Nothing of it touches a real vendor or the data of a real relay.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import httpx
from redis.asyncio import Redis

from pipeline import books
from pipeline.hook_tokens import HookToken, parse_tokens, token_for
from pipeline.settings import Settings
from sandbox import crm
from sandbox.samples import SAMPLES, fresh

KEY = "sandbox"
"""The key that the stand-ins accept."""

# the samples take a second or two; a machine under load may need many more
DRAINED_WITHIN_S = 120.0
_TRIES = 20
_ALWAYS_SHOWN = ("events", "batches", "addresses", "enrich_calls")
_NUMBERS = ("in", "waiting", "done", "duplicate", "ignored", "dead", "dropped")


def trial_settings(
    settings: Settings, redis_url: str, tokens: str, sandbox_url: str
) -> dict[str, str]:
    """Return the children's settings: the operator's, but for all that leaves this machine."""
    of_vendors = {
        name: ""  # as the default
        for name in settings.environment()
        if name.startswith(("AUDIENCELAB_", "AUDIENCEPOINT_")) or name in settings.sender_secrets()
    }
    return {
        **settings.environment(),
        **of_vendors,
        "REDIS_URL": redis_url,
        "HOOK_TOKENS": tokens,
        "RELAY_HOME": str(settings.relay_home / "trial"),
        "AUDIENCELAB_API_KEY": KEY,
        "AUDIENCELAB_BASE_URL": f"{sandbox_url}/audiencelab",
        "AUDIENCEPOINT_API_KEY": KEY,
        "AUDIENCEPOINT_BASE_URL": f"{sandbox_url}/audiencepoint/v1",
        "SCORES_WEBHOOK_URL": f"{sandbox_url}/crm",
        "SCORES_WEBHOOK_SECRET": crm.KEY,
        # there is no vendor to spare, and somebody is waiting for the result
        "AUDIENCELAB_RATE": "20",
        "AUDIENCEPOINT_RATE": "20",
    }


async def show(
    say: Callable[[str], None], receiver_url: str, sandbox_url: str, redis_url: str, tokens: str
) -> None:
    """Post every sample, wait until no stage has work, and print what arrived and the books."""
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log every URL
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        await _post_samples(client, say, receiver_url, parse_tokens(tokens))
        async with Redis.from_url(redis_url) as redis:
            snapshot = await _drained(redis)
        answer = await client.get(f"{sandbox_url}/seen")
        answer.raise_for_status()
        say(_what_arrived(answer.json()))
    say(_the_books(snapshot))


async def _post_samples(
    client: httpx.AsyncClient,
    say: Callable[[str], None],
    receiver_url: str,
    tokens: list[HookToken],
) -> None:
    # one moment for all, so that what belongs together still does; a later trial sends new events
    now = time.time()
    for sample in (fresh(each, now) for samples in SAMPLES.values() for each in samples):
        request = client.build_request(
            "POST",
            f"{receiver_url}/hooks/{sample.source}",
            content=sample.body,
            headers={
                **sample.headers,
                "Content-Type": sample.content_type,
                # in a header, not in the URL: URLs end up in logs
                "Authorization": f"Bearer {token_for(tokens, sample.source)}",
            },
        )
        answer = await _answer_to(client, request)
        ack = answer.headers.get("Relay-Ack", "not stored")
        say(f"POST /hooks/{sample.source} ({sample.name}): {answer.status_code} {ack}")


async def _answer_to(client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
    """Send *request*, and again after a 503 (a machine under load), as senders do."""
    for _ in range(_TRIES):
        answer = await client.send(request)
        if answer.status_code != 503:
            break
        await asyncio.sleep(float(answer.headers.get("Retry-After", 1)))
    return answer


async def _drained(redis: Redis) -> dict[str, Any]:
    deadline = time.monotonic() + DRAINED_WITHIN_S
    while True:
        snapshot = await books.snapshot(redis)
        waiting = sum(stage["waiting"] for stage in snapshot["stages"].values())
        if not waiting or time.monotonic() > deadline:
            return snapshot
        await asyncio.sleep(0.1)


def _what_arrived(seen: dict[str, Any]) -> str:
    """Name what counts, and of the rest only what happened."""
    counts = {name: count for name, count in seen.items() if isinstance(count, int)}
    shown = [f"{name} {count}" for name, count in counts.items() if count or name in _ALWAYS_SHOWN]
    return f"arrived at the stand-ins: {', '.join(shown)}"


def _the_books(snapshot: dict[str, Any]) -> str:
    lines = ["the books:", f"  {'stage':<10}" + "".join(f"{name:>10}" for name in _NUMBERS)]
    for stage, numbers in snapshot["stages"].items():
        lines.append(f"  {stage:<10}" + "".join(f"{numbers[name]:>10}" for name in _NUMBERS))
    lines.append("  they balance" if snapshot["balanced"] else "  THEY DO NOT BALANCE")
    if any(numbers["waiting"] for numbers in snapshot["stages"].values()):
        lines.append("  some work still waits: see the worker's lines above")
    return "\n".join(lines)
