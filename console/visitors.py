"""`relay visitors`: what is known about one person or all, and how to forget one.

Addresses are printed here because the operator asked for exactly these people; exports are audited.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from console.commands import (
    AsJson,
    BadUsage,
    Failed,
    Yes,
    check_can_ask,
    confirm,
    operator,
    run,
)
from console.selection import Since, read_since

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from console.export import Order
    from pipeline.forgetting import Forgotten

visitors = typer.Typer(
    help="Visitors: one resolved person each.",
    no_args_is_help=True,
    epilog="Example: relay visitors show ada@example.com",
)

Who = Annotated[
    str, typer.Argument(metavar="ADDRESS|HASH|UUID", help="An address, its SHA-256, or a UUID.")
]
EXPORT_EXAMPLE = (
    "Example: relay visitors export --format csv --score-min 3 --output warm.csv;"
    " relay visitors export --format jsonl --changed-since 2h"
)
FormOption = Annotated[
    Literal["csv", "jsonl"] | None, typer.Option("--format", help="csv, or jsonl (with --json).")
]


def _moment(means: str) -> Any:
    """Return the option whose value is a time or an age; its help says what it *means*."""
    return typer.Option(parser=read_since, metavar="AGE|TIME", help=means)


ChangedSince = Annotated[
    Since | None,
    _moment("Only whose scores changed since then: 2h, 3d, or an ISO-8601 time."),
]
ScoreMin = Annotated[
    int | None, typer.Option(min=0, max=5, help="Only with at least this score, 0 to 5.")
]
ScoreMax = Annotated[int | None, typer.Option(min=0, max=5, help="Only with at most this score.")]
Frequencies = Annotated[
    list[str] | None,
    typer.Option(metavar="WORD", help="Only with this frequency, a word of AudiencePoint's."),
]
SeenSince = Annotated[
    Since | None,
    _moment(
        "Only who last opened, clicked or unsubscribed then or later (AudiencePoint's last_seen)."
    ),
]
SeenBefore = Annotated[Since | None, _moment("Only who did it earlier than that.")]
VisitedSince = Annotated[
    Since | None,
    _moment("Only who was last sighted by AudienceLab then or later (last_seen_at)."),
]
VisitedBefore = Annotated[Since | None, _moment("Only who was, earlier than that.")]
Tags = Annotated[list[str] | None, typer.Option(help="Only with this tag.")]
ColumnNames = Annotated[
    list[str] | None,
    typer.Option(metavar="NAMES", help="Only these, in this order; repeat it, or put commas."),
]
Output = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write to this file, readable for you only, once all is there; `-` is stdout.",
    ),
]
NO_UNSUBSCRIBE = (
    "AudiencePoint has no call to unsubscribe: what it was sent before, it still has. Ask them."
)
PARTLY = (
    "Only this name is allowed again. Forgetting left a tombstone on each of the person's names, and which"
    " belong together is written down nowhere: allow the other addresses and the UUID as well."
)


# looking ------------------------------------------------------------------------------------------------


@visitors.command("show", epilog="Example: relay visitors show ada@example.com")
def show(who: Who, as_json: AsJson = False) -> None:
    """Show everything that is known about one person."""
    from console.output import print_json, say
    from console.person import lines, look

    _checked(who)
    known, is_forgotten = run(lambda redis: look(redis, who))
    if known is None and is_forgotten:
        sentence = (
            "No visitor has this identity. It is blocked from now on, until `relay visitors allow`."
        )
        raise Failed(sentence, {"forgotten": True})
    if known is None:
        raise Failed("Nobody is known by that.", {"forgotten": False})
    if as_json:
        print_json(known.view())
    else:
        say("\n".join(lines(known)))


def _checked(who: str) -> str:
    if not who.strip():
        raise BadUsage("Who? Give an address, its SHA-256, or a UUID.")
    return who


# exporting ----------------------------------------------------------------------------------------------


@visitors.command("export", epilog=EXPORT_EXAMPLE)
def export(
    form: FormOption = None,
    changed_since: ChangedSince = None,
    score_min: ScoreMin = None,
    score_max: ScoreMax = None,
    frequency: Frequencies = None,
    seen_since: SeenSince = None,
    seen_before: SeenBefore = None,
    visited_since: VisitedSince = None,
    visited_before: VisitedBefore = None,
    tag: Tags = None,
    columns: ColumnNames = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Export visitors: as CSV for spreadsheets or as JSON Lines for programs; it is audited.

    All filters must hold; of a repeated one any value may. With --json stdout gets JSON Lines, or with --output
    one object that sums up. CSV cells that a spreadsheet would take for a formula get an apostrophe in front.
    """
    from console.export import Order, Wanted, check_output

    if output is not None and str(output) == "-":
        output = None
    if score_min is not None and score_max is not None and score_min > score_max:
        raise BadUsage("--score-min is above --score-max.")
    if as_json and form == "csv" and output is None:
        raise BadUsage("--json prints JSON: leave out --format csv, or give --output.")
    order = Order(
        Wanted(
            changed_since, score_min, score_max, _words("--frequency", frequency),
            seen_since, seen_before, visited_since, visited_before, _words("--tag", tag),
        ),
        form or ("jsonl" if as_json else "csv"),
        _checked_columns(columns),
        check_output(output) if output else None,
        as_json,
    )  # fmt: skip
    _carry_out(order)


