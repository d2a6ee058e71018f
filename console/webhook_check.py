"""What `relay pixels check` and `relay audiences check` share: whose webhook leads here, and when it last came.

When a source last delivered is kept, not which of its pixels or audiences did. So the last delivery of one is told
only where no other leads to the same source, and is unknown otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from console.commands import BadUsage, load
from console.hooks import SOURCES, Hooks, Place, Points, own_hooks, place_view
from console.vendors import ask_audiencelab, key_of

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from workers.clients.audiencelab import AudienceLab

Item = Mapping[str, Any]
NEVER, UNKNOWN = "never", "unknown"


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found: *items* as the machine form shows them, and whether all that lead here may."""

    items: list[dict[str, Any]]
    sources: Mapping[str, str | None]

    @property
    def ok(self) -> bool:
        """Whether nothing that leads here is refused."""
        return not any(item["webhook"]["problem"] for item in self.items if _leads_here(item))

    def view(self, what: str, hooks: Hooks, url: str | None) -> dict[str, Any]:
        """Return the machine form, the items called *what*; *url* is what to paste."""
        return {
            "ok": self.ok,
            "public_url": hooks.public_url,
            "last_delivery_at": dict(self.sources),
            "webhook_url_to_paste": url,
            what: self.items,
        }


@dataclass(frozen=True, slots=True)
class Kind:
    """What is checked: its name in the machine form, its webhook's source, what a line of the table begins with."""

    what: str
    source: str
    names: Sequence[str]


def carry_out(
    kind: Kind,
    found: Callable[[AudienceLab], AsyncIterator[tuple[Item, str | None]]],
    *,
    tag: str | None,
    show_url: bool,
    as_json: bool,
) -> None:
    """Check and tell; *found* gives the items, each with its webhook's URL. Ends with 1 when one leads here in vain."""
    from console.output import print_json, say

    settings = load()
    key_of(settings, "audiencelab_api_key")
    hooks = own_hooks(settings)

    async def work(lab: AudienceLab, redis: Redis) -> Checked:
        return await check(redis, [each async for each in found(lab)], hooks)

    checked = ask_audiencelab(work)
    url, why_not = url_to_paste(hooks, kind.source, tag, show_url=show_url)
    if as_json:
        print_json(checked.view(kind.what, hooks, url))
    else:
        show(checked, kind.names, hooks)
        if told := hint(checked, url, why_not):
            say(told)
    if not checked.ok:
        raise typer.Exit(1)


async def check(redis: Redis, found: Sequence[tuple[Item, str | None]], hooks: Hooks) -> Checked:
    """Judge each of *found*, an item and its webhook's URL."""
    from pipeline import senders

    known = await senders.read(redis, SOURCES)
    sources = {source: sender.view()["last_delivery_at"] for source, sender in known.items()}
    places = [hooks.place(url) for _, url in found]
    sharing = Counter(place.source for place in places if place.problem is None)
    items = [
        {**item, "webhook": place_view(place), **_last_delivery(place, sources, sharing)}
        for (item, _), place in zip(found, places, strict=True)
    ]
    return Checked(items, sources)


def _last_delivery(
    place: Place, sources: Mapping[str, str | None], sharing: Mapping[str | None, int]
) -> dict[str, str | None]:
    """Return when the last delivery came by *place*: a time, `never`, or `unknown`."""
    if place.source is None:
        return {"last_delivery": UNKNOWN, "last_delivery_at": None}
    last = sources[place.source]
    if last is None:
        return {"last_delivery": NEVER, "last_delivery_at": None}
    is_the_only_one = place.problem is None and sharing[place.source] == 1
    known = last if is_the_only_one else None
    return {"last_delivery": known or UNKNOWN, "last_delivery_at": known}


def _leads_here(item: Item) -> bool:
    return bool(item["webhook"]["points"] == Points.HERE)


def _is_let_in(item: Item) -> bool:
    return _leads_here(item) and item["webhook"]["problem"] is None


def url_to_paste(
    hooks: Hooks, source: str, tag: str | None, *, show_url: bool
) -> tuple[str | None, str]:
    """Return the webhook's URL, masked unless *show_url*; None and why not where it is not known."""
    try:
        return hooks.url(source, tag, masked=not show_url), ""
    except BadUsage as failed:
        return None, str(failed)


def show(checked: Checked, names: Sequence[str], hooks: Hooks) -> None:
    """Print a line for each item, *names* of its members first, and what is to be done."""
    from console.output import print_table, say

    columns = (*names, "webhook", "host", "tag", "token", "last delivery")
    rows = [
        (
            *(item[name] or "" for name in names),
            item["webhook"]["points"],
            item["webhook"]["host"] or "",
            item["webhook"]["tag"] or "",
            {True: "valid", False: "NOT VALID", None: ""}[item["webhook"]["token_valid"]],
            item["last_delivery"],
        )
        for item in checked.items
    ]
    print_table(columns, rows)
    for item in checked.items:
        if problem := item["webhook"]["problem"]:
            say(f"{item['id']}: {problem}.")
    if any(item["last_delivery"] == UNKNOWN and _is_let_in(item) for item in checked.items):
        last = ", ".join(f"{source} {at}" for source, at in checked.sources.items() if at)
        say(f"Which of several that share a hook delivered is not kept; the hooks' last: {last}.")
    say(f"Here is {hooks.public_url}.")


def hint(checked: Checked, url: str | None, why_not: str) -> str:
    """Return what to paste where a webhook leads nowhere or is refused; empty where nothing is to do."""
    wanting = any(
        item["webhook"]["points"] == Points.NOWHERE or item["webhook"]["problem"]
        for item in checked.items
    )
    if not wanting:
        return ""
    if url is None:
        return f"The URL to paste cannot be told: {why_not}"
    return f"The URL to paste into the dashboard's Webhook dialog: {url}"
