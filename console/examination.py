"""The examination that `relay doctor` and the console's page share: what is looked at, in which order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from console.commands import redis_failure
from console.findings import Finding, State, bad, looked, of_settings
from console.findings_of_disk import of_disk
from console.findings_of_drill import CHECK, of_drill
from console.findings_of_redis import of_redis
from console.findings_of_relay import of_relay
from console.findings_of_spill import of_spill
from console.findings_of_tasks import of_tasks
from console.findings_of_vendors import of_vendors

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from pipeline.settings import Settings

_SERIOUS_FIRST = (State.BAD, State.WARN, State.OK)


def on_this_machine(settings: Settings) -> list[Finding]:
    """Return what is found without asking anybody; it reads files."""
    return [*of_settings(settings), *of_disk(settings), *of_spill(settings)]


async def in_redis(
    redis: Redis, settings: Settings, *, sends: bool, recounts: bool = True, url: str | None = None
) -> list[Finding]:
    """Return what Redis and the relay's data tell, and, where it *sends*, an event to the receiver at *url*."""
    drill = await looked(CHECK, of_drill(redis, settings, url)) if sends else ()
    return [
        *await of_redis(redis, settings),
        *drill,
        *await of_relay(redis, settings, recounts=recounts),
        *await of_tasks(redis, settings),
    ]


async def examine(redis: Redis, settings: Settings, *, is_whole: bool) -> list[Finding]:
    """Return all findings, the most serious first.

    Unless it *is_whole* no vendor is asked, no event is sent, and the work is not counted, which may take long.
    """
    findings = await asyncio.to_thread(on_this_machine, settings)
    if is_whole:
        findings += await of_vendors(settings)
    try:
        findings += await in_redis(redis, settings, sends=is_whole, recounts=is_whole)
    except (RedisError, OSError) as error:
        findings.append(bad("Redis", redis_failure(error, settings), "mend this, then look again"))
    return sorted(findings, key=lambda each: _SERIOUS_FIRST.index(each.state))