def _carry_out(order: Order) -> None:
    """Export, and tell what it came to where that does not mix with the rows."""
    from dataclasses import asdict

    import orjson

    from console.output import print_json, say, warn

    try:
        done = order.carry_out()
    except BadUsage:
        raise
    except Failed as failed:
        if not (order.as_json and order.output is None):
            raise
        # rows may stand before it: the error is one more line
        print(orjson.dumps({"error": str(failed), **failed.facts}).decode())
        raise typer.Exit(failed.status) from None
    count = f"{done.exported} of {done.looked_at} visitors"
    again = f"For what changes from now on: --changed-since {done.next_changed_since}"
    if order.output is None:
        if not order.as_json:
            warn(f"{count} exported. {again}")
    elif order.as_json:
        print_json({**asdict(done), "format": order.form, "output": str(order.output)})
    else:
        say(f"{count} are in {order.output}. {again}")


def _words(option: str, given: list[str] | None) -> tuple[str, ...]:
    """Return what an option that may be repeated, or have commas, was given.

    Raises `BadUsage` where it was given nothing, as by a variable that is not set: that must not mean everybody.
    """
    words: list[str] = []
    for each in given or ():
        named = [word.strip() for word in each.split(",") if word.strip()]
        if not named:
            raise BadUsage(f"{option} is empty: leave it out, or say which.")
        words += named
    return tuple(words)


def _checked_columns(given: list[str] | None) -> tuple[str, ...]:
    from console.export_rows import COLUMNS

    columns = _words("--columns", given)
    if unknown := sorted(set(columns) - COLUMNS.keys()):
        raise BadUsage(
            f"No such columns: {', '.join(unknown)}. There are {', '.join(COLUMNS)}.",
        )
    return tuple(dict.fromkeys(columns))


# forgetting ---------------------------------------------------------------------------------------------


@visitors.command("forget", epilog="Example: relay visitors forget ada@example.com")
def forget(who: Who, yes: Yes = False, as_json: AsJson = False) -> None:
    """Forget a person: visitor, addresses and dead letters go, and they are kept from coming back.

    Dead letters of deliveries that tell of several people go as a whole.
    """
    from dataclasses import asdict

    from console.output import print_json, progress, say

    _checked(who)
    if not yes:
        check_can_ask(as_json=as_json)
        confirm("Forget this person for good?")

    async def work(redis: Redis) -> Forgotten:
        from pipeline import audit, forgetting

        if not (forgetting.is_spelt_right(who) or await forgetting.find(redis, who)):
            raise BadUsage(f"{forgetting.NOBODY}: nothing was forgotten.")
        with progress("looking", None, wanted=not as_json) as (advance, _):
            gone = await forgetting.forget(redis, who, advance)
        # counts only: the audit must not name whom it says was forgotten
        counted = {"visitors": gone.visitors, "dead_letters": gone.dead_letters}
        await audit.record(redis, "forget", who=operator(), count=gone.visitors, wanted=counted)
        return gone

    gone = run(work)
    if as_json:
        print_json({**asdict(gone), "note": NO_UNSUBSCRIBE})
        return
    say(
        f"Gone: {gone.visitors} visitors, {gone.addresses} addresses, {gone.dead_letters} dead letters."
    )
    say("Nothing in flight or sent again brings them back; `relay visitors allow` lifts that.")
    say(NO_UNSUBSCRIBE)


@visitors.command("allow", epilog="Example: relay visitors allow ada@example.com")
def allow(who: Who, as_json: AsJson = False) -> None:
    """Allow a forgotten person to be known again, by this name."""
    from console.output import print_json, say

    async def work(redis: Redis) -> int:
        from pipeline import audit, forgetting

        lifted = await forgetting.allow(redis, _checked(who))
        await audit.record(redis, "allow", who=operator(), count=lifted)
        return lifted

    lifted = run(work)
    if not lifted:
        raise Failed("Nobody was forgotten by that name.", {"lifted": 0})
    if as_json:
        print_json({"lifted": lifted, "note": PARTLY})
    else:
        say(f"Allowed again. {PARTLY}")
