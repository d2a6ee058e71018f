"""Forgetting: nothing of a person is left, nothing brings them back, and others stay."""

from __future__ import annotations

import orjson
import pytest
from redis.asyncio import Redis

from pipeline import books, dead_letters, forgetting, keys
from pipeline.addresses import digest
from pipeline.dead_letters import Filter
from pipeline.forgetting import Forgotten, Traces
from pipeline.moves import Result
from pipeline.tombstones import Tombstones
from pipeline.visitors import Visitor
from tests.pipeline.acquaintances import meet
from tests.pipeline.burials import bury, bury_delivery
from tests.pipeline.work import full

pytestmark = pytest.mark.anyio

ADA = "ada@example.com"
UUID = "0b8c2f1e-1111-4222-8333-444455556666"


def ada() -> Visitor:
    """Return somebody with two addresses and two ids."""
    return Visitor(
        id=UUID,
        uuid=UUID,
        edid="edid-1",
        hem_sha256=digest(ADA),
        personal_emails=[ADA],
        business_emails=["ada@example.org"],
        fields={"FIRST_NAME": "Ada"},
    )


async def everything(redis: Redis) -> bytes:
    """Return every key and value that Redis holds, as one text."""
    parts: list[bytes] = []
    for key in await redis.keys():
        kind = await redis.type(key)
        read = {
            b"hash": redis.hgetall,
            b"set": redis.smembers,
            b"string": redis.get,
            b"stream": redis.xrange,
        }.get(kind)
        value = await read(key) if read else await redis.zrange(key, 0, -1)
        parts.append(key + b" " + repr(value).encode())
    return b"\n".join(parts)


@pytest.mark.parametrize(
    "wanted", [ADA, " ADA@Example.COM ", digest(ADA), digest(ADA).upper(), UUID, UUID.upper()]
)
async def test_nothing_of_a_person_is_left(redis: Redis, wanted: str) -> None:
    """By whatever name: visitor, address keys, enrichment marker and letters go."""
    await meet(redis, ada(), subscribed=[digest(ADA)])
    await redis.set(keys.enrichment(digest(UUID)), "1")
    await bury(redis, payloads=[orjson.dumps({"email": "ADA@example.org"})])
    await bury(redis, payloads=[orjson.dumps({"email": digest(ADA)})])
    await bury_delivery(redis, b"email=ada%40example.com&x=1")
    kept = await bury(redis, payloads=[b'{"email":"x.ada@example.com"}', b'{"id":"edid-12"}'])
    gone = await forgetting.forget(redis, wanted)
    assert (gone.visitors, gone.addresses, gone.dead_letters) == (1, 2, 3)
    assert {letter.id for letter in await dead_letters.newest(redis, Filter())} == set(kept)
    left = (await everything(redis)).replace(b"x.ada@example.com", b"").lower()
    for name in (ADA, "ada@example.org", digest(ADA), digest("ada@example.org"), UUID):
        assert name.encode() not in left.replace(f"enrichment:{UUID}".encode(), b"")
    assert (await books.snapshot(redis))["balanced"]


async def test_a_forgotten_person_does_not_come_back(redis: Redis) -> None:
    """Each of their names has a tombstone, so a move that was under way does nothing."""
    await meet(redis, ada())
    await forgetting.forget(redis, ADA)
    for back in (ada(), Visitor(UUID), Visitor("new", personal_emails=["ada@example.org"])):
        assert await meet(redis, back) is Result.TOMBSTONE


async def test_others_stay(redis: Redis) -> None:
    """Only who is known by the given name goes."""
    await meet(redis, ada())
    await meet(redis, Visitor("bob", personal_emails=["bob@example.com"]))
    await meet(redis, Visitor("eve", personal_emails=["eve@example.com", ADA]))
    gone = await forgetting.forget(redis, ADA)
    assert gone.visitors == 2  # a shared address is the address of both
    assert await forgetting.find(redis, "bob@example.com") is not None
    assert await forgetting.find(redis, "eve@example.com") is None


