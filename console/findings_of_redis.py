"""What `relay doctor` finds in Redis: whether it keeps what it is given, has room, and tells the same time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from time import time
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError
from redis.utils import str_if_bytes

from console.findings import Finding, bad, looked, ok, warn
from pipeline.connections import product_and_version
from pipeline.home import Server
from pipeline.inbox import Inbox, NotPossible

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from pipeline.settings import Settings

OLDEST = (6, 2)
#: shares of maxmemory; from the larger on receivers spill, and then answer 503
FILLING, FULL = 0.7, 0.85
#: seconds; senders' signatures allow for minutes, a clock that is kept by NTP differs by milliseconds
CLOCK_WARN_S, CLOCK_BAD_S = 2.0, 60.0
#: how much longer than usual a power cut reaches back, by `appendfsync`
_LOSS = {
    "everysec": "a power cut may cost what was acknowledged in its last second",
    "no": "a power cut may cost what was acknowledged in the last half minute or more",
}


async def of_redis(redis: Redis, settings: Settings) -> list[Finding]:
    """Return what Redis tells about itself. Raises redis-py's errors, but for what it refuses to tell."""
    return [
        *await looked("Redis version", _version(redis)),
        *await looked("Redis", _info(redis, settings)),
        *await looked("ACK_POLICY", _promise(redis, settings)),
        *await looked("clock", _clock(redis)),
    ]


async def _version(redis: Redis) -> list[Finding]:
    server = await product_and_version(redis)
    if server < Server(server.product, OLDEST):
        return [bad("Redis version", f"{server}: too old", "use Redis or Valkey 6.2 or newer")]
    return [ok("Redis version", str(server))]


async def _info(redis: Redis, settings: Settings) -> list[Finding]:
    info = await redis.info()
    return [
        *_role(info),
        _eviction(info),
        _room(info),
        *await _persistence(redis, info, settings),
    ]


def _role(info: Mapping[str, Any]) -> Iterator[Finding]:
    if info.get("role") != "master":
        yield bad("Redis role", "a replica: nothing can be written", "REDIS_URL: the primary")
    if info.get("loading"):
        yield bad("Redis role", "it is still loading its data", "wait until it has")


def _eviction(info: Mapping[str, Any]) -> Finding:
    check, policy = "Redis eviction", str(info.get("maxmemory_policy", "unknown"))
    do = "set `maxmemory-policy noeviction`"
    if policy == "noeviction":
        return ok(check, policy)
    if int(info.get("maxmemory", 0)) and policy != "unknown":
        return bad(check, f"{policy}: when it is full, work that waits is thrown away", do)
    return warn(check, f"{policy}: once a maxmemory is set, work would be thrown away", do)


def _room(info: Mapping[str, Any]) -> Finding:
    check = "Redis memory"
    used, limit = int(info["used_memory"]), int(info.get("maxmemory", 0))
    told = f"{used / 2**20:.0f} MB used"
    if not limit:
        do = "set maxmemory below what the machine has"
        return warn(check, f"{told}, no maxmemory: the machine's end is a crash", do)
    share, left = used / limit, (limit - used) / 2**20
    told = f"{told} of {limit / 2**20:.0f} MB ({share:.0%}), {left:.0f} MB left"
    do = "let the workers drain it, or raise maxmemory"
    if share >= FULL:
        return bad(check, f"{told}: receivers spill, and then answer 503", do)
    return warn(check, told, do) if share >= FILLING else ok(check, told)


async def _persistence(redis: Redis, info: Mapping[str, Any], settings: Settings) -> list[Finding]:
    """Return what a crash and a power cut would cost."""
    check, findings = "Redis persistence", []
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        found = "its last snapshot failed: it may refuse all writes"
        findings.append(bad(check, found, "look at its log and its disk"))
    if not info.get("aof_enabled"):
        found = "no append-only file: a restart of Redis loses what came since its last snapshot"
        do = "set `appendonly yes` and `appendfsync always`"
        return [*findings, bad(check, found, do)]
    if info.get("aof_last_write_status", "ok") != "ok":
        findings.append(bad(check, "its last write to its file failed", "look at its disk"))
    if info.get("aof_last_bgrewrite_status", "ok") != "ok":
        findings.append(warn(check, "its last rewrite of the file failed", "look at its disk"))
    return [*findings, _fsync(await _config(redis), settings)]


def _fsync(config: Mapping[str, str], settings: Settings) -> Finding:
    check, how = "Redis fsync", config.get("appendfsync")
    do = "set `appendfsync always`, or ACK_POLICY=fsynced or replicated"
    if how is None:
        found = "this service does not tell; often everysec: " + _LOSS["everysec"]
        finding = warn(check, found, do)
    elif how in _LOSS:
        finding = warn(check, f"{how}: {_LOSS[how]}", do)
    elif config.get("no-appendfsync-on-rewrite") == "yes":
        found = "always, but not while the file is rewritten: a power cut then costs what came"
        finding = warn(check, found, "set `no-appendfsync-on-rewrite no`")
    else:
        return ok(check, "always: what was acknowledged survives a power cut")
    if settings.ack_policy == "stored":
        return finding
    kept = f"{how or 'not told'}; ACK_POLICY={settings.ack_policy} waits for more than that"
    return ok(check, kept)


async def _config(redis: Redis) -> dict[str, str]:
    """Return the settings of fsync; empty where a managed server does not tell them."""
    try:
        found = await redis.config_get("*appendfsync*")
    except ResponseError:
        return {}
    return {str_if_bytes(name): str_if_bytes(value) for name, value in found.items()}


async def _promise(redis: Redis, settings: Settings) -> list[Finding]:
    check, policy = "ACK_POLICY", settings.ack_policy
    try:
        await Inbox(redis, policy).check()
    except NotPossible as error:
        return [bad(check, str(error), "change one of the two; receivers do not start so")]
    return [ok(check, policy)]


async def _clock(redis: Redis) -> list[Finding]:
    """Hold this machine's clock against Redis's, to half the time that asking took."""
    check = "clock"
    before = time()
    seconds, micros = await redis.time()
    after = time()
    ahead = (before + after) / 2 - (seconds + micros / 1_000_000)
    unsure = (after - before) / 2
    told = f"this machine is {abs(ahead):.2f} s {'ahead of' if ahead > 0 else 'behind'} Redis's"
    do = "let NTP set both clocks; a receiver that is minutes off refuses signatures"
    if abs(ahead) - unsure > CLOCK_BAD_S:
        return [bad(check, told, do)]
    return [warn(check, told, do) if abs(ahead) - unsure > CLOCK_WARN_S else ok(check, told)]
