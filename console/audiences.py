"""`relay audiences`: AudienceLab's audiences, and whether their webhooks lead to this relay.

The API cannot set an audience's webhook: the commands tell the URL to paste into the dashboard's dialog. What
arrives there does not say which audience it is of, so its URL has a tag.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.commands import AsJson, BadUsage, Failed, Yes, check_can_ask, confirm, load
from console.hooks import ShowUrl, Tag, host_of, own_hooks
from console.vendors import HIDDEN, ask_audiencelab, check_id, check_text, key_of

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from pipeline.settings import Settings
    from workers.clients.audiencelab import Attribute, Audience, AudienceLab

Filters = Mapping[str, object] | list[Mapping[str, object]]

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
    "create",
    epilog="""Example: relay audiences create --name Readers --filters '{"city": ["Bergen"]}'""",
)
def create(
    name: Annotated[str, typer.Option(help="What AudienceLab is to call it.")],
    filters: Annotated[
        str | None,
        typer.Option(metavar="FILE|JSON", help="Whom it holds; `-` is stdin. An object, mostly."),
    ] = None,
    segment: Annotated[
        list[str] | None, typer.Option(help="A segment that its people are in; repeat for more.")
    ] = None,
    days_back: Annotated[
        int | None, typer.Option(min=1, help="Only who was seen in so many days.")
    ] = None,
    tag: Tag = None,
    show_url: ShowUrl = False,
    as_json: AsJson = False,
) -> None:
    """Make an audience, and tell the webhook's URL to paste into its dialog."""
    from pipeline.addresses import mask

    wanted = _wanted(name, filters, segment or [])
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


def _wanted(name: str, filters: str | None, segment: Sequence[str]) -> Filters:
    """Return the filters of a new audience; raises `BadUsage` where it would hold nobody."""
    for option, text in [("--name", name), *(("--segment", each) for each in segment)]:
        check_text(option, text)
    if not name.strip():
        raise BadUsage("--name is empty.")
    if filters is None and not segment:
        raise BadUsage("Whom shall it hold? Give --filters, or --segment.")
    return {} if filters is None else _filters(filters)


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


def _filters(text: str) -> Filters:
    """Read filters, told as JSON or as the file that holds it; raises `BadUsage` for none."""
    import orjson

    try:
        raw = text if text.lstrip()[:1] in ("{", "[") else _content(text)
        told = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadUsage(f"--filters holds no JSON (line {error.lineno}).") from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise BadUsage(
            f"--filters is neither JSON nor a file to read ({type(error).__name__})."
        ) from None
    is_list = isinstance(told, list) and all(isinstance(each, dict) for each in told)
    if not told or not (is_list or isinstance(told, dict)):
        raise BadUsage('--filters should hold an object such as {"city": ["Bergen"]}.')
    filters: Filters = told
    return filters


def _content(name: str) -> bytes:
    return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()


@audiences.command(
    "delete", epilog="Example: relay audiences delete 0d2b2a52-4a5f-4a6e-8d4c-2a7f2f0e7c11"
)
def delete(
    audience_id: Annotated[str, typer.Argument(metavar="ID", help="The audience's id, as listed.")],
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete an audience at AudienceLab; the visitors that came of it stay here."""
    from console.output import print_json, say

    key_of(load(), "audiencelab_api_key")
    check_id(audience_id)
    if not yes:
        check_can_ask(as_json=as_json)
        confirm(ask_audiencelab(_question(audience_id)))

    async def work(lab: AudienceLab, redis: Redis) -> None:
        from console.orders_at_vendors import Order

        async with Order(redis, "audiences delete", {}, about=audience_id):
            await lab.delete_audience(audience_id)

    ask_audiencelab(work)
    if as_json:
        print_json({"deleted": audience_id})
    else:
        say("Deleted.")


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


def _question(audience_id: str) -> Callable[[AudienceLab, Redis], Awaitable[str]]:
    async def work(lab: AudienceLab, redis: Redis) -> str:
        found = await lab.audience(audience_id)
        return f"Delete the audience {found.name or 'without a name'} ({audience_id}) for good?"

    return work


@audiences.command("check", epilog="Example: relay audiences check --show-url")
def check(tag: Tag = None, show_url: ShowUrl = False, as_json: AsJson = False) -> None:
    """Tell whose webhook leads to this relay, elsewhere or nowhere, and when the last delivery came.

    Ends with 1 when one leads here and would be refused, because its token is not valid.
    """
    from console import webhook_check
    from console.output import print_json, say

    settings = load()
    key_of(settings, "audiencelab_api_key")
    hooks = own_hooks(settings)

    async def work(lab: AudienceLab, redis: Redis) -> webhook_check.Checked:
        found = [(_view(each), each.webhook_url) async for each in lab.audiences()]
        return await webhook_check.check(redis, found, hooks)

    checked = ask_audiencelab(work)
    url, why_not = webhook_check.url_to_paste(hooks, "audience", tag, show_url=show_url)
    if as_json:
        print_json(checked.view("audiences", hooks, url))
    else:
        webhook_check.show(checked, ("id", "name"), hooks)
        if told := webhook_check.hint(checked, url, why_not):
            say(told)
    if not checked.ok:
        raise typer.Exit(1)
