"""`relay pixels events`: a look at what a pixel has seen, as AudienceLab keeps it.

Nothing of it goes into the pipeline: that is what `relay pixels backfill` is for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.commands import AsJson, load
from console.imports import Version
from console.pixels import PixelId, listed
from console.vendors import ask_audiencelab, check_id, key_of

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from workers.clients.audiencelab import AudienceLab, Page

Row = Mapping[str, object]
EXAMPLE = "Example: relay pixels events 96e62502-f16d-43fa-acf7-22ff6e7f686d --limit 20"
COLUMNS = ("at", "type", "url", "who")


def events(
    pixel_id: PixelId,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many events.")] = 10,
    page: Annotated[int, typer.Option(min=1, help="Which page of so many.")] = 1,
    version: Version = None,
    as_json: AsJson = False,
) -> None:
    """Look at what a pixel has seen: when, what, where, and the UUID of whom AudienceLab takes it for.

    The first page holds the latest, as far as is known. With --json the events are as they came.
    """
    from console.output import print_json, print_table, say

    key_of(load(), "audiencelab_api_key")
    check_id(pixel_id)

    async def work(lab: AudienceLab, redis: Redis) -> Page[dict[str, object]]:
        found = await listed(lab, pixel_id)
        own_id = found.id if found else pixel_id
        # the generations differ by their ids: 24 hex digits, or a UUID
        guessed = "v3" if found and "-" in (found.provider_id or "") else "v4"
        return await lab.pixel_events(own_id, page, limit, version or guessed)

    seen = ask_audiencelab(work)
    if as_json:
        print_json({"page": seen.page, "total": seen.total, "events": seen.items})
    elif not seen.items:
        say("No events.")
    else:
        print_table(COLUMNS, [_cells(event) for event in seen.items])
        say(f"{len(seen.items)} of {'an unknown number' if seen.total is None else seen.total}.")


def _cells(event: Row) -> tuple[object, ...]:
    """Return what is shown of an event, whose parts may be told as objects or as JSON in a text."""
    data, person = _object(event.get("event_data")), _object(event.get("resolution"))
    return (
        event.get("event_timestamp") or "",
        event.get("event_type") or event.get("event") or "",
        data.get("url") or event.get("full_url") or event.get("referrer_url") or "",
        person.get("UUID") or event.get("edid") or "",
    )


def _object(told: Any) -> dict[str, Any]:
    import orjson

    try:
        found = orjson.loads(told) if isinstance(told, str) else told
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
