"""What a source's parser finds in a delivery: facts, in the order of the body.

    MailEvent      a mail event for AudiencePoint                 -> stage forward
    VisitorEvent   somebody was seen at a site or in an audience  -> stage enrich
    ScoreChange    AudiencePoint's scores of one address          -> stage scores
    Ignored        understood, and nothing is to be done          -> counted in its stage
    Unaddressed    the same, unless `recipients` knows whose it is: then the MailEvent that it holds
    Invalid        one wrong event in a readable delivery         -> buried alone in its stage

A delivery that cannot be read at all is not an outcome but an `Unreadable`; one that is a vendor's
probe, ping or test is a `Probe`, and a `SetUp` when it brings a key. They end the delivery as a whole,
in the stage `unpack`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Stage(StrEnum):
    """The six stages, in the order of the flow."""

    UNPACK = "unpack"
    ENRICH = "enrich"
    SUBSCRIBE = "subscribe"
    FORWARD = "forward"
    SCORES = "scores"
    NOTIFY = "notify"


class Reason(StrEnum):
    """Why something lies in the dead letters. Closed: other programs rely on these words."""

    MALFORMED = "malformed"  # the body is not what its source sends at all (not JSON, not a form)
    UNKNOWN_SHAPE = "unknown_shape"  # readable, but no event could be found in it
    INVALID = "invalid"  # one event breaks a rule of the event model
    REFUSED = "refused"  # the vendor refused it for good
    SIGNATURE = "signature"  # stored before it could be verified, and found false
    BUG = "bug"  # our own code failed on it three times


class EventType(StrEnum):
    """AudiencePoint's seven event types, spelt as the wire wants them."""

    OPEN = "Open"
    CLICK = "Click"
    SEND = "Send"
    SOFT_BOUNCE = "SoftBounce"
    HARD_BOUNCE = "HardBounce"
    UNSUBSCRIBE = "Unsubscribe"
    COMPLAINT = "Complaint"


@dataclass(slots=True)  # not frozen: made for every event, and freezing triples what that costs
class MailEvent:
    """One mail event in AudiencePoint's words (Event Ingestion Model, APIs 1.5).

    *email* is a plain address or 64 lower-case hex digits; *occurred_at_utc* is
    `YYYY-MM-DDThh:mm:ss`. *provider_id* is the sender's own id of the event, only for
    recognising it when it comes again; it never leaves. *recipient* is the sender's own id of the person,
    where some of its events have no other name: what has an address teaches whose it is (`recipients`).
    """

    email: str
    type: EventType
    occurred_at_utc: str
    send_id: str
    domain: str | None = None
    client: str | None = None
    browser: str | None = None
    os: str | None = None
    device: str | None = None
    ip_address: str | None = None
    user_agent: str | None = None
    machine_open: bool | None = None
    provider_id: str | None = None
    recipient: str | None = None


@dataclass(frozen=True, slots=True)
class Person:
    """Who was seen, as AudienceLab resolved them. Every field may be empty.

    *fields* holds the resolution in the vendor's UPPER_CASE names: a `str`, or a `list[str]` for the
    multi-value columns; unknown values are absent. The address lists are plain addresses, lower-cased,
    in the vendor's order; *hashes* are SHA-256 hex of further addresses known only so.
    """

    uuid: str | None = None
    edid: str | None = None
    hem_sha256: str | None = None
    personal_emails: Sequence[str] = ()
    business_emails: Sequence[str] = ()
    verified_emails: Sequence[str] = ()
    hashes: Sequence[str] = ()
    phones: Sequence[str] = ()
    fields: Mapping[str, str | list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VisitorEvent:
    """One sighting of one person. *fingerprint* is what makes it the same sighting when it comes again.

    *seen_at* is ISO-8601 UTC with `Z`, or None when the body gives no time. *event_type* is an open word.
    """

    person: Person
    fingerprint: str
    seen_at: str | None = None
    event_type: str | None = None
    url: str | None = None
    title: str | None = None
    referrer: str | None = None
    pixel_id: str | None = None


@dataclass(frozen=True, slots=True)
class ScoreChange:
    """AudiencePoint's scores of one address; *scores* holds the vendor's strings under its own names."""

    email: str
    scores: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Ignored:
    """Understood, counted in *stage*, and nothing is done with it. *why* is a word for the metrics."""

    stage: Stage
    why: str


@dataclass(frozen=True, slots=True)
class Unaddressed(Ignored):
    """Ignored, unless the address is known of the *event*'s recipient; everything else stands in *event*."""

    event: MailEvent


@dataclass(frozen=True, slots=True)
class Invalid:
    """One wrong event: it is buried alone in *stage* with *error* (no personal data) and its own JSON."""

    stage: Stage
    error: str
    payload: bytes


Outcome = MailEvent | VisitorEvent | ScoreChange | Ignored | Invalid


class Unreadable(Exception):
    """The delivery as a whole cannot be understood. The message says why, without personal data."""

    def __init__(self, reason: Reason, error: str) -> None:
        super().__init__(error)
        self.reason = reason
        self.error = error


class Probe(Exception):
    """The delivery is a vendor's probe, ping or test body: answered, counted, nothing else."""


class SetUp(Probe):
    """The set-up of a sender's webhook: a probe that brings a key, which the operator must give back to it."""

    def __init__(self, callback_id: str, verification_key: str) -> None:
        super().__init__("the set-up of a callback")
        self.callback_id = callback_id
        self.verification_key = verification_key
