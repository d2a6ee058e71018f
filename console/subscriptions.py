"""`relay subscribe`: has AudiencePoint tell of changes in the scores of addresses, by hand.

The workers do it for visitors, as SUBSCRIBE says; this is for addresses that no webhook told of. Whoever was
forgotten is not subscribed. Addresses stand in no log and no audit, and are not written down here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from console.commands import AsJson, Failed, Yes, check_can_ask, confirm, load, run
from console.lookups import Addresses, check_addresses
from console.vendors import audiencepoint, key_of

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from workers.clients.audiencepoint import Subscription

AGAIN = "it is safe to do it again"


def subscribe(emails: Addresses, yes: Yes = False, as_json: AsJson = False) -> None:
    """Have AudiencePoint tell of changes in the scores of addresses, which leave as EMAIL_FORMAT says.

    There is no call that ends it. Ends with 1 when an address was counted as invalid.
    """
    from dataclasses import asdict

    from console.output import print_json, say

    check_addresses(emails)
    settings = load()
    key_of(settings, "audiencepoint_api_key")
    leaving = "as their SHA-256" if settings.email_format == "sha256" else "as they are"
    if not yes:
        check_can_ask(as_json=as_json)
        confirm(
            f"Subscribe {len(emails)} addresses, which leave {leaving}? No call can end it again."
        )
    counts = run(lambda redis: _subscribed(redis, emails))
    if as_json:
        print_json(asdict(counts))
    else:
        say(f"{counts.new} new, {counts.existing} were subscribed, {counts.invalid} are invalid.")
    if counts.invalid:
        raise typer.Exit(1)


async def _subscribed(redis: Redis, emails: Sequence[str]) -> Subscription:
    """Return what AudiencePoint counted; raises `Failed` where somebody was forgotten."""
    from console.orders_at_vendors import Order

    settings = load()
    await _check_not_forgotten(redis, emails)
    async with audiencepoint(settings, redis) as point:
        words = {"addresses": len(emails), "format": settings.email_format}
        async with Order(redis, "subscribe", words, again=AGAIN) as order:
            hashed = settings.email_format == "sha256"
            counts = await point.subscribe_all(emails, hashed=hashed)
            order.came_to(counts.new + counts.existing)
            return counts


async def _check_not_forgotten(redis: Redis, emails: Sequence[str]) -> None:
    from pipeline.addresses import digest
    from pipeline.tombstones import Tombstones

    found = await Tombstones(redis).found([digest(each) for each in emails])
    places = [str(place) for place, is_forgotten in enumerate(found, 1) if is_forgotten]
    if places:
        raise Failed(
            f"Forgotten: number {', '.join(places)}. Nobody was subscribed;"
            " leave them out, or see `relay visitors allow`.",
            {"forgotten": [int(place) for place in places]},
        )