async def test_forgetting_twice_changes_nothing(redis: Redis) -> None:
    """A forget that crashed in between is repeated without harm."""
    await meet(redis, ada())
    await Tombstones(redis).put([digest(ADA)])  # as far as the crashed one came
    assert (await forgetting.forget(redis, ADA)).visitors == 1
    assert await forgetting.forget(redis, ADA) == Forgotten(0, 0, 0, 1)


async def test_a_redis_that_is_full_by_then_lets_a_person_go(redis: Redis) -> None:
    """What was begun ends: taking away is no reason for Redis to refuse, however full it is."""
    await meet(redis, ada(), subscribed=[digest(ADA)])
    async with full(redis):
        gone = await forgetting._remove(redis, [ada()], [digest(ADA)])
    assert gone == 1
    assert not await redis.exists(keys.address(digest(ADA)), keys.visitor(UUID), keys.VISITORS)


async def test_somebody_unknown_is_kept_from_coming(redis: Redis) -> None:
    """Their dead letters go too, found by the address's hash even where the address is plain."""
    [dead_id] = await bury(redis, payloads=[b'{"email":"carol@example.com"}'])
    gone = await forgetting.forget(redis, digest("carol@example.com"))
    assert (gone.visitors, gone.dead_letters) == (0, 1)
    assert await dead_letters.fetch(redis, dead_id) is None
    carol = Visitor("carol", personal_emails=["carol@example.com"])
    assert await meet(redis, carol) is Result.TOMBSTONE


async def test_allow_lifts_what_it_names(redis: Redis) -> None:
    """One name at a time; the person is back when none of theirs has a tombstone."""
    await meet(redis, ada())
    await forgetting.forget(redis, ADA)
    assert await forgetting.allow(redis, ADA) == 1
    assert await forgetting.allow(redis, ADA) == 0
    assert await meet(redis, ada()) is Result.TOMBSTONE
    for name in ("ada@example.org", UUID.upper(), "edid-1"):
        assert await forgetting.allow(redis, name) == 1
    assert await meet(redis, ada()) is Result.DONE


async def test_a_visitor_that_changes_meanwhile_is_forgotten_whole(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address that a move added before the tombstone stood gets its own."""
    await meet(redis, ada())
    put, puts = Tombstones.put, 0

    async def put_late(self: Tombstones, identities: list[str]) -> None:
        nonlocal puts
        puts += 1
        if puts == 2:  # after the visitor was read, before it is safe from changes
            changed = ada()
            changed.version = "1"
            changed.personal_emails.append("ada@example.net")
            await redis.hset(
                keys.visitor(UUID), mapping={"version": "2", "document": changed.document()}
            )
        await put(self, identities)

    monkeypatch.setattr(Tombstones, "put", put_late)
    await forgetting.forget(redis, UUID)
    assert await Tombstones(redis).found([digest("ada@example.net")]) == [True]


@pytest.mark.parametrize(
    ("text", "is_theirs"),
    [
        (b'{"email":"ada@example.com"}', True),
        (b'{"email":"<Ada@Example.com>"}', True),
        (b'{"email":"ada\\u0040example.com"}', True),
        (b'{"i":"1"}\n{"email":"ada\\u0040example.com"}', True),
        (b"https://example.net/?email=ada@example.com&list=2", True),
        (b"https://example.net/?email=ada%40example.com", True),
        (b"ada@example.com.", True),
        (b"ada@example.com.au", False),
        (b"nada@example.com", False),
        (b"ada-x@example.com", False),
        (b"edid=E-1", True),
        (b"edid=E-11", False),
        (b"\\u00", False),
        (b"\xff\xfe", False),
    ],
)
def test_traces_are_found_where_a_person_is_meant(text: bytes, is_theirs: bool) -> None:
    """By the address's hash alone, in each way that a body may spell it; not in other people's."""
    assert Traces({digest(ADA), "e-1"}, []).are_in(text) is is_theirs
    assert Traces({digest(ADA), "e-1"}, [ADA]).are_in(text) is is_theirs
