"""One endpoint of a vendor: checks the key, fails when told to, applies the vendor's rules.

Both stand-ins share this order of things and nothing else. A torn connection needs a real server:
`Transported` hands its transport down, and without one (an in-process client) the call raises
`ConnectionResetError` instead.
"""

from __future__ import annotations

import os
import socket
import struct
from asyncio import BaseTransport, Transport, sleep
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sandbox.faults import Fault, Faults
from sandbox.memory import Memory

_TRANSPORT = "sandbox.transport"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a vendor answers. *count* is how many things the call held, for the log line."""

    status: int
    body: Any
    count: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> Response:
        """Return it as HTTP: a string is HTML as from a proxy, anything else JSON."""
        if isinstance(self.body, str):
            return Response(self.body, self.status, dict(self.headers), "text/html")
        content = orjson.dumps(self.body)
        return Response(content, self.status, dict(self.headers), "application/json")


class Refused(Exception):
    """The vendor's rules forbid the call; *answer* says so in the vendor's words."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Call:
    """One call that arrived, in counts only. Status 0 is a connection that was torn down."""

    endpoint: str
    status: int
    count: int


Announce = Callable[[Call], None]


def say_nothing(call: Call) -> None:
    """Announce nothing."""


@dataclass(frozen=True, slots=True)
class Desk:
    """One endpoint. *admit* and *handle* raise `Refused`; *handle* also stores what it accepts."""

    name: str
    admit: Callable[[Request], None]
    handle: Callable[[bytes], Answer]
    memory: Memory
    faults: Faults
    announce: Announce = say_nothing

    async def serve(self, request: Request) -> Response:
        """Answer one call."""
        raw = await request.body()
        try:
            self.admit(request)
            answer = await self._answer(raw)
        except Refused as refused:
            answer = refused.answer
        except ConnectionResetError:
            self._count(Answer(0, None))
            return await _hang_up(request)
        self._count(answer)
        return answer.response()

    async def _answer(self, raw: bytes) -> Answer:
        fault = self.faults.take(self.name, raw)
        if fault is None:
            return self.handle(raw)
        return await self._fail(fault, raw)

    async def _fail(self, fault: Fault, raw: bytes) -> Answer:
        answer = Answer(fault.status or 200, fault.body, headers=fault.headers)
        if fault.accepts:
            accepted = self.handle(raw)
            answer = accepted if fault.status is None else answer
        await sleep(fault.latency_s)
        if fault.reset:
            raise ConnectionResetError
        return answer

    def _count(self, answer: Answer) -> None:
        self.memory.count_call(self.name, answer.status)
        self.announce(Call(self.name, answer.status, answer.count))


class Transported(Starlette):
    """A Starlette app whose endpoints can reach the server's transport, to tear it down."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note the transport that uvicorn's request cycle holds, if it is uvicorn that calls."""
        cycle = getattr(send, "__self__", None)
        scope.setdefault(_TRANSPORT, getattr(cycle, "transport", None))
        await super().__call__(scope, receive, send)


async def _hang_up(request: Request) -> Response:
    transport: BaseTransport | None = request.scope.get(_TRANSPORT)
    if transport is None:
        raise ConnectionResetError("the stand-in tears the connection down")
    _close_without_farewell(transport)
    cast(Transport, transport).abort()
    # uvicorn answers 500 for a call that ends without an answer, unless it knows of the loss.
    while (await request.receive())["type"] != "http.disconnect":
        pass
    return Response()


def _close_without_farewell(transport: BaseTransport) -> None:
    """Make the coming close send RST instead of FIN, so that the client sees a true reset."""
    descriptor = os.dup(transport.get_extra_info("socket").fileno())
    with socket.socket(fileno=descriptor) as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
