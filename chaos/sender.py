"""The sender: posts events until each is answered 2xx, as senders do, and remembers what was promised, and how.

Every event has a number of its own; what is known of it is one byte, so that a run of an hour needs no more memory
than one of a minute.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from array import array
from collections import Counter
from collections.abc import Sequence
from time import time
from typing import Any

import httpx
import orjson

from chaos.parts import TOKEN
from chaos.vendors import POISONED

SENDERS = 16
#: seconds that a sender rests between two deliveries
REST_S = (0.02, 0.14)
#: the only words `Relay-Ack` may say here; the place in the list is what is remembered
ACKS = ("", "stored", "fsynced", "spilled")
EVENT, VISITOR, WRONG, REFUSED = range(4)


class Ledger:
    """What was sent and what was promised, by id."""

    def __init__(self) -> None:
        self.kinds = bytearray()
        self.acks = bytearray()
        self.deliveries: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.acked_at = array("d")

    def new_id(self, kind: int) -> int:
        """Return the next id."""
        self.kinds.append(kind)
        self.acks.append(0)
        return len(self.kinds) - 1

    def promise(self, ids: Sequence[int], ack: str) -> None:
        """Remember that the delivery with *ids* was answered 2xx; raises `ValueError` for a word nobody knows."""
        for each in ids:
            self.acks[each] = ACKS.index(ack, 1)
        self.deliveries[ack] += 1
        self.acked_at.append(time())


class Sender:
    """Some connections that post to any of the receivers."""

    def __init__(self, ports: Sequence[int], seed: int) -> None:
        self.ledger = Ledger()
        self.over = asyncio.Event()
        #: makes deliveries large; it is no field of an event, and left out by the relay
        self.padding = ""
        self._ports = ports
        self._chance = random.Random(seed)

    async def run(self) -> None:
        """Post until it is over, and then until everything begun is promised."""
        limits = httpx.Limits(max_connections=2 * SENDERS)
        async with httpx.AsyncClient(limits=limits, timeout=3, trust_env=False) as client:
            await asyncio.gather(*(self._one(client) for _ in range(SENDERS)))

    async def _one(self, client: httpx.AsyncClient) -> None:
        while not self.over.is_set():
            source, ids, body = self._delivery()
            while not await self._post(client, source, ids, body):  # noqa: ASYNC110 - a sender retries
                await asyncio.sleep(self._chance.uniform(0.05, 0.3))
            await asyncio.sleep(self._chance.uniform(*REST_S))

    async def _post(
        self, client: httpx.AsyncClient, source: str, ids: Sequence[int], body: bytes
    ) -> bool:
        """Post once; return whether it was answered 2xx."""
        port = self._chance.choice(self._ports)
        url = f"http://127.0.0.1:{port}/hooks/{source}/{TOKEN}"
        try:
            answer = await client.post(url, content=body)
        except httpx.HTTPError:
            self.ledger.answers["none"] += 1
            return False
        self.ledger.answers[str(answer.status_code)] += 1
        if not answer.is_success:
            return False
        self.ledger.promise(ids, answer.headers["relay-ack"])
        return True

    def _delivery(self) -> tuple[str, list[int], bytes]:
        """Make a delivery: its source, the ids in it, its body."""
        if self._chance.random() < 0.2:
            number = self.ledger.new_id(VISITOR)
            return "pixel", [number], orjson.dumps(visitor(number, named=number % 2 == 0))
        size = self._chance.choice([1, 1, 1, 2, 3, 5]) if self._chance.random() < 0.97 else 45
        events = [self._event() for _ in range(size)]
        if self.padding:
            events[0][1]["padding"] = self.padding
        return "events", [number for number, _ in events], orjson.dumps([e for _, e in events])

    def _event(self) -> tuple[int, dict[str, str]]:
        luck = self._chance.random()
        kind = WRONG if luck < 0.015 else REFUSED if luck < 0.02 else EVENT
        number = self.ledger.new_id(kind)
        return number, event(number, kind)


def event(number: int, kind: int) -> dict[str, str]:
    """Return AudiencePoint's event with this id: one that is wrong, or that the vendor will refuse, or a good one."""
    return {
        "email": POISONED[number % len(POISONED)]
        if kind == REFUSED
        else f"person{number}@example.com",
        "type": "Nonsense" if kind == WRONG else "Open",
        "occurred_at_utc": "2026-01-31T12:00:00",
        "send_id": f"chaos-{number}-",
    }


def visitor(number: int, *, named: bool) -> dict[str, Any]:
    """Return a pixel's delivery about one person, whose address has the id; who has no name is looked up first."""
    address = f"chaos-{number}-@example.com"
    names = {"FIRST_NAME": "Ines", "LAST_NAME": "Okoro"} if named else {}
    person = {"PERSONAL_EMAILS": address, "PERSONAL_VERIFIED_EMAILS": address, "UUID": f"u{number}"}
    seen = {
        "pixel_id": "ad2e66ec-5d53-5b0b-99df-29e7d90a644b",
        "hem_sha256": hashlib.sha256(address.encode()).hexdigest(),
        "event_timestamp": "2026-01-31T12:00:00Z",
        "event_type": "page_view",
        "resolution": person | names,
    }
    return {"events": [seen]}
