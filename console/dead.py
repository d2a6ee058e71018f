"""`relay dead`: look at what failed, put it back to work, or let it go.

Retrying is planned (`--dry-run`), done at a rate, can be stopped and resumed, and is written into the audit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.commands import AsJson, Failed, Yes, check_can_ask, confirm, run
from console.selection import (
    All,
    DropRate,
    DryRun,
    Ids,
    ReasonFilter,
    Resume,
    RetryRate,
    SinceFilter,
    SourceFilter,
    StageFilter,
    Wanted,
    check_selection,
    distinct,
)

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from pipeline.dead_letters import DeadLetter
    from pipeline.outcomes import Stage

Counts = Mapping["Stage", Mapping[str, int]]

dead = typer.Typer(
    help="Dead letters: what failed for good, kept whole.",
    no_args_is_help=True,
    epilog="Example: relay dead list --since 2h --reason refused",
)


# looking ------------------------------------------------------------------------------------------------


@dead.command("list", epilog="Example: relay dead list --stage forward --since 2h --limit 20")
def list_letters(
    stage: StageFilter = None,
    source: SourceFilter = None,
    reason: ReasonFilter = None,
    since: SinceFilter = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List dead letters, newest first."""
    from console.output import print_json, print_table, say

    wanted = Wanted(stage, source, reason, since)

    async def work(redis: Redis) -> list[DeadLetter]:
        from pipeline import dead_letters

        return await dead_letters.newest(redis, await wanted.filter(redis), limit)

    letters = [letter.view() for letter in run(work)]
    if as_json:
        print_json(letters)
    elif not letters:
        say("No dead letters.")
    else:
        columns = ("buried_at", "stage", "source", "reason", "error", "attempts", "id")
        rows = [[letter[name] for name in columns] for letter in letters]
        print_table(columns, rows, numbers=("attempts",), folds="error")
        if len(letters) == limit:
            say(f"These are the newest {limit}; there may be more: --limit, or filters.")


@dead.command("show", epilog="Example: relay dead show 5f2c0e9d8a7b6c5d4e3f2a1b")
def show(
    dead_id: Annotated[str, typer.Argument(metavar="ID", help="The letter's id.")],
    as_json: AsJson = False,
) -> None:
    """Show one dead letter with its original."""
    from console.output import print_json, say

    async def work(redis: Redis) -> DeadLetter | None:
        from pipeline import dead_letters

        return await dead_letters.fetch(redis, dead_id)

    letter = run(work)
    if letter is None:
        raise Failed(
            f"There is no dead letter {dead_id}: it was retried or dropped, or the id is not whole."
        )
    view = letter.view()
    if as_json:
        print_json(view)
        return
    payload = view.pop("payload")
    say("\n".join(f"{name:<14} {value}" for name, value in view.items()))
    say(f"\n{_readable(payload)}")


def _readable(payload: Mapping[str, Any]) -> str:
    import orjson

    if payload["encoding"] == "json":
        return orjson.dumps(payload["data"], option=orjson.OPT_INDENT_2).decode()
    if payload["encoding"] == "base64":
        return f"(base64) {payload['data']}"
    return str(payload["data"])


# retrying -----------------------------------------------------------------------------------------------


