"""`relay doctor`: everything that can be looked at, in one table.

It asks Redis and, unless it is told not to, both vendors, who hear of nobody, and sends one event through the relay
to a dry end. Bad is what loses work, has it refused
or lets it rest; warn is what somebody should know of.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from console.commands import AsJson, Failed, run

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from console.findings import Finding
    from pipeline.settings import Settings


def doctor(
    offline: Annotated[bool, typer.Option("--offline", help="Ask no vendor.")] = False,
    no_event: Annotated[bool, typer.Option("--no-event", help="Send no event.")] = False,
    url: Annotated[
        str | None, typer.Option(help="The receiver's address; default: the one on this machine.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Examine settings, Redis, the relay's own books and both vendors; ends with 1 when anything is bad.

    The vendors' keys are tried by one call each that only reads, and that tells of nobody. One invented event is sent
    to the receiver and followed to a dry end: no vendor hears of it. All work that waits is counted: with very much
    of it, that takes a while.
    """
    from console.findings import State
    from console.output import print_json

    findings = _examine(offline=offline, sends=not no_event, url=url)
    is_well = all(each.state is not State.BAD for each in findings)
    if as_json:
        print_json({"ok": is_well, "findings": [each.view() for each in findings]})
    else:
        _show(findings)
    if not is_well:
        raise typer.Exit(1)


def _examine(*, offline: bool, sends: bool, url: str | None) -> list[Finding]:
    """Return all findings; what cannot be looked at is one."""
    from console.examination import in_redis, on_this_machine
    from console.findings import bad
    from pipeline.settings import SettingsError, load_settings

    try:
        settings = load_settings()
    except SettingsError as error:
        return [bad("settings", problem, "correct it") for problem in error.problems]
    findings = on_this_machine(settings)
    if not offline:
        findings += _of_vendors(settings)

    async def work(redis: Redis) -> list[Finding]:
        return await in_redis(redis, settings, sends=sends, url=url)

    try:
        return findings + run(work)
    except Failed as failed:
        return [*findings, bad("Redis", str(failed), "mend this, then look again")]


def _of_vendors(settings: Settings) -> list[Finding]:
    """Ask the vendors, outside of Redis's error handling."""
    import asyncio

    from console.commands import keep_logs_away
    from console.findings_of_vendors import of_vendors

    keep_logs_away()
    try:
        return asyncio.run(of_vendors(settings))
    except KeyboardInterrupt:
        raise Failed("Interrupted.") from None


def _show(findings: list[Finding]) -> None:
    from console.findings import State
    from console.output import print_table, say

    rows = [
        (each.state, each.check, f"{each.found}\nDo: {each.do}" if each.do else each.found)
        for each in findings
    ]
    print_table(("", "what", "found"), rows, folds="found")
    counted = Counter(each.state for each in findings)
    say(", ".join(f"{counted[state]} {state}" for state in State))
