"""The shape of a mail sender that posts JSON, which nearly all do: its file says only what is its own.

That is where the events stand in a body (`items`), what one of them tells (`read`), and how the sender proves
itself (`verify`) if it signs. A sender whose JSON stands in something else is a subclass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from pipeline.deliveries import Delivery
from pipeline.outcomes import Outcome, Probe, Reason, Unreadable
from pipeline.sources import Rules, mail, signatures
from pipeline.sources.json_body import as_sent, check_json, read_json

Items = Callable[[object], list[object]]
"""Returns the events in the JSON value of a body; raises `Unreadable` where they cannot be found, or `Probe`."""

Read = Callable[[Mapping[str, object], Rules], mail.Told | str]
"""Returns what one event tells, or the word of `Ignored` for why it is none; raises `mail.Wrong`."""


class Verify(Protocol):
    """How a sender proves itself: see `Source.verify`."""

    def __call__(
        self, headers: Mapping[str, str], body: bytes, secrets: Mapping[str, str], now: float
    ) -> None:
        """Raise `Unauthentic` unless the sender signed *body*."""


def by_token_only(
    headers: Mapping[str, str], body: bytes, secrets: Mapping[str, str], now: float
) -> None:
    """Accept everything: the sender signs nothing, and our token has been checked already."""


@dataclass(frozen=True)
class JsonSender:
    """A `Source` whose body is one JSON document that holds mail events."""

    name: str
    items: Items
    read: Read
    verify: Verify = by_token_only
    success: Literal[200, 202] = 200
    keeps_headers: frozenset[str] = frozenset()

    def check(self, body: bytes, content_type: str) -> None:
        """Raise `Malformed` unless *body* is JSON, whatever it is called."""
        check_json(body)

    def parse(self, delivery: Delivery, rules: Rules, now: float) -> list[Outcome]:
        """Return one `MailEvent`, `Ignored` or `Invalid` for each event of the body."""
        return self.read_document(delivery.body, rules, now)

    def read_document(self, document: bytes, rules: Rules, now: float) -> list[Outcome]:
        """Return the outcome of each event in the JSON *document*, which may be but a part of a body.

        A call without events only tries whether we are there.
        """
        found = self.items(read_json(document))
        if not found:
            raise Probe("no events")
        outcomes = outcomes_of(found, self.read, rules, now)
        return as_sent(outcomes, document, self.items)


def outcomes_of(items: Iterable[object], read: Read, rules: Rules, now: float) -> list[Outcome]:
    """Return what each of *items* is: an event, none and why, or what is wrong with it."""
    return [_outcome(item, read, rules, now) for item in items]


def _outcome(item: object, read: Read, rules: Rules, now: float) -> Outcome:
    if not isinstance(item, dict):
        return mail.invalid("the event is not an object", item)
    try:
        told = read(item, rules)
    except mail.Wrong as wrong:
        return mail.invalid(str(wrong), item)
    return mail.ignored(told) if isinstance(told, str) else mail.event_of(told, item, now)


# where the events are ---------------------------------------------------------------------------------


def one_event(*names: str) -> Items:
    """Return the `items` of a sender that posts one object a call, told by any field of *names*."""

    known = frozenset(names)

    def items(body: object) -> list[object]:
        if isinstance(body, dict) and not known.isdisjoint(body):
            return [body]
        raise Unreadable(Reason.UNKNOWN_SHAPE, f"not one event: no {' or '.join(names)}")

    return items


def one_or_many(*names: str) -> Items:
    """Return the `items` of a sender that posts an array, or one object, told by any field of *names*.

    Where the wire has arrays only, documentation may print an event bare, and one that was buried alone
    comes back so.
    """

    known = frozenset(names)

    def items(body: object) -> list[object]:
        if isinstance(body, list):
            return body
        if isinstance(body, dict) and not known.isdisjoint(body):
            return [body]
        raise Unreadable(Reason.UNKNOWN_SHAPE, "neither an array of events nor one event")

    return items


# how a sender proves itself ---------------------------------------------------------------------------


def _body_alone(headers: Mapping[str, str], body: bytes) -> bytes:
    return body


def by_hex_hmac(
    setting: str,
    header: str,
    message: Callable[[Mapping[str, str], bytes], bytes] = _body_alone,
) -> Verify:
    """Return the `verify` of a sender that puts the hexadecimal HMAC-SHA256 of *message* into *header*.

    *setting* names the secret, in which several may stand with commas between. *message* gets the headers and
    the body, and may raise `Unauthentic`.
    """

    def verify(
        headers: Mapping[str, str], body: bytes, secrets: Mapping[str, str], now: float
    ) -> None:
        if secret := secrets.get(setting):
            given = signatures.header(headers, header)
            signatures.check_hex(given, signatures.keys_of(secret), message(headers, body))

    return verify
