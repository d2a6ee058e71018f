"""Deleting at AudienceLab: asked about by name, told to the audit, and done once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from console.commands import check_can_ask, confirm, load
from console.vendors import ask_audiencelab, check_id, key_of

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from workers.clients.audiencelab import AudienceLab


def delete_there(
    group: str,
    given_id: str,
    question: Callable[[AudienceLab], Awaitable[str]],
    remove: Callable[[AudienceLab], Awaitable[None]],
    *,
    yes: bool,
    as_json: bool,
) -> None:
    """Delete what has *given_id*, one of the things of the commands `relay GROUP`, by *remove*.

    Unless *yes* the words of *question*, which look for its name, are asked first.
    """
    from console.output import print_json, say

    key_of(load(), "audiencelab_api_key")
    check_id(given_id)
    if not yes:
        check_can_ask(as_json=as_json)
        confirm(ask_audiencelab(lambda lab, _: question(lab)))

    async def work(lab: AudienceLab, redis: Redis) -> None:
        from console.orders_at_vendors import Order

        async with Order(redis, f"{group} delete", {}, about=given_id):
            await remove(lab)

    ask_audiencelab(work)
    if as_json:
        print_json({"deleted": given_id})
    else:
        say("Deleted.")
