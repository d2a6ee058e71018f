"""Where deliveries come from: one pure file per sender; `registry` has the table of them all.

A source answers three questions and knows nothing of HTTP, Redis or the clock:
`check` whether a body has the sender's form, `verify` whether the sender signed it,
`parse` what happened. How to add one: docs/adding-a-sender.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from pipeline.deliveries import Delivery
from pipeline.outcomes import Outcome


class Malformed(Exception):
    """The body has not the sender's form (answer 400). The message says why, without quoting the body."""


class Unauthentic(Exception):
    """The signature is missing, malformed, stale or false (answer 401)."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How mail senders' words map to AudiencePoint's; from the settings of the same names."""

    send_from: Literal["accepted", "delivered"] | None = None
    """None: each sender's own, which is `accepted` where it tells of that."""
    deferral_as: Literal["none", "SoftBounce"] = "none"
    send_id: Literal["message", "campaign"] = "message"


class Source(Protocol):
    """One sender. Every method is pure: same arguments, same answer.

    Most mail senders are a `JsonSender` (json_sender.py), which needs two functions of them.
    """

    @property
    def name(self) -> str:
        """The word in `/hooks/{name}/...`."""

    @property
    def success(self) -> Literal[200, 202]:
        """The status a stored delivery is answered with; mail senders want 200."""

    @property
    def keeps_headers(self) -> frozenset[str]:
        """Lower-case names of the request headers that are needed later; `SIGNED` is the receiver's own word."""

    def check(self, body: bytes, content_type: str) -> None:
        """Raise `Malformed` unless *body* has the sender's form. A probe's body has it."""

    def verify(
        self, headers: Mapping[str, str], body: bytes, secrets: Mapping[str, str], now: float
    ) -> None:
        """Raise `Unauthentic` unless the sender signed *body* (raw bytes, decompressed).

        Or `Probe`, for a vendor's test that only its signature tells from events: it is answered, not stored.

        *headers* have lower-case names. *secrets* maps setting names (`SENDGRID_PUBLIC_KEY`) to values;
        a source whose secret is not set accepts everything. *now* is Unix time in seconds.
        """

    def parse(self, delivery: Delivery, rules: Rules, now: float) -> list[Outcome]:
        """Return what happened, in the order of the body; the same delivery always gives the same list.

        Raises `Unreadable` or `Probe`, and nothing else, whatever the body holds.
        """
