"""Verify: asks AudiencePoint whether an address exists before it is subscribed, one address a call.

Only plain addresses can be asked about. A queue holds an address as it leaves, often its hash; then the visitor who
has it is asked for the plain one, so that nothing plain is stored for this and nothing plain leaves by the
subscription. What is known only by its hash is not verified.

Each answer is kept with its address at once (`pipeline.verifications`), so nothing is asked twice, whatever ends
in between. A call that fails is one of the stage `subscribe` and has the fate of any other: an outage is waited for,
and what the vendor refuses (400) is found by halving and buried with its words, unless everything is refused. It is
not taken for Invalid: of an address that is none the vendor says so with a 200.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

from pipeline import paces, verifications, visitors
from pipeline.addresses import digest, is_hash
from pipeline.clock import redis_now_ms
from pipeline.endpoints import Endpoint
from workers.clients.audiencepoint import AudiencePoint
from workers.stopping import rest

if TYPE_CHECKING:
    from workers.context import Context

#: results with which an address is not subscribed; all others are the vendor's advice about mails, not about scores
UNWANTED = frozenset({"Invalid", "Spamtrap"})
#: the part of the time in which new questions are begun; the subscription waits for its turn in the rest
ASKING = 0.75


@dataclass(slots=True)
class Judged:
    """What is known of some addresses, by their hashes."""

    #: not to be subscribed, and the result that says so
    unwanted: dict[str, str] = field(default_factory=dict)
    #: not asked about yet: they wait for another time
    left: set[str] = field(default_factory=set)
    calls: int = 0


class Verify:
    """Verifies the addresses of one batch at a time, within the rate, and only for `Timing.verify_s`."""

    def __init__(self, context: Context, client: AudiencePoint, vendor: str, rank: int) -> None:
        self._context = context
        self._client = client
        self._vendor = vendor
        self._rank = rank

    async def judge(self, addresses: Mapping[str, str]) -> Judged:
        """Return what is known of *addresses* (by hash, as they leave), having asked about what was not.

        The first question is the call that the batch was claimed for. Each further one, and then the subscription
        of what is not `left`, waits for its turn. Raises `CallFailed`.
        """
        began, patience_s = monotonic(), self._context.timing.verify_s
        judged = Judged()
        waiting = await self._to_ask(addresses, judged)
        while waiting:
            if judged.calls and not await self._turn(began + patience_s * ASKING):
                break
            name, address = waiting.popitem()
            if not await self._is_forgotten(judged, [name]):
                await self._ask(judged, name, address)
        if judged.calls:
            await self._is_forgotten(judged, list(addresses))
            has_turn = await self._turn(began + patience_s)
            judged.left = set(waiting if has_turn else addresses) - judged.unwanted.keys()
        return judged

    async def _ask(self, judged: Judged, name: str, address: str) -> None:
        judged.calls += 1
        redis = self._context.redis
        with self._context.tally.counted(Endpoint.VERIFY):
            said = await self._client.verify(address)
        if self._context.settings.audiencepoint_rate:
            await paces.went_well(redis, self._vendor)
        await verifications.keep(redis, name, said.result, said.suggestion)
        if said.result in UNWANTED:
            judged.unwanted[name] = said.result

    async def _is_forgotten(self, judged: Judged, names: Sequence[str]) -> bool:
        """Note whoever was forgotten since the batch was claimed; tell whether anybody was."""
        hits = await self._context.tombstones.found(list(names))
        gone = [name for name, hit in zip(names, hits, strict=True) if hit]
        judged.unwanted |= dict.fromkeys(gone, "forgotten")
        return bool(gone)

    async def _turn(self, until: float) -> bool:
        """Wait for a call of the vendor's rate; False when there is none before monotonic *until* or a stop."""
        redis, calls_per_s = self._context.redis, self._context.settings.audiencepoint_rate
        while not self._context.stopping.is_set() and monotonic() < until:
            wait_s = await paces.turn(redis, self._vendor, calls_per_s, self._rank)
            if not wait_s:
                return True
            await rest(self._context.stopping, min(wait_s, max(until - monotonic(), 0.0)))
        return False

    async def _to_ask(self, addresses: Mapping[str, str], judged: Judged) -> dict[str, str]:
        """Return hash -> plain address of what must be asked about; note in *judged* what is known."""
        redis = self._context.redis
        known, now_ms = await verifications.read(redis, list(addresses)), await redis_now_ms(redis)
        fresh = {name: said.result for name, said in known.items() if said.holds(now_ms)}
        judged.unwanted = {name: result for name, result in fresh.items() if result in UNWANTED}
        return await self._plain({n: a for n, a in addresses.items() if n not in fresh})

    async def _plain(self, names: Mapping[str, str]) -> dict[str, str]:
        """Return hash -> plain address, where that is known; *names* are hash -> address as it leaves."""
        redis = self._context.redis
        hashed = [name for name, address in names.items() if is_hash(address)]
        owners = await visitors.owners(redis, hashed)
        people = await visitors.fetch(redis, visitors.unique(owners.values()))
        told = {digest(mail): mail for person in people.values() for mail in person.emails}
        found = {name: told.get(name, "") for name in hashed}
        plain = {name: found.get(name, address) for name, address in names.items()}
        return {name: address for name, address in plain.items() if address}
