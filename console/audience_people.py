"""`relay audiences preview` and `relay audiences records`: the people of an audience that might be made, or is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from console.audience_filters import FiltersOption, SegmentOption, wanted_people
from console.commands import AsJson, BadUsage
from console.people_at_vendors import FEW, AudienceId, Limit, Reading, Row, table
from console.vendors import ask_audiencelab

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from workers.clients.audiencelab import AudienceLab, Page, Preview

PREVIEW_EXAMPLE = """Example: relay audiences preview --filters '{"city": ["Bergen"]}' --limit 5"""
RECORDS_EXAMPLE = "Example: relay audiences records 0d2b2a52-4a5f-4a6e-8d4c-2a7f2f0e7c11 --json"


def preview(
    filters: FiltersOption = None,
    segment: SegmentOption = None,
    days_back: Annotated[
        int | None, typer.Option(min=1, max=10, help="Only people seen in the last N days.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, max=500, help="How many people to show.")] = 10,
    include_dnc: Annotated[
        bool, typer.Option("--include-dnc", help="Include people on do-not-call lists.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Tell how many people an audience would hold, and some of them, before it is made.

    Nothing is made. With --json also how many have each fact (`field_coverage`, as AudienceLab tells it).
    """
    from console.output import print_json, say

    wanted = wanted_people(filters, segment or [])
    if not isinstance(wanted, Mapping):
        raise BadUsage("A preview takes filters as an object only.")

    async def work(lab: AudienceLab, redis: Redis) -> Preview:
        dnc = True if include_dnc else None  # nothing is sent unasked
        chosen = wanted or None
        return await lab.preview(chosen, segment, days_back=days_back, limit=limit, include_dnc=dnc)

    found = ask_audiencelab(work)
    if as_json:
        print_json(asdict(found))
        return
    if found.rows:
        table(found.rows)
    many = (
        "AudienceLab does not say how many people"
        if found.count is None
        else f"{found.count} people"
    )
    say(f"{many} fit; {len(found.rows)} of them are shown.")


def records(
    audience_id: AudienceId,
    limit: Limit = None,
    page_size: Annotated[
        int, typer.Option(min=1, max=1000, help="People per page; a page is held in memory.")
    ] = 500,
    first_page: Annotated[
        int, typer.Option(min=1, help="Page to start at; a failed run prints it.")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Read the people of an audience: some as a table, all as JSON Lines with --json; it is audited.

    Pages are read at AUDIENCELAB_RATE. While the audience changes, somebody may come twice.
    """
    most = limit if as_json else limit or FEW
    size = min(page_size, most or page_size)
    reading = Reading("audiences records", audience_id, limit, as_json)

    async def people(lab: AudienceLab) -> AsyncGenerator[Row]:
        from workers.clients.audiencelab import walk

        async def page(number: int) -> Page[dict[str, object]]:
            reading.facts = {"page": number}
            return await lab.audience_records(audience_id, number, size)

        async with aclosing(walk(page, first_page)) as pages:
            async for each in pages:
                for row in each.items:
                    yield row

    reading.carry_out(people)
