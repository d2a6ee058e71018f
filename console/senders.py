"""`relay senders`: which sources deliver, what comes of it, and whether their signatures are checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from console.commands import AsJson, load, run

if TYPE_CHECKING:
    from redis.asyncio import Redis

CHECKS = {"on": "on", "off": "off", "incomplete": "incomplete", "none": "token only"}


def senders(as_json: AsJson = False) -> None:
    """Show every source: its last delivery, what its events came to, and whether its signature is checked."""
    from console.output import print_json

    settings = load()
    is_trials = settings.is_beside_trial()
    secrets = {} if is_trials else settings.sender_secrets()

    async def work(redis: Redis) -> list[dict[str, Any]]:
        return await rows_of(redis, secrets)

    rows = run(work)
    if as_json:
        print_json(rows)
    else:
        _show(rows, is_trials=is_trials)


async def rows_of(redis: Redis, secrets: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return what is known of every source; *secrets* are those of the senders that are set."""
    from pipeline.senders import read, signature_view
    from pipeline.sources.registry import SECRETS, SOURCES

    known = await read(redis, list(SOURCES))
    return [
        {
            "source": source,
            **sender.view(),
            "signature": signature_view(SECRETS.get(source, ()), secrets),
        }
        for source, sender in known.items()
    ]


def _show(rows: list[dict[str, Any]], *, is_trials: bool) -> None:
    from console.output import print_table, say

    columns = ("source", "last delivery", "deliveries", "dead", "events", "signature")
    print_table(columns, map(_cells, rows), numbers=("deliveries", "dead"), folds="events")
    for row in rows:
        for hint in (*_set_ups(row), "" if is_trials else hint_of(row)):
            if hint:
                say(hint)
    if is_trials:
        say("These are of the trial that runs here, which checks no signatures.")
    if any(row["deliveries"]["dead"] for row in rows):
        say("What is dead and why: `relay dead list --source SOURCE`.")


def _set_ups(row: dict[str, Any]) -> list[str]:
    """Return what a source was told at each of its last set-ups, newest first, and what is to be done with it."""
    newest = [row["set_up"]] if row["set_up"] else []
    return [
        f"{row['source']}: to switch callback {told['callback_id']} on, give it back its verification key"
        f" {told['verification_key']} (it came at {told['received_at']})."
        for told in (*newest, *row["earlier_set_ups"])
    ]


def hint_of(row: dict[str, Any]) -> str:
    """Return what to set for a source that delivers without being verified, or cannot be verified."""
    source, signature = row["source"], row["signature"]
    names = [name for name, is_set in signature["settings"].items() if not is_set]
    missing, are = " and ".join(names), "are" if len(names) > 1 else "is"
    if signature["check"] == "incomplete":
        return f"{source}: without {missing} its signature cannot be checked; it may be refused."
    if signature["check"] == "off" and row["last_delivery_at"]:
        return f"{source}: its signature is checked once {missing} {are} set."
    return ""


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    deliveries, check = row["deliveries"], row["signature"]["check"]
    return (
        row["source"],
        row["last_delivery_at"] or "never",
        sum(deliveries.values()),
        deliveries["dead"],
        events_line(row["events"]),
        CHECKS[check],
    )


def events_line(events: dict[str, Any]) -> str:
    """Return what the events came to, in one line: `Open 3, Click 1; ignored: deferred 2; invalid 1`."""
    parts = [_numbers(events["taken"])]
    if events["ignored"]:
        parts.append("ignored: " + _numbers(events["ignored"]))
    if events["invalid"]:
        parts.append(f"invalid {events['invalid']}")
    return "; ".join(part for part in parts if part)


def _numbers(counted: dict[str, int]) -> str:
    return ", ".join(f"{word} {n}" for word, n in counted.items())
