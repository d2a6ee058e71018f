"""How the stand-ins are told to fail: a list of faults, each for one endpoint.

A call gets the first fault, in the order they were added, that is meant for its endpoint, names one
of its addresses (or none at all) and has not been used up. Faults come after the key check and
before the vendor's rules, as a gateway's do.

    status + body + headers   the answer; with `stores=True` the call is accepted first
    headers alone             the call is accepted, and its answer has these as well
    cut "body" | "connection" the call is accepted and half of its answer is sent: as if it were
                              all, or with the connection's end in the middle
    reset "before" | "after"  the connection is torn down before or after the call was accepted
    latency_s                 the answer comes late; what is accepted is accepted before the wait
    addresses                 only calls that hold one of them, plain or hashed
    times                     only the first so many calls; None lasts until cleared
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import orjson

from sandbox.addresses import hash_of

Reset = Literal["before", "after"]
Cut = Literal["body", "connection"]
ENDPOINTS = (
    # AudiencePoint's
    *("events", "list-subscription", "scores", "email-verification", "sto"),
    # AudienceLab's
    *("enrich", "create-enrichment", "enrichments", "enrichment", "enrichment-file"),
    *("pixels", "pixel", "pixel-v4", "create-pixel", "delete-pixel"),
    *("audiences", "audience", "create-audience", "custom-audience", "delete-audience"),
    *("attributes", "preview", "segment"),
    # The receiver of what the relay tells others
    "crm",
    "*",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way to fail at one of the `ENDPOINTS`.

    A *body* that is a string is sent as HTML, as a proxy would; anything else as JSON.
    """

    endpoint: str
    status: int | None = None
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    latency_s: float = 0.0
    reset: Reset | None = None
    cut: Cut | None = None
    stores: bool = False
    addresses: Sequence[str] = ()
    times: int | None = None

    @property
    def accepts(self) -> bool:
        """Whether the call is handled by the vendor's rules before it fails."""
        return self.stores or self.reset == "after" or (self.status is None and not self.reset)

    def meets(self, endpoint: str, raw: bytes) -> bool:
        """Tell whether this fault is meant for a call with body *raw* to *endpoint*."""
        if self.endpoint not in ("*", endpoint):
            return False
        if not self.addresses:
            return True
        return not {hash_of(each) for each in self.addresses}.isdisjoint(_hashes_in(raw))


class Faults:
    """The faults in force. Add and clear them at any time, also from another thread."""

    def __init__(self) -> None:
        self._left: list[tuple[Fault, int | None]] = []
        self.hits = 0

    def add(self, *faults: Fault) -> None:
        """Put *faults* in force, behind those that already are."""
        self._left.extend((fault, fault.times) for fault in faults)

    def clear(self) -> None:
        """Lift every fault."""
        self._left.clear()

    def take(self, endpoint: str, raw: bytes) -> Fault | None:
        """Return the fault that a call with body *raw* gets, and count it as used once."""
        for index, (fault, left) in enumerate(self._left):
            if left != 0 and fault.meets(endpoint, raw):
                self._left[index] = (fault, None if left is None else left - 1)
                self.hits += 1
                return fault
        return None

    def listed(self) -> list[dict[str, Any]]:
        """Return the faults as JSON objects, each with the calls it has `left` (null: no end)."""
        return [{**asdict(fault), "left": left} for fault, left in self._left]


class BadFault(Exception):
    """A fault given as JSON makes no sense. The message says why."""


def fault_from(message: object) -> Fault:
    """Read a fault from JSON: an object with the names of `Fault`. Raises `BadFault`."""
    if not isinstance(message, dict):
        raise BadFault("a fault is an object")
    unknown = set(message) - {each.name for each in fields(Fault)}
    if unknown:
        raise BadFault(f"unknown: {', '.join(sorted(map(str, unknown)))}")
    if message.get("endpoint") not in ENDPOINTS:
        raise BadFault(f"endpoint is one of {', '.join(ENDPOINTS)}")
    _check_types(message)
    return Fault(**message)


