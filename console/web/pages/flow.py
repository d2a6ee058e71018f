"""Flow: whether it flows, in one look."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from console.web.desk import desk_of
from console.web.rendering import page
from pipeline import books, keys


async def show(request: Request) -> Response:
    """Show the books of all stages, what is paused, and whether they balance."""
    desk = desk_of(request)
    status = await books.snapshot(desk.redis, desk.settings.data_home())
    return page(request, "flow.html", title="Flow", status=status, counters=keys.COUNTERS)


routes = [Route("/", show, methods=["GET"])]
