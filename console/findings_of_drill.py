"""What `relay doctor` finds by sending one invented event the whole way to its dry end (`pipeline.drills`).

It is sent only where it can arrive: somebody has to be at work, and nothing on the way may be paused, or it would lie
there. A receiver may run elsewhere, so that none answers here is no fault by itself.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from console.findings import Finding, bad, ok, warn
from pipeline import books, drills
from pipeline.home import Home, HomeError
from pipeline.hook_tokens import token_for
from pipeline.outcomes import Stage
from pipeline.settings import SettingsError

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from pipeline.settings import Settings

CHECK = "one event, the whole way"
#: an idle relay takes a fraction of a second; a sweep that has to notice it, one more
WITHIN_S = 15.0
ANSWER_WITHIN_S = 5.0
_LOOK_AGAIN_S = 0.05


async def of_drill(redis: Redis, settings: Settings, url: str | None) -> list[Finding]:
    """Send it to the receiver at *url* (None: the one of this machine), and tell how far it came."""
    snapshot = await books.snapshot(redis)
    if why := why_not(snapshot, drills.PLACES, "take"):
        return [warn(CHECK, f"not sent: {why}", "look again once that is over")]
    try:
        token = token_for(settings.tokens(), drills.SOURCE)
        url = url or receiver_here(settings)
    except (SettingsError, HomeError) as error:
        return [warn(CHECK, f"not sent: {error}", "set HOOK_TOKENS")]
    if token is None:
        do = "add one that is not bound to a source"
        return [warn(CHECK, f"not sent: no hook token is valid for {drills.SOURCE}", do)]
    number, began = secrets.token_hex(8), monotonic()
    if (refused := await _sent(url.rstrip("/"), token, number)) is not None:
        return [refused]
    return [await _followed(redis, number, began, snapshot)]


def why_not(snapshot: Mapping[str, Any], places: Sequence[Stage], do: str) -> str | None:
    """Return why nothing that is sent now comes through *places*, where a worker is to *do* something with it."""
    if not snapshot["workers"]:
        return f"no worker is alive to {do} it"
    paused = [place for place in places if snapshot["paused"][place]]
    return f"{paused[0]} is paused" if paused else None


def receiver_here(settings: Settings) -> str:
    """Return where this machine's receiver is; raises `HomeError`."""
    running = None if settings.redis_url else Home(settings.relay_home).running()
    here = running.receiver_url if running else None
    return here or f"http://127.0.0.1:{settings.port}"


async def _sent(url: str, token: str, number: str) -> Finding | None:
    """Post the drill; return what is wrong with the answer, None when it is stored."""
    import httpx

    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=ANSWER_WITHIN_S) as client:
            content = drills.body(number, time())
            answer = await client.post(
                f"{url}/hooks/{drills.SOURCE}", content=content, headers=headers
            )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        found = f"no receiver answers at {url} ({type(error).__name__})"
        return warn(CHECK, found, "start one, or name another machine's with --url")
    if answer.status_code == 202:
        return None
    do = "look at that receiver's settings and its log"
    return bad(CHECK, f"the receiver at {url} refuses it: {answer.status_code}", do)


async def _followed(redis: Redis, number: str, began: float, before: dict[str, Any]) -> Finding:
    """Wait until the drill has come to its end, and no longer than it may take."""
    came: list[Stage] = []
    while monotonic() - began < WITHIN_S:
        came = await drills.came_to(redis, number)
        if len(came) == len(drills.PLACES):
            took = monotonic() - began
            return ok(CHECK, f"receiver, inbox, unpack, forward: at its dry end after {took:.2f} s")
        await asyncio.sleep(_LOOK_AGAIN_S)
    missing = next(place for place in drills.PLACES if place not in came)
    found = f"stored, and not through {missing} after {WITHIN_S:g} s"
    waiting = before["stages"][missing]["waiting"]
    if waiting:
        return warn(CHECK, f"{found}: {waiting} waited there before it", "look at `relay status`")
    do = "look at the workers' log, and whether receiver and workers use the same Redis"
    return bad(CHECK, found, do)