@dead.command("retry", epilog="Example: relay dead retry --reason refused --since 2h --dry-run")
def retry(
    ids: Ids = None,
    stage: StageFilter = None,
    source: SourceFilter = None,
    reason: ReasonFilter = None,
    since: SinceFilter = None,
    everything: All = False,
    resume: Resume = False,
    dry_run: DryRun = False,
    rate: RetryRate = 50.0,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Put dead letters back to work, past the seen mark.

    An interrupted retry (Ctrl-C) keeps its place until another one by filters begins: --resume goes on with
    it. Letters that die again
    meanwhile are not retried a second time.
    """
    named, wanted = distinct(ids), Wanted(stage, source, reason, since)
    check_selection(named, wanted, everything=everything, resume=resume)
    if dry_run:
        _plan(named, wanted, resume=resume, as_json=as_json)
        return
    if not (named or resume):
        _ask("Retry", wanted, yes=yes, as_json=as_json)
    from console.orders import RetryOrder

    order = RetryOrder(wanted, rate, as_json)
    if named:
        result = run(lambda redis: order.named(redis, named))
        _report(result, "retried", the_others="the others are still there", as_json=as_json)
    else:
        result = run(order.resume if resume else order.begin)
        go_on = "`relay dead retry --resume` goes on"
        _report(result, "retried", the_others=go_on, as_json=as_json)


# dropping -----------------------------------------------------------------------------------------------


@dead.command("drop", epilog="Example: relay dead drop --source sendgrid --reason invalid --yes")
def drop(
    ids: Ids = None,
    stage: StageFilter = None,
    source: SourceFilter = None,
    reason: ReasonFilter = None,
    since: SinceFilter = None,
    everything: All = False,
    dry_run: DryRun = False,
    rate: DropRate = 0.0,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Drop dead letters for good; the books keep them as `dropped`."""
    named, wanted = distinct(ids), Wanted(stage, source, reason, since)
    check_selection(named, wanted, everything=everything)
    if dry_run:
        _plan(named, wanted, resume=False, as_json=as_json)
        return
    if not named:
        _ask("Drop", wanted, yes=yes, as_json=as_json)
    from console.orders import DropOrder

    order = DropOrder(rate, as_json)

    async def work(redis: Redis) -> dict[str, Any]:
        return await (order.named(redis, named) if named else order.filtered(redis, wanted))

    _report(run(work), "dropped", the_others="the others are still there", as_json=as_json)


# both ---------------------------------------------------------------------------------------------------


def _plan(named: list[str], wanted: Wanted, *, resume: bool, as_json: bool) -> None:
    """Count what would be done, and touch nothing."""
    from console import orders
    from console.output import print_json, print_table, say

    async def work(redis: Redis) -> tuple[Counts, list[str]]:
        from pipeline import dead_letters

        if named:
            found = await dead_letters.find(redis, named)
            counted = Counter((place.stage, place.reason) for place in found)
            there = {place.id for place in found}
            return dead_letters.by_stage(counted), [each for each in named if each not in there]
        meant = (await orders.interrupted(redis)).wanted if resume else await wanted.filter(redis)
        return await dead_letters.counts(redis, meant), []

    counted, missing = run(work)
    count = orders.total(counted)
    table = {str(stage): dict(row) for stage, row in counted.items()}
    plan = {"dry_run": True, "count": count, "by_stage": table}
    if missing:
        text = f"No such dead letters: {', '.join(missing)}."
        raise Failed(text, {**plan, "not_found": missing})
    if as_json:
        print_json(plan)
        return
    rows = [(stage, reason, n) for stage, row in table.items() for reason, n in row.items()]
    if rows:
        print_table(("stage", "reason", "letters"), rows, numbers=("letters",))
    say(f"{count} letters are meant; nothing was touched.")


def _ask(verb: str, wanted: Wanted, *, yes: bool, as_json: bool) -> None:
    """Ask, with the number of letters, unless --yes was said."""
    if yes:
        return
    check_can_ask(as_json=as_json)

    async def work(redis: Redis) -> int:
        from console.orders import total
        from pipeline import dead_letters

        return total(await dead_letters.counts(redis, await wanted.filter(redis)))

    confirm(f"{verb} {run(work)} dead letters?")


def _report(result: dict[str, Any], done: str, *, the_others: str, as_json: bool) -> None:
    """Tell how it went; raises `Failed` when not everything that was meant was done."""
    from console.output import print_json, say

    if not result.pop("finished"):
        text = f"Interrupted after {result[done]} of the letters: {the_others}."
        raise Failed(text, {**result, "finished": False})
    text = f"{result[done]} {done}, {result['skipped']} were gone already."
    if missing := result.get("not_found"):
        raise Failed(f"{text} No such dead letters: {', '.join(missing)}.", result)
    if as_json:
        print_json(result)
    else:
        say(text)
