"""AudienceLab as recorded: an app that answers what its samples say, to exactly their requests.

`tests/samples/audiencelab-answers/<dialect>/<case>.json` is one exchange each: the request, its body
if it has one, status and answer. People in them are invented.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request as Incoming
from starlette.responses import Response
from starlette.routing import Route

from tests.served import served

SAMPLES = Path(__file__).parent / "samples" / "audiencelab-answers"
METHODS = ["GET", "POST", "DELETE"]
UNKNOWN_FIELD = {"error": "Malformed JSON/Unknown Field detected: <nil>"}
NOT_FOUND = {"error": {"code": "NOT_FOUND", "message": "Not found", "details": {}}}


class Service:
    """AudienceLab as recorded: knows the exchanges of one dialect and keeps what it was asked."""

    def __init__(self, dialect: str) -> None:
        samples = [orjson.loads(file.read_bytes()) for file in (SAMPLES / dialect).glob("*.json")]
        self.exchanges: dict[str, dict[str, Any]] = {each["request"]: each for each in samples}
        self.asked: list[str] = []
        self.keys: set[tuple[str | None, str | None]] = set()

    def say(self, request: str, status: int, answer: object) -> None:
        """Answer *request* otherwise than recorded."""
        self.exchanges[request] = {"request": request, "status": status, "answer": answer}

    def app(self) -> Starlette:
        """Return the service as an app."""

        async def endpoint(request: Incoming) -> Response:
            return await self(request)

        return Starlette(routes=[Route("/{path:path}", endpoint, methods=METHODS)])

    async def __call__(self, request: Incoming) -> Response:
        query = f"?{request.url.query}" if request.url.query else ""
        line = f"{request.method} {request.url.path}{query}"
        self.asked.append(line)
        self.keys.add((request.headers.get("x-api-key"), request.headers.get("authorization")))
        exchange = self.exchanges.get(line)
        if exchange is None:
            return Response(orjson.dumps(NOT_FOUND), 404)
        if "body" in exchange and orjson.loads(await request.body()) != exchange["body"]:
            return Response(orjson.dumps(UNKNOWN_FIELD), 400)
        answer = exchange["answer"]
        raw = answer.encode() if isinstance(answer, str) else orjson.dumps(answer)
        return Response(b"" if answer is None else raw, exchange["status"])


@contextmanager
def serving(service: Service) -> Iterator[str]:
    """Run *service* under a real server until the block ends; give its address."""
    with served(service.app()) as url:
        yield url
