"""`relay status`: the books at one instant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from console.commands import AsJson, run

if TYPE_CHECKING:
    from redis.asyncio import Redis


def status(as_json: AsJson = False) -> None:
    """Show what each stage took in and what became of it, what is paused, and whether the books balance."""
    from console.output import print_json

    snapshot = run(_read)
    if as_json:
        print_json(snapshot)
    else:
        _show(snapshot)


async def _read(redis: Redis) -> dict[str, Any]:
    from pipeline import books

    return await books.snapshot(redis)


def _show(snapshot: dict[str, Any]) -> None:
    from console.output import print_table, say
    from pipeline.keys import COUNTERS

    rows = [(stage, *(row[name] for name in COUNTERS)) for stage, row in snapshot["stages"].items()]
    print_table(("stage", *COUNTERS), rows, numbers=COUNTERS)
    for stage, pause in snapshot["paused"].items():
        if pause:
            until = f", next try {pause['until']}" if pause["until"] else ""
            say(
                f"{stage} is paused by the {pause['by']} since {pause['since']}{until}: {pause['reason']}"
            )
    say("The books balance." if snapshot["balanced"] else "THE BOOKS DO NOT BALANCE.")
    refused = ", ".join(f"{cause} {n}" for cause, n in snapshot["refused"].items())
    say(
        f"Workers alive: {snapshot['workers']}. The oldest work waits {snapshot['oldest_waiting_s']} s."
    )
    say(f"May have been sent twice: {snapshot['maybe_duplicate']}. Refused requests: {refused}.")
