"""Deliveries: what arrived last, what it was answered and what came of it; what waits, and what was refused.

A delivery is listed once it was unpacked, by the note that it left (`pipeline.arrivals`): its body is gone then, unless
it lies among the dead letters. Of those that wait the newest are told. What is refused for its token, its signature or
its size is counted only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from console.web.desk import desk_of
from console.web.rendering import page
from pipeline import arrivals, books
from pipeline.arrivals import Arrival, Cursor
from pipeline.clock import iso
from pipeline.outcomes import Stage
from pipeline.sources.registry import SOURCES

if TYPE_CHECKING:
    from redis.asyncio import Redis

#: deliveries a page
MOST = 100
_FROM = re.compile(r"(\d{1,16}-\d{1,16})-(\d{1,3})", re.ASCII)
_REFUSED = {
    "token": (
        "no valid token",
        "Copy the URL from the sender's page here into its webhook settings; where HOOK_TOKENS changed, keep the"
        " old token beside the new one until every sender has it.",
    ),
    "signature": (
        "a false signature",
        "The secret here and the one at the sender differ: copy it again into the setting that the sender's page"
        " names.",
    ),
    "too_large": (
        "too large",
        "Let the sender put fewer events into one request, or raise MAX_BODY_BYTES.",
    ),
}


@dataclass(frozen=True, slots=True)
class Choice:
    """What the URL asks for: a source or '' for all, and where the page begins."""

    source: str = ""
    cursor: Cursor | None = None

    @classmethod
    def of(cls, query: QueryParams) -> Choice:
        """Read a query; raises `HTTPException` for what cannot be found."""
        source = query.get("source", "").strip()
        if source and source not in SOURCES:
            raise HTTPException(400, "There is no such source: choose one on the page again.")
        if "from" not in query:
            return cls(source)
        found = _FROM.fullmatch(query["from"])
        if not found:
            raise HTTPException(400, "The page cannot be found: begin at the first one.")
        return cls(source, Cursor(found[1], int(found[2])))

    async def newest_waiting(self, redis: Redis) -> list[Arrival]:
        """Return the newest deliveries that wait, which stand before the first page of the others."""
        newest = [] if self.cursor else await arrivals.waiting(redis)
        return [one for one in newest if self.source in ("", one.source)]

    def further(self, cursor: Cursor) -> str:
        """Return the address of the page that begins at *cursor*."""
        words = {"source": self.source} if self.source else {}
        return "/deliveries?" + urlencode(words | {"from": f"{cursor.entry}-{cursor.passed}"})


async def show(request: Request) -> Response:
    """List the last deliveries, below what waits and what was refused."""
    desk, choice = desk_of(request), Choice.of(request.query_params)
    figures = await desk.gauges.read()
    found, cursor = await arrivals.look(desk.redis, choice.source or None, choice.cursor, MOST)
    newest, last = await choice.newest_waiting(desk.redis), await books.last_refused(desk.redis)
    return page(
        request,
        "deliveries.html",
        title="Deliveries",
        choice=choice,
        sources=list(SOURCES),
        waiting=figures["stages"][Stage.UNPACK]["waiting"],
        newest=[one.view() for one in newest],
        oldest_s=figures["flow"][Stage.UNPACK]["oldest_s"],
        pause=figures["paused"][Stage.UNPACK],
        refused=[
            (figures["refused"][cause], at and iso(at), *_REFUSED[cause])
            for cause, at in last.items()
        ],
        rows=[one.view() for one in found],
        further=choice.further(cursor) if cursor else None,
    )


routes = [Route("/deliveries", show, methods=["GET"])]
