"""List subscription: has AudiencePoint tell of changes in the scores of addresses.

The List Subscription Model is documented: three counts, no word about which address. There is no
call to unsubscribe, and repeating one is safe: its addresses count as existing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workers.clients.audiencepoint.addresses import body_of
from workers.clients.audiencepoint.answers import refused
from workers.clients.messages import Answer, Request

SUBSCRIPTION_PATH = "/list-subscription"
_SETTING = "AUDIENCEPOINT_SUBSCRIPTION_PATH"


@dataclass(frozen=True, slots=True)
class Subscription:
    """How many addresses were added, were subscribed before, or were refused. Not which."""

    new: int
    existing: int
    invalid: int

    @property
    def total(self) -> int:
        """All addresses that are counted."""
        return self.new + self.existing + self.invalid

    def __add__(self, other: Subscription) -> Subscription:
        """Return the counts of both calls together."""
        return Subscription(
            self.new + other.new, self.existing + other.existing, self.invalid + other.invalid
        )


def subscription_request(addresses: Sequence[str], path: str = SUBSCRIPTION_PATH) -> Request:
    """Return the request that subscribes 1 to 30 different *addresses*, plain or hashed.

    Raises `ValueError` for any other number, for repeated and for empty ones.
    """
    return Request("POST", path, body_of(addresses))


def read_subscription(answer: Answer, path: str = SUBSCRIPTION_PATH) -> Subscription:
    """Return the three counts, or raise the `CallFailed` that *answer* means."""
    members = answer.members()
    counts = [_count(members.get(name)) for name in ("new", "existing", "invalid")]
    if not answer.is_success or None in counts:
        raise refused(answer, path, _SETTING)
    new, existing, invalid = (count or 0 for count in counts)
    return Subscription(new, existing, invalid)


def _count(value: object) -> int | None:
    """Return a count given as a number or, as AudiencePoint's scores are, as digits in a string."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
