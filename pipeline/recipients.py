"""Recipients: the address behind a sender's own id of somebody, from an event that tells both.

Some senders name the person of an open by a number of theirs only. Whoever takes a delivery apart goes through it
in the order of the body: an event with id and address is remembered, one with the id alone gets the address that
was remembered last. All of one flush is one round trip, before the move that takes the delivery out: a process
that dies in between has learnt what it will be told again.

What may go wrong: an event comes before the one that tells its address, or is taken apart at the same moment by
another worker; or the address was forgotten (30 days without a mail, or on the operator's order). Then it stays
without one, and is counted as `no_address`. Somebody with a tombstone is not remembered.

An entry costs about 200 bytes of Redis: a million people who got mail within 30 days are 200 MB. On a full server
it is written all the same, as the delivery that told of it, which is larger, leaves.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

from pipeline import keys
from pipeline.addresses import digest
from pipeline.clock import DAY_MS
from pipeline.scripts import script
from pipeline.tombstones import Tombstones

if TYPE_CHECKING:
    from redis.asyncio import Redis

#: people open a mail within days, senders repeat a call for a week at most; each mail starts it anew
KEEP_MS = 30 * DAY_MS
#: steps a script: about two milliseconds of Redis, and as many as a sender posts at once
MOST_STEPS = 1_000
# keys looked at in one round trip when somebody is forgotten
_PAGE = 1_000

Step = tuple[str, str, str]
"""Source, the source's id of somebody, and the address to remember; an empty one is looked up."""


async def resolve(redis: Redis, tombstones: Tombstones, steps: Sequence[Step]) -> list[str]:
    """Go through *steps* in their order; return the address of each, empty where none is known."""
    found: list[str] = []
    for start in range(0, len(steps), MOST_STEPS):
        some = steps[start : start + MOST_STEPS]
        addresses = await _run(redis, some)
        found += await _past(redis, tombstones, some) if addresses is None else addresses
    return found


async def _past(redis: Redis, tombstones: Tombstones, steps: Sequence[Step]) -> list[str]:
    """Do as `resolve` does, but remember nobody who has a tombstone."""
    told = list({digest(address) for _, _, address in steps if address})
    buried = {one for one, hit in zip(told, await tombstones.found(told), strict=True) if hit}
    kept = [step for step in steps if not (step[2] and digest(step[2]) in buried)]
    known = iter(await _run(redis, kept, were_looked_up=True) or ())
    return [address if digest(address) in buried else next(known) for _, _, address in steps]


async def forget(redis: Redis, hashes: Collection[str]) -> int:
    """Remove every entry whose address is, or hashes to, one of *hashes*; return how many there were."""
    removed, cursor = 0, 0
    while True:
        cursor, page = await redis.scan(cursor, match=keys.recipient("*"), count=_PAGE)
        if page:
            values = await redis.mget(page)
            about = [
                key
                for key, value in zip(page, values, strict=True)
                if value and digest(value.decode()) in hashes
            ]
            removed += await redis.unlink(*about) if about else 0
        if not cursor:
            return removed


async def _run(
    redis: Redis, steps: Sequence[Step], *, were_looked_up: bool = False
) -> list[str] | None:
    """Go through some *steps*; None, and nothing is done, when there are tombstones that were not looked at."""
    words: list[str] = []
    for source, ident, address in steps:
        words += (name(source, ident), address)
    found = await script(redis, "recipients")(args=[KEEP_MS, int(were_looked_up), *words])
    return None if found is None else [address.decode() for address in found]


def name(source: str, ident: str) -> str:
    """Return the digest under which the person is kept whom *source* calls *ident*."""
    words = f"{source}\n{ident}".encode("utf-8", "surrogatepass")
    return blake2b(words, digest_size=16).hexdigest()
