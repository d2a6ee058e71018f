"""One run: start everything, post, break by the schedule, end all faults, drain, and collect the evidence."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import httpx
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import RedisError

from chaos.ids import ids_in
from chaos.judge import Arrival, Evidence, read_journal, read_marks
from chaos.parts import Relay
from chaos.points import SPILLING
from chaos.schedule import RECEIVERS, REDIS, VENDORS, WORKERS, Act, Kind, draw
from chaos.sender import Sender
from chaos.vendors import POISONED
from pipeline import books, keys
from pipeline.home import Home
from pipeline.outcomes import Stage
from pipeline.spill import files_in
from sandbox import faults
from sandbox.faults import Fault

if TYPE_CHECKING:
    from redis.asyncio import Redis

MAXMEMORY = 1 << 30
#: a limit below what is used: nothing can be written that needs memory
FULL_SHARE = 0.97
#: how long a trap waits for somebody to come by: its process may have to start first, or to be let go on
TRAPPED_WITHIN_S = 12.0
#: how long Redis is away for a trap that only lies where deliveries are spilled
AWAY_S = 1.5
#: what is never reached unless something hangs
PATIENCE_S = 180.0
#: how much waits when the workers find a full Redis, how large each of it is, and how long it is waited for: work has
#: to be what fills it, so that draining makes room
BACKLOG, PADDING, BACKLOG_WITHIN_S = 60, 200_000, 20.0
UNREACHABLE = (RedisError, OSError, TimeoutError)


@dataclass(slots=True)
class Run:
    """What one run has done and found."""

    acts: list[Act]
    relay: Relay
    sender: Sender
    #: acts that met what they were meant for, and those that did not, by kind
    done: Counter[str] = field(default_factory=Counter)
    unmet: Counter[str] = field(default_factory=Counter)
    #: the points at which something was really ended or paused
    points: set[str] = field(default_factory=set)
    arrivals: list[Arrival] = field(default_factory=list)
    began: float = field(default_factory=monotonic)
    broken_s: float = 0.0
    drained_s: float = 0.0


async def run(
    seed: int, seconds: float, home: Path, say: Callable[[str], None]
) -> tuple[Run, Evidence]:
    """Break a relay in *home* for *seconds*; return what was done, and what is to be judged."""
    relay = Relay(home, MAXMEMORY)
    doing = Run(draw(seed, seconds), relay, Sender(relay.ports, seed))
    try:
        await asyncio.to_thread(relay.start)
        async with _beside(relay.supervise(), _watch(relay)):
            posting = asyncio.create_task(doing.sender.run())
            try:
                await _break(doing, seconds)
                doing.broken_s = monotonic() - doing.began
                say(
                    f"after {doing.broken_s:.0f} s: all faults end, Redis is full, and all has to drain"
                )
                await _drain(doing, posting)
                doing.drained_s = monotonic() - doing.began - doing.broken_s
            finally:
                posting.cancel()
            evidence = await _evidence(doing)
        return doing, evidence
    finally:
        relay.close()


@asynccontextmanager
async def _beside(*work: Any) -> AsyncIterator[None]:
    """Do *work* as long as the block lasts."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def _client(relay: Relay) -> AsyncIterator[Redis]:
    client = AsyncRedis.from_url(relay.redis.url, socket_timeout=5, socket_connect_timeout=2)
    try:
        yield client
    finally:
        await client.aclose()


async def _snapshot(relay: Relay, home: Home | None = None) -> dict[str, Any] | None:
    """Return the books, with what is spilled in *home*; None while Redis cannot say."""
    try:
        async with asyncio.timeout(5), _client(relay) as redis:
            return await books.snapshot(redis, home)
    except UNREACHABLE:
        return None


async def _watch(relay: Relay) -> None:
    """Look at the books all the time: they balance at every instant, or it is a problem."""
    while True:
        told = await _snapshot(relay, Home(relay.home))
        if told is not None and not told["balanced"]:
            relay.problems.append(f"the books did not balance while it ran: {told['stages']}")
            return
        await asyncio.sleep(1)


# breaking --------------------------------------------------------------------------------------------


async def _break(doing: Run, seconds: float) -> None:
    """Carry out the schedule; acts that last go on beside the next ones."""
    tasks: list[asyncio.Task[None]] = []
    doing.began = monotonic()
    try:
        for act in doing.acts:
            await asyncio.sleep(max(0.0, doing.began + act.at_s - monotonic()))
            tasks.append(asyncio.create_task(_carry_out(doing, act)))
        await asyncio.sleep(max(0.0, doing.began + seconds - monotonic()))
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _carry_out(doing: Run, act: Act) -> None:
    try:
        is_met = await _ACTS[act.kind](doing.relay, act)
    except UNREACHABLE:  # Redis or the vendors are away: another act has been quicker
        is_met = False
    (doing.done if is_met else doing.unmet)[act.kind] += 1
    if is_met and act.point is not None:
        doing.points.add(str(act.point))


