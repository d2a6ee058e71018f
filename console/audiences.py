"""`relay audiences`: AudienceLab's audiences, and whether their webhooks lead to this relay.

The API cannot set an audience's webhook: the commands tell the URL to paste into the dashboard's dialog. What
arrives there does not say which audience it is of, so its URL has a tag.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.audience_filters import FiltersOption, SegmentOption, wanted_people
from console.commands import AsJson, BadUsage, Failed, Yes, load
from console.deletion import delete_there
from console.hooks import ShowUrl, Tag, host_of, own_hooks
from console.people_at_vendors import AudienceId
from console.vendors import HIDDEN, ask_audiencelab, check_id, check_text, key_of, shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from pipeline.settings import Settings
    from workers.clients.audiencelab import Attribute, Audience, AudienceLab

audiences = typer.Typer(
    help="Audiences: AudienceLab's lists of people who fit filters.",
    no_args_is_help=True,
    epilog="Example: relay audiences check",
)


@audiences.command("list", epilog="Example: relay audiences list --json")
def list_audiences(as_json: AsJson = False) -> None:
    """List the account's audiences; of the webhook only the host is shown."""
    from console.output import print_json, print_table, say

    async def work(lab: AudienceLab, redis: Redis) -> list[Audience]:
        return [audience async for audience in lab.audiences()]

    found = ask_audiencelab(work)
    rows = [{**_view(each), "webhook_host": host_of(each.webhook_url)} for each in found]
    if as_json:
        print_json(rows)
    elif not rows:
        say("No audiences.")
    else:
        names = ("id", "name", "refresh_interval_d", "next_scheduled_refresh", "webhook_host")
        print_table(names, [[row[name] or "" for name in names] for row in rows])


def _view(audience: Audience) -> dict[str, Any]:
    return {
        "id": audience.id,
        "name": audience.name,
        "scheduled_refresh": audience.scheduled_refresh,
        "refresh_interval_d": audience.refresh_interval,
        "next_scheduled_refresh": audience.next_scheduled_refresh,
    }


@audiences.command(
    "show", epilog="Example: relay audiences show 0d2b2a52-4a5f-4a6e-8d4c-2a7f2f0e7c11"
)
def show(audience_id: AudienceId, as_json: AsJson = False) -> None:
    """Show all that AudienceLab tells of one audience; of the webhook only the host."""
    from console.facts import print_facts

    key_of(load(), "audiencelab_api_key")
    check_id(audience_id)

    async def work(lab: AudienceLab, redis: Redis) -> Audience:
        return await lab.audience(audience_id)

    found = ask_audiencelab(work)
    host = host_of(found.webhook_url)
    facts = {**_view(found), "webhook_host": host, "other": shown(found.other)}
    print_facts(facts, as_json=as_json)


@audiences.command(
    "create",
    epilog="""Example: relay audiences create --name Readers --filters '{"city": ["Bergen"]}'""",
)
def create(
    name: Annotated[str, typer.Option(help="What AudienceLab is to call it.")],
    filters: FiltersOption = None,
    segment: SegmentOption = None,
    days_back: Annotated[
        int | None, typer.Option(min=1, help="Only people seen in the last N days.")
    ] = None,
    tag: Tag = None,
    show_url: ShowUrl = False,
    as_json: AsJson = False,
) -> None:
    """Make an audience, and tell the webhook's URL to paste into its dialog."""
    from pipeline.addresses import mask

    check_text("--name", name)
    if not name.strip():
        raise BadUsage("--name is empty.")
    wanted = wanted_people(filters, segment or [])
    settings = load()
    key_of(settings, "audiencelab_api_key")

    async def work(lab: AudienceLab, redis: Redis) -> str:
        from console.orders_at_vendors import Order

        async with Order(redis, "audiences create", {"name": mask(name, 100)}) as order:
            new_id = await lab.create_audience(name, wanted, segment, days_back)
            order.done_with(new_id)
            return new_id

    new_id = ask_audiencelab(work)
    url, why_not = _url_to_paste(settings, tag, show_url=show_url)
    _tell_made(new_id, url, why_not, as_json=as_json)


