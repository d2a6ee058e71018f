"""What `relay doctor` finds in the relay's own data: who works, what rests, whether the books are true."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from console.findings import Finding, bad, looked, ok, warn
from pipeline import books, dialects, senders
from pipeline.outcomes import Stage
from pipeline.pauses import NO_KEY
from pipeline.sources.registry import SECRETS, SOURCES

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from pipeline.settings import Settings

Row = Mapping[str, int]

#: while work moves, a count may fall between two numbers; a second one would have to do so again
COUNTS = 3


async def of_relay(redis: Redis, settings: Settings, *, recounts: bool = True) -> list[Finding]:
    """Return what the relay's data tell. Raises redis-py's errors, but for what Redis refuses to tell."""
    return [
        *await looked("workers, stages and books", _snapshot(redis, settings)),
        *(await looked("books, recounted", _recount(redis)) if recounts else ()),
        *await looked("senders", _senders(redis, settings)),
        *await looked("AudienceLab's dialect", _dialects(redis, settings.audiencelab_dialect)),
    ]


async def _snapshot(redis: Redis, settings: Settings) -> list[Finding]:
    snapshot = await books.snapshot(redis, settings.data_home())
    return [_workers(snapshot), *_pauses(snapshot), _balance(snapshot)]


def _workers(snapshot: Mapping[str, Any]) -> Finding:
    check, alive = "workers", snapshot["workers"]
    oldest = f"the oldest work waits {snapshot['oldest_waiting_s']} s"
    if not alive:
        return bad(check, f"none is alive; {oldest}", "start one: nothing is worked on until then")
    return ok(check, f"{alive} alive; {oldest}")


def _pauses(snapshot: Mapping[str, Any]) -> Iterator[Finding]:
    check, paused = "stages", {name: it for name, it in snapshot["paused"].items() if it}
    for stage, pause in paused.items():
        found = f"{stage} is paused by the {pause['by']} since {pause['since']}: {pause['reason']}"
        if pause["by"] == "operator":
            yield warn(check, found, f"`relay resume {stage}` lifts it")
        elif pause["reason"].startswith(NO_KEY):
            yield warn(check, found, "it goes on when the key is set")
        else:
            yield bad(check, found, "mend what it says; the relay goes on by itself")
    if not paused:
        yield ok(check, "none is paused")


def _balance(snapshot: Mapping[str, Any]) -> Finding:
    check = "books"
    if snapshot["balanced"]:
        return ok(check, "every stage balances")
    off = [name for name, row in snapshot["stages"].items() if _difference(row)]
    found = f"they do not balance in {', '.join(off)}"
    return bad(check, found, "a fault of the relay: keep the data, and report it")


def _difference(row: Row) -> int:
    return row["in"] - sum(row[fate] for fate in books.FATES)


async def _recount(redis: Redis) -> list[Finding]:
    """Count the work itself against the books.

    Work may move meanwhile: a difference is one only if it is larger than all that the books have changed by.
    """
    check = "books, recounted"
    wrong: list[str] = []
    for _ in range(COUNTS):
        before = (await books.snapshot(redis))["stages"]
        counted = await books.recount(redis)
        after = (await books.snapshot(redis))["stages"]
        wrong = [
            told
            for stage in Stage
            if (told := _wrong(stage, before[stage], counted[stage], after[stage]))
        ]
        if not wrong:
            total = sum(row["waiting"] + row["dead"] for row in counted.values())
            return [ok(check, f"what waits and what is dead is there ({total})")]
    do = "a fault of the relay: keep the data, and report it"
    return [bad(check, "; ".join(wrong), do)]


def _wrong(stage: Stage, before: Row, counted: Row, after: Row) -> str:
    """Return in what the count of *stage* contradicts the books; empty when it does not."""
    moved = sum(abs(after[name] - before[name]) for name in before)
    off = {name: number for name, number in counted.items() if abs(number - before[name]) > moved}
    parts = [f"{name} {before[name]} in the books, {number} there" for name, number in off.items()]
    return f"{stage}: {', '.join(parts)}" if parts else ""


async def _senders(redis: Redis, settings: Settings) -> list[Finding]:
    """Return a finding for each source that has delivered, and for each whose signature is half set up."""
    if settings.is_beside_trial():
        return []  # it checks no signatures, whatever is set
    secrets = settings.sender_secrets()
    findings = []
    for source, sender in (await senders.read(redis, list(SOURCES))).items():
        signature = senders.signature_view(SECRETS.get(source, ()), secrets)
        last = sender.view()["last_delivery_at"]
        if finding := _signature(source, signature, last):
            findings.append(finding)
    return findings or [
        warn("senders", "nothing was ever delivered", "set one up: docs/senders.md")
    ]


def _signature(source: str, signature: Mapping[str, Any], last: str | None) -> Finding | None:
    check, seen = f"sender {source}", f"last delivery {last or 'never'}"
    missing = " and ".join(name for name, is_set in signature["settings"].items() if not is_set)
    match signature["check"]:
        case "on":
            return ok(check, f"{seen}; its signature is checked")
        case "incomplete":
            found = f"{seen}; its signature cannot be checked without {missing}: it may be refused"
            return bad(check, found, f"set {missing}")
        case "off" if last:
            return warn(check, f"{seen}; whoever has the token is believed", f"set {missing}")
        case "none" if last:
            return ok(check, f"{seen}; it signs nothing, its token is checked")
    return None


async def _dialects(redis: Redis, mode: str) -> list[Finding]:
    check, worked = "AudienceLab's dialect", await dialects.read(redis)
    if not worked:
        return [ok(check, f"{mode}; no call with two forms has gone well yet")]
    told = f"{mode}; " + ", ".join(f"{call} {dialect}" for call, dialect in worked.items())
    if mode != "auto" and any(dialect != mode for dialect in worked.values()):
        do = "set AUDIENCELAB_DIALECT=auto if calls fail"
        return [warn(check, f"{told}: something else has worked before", do)]
    return [ok(check, told)]