async def _end(relay: Relay, act: Act) -> bool:
    """SIGKILL or SIGTERM."""
    number = signal.SIGKILL if act.kind is Kind.KILL else signal.SIGTERM
    if act.part == REDIS:
        async with relay.redis_lock:
            incident = relay.befell(act.kind, REDIS)
            await relay.restart_redis(number)
            incident.end()
        return True
    part = relay.parts[act.part]
    process = part.process
    if process is None or part.has_ended:
        return False
    relay.befell(act.kind, act.part)
    part.send(number)
    if number is signal.SIGTERM:
        await relay.until_ended(part, process)
    return True


async def _trap(relay: Relay, act: Act) -> bool:
    """Have a part end itself, or stand still, at one point."""
    point, part = act.point, relay.parts[act.part]
    process = part.process
    if point is None or process is None:
        return False
    met = f" {process.pid} {act.detail} {point.side} {point.place}\n".encode()
    incident = relay.befell(f"{act.detail} {point}", act.part)
    part.expected = True
    part.order(f"trap {point.side} {point.place} {act.detail}")
    if point in SPILLING:
        await _take_redis_away(relay)
    if not await _until(lambda: met in relay.notes.read_bytes(), TRAPPED_WITHIN_S):
        part.order("free")
        part.send(signal.SIGCONT)  # should it have met it in this very moment
        incident.end()
        if met not in relay.notes.read_bytes():
            relay.incidents.remove(incident)
            return False
    if act.detail == "STOP":
        await asyncio.sleep(act.lasts_s)
        part.send(signal.SIGCONT)
        incident.end()
    elif act.detail == "TERM":
        await relay.until_ended(part, process)
    return True


async def _take_redis_away(relay: Relay) -> None:
    if relay.redis_lock.locked():
        return  # it is in trouble already
    async with relay.redis_lock:
        incident = relay.befell("away", REDIS)
        await relay.restart_redis(signal.SIGKILL, AWAY_S)
        incident.end()


async def _pause(relay: Relay, act: Act) -> bool:
    if act.part == REDIS:
        async with relay.redis_lock:
            await _pause_redis(relay, act.lasts_s)
        return True
    part = relay.parts[act.part]
    if part.has_ended:
        return False
    incident = relay.befell(act.kind, act.part)
    part.send(signal.SIGSTOP)
    await asyncio.sleep(act.lasts_s)
    part.send(signal.SIGCONT)
    incident.end()
    return True


async def _pause_redis(relay: Relay, lasts_s: float) -> None:
    incident = relay.befell(Kind.PAUSE, REDIS)
    relay.signal_redis(signal.SIGSTOP)
    try:
        await asyncio.sleep(lasts_s)
    finally:
        relay.signal_redis(signal.SIGCONT)
        incident.end()


async def _full(relay: Relay, act: Act) -> bool:
    async with relay.redis_lock:
        await _fill(relay)
        incident = relay.befell(act.kind, REDIS)
        await asyncio.sleep(act.lasts_s)
        await _set_maxmemory(relay, MAXMEMORY)
        incident.end()
    return True


async def _fill(relay: Relay) -> None:
    """Leave Redis less memory than it uses."""
    async with _client(relay) as redis:
        used = int((await redis.info("memory"))["used_memory"])
    await _set_maxmemory(relay, int(used * FULL_SHARE))


async def _set_maxmemory(relay: Relay, size: int) -> None:
    async with _client(relay) as redis:
        await redis.config_set("maxmemory", size)


async def _disk(relay: Relay, act: Act) -> bool:
    """Redis stands still, and there is no room on the disk either."""
    async with relay.redis_lock:
        for name in RECEIVERS:
            relay.parts[name].order("disk full")
        await _pause_redis(relay, act.lasts_s)
        for name in RECEIVERS:
            relay.parts[name].order("disk well")
    return True


async def _fault(relay: Relay, act: Act) -> bool:
    """What is left of the last fault ends: piled up they would be one long outage, probed more and more seldom."""
    await _set(relay, _FAULTS[act.detail](act.times))
    return True


_FAULTS: dict[str, Callable[[int], Fault]] = {
    "slow": lambda times: faults.slow("*", 2.0, times=times),
    "reset before": lambda times: faults.reset("*", "before", times=times),
    "reset after": lambda times: faults.reset("*", "after", times=times),
    "504 and stored": lambda times: faults.stored_then_504("*", times=times),
    "500": lambda times: faults.broken("*", times=times),
    "429": lambda times: faults.throttled("*", times=times, retry_after="1"),
    "cut off": lambda times: faults.cut_off("*", times=times),
}


async def _set(relay: Relay, *more: Fault) -> None:
    """Let the vendors refuse what they always refuse, and fail as *more* says."""
    wanted = [asdict(fault) for fault in (faults.poisoned("events", *POISONED), *more)]
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            await client.delete(f"{relay.vendors_url}/faults")
            await client.post(f"{relay.vendors_url}/faults", json=wanted)
    except httpx.HTTPError as error:
        raise TimeoutError from error


