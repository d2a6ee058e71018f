"""`relay visitors`: what is known about one person, and how to forget them.

Addresses are printed here and nowhere else: the operator asked for exactly this person.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from pipeline.forgetting import Forgotten

visitors = typer.Typer(
    help="Visitors: one resolved person each.",
    no_args_is_help=True,
    epilog="Example: relay visitors show ada@example.com",
)

Who = Annotated[
    str, typer.Argument(metavar="ADDRESS|HASH|UUID", help="An address, its SHA-256, or a UUID.")
]
NO_UNSUBSCRIBE = (
    "AudiencePoint has no call to unsubscribe: what it was sent before, it still has. Ask them."
)
PARTLY = (
    "Only this name is allowed again. Forgetting left a tombstone on each of the person's names, and which"
    " belong together is written down nowhere: allow the other addresses and the UUID as well."
)


@visitors.command("show", epilog="Example: relay visitors show ada@example.com")
def show(who: Who, as_json: AsJson = False) -> None:
    """Show everything that is known about one person."""
    from console.output import print_json, say

    async def work(redis: Redis) -> dict[str, Any] | None:
        from pipeline import forgetting
        from pipeline.visitors import subscriptions

        visitor = await forgetting.find(redis, _checked(who))
        if visitor is None:
            return None
        return {**visitor.view(), "subscriptions": await subscriptions(redis, visitor)}

    known = run(work)
    if known is None:
        raise Failed("Nobody is known by that.")
    if as_json:
        print_json(known)
    else:
        say("\n".join(_lines(known)))


def _checked(who: str) -> str:
    if not who.strip():
        raise BadUsage("Who? Give an address, its SHA-256, or a UUID.")
    return who


def _lines(facts: dict[str, Any], indent: str = "") -> list[str]:
    """Return what is known, a line each; what is not known is left out."""
    lines: list[str] = []
    for name, value in facts.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{name}", *_lines(value, indent + "  ")]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [f"{indent}{name}", *(f"{indent}  {_page(page)}" for page in value)]
        elif isinstance(value, list) and value:
            lines.append(f"{indent}{name:<20} {', '.join(map(str, value))}")
        elif value:
            lines.append(f"{indent}{name:<20} {value}")
    return lines


def _page(page: dict[str, Any]) -> str:
    return " ".join(str(value) for value in page.values())


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
