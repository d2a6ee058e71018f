"""Bodies: never more in memory than allowed, packed or not, and none waited for without end."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Message, Receive

from receiver import problems
from receiver.bodies import Bodies, Gone, Held, Memory, Undecodable, UnknownEncoding
from receiver.problems import Refused

pytestmark = pytest.mark.anyio

LIMIT = 100_000


def sender(chunks: Iterable[bytes], *, ends: bool = True) -> Receive:
    """Return an ASGI `receive` that hands out *chunks*, and then stalls unless it *ends*."""
    waiting = list(chunks)

    async def receive() -> Message:
        if not waiting:
            await asyncio.Event().wait()
        chunk = waiting.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(waiting) or not ends}

    return receive


def held(limit: int = 10 * LIMIT) -> Held:
    """Return an account with *limit* bytes of memory."""
    return Held(Memory(limit))


@pytest.fixture
def bodies() -> Bodies:
    """Give a reader of bodies up to `LIMIT`."""
    return Bodies(LIMIT, deadline_s=30)


async def test_a_body_in_pieces_is_put_together(bodies: Bodies) -> None:
    """What arrives in chunks is the same as what arrives whole, and is accounted for."""
    account = held()
    assert await bodies.read(sender([b"ab", b"", b"cd"]), {}, account) == b"abcd"
    assert account.memory.used_bytes == 4
    account.release()
    assert account.memory.used_bytes == 0


async def test_a_body_announced_as_too_large_is_refused_unread(bodies: Bodies) -> None:
    """Content-Length over the limit is refused before a byte is read."""
    with pytest.raises(Refused) as refused:
        await bodies.read(sender([]), {b"content-length": b"100001"}, held())
    assert refused.value.problem is problems.TOO_LARGE


@pytest.mark.parametrize("length", [b"", b"-1", b"abc", b"9" * 40])
async def test_a_strange_content_length_is_found_out_by_counting(
    bodies: Bodies, length: bytes
) -> None:
    """A length that is no number changes nothing."""
    assert await bodies.read(sender([b"{}"]), {b"content-length": length}, held()) == b"{}"


async def test_an_endless_body_is_refused_at_the_limit(bodies: Bodies) -> None:
    """Counting stops a body that never ends."""
    with pytest.raises(Refused) as refused:
        await bodies.read(sender([b"x" * 1_000] * 101, ends=False), {}, held())
    assert refused.value.problem is problems.TOO_LARGE


async def test_the_limit_itself_is_allowed(bodies: Bodies) -> None:
    """A body of exactly MAX_BODY_BYTES is accepted."""
    assert len(await bodies.read(sender([b"x" * LIMIT]), {}, held())) == LIMIT


@pytest.mark.parametrize("headers", [{}, {b"content-length": b"50"}])
async def test_bodies_beyond_the_memory_are_refused(
    bodies: Bodies, headers: dict[bytes, bytes]
) -> None:
    """At MAX_INFLIGHT_BYTES the answer is 503, and what was held is given back."""
    account = held(limit=49)
    with pytest.raises(Refused) as refused:
        await bodies.read(sender([b"x" * 30, b"x" * 20]), headers, account)
    assert refused.value.problem is problems.TOO_BUSY
    account.release()
    assert account.memory.used_bytes == 0


async def test_a_stalling_sender_is_given_up() -> None:
    """A body that is not complete at the deadline is refused with 408."""
    bodies = Bodies(LIMIT, deadline_s=0.02)
    watch = asyncio.create_task(bodies.watch())
    with pytest.raises(Refused) as refused:
        await bodies.read(sender([b"half"], ends=False), {}, held())
    watch.cancel()
    assert refused.value.problem is problems.STALLED


async def test_a_sender_that_hangs_up_gets_no_answer(bodies: Bodies) -> None:
    """A connection closed in the middle of a body ends the request."""

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    with pytest.raises(Gone):
        await bodies.read(receive, {}, held())


async def test_a_cancelled_request_stays_cancelled(bodies: Bodies) -> None:
    """Only the watch turns a cancellation into 408; any other one goes on."""
    task = asyncio.create_task(bodies.read(sender([]), {}, held()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def raw_deflate(body: bytes) -> bytes:
    """Return *body* packed without zlib's header, as many senders do."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        (b"gzip", gzip.compress(b"hello", mtime=0)),
        (b" GZIP ", gzip.compress(b"hello", mtime=0)),
        (b"x-gzip", gzip.compress(b"hel", mtime=0) + gzip.compress(b"lo", mtime=0) + b"\0\0"),
        (b"deflate", zlib.compress(b"hello")),
        (b"deflate", raw_deflate(b"hello")),
        (b"identity", b"hello"),
        (b"", b"hello"),
    ],
)
async def test_packed_bodies_are_unpacked(bodies: Bodies, encoding: bytes, packed: bytes) -> None:
    """gzip, in one or several members, and deflate in both its dialects are understood."""
    assert await bodies.decode(packed, encoding, held()) == b"hello"


@settings(deadline=None)
@given(st.binary(max_size=200_000 // 4))
async def test_unpacking_gives_back_what_was_packed(body: bytes) -> None:
    """Whatever was packed comes out the same."""
    bodies = Bodies(LIMIT, deadline_s=30)
    assert await bodies.decode(gzip.compress(body), b"gzip", held()) == body
    assert await bodies.decode(raw_deflate(body), b"deflate", held()) == body


@pytest.mark.parametrize("size", [LIMIT + 1, 50_000_000])
@pytest.mark.parametrize(
    ("encoding", "pack"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)]
)
async def test_a_bomb_is_refused_while_it_goes_off(
    size: int, encoding: bytes, pack: type[bytes]
) -> None:
    """A small body that unpacks to too much is refused, and no more than the limit is ever held."""
    account = held(limit=10**9)
    with pytest.raises(Refused) as refused:
        await Bodies(LIMIT, 30).decode(pack(bytes(size)), encoding, account)
    assert refused.value.problem is problems.TOO_LARGE
    assert account.memory.used_bytes <= LIMIT


async def test_a_body_larger_than_one_step_is_unpacked() -> None:
    """Unpacking in steps loses nothing between them."""
    body = b"0123456789abcdef" * 200_000
    assert await Bodies(2**23, 30).decode(gzip.compress(body), b"gzip", held(2**23)) == body


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        (b"gzip", b"plain"),
        (b"gzip", b""),
        (b"gzip", gzip.compress(b"hello", mtime=0)[:-4]),
        (b"gzip", gzip.compress(b"hello", mtime=0) + b"rubbish"),
        (b"deflate", b"\xff\xff\xff"),
        (b"deflate", zlib.compress(b"hello")[:-4]),
        (b"gzip", gzip.compress(b"", mtime=0) * 1_001),
    ],
)
async def test_what_is_not_packed_as_it_says_is_undecodable(
    bodies: Bodies, encoding: bytes, packed: bytes
) -> None:
    """A body that lies about its packing is refused, not guessed at."""
    with pytest.raises(Undecodable):
        await bodies.decode(packed, encoding, held())


@pytest.mark.parametrize("encoding", [b"br", b"zstd", b"gzip, gzip", b"\xff"])
async def test_other_encodings_are_unknown(bodies: Bodies, encoding: bytes) -> None:
    """Only gzip, deflate and identity are understood."""
    with pytest.raises(UnknownEncoding):
        await bodies.decode(b"x", encoding, held())
