"""`relay pixels`: AudienceLab's pixels, and whether their webhooks lead to this relay.

A pixel has two ids: AudienceLab's own, which these commands take, and the one that its events carry, which is in
its install URL. Both are shown. The hook token leaves for the vendor only, inside the webhook's URL.
"""

from __future__ import annotations

from contextlib import aclosing
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from console.commands import AsJson, BadUsage, Yes, load
from console.deletion import delete_there
from console.hooks import ShowUrl, Tag, host_of, own_hooks
from console.vendors import ask_audiencelab, check_id, check_text, key_of, shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from workers.clients.audiencelab import AudienceLab, CreatedPixel, Pixel

PixelId = Annotated[
    str, typer.Argument(metavar="ID", help="The pixel's id: AudienceLab's, or the one in events.")
]

pixels = typer.Typer(
    help="Pixels: AudienceLab's snippets that see a site's visitors.",
    no_args_is_help=True,
    epilog="Example: relay pixels check",
)


class Version(StrEnum):
    """A pixel's generation."""

    V3 = "v3"
    V4 = "v4"


@pixels.command("list", epilog="Example: relay pixels list --json")
def list_pixels(as_json: AsJson = False) -> None:
    """List the account's pixels, both ids of each; of the webhook only the host is shown."""
    from console.output import print_json, print_table, say

    async def work(lab: AudienceLab, redis: Redis) -> list[Pixel]:
        return [pixel async for pixel in lab.pixels()]

    found = ask_audiencelab(work)
    rows = [{**_view(each), "webhook_host": host_of(each.webhook_url)} for each in found]
    if as_json:
        print_json(rows)
    elif not rows:
        say("No pixels.")
    else:
        names = ("id", "provider_id", "website_name", "website_url", "last_sync", "webhook_host")
        print_table(names, [[row[name] or "" for name in names] for row in rows])
        say("Events carry the provider_id; the other commands take the id.")


def _view(pixel: Pixel) -> dict[str, Any]:
    return {
        "id": pixel.id,
        "provider_id": pixel.provider_id,
        "website_name": pixel.website_name,
        "website_url": pixel.website_url,
        "install_url": pixel.install_url,
        "last_sync": pixel.last_sync,
    }


@pixels.command("show", epilog="Example: relay pixels show 96e62502-f16d-43fa-acf7-22ff6e7f686d")
def show(pixel_id: PixelId, as_json: AsJson = False) -> None:
    """Show all that AudienceLab tells of one pixel; of the webhook only the host."""
    from console.facts import print_facts

    key_of(load(), "audiencelab_api_key")
    check_id(pixel_id)

    async def work(lab: AudienceLab, redis: Redis) -> Pixel:
        return await listed(lab, pixel_id) or await lab.pixel(pixel_id)

    found = ask_audiencelab(work)
    host = host_of(found.webhook_url)
    facts = {**_view(found), "webhook_host": host, "other": shown(found.other)}
    print_facts(facts, as_json=as_json)


async def listed(lab: AudienceLab, pixel_id: str) -> Pixel | None:
    """Return the pixel of the list that has *pixel_id* as either of its ids."""
    async with aclosing(lab.pixels()) as every:
        async for pixel in every:
            if pixel_id in (pixel.id, pixel.provider_id):
                return pixel
    return None


@pixels.command(
    "create",
    epilog="Example: relay pixels create --website-url https://example.com --website-name Shop",
)
def create(
    website_url: Annotated[str, typer.Option(help="The site, such as https://example.com.")],
    website_name: Annotated[str, typer.Option(help="What AudienceLab is to call it.")],
    version: Annotated[
        Version | None, typer.Option(help="The pixel's generation; else AudienceLab's default.")
    ] = None,
    tag: Tag = None,
    no_webhook: Annotated[
        bool, typer.Option("--no-webhook", help="Leave the webhook unset.")
    ] = False,
    show_url: ShowUrl = False,
    as_json: AsJson = False,
) -> None:
    """Make a pixel whose webhook is this relay: PUBLIC_URL/hooks/pixel/TOKEN."""
    check_text("--website-name", website_name)
    check_text("--website-url", website_url)
    host = _site(website_url)
    if not website_name.strip():
        raise BadUsage("--website-name is empty.")
    if no_webhook and tag:
        raise BadUsage("--tag is a part of the webhook: it does not go with --no-webhook.")
    settings = load()
    key_of(settings, "audiencelab_api_key")
    hooks = None if no_webhook else own_hooks(settings)
    webhook_url = hooks.url("pixel", tag) if hooks else None

    async def work(lab: AudienceLab, redis: Redis) -> CreatedPixel:
        from console.orders_at_vendors import Order

        async with Order(redis, "pixels create", {"website": host, "tag": tag}) as order:
            made = await lab.create_pixel(website_name, website_url, webhook_url, version)
            order.done_with(made.id)
            return made

    made = ask_audiencelab(work)
    told = hooks.url("pixel", tag, masked=not show_url) if hooks else None
    _tell_made(made, told, as_json=as_json)


def _tell_made(made: CreatedPixel, webhook_url: str | None, *, as_json: bool) -> None:
    from console.output import print_json, say

    if as_json:
        facts = {"id": made.id, "provider_id": made.provider_id, "install_url": made.install_url}
        print_json({**facts, "webhook_url": webhook_url})
        return
    say(f"Made: {made.id}; its events will carry {made.provider_id or 'an id of their own'}.")
    say(f"The script for the site: {made.install_url or 'see the dashboard'}")
    say(f"Its webhook: {webhook_url or 'none'}")


def _site(url: str) -> str:
    """Return the host of a site's address; raises `BadUsage` for what is none."""
    try:
        parts = urlsplit(url.strip())
        if parts.scheme in ("http", "https") and parts.hostname:
            return parts.hostname
    except ValueError:
        pass
    raise BadUsage("--website-url should be the site's whole address, such as https://example.com.")


@pixels.command(
    "delete", epilog="Example: relay pixels delete 96e62502-f16d-43fa-acf7-22ff6e7f686d"
)
def delete(
    pixel_id: Annotated[str, typer.Argument(metavar="ID", help="The pixel's id, as listed.")],
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete a pixel at AudienceLab: its script on the site sees nobody from then on."""

    async def question(lab: AudienceLab) -> str:
        found = await lab.pixel(pixel_id)
        site = found.website_name or found.website_url or "no name"
        return f"Delete the pixel of {site} ({pixel_id}) for good?"

    async def remove(lab: AudienceLab) -> None:
        await lab.delete_pixel(pixel_id)

    delete_there("pixels", pixel_id, question, remove, yes=yes, as_json=as_json)


@pixels.command("check", epilog="Example: relay pixels check --json")
def check(tag: Tag = None, show_url: ShowUrl = False, as_json: AsJson = False) -> None:
    """Tell whose webhook leads to this relay, elsewhere or nowhere, and when the last delivery came.

    Ends with 1 when one leads here and would be refused, because its token is not valid.
    """
    from console import webhook_check

    async def found(lab: AudienceLab) -> AsyncIterator[tuple[dict[str, Any], str | None]]:
        async for each in lab.pixels():
            yield _view(each), each.webhook_url

    kind = webhook_check.Kind("pixels", "pixel", ("id", "provider_id", "website_name"))
    webhook_check.carry_out(kind, found, tag=tag, show_url=show_url, as_json=as_json)
