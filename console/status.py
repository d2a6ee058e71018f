"""`relay status`: the books at one instant, and how fast the vendors are asked."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.commands import AsJson, BadUsage, Failed, load, run, wrong_settings

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from pipeline.home import Home


Watch = Annotated[
    bool, typer.Option("--watch", help="Show it anew every two seconds, with speeds, until Ctrl-C.")
]


def status(watch: Watch = False, as_json: AsJson = False) -> None:
    """Show what each stage took in and what became of it, what is paused or slowed, and whether the books balance."""
    from console.output import print_json
    from pipeline.settings import SettingsError

    if watch and (as_json or not sys.stdout.isatty()):
        raise BadUsage(
            "--watch draws on a terminal: leave it out for --json, or for a file or pipe."
        )

    try:
        settings = load()
        home = settings.data_home()
    except SettingsError as error:
        raise wrong_settings(error.problems) from None

    async def look_on(redis: Redis) -> None:
        from console.watch import watch

        await watch(redis, settings)

    async def read(redis: Redis) -> dict[str, Any]:
        from pipeline import books

        return await books.snapshot(redis, home, settings)

    if watch:
        run(look_on)
        return
    try:
        snapshot = run(read)
    except Failed as failed:
        raise _with_spill(failed, home) from None
    if as_json:
        print_json(snapshot)
    else:
        _show(snapshot)


def _with_spill(failed: Failed, home: Home) -> Failed:
    """Return *failed* with how much lies on this machine's disk; only Redis knows how much of it is stored already."""
    from pipeline.clock import iso
    from pipeline.spill import survey

    told = survey(home)
    if not told.deliveries:
        return failed
    facts = {
        "deliveries": told.deliveries,
        "bytes": told.used_bytes,
        "since": iso(told.oldest_ms or 0),
    }
    sentence = f"Up to {told.deliveries} deliveries lie in the spill, since {facts['since']}."
    return type(failed)(f"{failed} {sentence}", failed.facts | {"spilled": facts})


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
    _show_paces(snapshot)
    if snapshot["balanced"]:
        say("The books balance.")
    else:
        say("THE BOOKS DO NOT BALANCE: a fault of the relay. Keep the data, and report it.")
    if any(row["dead"] for row in snapshot["stages"].values()):
        say("What is dead and why: `relay dead list`.")
    if "spilled" in snapshot:
        say(f"Of what waits in unpack {snapshot['spilled']} lie in the spill, not yet in Redis.")
    if "spill_unreadable" in snapshot:
        say(
            "THE SPILL CANNOT BE READ: the figures above may be too low:"
            " run this as the receivers' user; `relay doctor` says more."
        )
    idle = "" if snapshot["workers"] else " Nothing is worked on until one runs."
    say(f"Workers alive: {snapshot['workers']}.{idle}")
    say(f"The oldest work waits {snapshot['oldest_waiting_s']} s.")
    refused = ", ".join(f"{cause} {n}" for cause, n in snapshot["refused"].items())
    say(f"May have been sent twice: {snapshot['maybe_duplicate']}. Refused requests: {refused}.")


def _show_paces(snapshot: dict[str, Any]) -> None:
    from console.output import say

    for vendor, pace in snapshot["rates"].items():
        if pace["why"]:
            say(
                f"{vendor} is asked {pace['now']:.2f} times a second, not {pace['configured']:g},"
                f" since {pace['slowed_at']}: {pace['why']}"
            )
        else:
            rate = (
                f"{pace['configured']:g} times a second" if pace["configured"] else "without limit"
            )
            say(f"{vendor} is asked {rate} at most.")
    for stage, calls in snapshot["calls"].items():
        # a pause is told by itself, and nobody misses a stage that is switched off
        if calls["now"] < calls["most"] and not snapshot["paused"][stage]:
            say(
                f"{stage} makes {calls['now']} calls at a time, not {calls['most']}: {calls['why']}"
            )
    for stage, line in snapshot["retried"].items():
        if any(line.values()):
            say(
                f"Retried, in {stage}: {line['single']} to be made into batches, {line['batches']} batches,"
                f" {line['held']} held back. While other work waits they have one of five calls."
            )