async def _clock(relay: Relay, act: Act) -> bool:
    relay.parts[act.part].order(f"clock {act.detail}")
    return True


_ACTS: dict[Kind, Callable[[Relay, Act], Awaitable[bool]]] = {
    Kind.KILL: _end,
    Kind.TERM: _end,
    Kind.TRAP: _trap,
    Kind.PAUSE: _pause,
    Kind.FULL: _full,
    Kind.DISK: _disk,
    Kind.FAULT: _fault,
    Kind.CLOCK: _clock,
}


# draining --------------------------------------------------------------------------------------------


async def _drain(doing: Run, posting: asyncio.Task[None]) -> None:
    """End all faults; let a full Redis drain without help, then what receivers have spilled because it was full."""
    relay = doing.relay
    await _all_well(relay)
    relay.hold_down(WORKERS)
    doing.sender.padding = "x" * PADDING
    await _until(lambda: _waits_at_least(relay, BACKLOG), BACKLOG_WITHIN_S)
    doing.sender.over.set()
    await asyncio.wait([posting], timeout=PATIENCE_S)
    if not posting.done():
        relay.problems.append(f"not every delivery was taken within {PATIENCE_S:.0f} s")
    await _fill(relay)
    incident = relay.befell(Kind.FULL, REDIS)
    relay.let_go()
    if not await _until(lambda: _is_empty(relay, None), PATIENCE_S):
        relay.problems.append(f"Redis was full, and did not drain within {PATIENCE_S:.0f} s")
    await _set_maxmemory(relay, MAXMEMORY)
    incident.end()
    doing.done[Kind.FULL] += 1
    if not await _until(lambda: _is_empty(relay, Home(relay.home)), PATIENCE_S):
        relay.problems.append(f"something waits after {PATIENCE_S:.0f} s without a fault")


async def _all_well(relay: Relay) -> None:
    for part in relay.parts.values():
        if part.name != VENDORS:
            for words in ("free", "clock 0", "disk well"):
                part.order(words)
    async with relay.redis_lock:
        await _until(lambda: _is_there(relay), PATIENCE_S)
    while True:
        try:
            await _set(relay)
        except TimeoutError:
            await asyncio.sleep(0.2)
        else:
            return


async def _is_there(relay: Relay) -> bool:
    return await _snapshot(relay) is not None


async def _waits_at_least(relay: Relay, count: int) -> bool:
    told = await _snapshot(relay)
    return told is not None and told["stages"]["unpack"]["waiting"] >= count


async def _is_empty(relay: Relay, home: Home | None) -> bool:
    told = await _snapshot(relay, home)
    return told is not None and not any(row["waiting"] for row in told["stages"].values())


async def _until(check: Callable[[], bool | Awaitable[bool]], within_s: float) -> bool:
    """Wait until *check* is true; return whether that came about."""
    until = monotonic() + within_s
    while True:
        answer = check()
        if answer if isinstance(answer, bool) else await answer:
            return True
        if monotonic() > until:
            return False
        await asyncio.sleep(0.05)


# evidence --------------------------------------------------------------------------------------------


async def _evidence(doing: Run) -> Evidence:
    relay = doing.relay
    async with _client(relay) as redis:
        told = await books.snapshot(redis, Home(relay.home))
        recount = await books.recount(redis)
        dead, waiting = await _dead_ids(redis), await _waiting_ids(redis)
    spilled = _spilled(relay)
    with relay.journal.open("rb") as journal, relay.marks.open("rb") as marks:
        doing.arrivals, marked = read_journal(journal), read_marks(marks)
    rows = {str(stage): dict(numbers) for stage, numbers in recount.items()}
    rows[Stage.UNPACK]["waiting"] += told.get("spilled", 0)
    return Evidence(
        ledger=doing.sender.ledger,
        arrivals=doing.arrivals,
        dead=dead,
        waiting=waiting | spilled,
        incidents=relay.incidents,
        books=told["stages"],
        recount=rows,
        maybe_duplicate=told["maybe_duplicate"],
        marked=marked,
        problems=relay.problems,
    )


def _ids(values: Any) -> set[int]:
    return {found for value in values if value for found in ids_in(value)}


async def _dead_ids(redis: Redis) -> set[int]:
    found: set[int] = set()
    for member in await redis.zrange(keys.DEAD, 0, -1):
        letter = keys.letter(member.decode().rpartition("/")[2])
        found |= _ids([await redis.hget(letter, "payload")])
    return found


async def _waiting_ids(redis: Redis) -> set[int]:
    found: set[int] = set()
    for names in keys.QUEUES.values():
        for name in names:
            last = "-"
            while rows := await redis.xrange(keys.queue(name), last, "+", count=1000):
                for _, fields in rows:
                    found |= _ids(fields.values())
                last = f"({rows[-1][0].decode()}"
    return found


def _spilled(relay: Relay) -> set[int]:
    """Return the ids in files of the spill; how far Redis has them does not matter here."""
    return _ids(path.read_bytes() for path in files_in(Home(relay.home).spill_dir))