def _check_types(message: dict[str, Any]) -> None:
    """Raise `BadFault` where a wrong type would only show in the middle of a call."""
    wants: dict[str, tuple[type, ...]] = {
        "status": (int, type(None)),
        "latency_s": (int, float),
        "stores": (bool,),
        "headers": (dict,),
        "addresses": (list,),
        "times": (int, type(None)),
    }
    for name, types in wants.items():
        if name in message and not isinstance(message[name], types):
            raise BadFault(f"{name} has the wrong type")
    if message.get("reset") not in (None, "before", "after"):
        raise BadFault("reset is before or after")
    if message.get("cut") not in (None, "body", "connection"):
        raise BadFault("cut is body or connection")
    texts = [*message.get("addresses", ()), *message.get("headers", {}).values()]
    if not all(isinstance(each, str) for each in texts):
        raise BadFault("addresses and header values are strings")


def throttled(endpoint: str, *, times: int | None = None, retry_after: str | None = None) -> Fault:
    """Answer 429 as a gateway does over its rate, with `Retry-After` when given."""
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    body = {"message": "Too Many Requests"}
    return Fault(endpoint=endpoint, status=429, body=body, headers=headers, times=times)


def quota_exceeded(endpoint: str, *, times: int | None = None) -> Fault:
    """Answer 429 as a gateway does when the day's, week's or month's quota is used up."""
    return Fault(endpoint=endpoint, status=429, body={"message": "Limit Exceeded"}, times=times)


def broken(endpoint: str, *, times: int | None = None) -> Fault:
    """Answer 500 and accept nothing."""
    body = {"message": "Internal server error"}
    return Fault(endpoint=endpoint, status=500, body=body, times=times)


def stored_then_504(endpoint: str, *, times: int | None = None) -> Fault:
    """Accept the call, then answer as if it had taken too long: the retry is a duplicate."""
    body = {"message": "Endpoint request timed out"}
    return Fault(endpoint=endpoint, status=504, body=body, stores=True, times=times)


def slow(endpoint: str, latency_s: float, *, times: int | None = None) -> Fault:
    """Accept the call and answer late."""
    return Fault(endpoint=endpoint, latency_s=latency_s, times=times)


def reset(endpoint: str, when: Reset = "before", *, times: int | None = None) -> Fault:
    """Tear the connection down, before or after the call was accepted."""
    return Fault(endpoint=endpoint, reset=when, times=times)


def cut_off(endpoint: str, cut: Cut = "body", *, times: int | None = None) -> Fault:
    """Accept the call and send half of the answer."""
    return Fault(endpoint=endpoint, cut=cut, times=times)


def proxied(endpoint: str, *, status: int = 200, times: int | None = None) -> Fault:
    """Answer a proxy's page in place of the vendor's."""
    body = "<!doctype html><title>Sign in</title><p>This network asks you to sign in.</p>"
    return Fault(endpoint=endpoint, status=status, body=body, times=times)


def poisoned(endpoint: str, *addresses: str, words: str = "Invalid request body") -> Fault:
    """Answer 400 to any call that holds one of *addresses*."""
    return Fault(endpoint=endpoint, status=400, body={"message": words}, addresses=addresses)


def firewalled(endpoint: str, *addresses: str) -> Fault:
    """Answer 403, as a firewall does, to any call that holds one of *addresses*; others pass."""
    body = {"message": "Forbidden"}
    return Fault(endpoint=endpoint, status=403, body=body, addresses=addresses)


def refused_alike(endpoint: str, words: str = "Invalid request body", status: int = 400) -> Fault:
    """Refuse every call with the same words."""
    return Fault(endpoint=endpoint, status=status, body={"message": words})


def _hashes_in(raw: bytes) -> set[str]:
    """Return every string of a JSON body as the hash it would be known by."""
    try:
        return {hash_of(text) for text in _strings(orjson.loads(raw))}
    except orjson.JSONDecodeError:
        return set()


def _strings(message: object) -> Iterator[str]:
    if isinstance(message, str):
        yield message
    elif isinstance(message, dict):
        for each in message.values():
            yield from _strings(each)
    elif isinstance(message, list):
        for each in message:
            yield from _strings(each)
