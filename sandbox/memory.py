"""What arrived at the stand-ins, for tests, the trial and the bench to look at.

Everything is kept in this process and nowhere else: it holds addresses, so it must never be fed by
anything but invented people. With `keeps_bodies=False` only the counters move, so that a bench of a
million events measures the sender and not this list's memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sandbox.account import Account
from sandbox.addresses import hash_of, is_hash

Event = dict[str, Any]


@dataclass(slots=True)
class Memory:
    """Counters and, unless told otherwise, everything that was accepted, in the order of arrival.

    *calls* counts `(endpoint, status)`, faults included; a reset connection has status 0.
    """

    keeps_bodies: bool = True
    events: list[Event] = field(default_factory=list)
    batches: list[bytes] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    enrich_requests: list[dict[str, Any]] = field(default_factory=list)
    score_requests: list[dict[str, Any]] = field(default_factory=list)
    verified: list[str] = field(default_factory=list)
    send_time_requests: list[dict[str, Any]] = field(default_factory=list)
    told: list[dict[str, str]] = field(default_factory=list)
    told_ids: set[str] = field(default_factory=set)
    account: Account = field(default_factory=Account)
    subscribed: set[str] = field(default_factory=set)
    calls: Counter[tuple[str, int]] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)

    def keep_batch(self, events: Sequence[Event], raw: bytes) -> None:
        """Remember an accepted batch: its events and its own bytes."""
        self.counts["batches"] += 1
        self.counts["events"] += len(events)
        self.counts["largest_batch"] = max(self.counts["largest_batch"], len(events))
        if len({is_hash(event["email"]) for event in events}) > 1:
            self.counts["mixed_batches"] += 1
        if self.keeps_bodies:
            self.batches.append(raw)
            self.events.extend(events)

    def subscribe(self, addresses: Sequence[str]) -> tuple[int, int]:
        """Subscribe valid addresses; return how many were new and how many existed."""
        new = 0
        for address in addresses:
            known = len(self.subscribed)
            self.subscribed.add(hash_of(address))
            new += len(self.subscribed) - known
        self.counts["addresses"] += len(addresses)
        self.counts["largest_subscription"] = max(
            self.counts["largest_subscription"], len(addresses)
        )
        if self.keeps_bodies:
            self.addresses.extend(addresses)
        return new, len(addresses) - new

    def keep_enrich_request(self, message: dict[str, Any], found: int) -> None:
        """Remember an accepted enrichment call and how many people it found."""
        self.counts["enrich_found"] += found
        if self.keeps_bodies:
            self.enrich_requests.append(message)

    def keep_score_request(self, message: dict[str, Any]) -> None:
        """Remember an accepted question for scores."""
        if self.keeps_bodies:
            self.score_requests.append(message)

    def keep_verification(self, email: str, *, by_get: bool) -> None:
        """Remember an address that was verified, and whether it stood in an address line."""
        self.counts["verified_by_get"] += by_get
        if self.keeps_bodies:
            self.verified.append(email)

    def keep_send_time_request(self, message: dict[str, Any]) -> None:
        """Remember an accepted question for send times."""
        if self.keeps_bodies:
            self.send_time_requests.append(message)

    def keep_told(self, webhook_id: str, timestamp: str, raw: bytes) -> None:
        """Remember a webhook whose signature was right; one id is counted once."""
        self.counts["told"] += 1
        self.told_ids.add(webhook_id)
        if self.keeps_bodies:
            body = raw.decode(errors="replace")
            self.told.append({"id": webhook_id, "timestamp": timestamp, "body": body})

    def count_call(self, endpoint: str, status: int) -> None:
        """Count one call by how it was answered; status 0 is a reset connection."""
        self.calls[endpoint, status] += 1

    def calls_to(self, endpoint: str) -> int:
        """Return how many calls *endpoint* got, whatever the answer."""
        return sum(count for (name, _), count in self.calls.items() if name == endpoint)

    def counters(self) -> dict[str, int]:
        """Return the counters of `GET /seen`: flat, all present from the start."""
        return {
            "calls": self.calls.total(),
            "refused": sum(n for (_, status), n in self.calls.items() if not 200 <= status < 300),
            "events": self.counts["events"],
            "batches": self.counts["batches"],
            "largest_batch": self.counts["largest_batch"],
            "mixed_batches": self.counts["mixed_batches"],
            "repeated_batches": len(self.batches) - len(set(self.batches)),
            "addresses": self.counts["addresses"],
            "subscribed": len(self.subscribed),
            "largest_subscription": self.counts["largest_subscription"],
            "subscription_calls": self.calls_to("list-subscription"),
            "score_calls": self.calls_to("scores"),
            "enrich_calls": self.calls_to("enrich"),
            "enrich_found": self.counts["enrich_found"],
            "verification_calls": self.calls_to("email-verification"),
            "verified_by_get": self.counts["verified_by_get"],
            "send_time_calls": self.calls_to("sto"),
            "segment_calls": self.calls_to("segment"),
            "crm_calls": self.calls_to("crm"),
            "crm_accepted": self.counts["told"],
            "crm_repeated": self.counts["told"] - len(self.told_ids),
        }

    def full(self, what: str) -> list[Any] | None:
        """Return one of the full lists of `GET /seen/{what}`, or None when there is none such."""
        lists: dict[str, list[Any]] = {
            "events": self.events,
            "batches": [raw.decode() for raw in self.batches],
            "addresses": self.addresses,
            "enrich_calls": self.enrich_requests,
            "score_calls": self.score_requests,
            "verification_calls": self.verified,
            "send_time_calls": self.send_time_requests,
            "crm": self.told,
            "calls": [[name, status, count] for (name, status), count in self.calls.items()],
        }
        return lists.get(what)

    def forget(self) -> None:
        """Start again from nothing, subscriptions included; the account has what it first had."""
        asked: tuple[list[dict[str, Any]], ...] = (self.enrich_requests, self.score_requests)
        for requests in (*asked, self.send_time_requests):
            requests.clear()
        self.events.clear()
        self.batches.clear()
        for texts in (self.addresses, self.verified):
            texts.clear()
        self.told.clear()
        self.told_ids.clear()
        self.account.forget()
        self.subscribed.clear()
        self.calls.clear()
        self.counts.clear()
