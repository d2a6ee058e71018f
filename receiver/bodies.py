"""Reading a body without ever holding more of it than allowed.

Three things go wrong here: a body that is too large or never ends, a small one that unpacks to a
huge one, and a sender that stops in the middle. The size is checked against `Content-Length`
before the first byte is read, then with every chunk, then with every megabyte that comes out of
the decompression; a body that is not there `deadline_s` after its headers is given up. All bodies
together may hold `MAX_INFLIGHT_BYTES`; what would be more is refused with 503, so that the sender
keeps it.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic

from starlette.types import Message, Receive

from receiver.problems import STALLED, TOO_BUSY, TOO_LARGE, Refused

# What is decompressed in one go before other requests get their turn.
_STEP_BYTES = 1 << 20
# Input is fed in slices, because zlib copies what it has not yet used of a slice.
_SLICE_BYTES = 1 << 16
# gzip files may be concatenated; a thousand members in one webhook is an attack on the loop above.
_MAX_MEMBERS = 1000

_GZIP = zlib.MAX_WBITS | 16
_ENCODINGS = {b"gzip": _GZIP, b"x-gzip": _GZIP, b"deflate": zlib.MAX_WBITS}


class Gone(Exception):
    """The sender hung up before its body was complete; nobody is there to be answered."""


class UnknownEncoding(Exception):
    """The body is packed in a way that is not understood."""


class Undecodable(Exception):
    """The body is not what its Content-Encoding says. The message says why, quoting nothing."""


@dataclass(slots=True)
class Memory:
    """How many bytes of bodies this process holds, and may hold."""

    limit_bytes: int
    used_bytes: int = 0


@dataclass(slots=True)
class Held:
    """What one request holds of the memory."""

    memory: Memory
    held_bytes: int = 0
    was_read: bool = False

    def take(self, count: int) -> None:
        """Hold *count* more bytes; raises `Refused` (503) when the memory is used up."""
        memory = self.memory
        if memory.used_bytes + count > memory.limit_bytes:
            raise _too_busy()
        self.held_bytes += count
        memory.used_bytes += count

    def check(self, count: int) -> None:
        """Raise `Refused` (503) unless *count* more bytes may be held."""
        if self.memory.used_bytes + count > self.memory.limit_bytes:
            raise _too_busy()

    def release(self) -> None:
        """Give everything back."""
        self.memory.used_bytes -= self.held_bytes
        self.held_bytes = 0


class Bodies:
    """Reads bodies within the limits. *deadline_s* is the time a body has to arrive in."""

    def __init__(self, max_body_bytes: int, deadline_s: float) -> None:
        self._max_bytes = max_body_bytes
        self._deadline_s = deadline_s
        self._reading: dict[asyncio.Task[object], float] = {}
        self._stalled: set[asyncio.Task[object]] = set()

    async def read(self, receive: Receive, headers: Mapping[bytes, bytes], held: Held) -> bytes:
        """Return the body as it was sent; raises `Refused` or `Gone`."""
        announced = headers.get(b"content-length", b"0")
        if len(announced) > 4:  # a smaller one cannot be too large, and is counted when it is read
            self._check_announced(announced, held)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - every request is a task of its own
        self._reading[task] = monotonic()
        try:
            message = await receive()
            body: bytes = message.get("body", b"")
            if message.get("more_body", False) or message["type"] != "http.request":
                body = await self._read_on(message, receive, held)
            else:  # nearly always all of it is there at once
                self._take(len(body), held)
        except asyncio.CancelledError:
            if task not in self._stalled or task.uncancel() > 0:
                raise
            raise Refused(
                STALLED, f"The body was not complete after {self._deadline_s:g} seconds."
            ) from None
        finally:
            del self._reading[task]
            self._stalled.discard(task)
        held.was_read = True
        return body

    def take(self, body: bytes, held: Held) -> None:
        """Hold *body*, which has come whole; raises `Refused`."""
        self._take(len(body), held)
        held.was_read = True

    async def watch(self) -> None:
        """Give up, for ever, the bodies that do not arrive in time.

        One task looks at all of them now and then: a timer for each request would cost a tenth of
        the receiver's speed, for something that almost never happens.
        """
        while True:
            await asyncio.sleep(min(1.0, self._deadline_s / 4))
            too_old = monotonic() - self._deadline_s
            for task, since in self._reading.items():
                if since < too_old and task not in self._stalled:
                    self._stalled.add(task)
                    task.cancel()

    def _check_announced(self, announced: bytes, held: Held) -> None:
        # A server lets only digits through; a header that is not a number is found out by counting.
        length = int(announced) if announced.isdigit() and len(announced) < 20 else 0
        if length > self._max_bytes:
            raise self._too_large()
        held.check(length)

    async def _read_on(self, message: Message, receive: Receive, held: Held) -> bytes:
        """Return the whole of a body that began with *message*."""
        body = bytearray()
        while True:
            if message["type"] != "http.request":
                raise Gone
            chunk: bytes = message.get("body", b"")
            self._take(len(chunk), held)
            body += chunk
            if not message.get("more_body", False):
                return bytes(body)
            message = await receive()

    def _take(self, count: int, held: Held) -> None:
        if held.held_bytes + count > self._max_bytes:
            raise self._too_large()
        held.take(count)

    async def decode(self, body: bytes, encoding: bytes, held: Held) -> bytes:
        """Return *body* unpacked as its Content-Encoding says.

        Raises `UnknownEncoding`, `Undecodable`, or `Refused` when it unpacks to more than is
        allowed.
        """
        encoding = encoding.strip().lower()
        if encoding in (b"", b"identity"):
            return body
        window_bits = _ENCODINGS.get(encoding)
        if window_bits is None:
            raise UnknownEncoding
        if window_bits != _GZIP and not _has_zlib_header(body):
            # RFC 9110 means zlib by "deflate", but many senders leave its header away.
            window_bits = -zlib.MAX_WBITS
        try:
            return await self._inflate(body, window_bits, held)
        except zlib.error:
            raise Undecodable("The body is not what its Content-Encoding says.") from None

    async def _inflate(self, body: bytes, window_bits: int, held: Held) -> bytes:
        output = bytearray()
        members = 1
        decoder = zlib.decompressobj(window_bits)
        for start in range(0, len(body), _SLICE_BYTES):
            rest = body[start : start + _SLICE_BYTES]
            while rest:
                if decoder.eof:
                    if window_bits != _GZIP or not rest.strip(b"\0"):
                        break
                    members += 1
                    decoder = zlib.decompressobj(window_bits)
                if members > _MAX_MEMBERS:
                    raise Undecodable("The body has too many gzip members.")
                step = decoder.decompress(rest, _STEP_BYTES)
                rest = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
                self._take_unpacked(len(step), len(output), held)
                output += step
                if len(step) == _STEP_BYTES:
                    await asyncio.sleep(0)
        if not decoder.eof:
            raise Undecodable("The packed body is cut off.")
        return bytes(output)

    def _take_unpacked(self, count: int, before: int, held: Held) -> None:
        if before + count > self._max_bytes:
            raise self._too_large()
        held.take(count)

    def _too_large(self) -> Refused:
        return Refused(
            TOO_LARGE, f"A body may have at most {self._max_bytes} bytes, also after decompression."
        )


def _too_busy() -> Refused:
    return Refused(TOO_BUSY, "Too many bodies are being received at once; send it again later.")


def _has_zlib_header(body: bytes) -> bool:
    return len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
