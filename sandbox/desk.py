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
from dataclasses import dataclass, field, replace
from hmac import compare_digest
from typing import Any, cast

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sandbox.faults import Cut, Fault, Faults
from sandbox.memory import Memory
from sandbox.settings import Settings

_TRANSPORT = "sandbox.transport"


@dataclass(frozen=True, slots=True)
class Asked:
    """One call as a handler sees it."""

    request: Request
    raw: bytes

    @property
    def query(self) -> Mapping[str, str]:
        """The query's parameters, the last of each name."""
        return self.request.query_params

    def piece(self, name: str) -> str:
        """Return the piece *name* of the path."""
        return cast(str, self.request.path_params[name])


@dataclass(frozen=True, slots=True)
class File:
    """A body that is sent as it is."""

    content: bytes
    media_type: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a vendor answers. *count* is how many things the call held, for the log line.

    *cut* sends the first half of the body only: as a whole answer ("body"), or with the length of
    the whole and a connection that ends in the middle ("connection").
    """

    status: int
    body: Any
    count: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: Cut | None = None

    def response(self) -> Response:
        """Return it as HTTP: a string is HTML as from a proxy, 204 is empty, all else JSON."""
        content, media_type = self._content()
        if self.cut is None:
            return Response(content, self.status, dict(self.headers), media_type)
        half = content[: len(content) // 2]
        if self.cut == "body":
            return Response(half, self.status, dict(self.headers), media_type)
        return _Torn(half, len(content), self, media_type)

    def _content(self) -> tuple[bytes, str | None]:
        if self.status == 204:
            return b"", None
        if isinstance(self.body, File):
            return self.body.content, self.body.media_type
        if isinstance(self.body, str):
            return self.body.encode(), "text/html"
        return orjson.dumps(self.body), "application/json"


class _Torn(Response):
    """Half of a body that was announced as a whole, and the connection's end."""

    def __init__(self, half: bytes, whole: int, answer: Answer, media_type: str | None) -> None:
        headers = {**answer.headers, "Content-Length": str(whole)}
        super().__init__(b"", answer.status, headers, media_type)
        self._half = half

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what there is, then close; in process, where nothing can be closed, end early."""
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        transport: BaseTransport | None = scope.get(_TRANSPORT)
        is_all = transport is None
        await send({"type": "http.response.body", "body": self._half, "more_body": not is_all})
        if transport is not None:
            # What was sent is still delivered: the client sees an end, not a reset.
            transport.close()
            await _disconnect(receive)


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
Handle = Callable[[Asked], Answer]


def say_nothing(call: Call) -> None:
    """Announce nothing."""


@dataclass(frozen=True, slots=True)
class Desk:
    """One endpoint. *admit* and *handle* raise `Refused`; *handle* also stores what it accepts."""

    name: str
    admit: Callable[[Request], None]
    handle: Handle
    memory: Memory
    faults: Faults
    announce: Announce = say_nothing

    async def serve(self, request: Request) -> Response:
        """Answer one call."""
        raw = await request.body()
        try:
            self.admit(request)
            answer = await self._answer(Asked(request, raw))
        except Refused as refused:
            answer = refused.answer
        except ConnectionResetError:
            self._count(Answer(0, None))
            return await _hang_up(request)
        self._count(answer)
        return answer.response()

    async def _answer(self, asked: Asked) -> Answer:
        # A call without a body may tell its address in the query.
        held = asked.raw or orjson.dumps(list(asked.query.values()))
        fault = self.faults.take(self.name, held)
        if fault is None:
            return self.handle(asked)
        return await self._fail(fault, asked)

    async def _fail(self, fault: Fault, asked: Asked) -> Answer:
        answer = Answer(fault.status or 200, fault.body, headers=fault.headers)
        if fault.accepts:
            accepted = self.handle(asked)
            if fault.status is None:
                headers = {**accepted.headers, **fault.headers}
                answer = replace(accepted, headers=headers, cut=fault.cut)
        await sleep(fault.latency_s)
        if fault.reset:
            raise ConnectionResetError
        return answer

    def _count(self, answer: Answer) -> None:
        self.memory.count_call(self.name, answer.status)
        self.announce(Call(self.name, answer.status, answer.count))


@dataclass(frozen=True, slots=True)
class Desks:
    """What all endpoints share: what is remembered, the faults, who hears of calls, the settings, the vendors' key."""

    memory: Memory = field(default_factory=Memory)
    faults: Faults = field(default_factory=Faults)
    key: str = "sandbox"
    announce: Announce = say_nothing
    settings: Settings = field(default_factory=Settings)

    def open(self, name: str, admit: Callable[[Request], None], handle: Handle) -> Desk:
        """Return the endpoint *name*."""
        return Desk(name, admit, handle, self.memory, self.faults, self.announce)

    def is_key(self, given: str) -> bool:
        """Tell whether *given* is the vendors' key."""
        return compare_digest(given.encode(), self.key.encode())


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
    await _disconnect(request.receive)
    return Response()


async def _disconnect(receive: Receive) -> None:
    # uvicorn answers 500 for a call that ends without an answer, unless it knows of the loss.
    while (await receive())["type"] != "http.disconnect":
        pass


def _close_without_farewell(transport: BaseTransport) -> None:
    """Make the coming close send RST instead of FIN, so that the client sees a true reset."""
    descriptor = os.dup(transport.get_extra_info("socket").fileno())
    with socket.socket(fileno=descriptor) as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