def _tell_made(new_id: str, url: str | None, why_not: str, *, as_json: bool) -> None:
    from console.output import print_json, say

    if as_json:
        print_json({"id": new_id, "webhook_url_to_paste": url})
        return
    say(f"Made: {new_id}; AudienceLab fills it in some minutes.")
    if url is None:
        say(f"The URL for its webhook cannot be told: {why_not}")
        return
    say(f"The API cannot set its webhook: paste this into its Webhook dialog: {url}")
    if HIDDEN in url:
        say(
            "--show-url shows it whole, also that of `relay audiences check`, which tells it again."
        )


def _url_to_paste(settings: Settings, tag: str | None, *, show_url: bool) -> tuple[str | None, str]:
    """Return the webhook's URL, masked unless *show_url*; None and why not where it is not known."""
    try:
        return own_hooks(settings).url("audience", tag, masked=not show_url), ""
    except Failed as failed:
        return None, str(failed)


@audiences.command(
    "custom",
    epilog='Example: relay audiences custom --topic "Heat pumps" --description "Who compares prices"',
)
def custom(
    topic: Annotated[str, typer.Option(help="What its people are interested in.")],
    description: Annotated[str, typer.Option(help="Who they are, in words.")],
    as_json: AsJson = False,
) -> None:
    """Have AudienceLab make an audience about a topic; it is in the list once it is made.

    Its id is not told, so that the same order twice may make two: look at the list first.
    """
    from console.output import print_json, say
    from pipeline.addresses import mask

    for option, text in (("--topic", topic), ("--description", description)):
        check_text(option, text)
        if not text.strip():
            raise BadUsage(f"{option} is empty.")

    async def work(lab: AudienceLab, redis: Redis) -> str:
        from console.orders_at_vendors import Order

        async with Order(redis, "audiences custom", {"topic": mask(topic, 100)}):
            return await lab.create_custom_audience(topic, description)

    status = ask_audiencelab(work)
    if as_json:
        print_json({"status": status})
    else:
        say(f"Ordered: {status}. `relay audiences list` shows it once it is made.")


@audiences.command(
    "delete", epilog="Example: relay audiences delete 0d2b2a52-4a5f-4a6e-8d4c-2a7f2f0e7c11"
)
def delete(
    audience_id: AudienceId,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete an audience at AudienceLab; the visitors that came of it stay here."""

    async def question(lab: AudienceLab) -> str:
        found = await lab.audience(audience_id)
        return f"Delete the audience {found.name or 'without a name'} ({audience_id}) for good?"

    async def remove(lab: AudienceLab) -> None:
        await lab.delete_audience(audience_id)

    delete_there("audiences", audience_id, question, remove, yes=yes, as_json=as_json)


@audiences.command("attributes", epilog="Example: relay audiences attributes industries")
def attributes(
    kind: Annotated[
        str | None,
        typer.Argument(help="segments | industries | departments | seniority | sic; else all."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List what audiences can be filtered by."""
    from console.output import print_json, print_table, say
    from workers.clients.audiencelab import KINDS

    if kind is not None and kind not in KINDS:
        raise BadUsage(f"{kind!r} is not a list of attributes: there are {', '.join(KINDS)}.")

    async def work(lab: AudienceLab, redis: Redis) -> list[Attribute]:
        return await lab.attributes(kind)

    found = ask_audiencelab(work)
    if as_json:
        rows = [{"kind": e.kind, "name": e.name, "id": e.id, "other": e.other} for e in found]
        print_json(rows)
    elif not found:
        say("No attributes.")
    else:
        print_table(("kind", "name", "id"), [(e.kind or "", e.name, e.id or "") for e in found])


@audiences.command("check", epilog="Example: relay audiences check --show-url")
def check(tag: Tag = None, show_url: ShowUrl = False, as_json: AsJson = False) -> None:
    """Tell whose webhook leads to this relay, elsewhere or nowhere, and when the last delivery came.

    Ends with 1 when one leads here and would be refused, because its token is not valid.
    """
    from console import webhook_check

    async def found(lab: AudienceLab) -> AsyncIterator[tuple[dict[str, Any], str | None]]:
        async for each in lab.audiences():
            yield _view(each), each.webhook_url

    kind = webhook_check.Kind("audiences", "audience", ("id", "name"))
    webhook_check.carry_out(kind, found, tag=tag, show_url=show_url, as_json=as_json)
