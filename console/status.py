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
            # the relay's own pause ends by itself when its cause is gone
            lift = f" (`relay resume {stage}` lifts it)" if pause["by"] == "operator" else ""
            say(
                f"{stage} is paused by the {pause['by']} since {pause['since']}{until}:"
                f" {pause['reason']}{lift}"
            )
    if snapshot["balanced"]:
        say("The books balance.")
    else:
        say("THE BOOKS DO NOT BALANCE: a fault of the relay. Keep the data, and report it.")
    if any(row["dead"] for row in snapshot["stages"].values()):
        say("What is dead and why: `relay dead list`.")
    idle = "" if snapshot["workers"] else " Nothing is worked on until one runs."
    say(f"Workers alive: {snapshot['workers']}.{idle}")
    say(f"The oldest work waits {snapshot['oldest_waiting_s']} s.")
    refused = ", ".join(f"{cause} {n}" for cause, n in snapshot["refused"].items())
    say(f"May have been sent twice: {snapshot['maybe_duplicate']}. Refused requests: {refused}.")
