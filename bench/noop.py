"""What receiving is compared with: a Starlette handler that only reads the body."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def accept(request: Request) -> Response:
    """Read the body and answer."""
    await request.body()
    return Response(status_code=202)


app = Starlette(routes=[Route("/hooks/{source}/{token:path}", accept, methods=["POST"])])
