"""Senders: when each source last delivered, and what its deliveries came to.

The move that takes a delivery out of `unpack` writes it, in the same step; a body that was answered 400 is
told by the script that keeps it. One hash holds all, in fields that begin with the source's name:

    SOURCE:last              when its last delivery was received, Unix milliseconds
    SOURCE:pushed:last       when the last one that held a score was received; the polling of scores reads it
    SOURCE:deliveries:FATE   deliveries that were `done`, `ignored` (probes and pings) or `dead`
    SOURCE:taken:TYPE        events that were handed to their stage, also those that were seen before
    SOURCE:ignored:WORD      events that nothing was to be done with, by our word for why
    SOURCE:invalid           events that were buried alone

Only our own words stand there, never a sender's, so the hash stays as small as the table of sources. The numbers
say what happened: a dead delivery that is retried comes to a second fate, and is counted there as well.

What the set-ups of a sender's webhook brought stands in a key of its own, for some days: nobody can switch the
webhook on without giving it back. A set-up is not signed, so several are kept: one that somebody else sent later does
not take the right one away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
from redis.utils import str_if_bytes

from pipeline import keys
from pipeline.clock import DAY_MS, iso
from pipeline.outcomes import Ignored, Invalid, MailEvent, Outcome, SetUp, VisitorEvent
from pipeline.scripts import script

if TYPE_CHECKING:
    from redis.asyncio import Redis

FATES = ("done", "ignored", "dead")
#: longer than a weekend: who finds it expired over there sees when it came, and that it must be asked for again
SET_UP_KEEP_MS = 3 * DAY_MS
MOST_SET_UPS = 5


def word_of(outcome: Outcome) -> str:
    """Return the word under which *outcome* is counted for its sender."""
    if isinstance(outcome, MailEvent):
        return "taken:" + outcome.type
    if isinstance(outcome, Ignored):
        return "ignored:" + outcome.why
    if isinstance(outcome, Invalid):
        return "invalid"
    # an AudienceLab event's own type is any word
    return "taken:visitor" if isinstance(outcome, VisitorEvent) else "taken:scores"


@dataclass(slots=True)
class Sender:
    """One source's facts. *last_ms* is Unix time in milliseconds, None before its first delivery."""

    last_ms: int | None = None
    deliveries: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FATES, 0))
    taken: dict[str, int] = field(default_factory=dict)
    ignored: dict[str, int] = field(default_factory=dict)
    invalid: int = 0
    set_ups: list[dict[str, str]] = field(default_factory=list)
    """Callback and key of the last set-ups, newest first, and when each was received."""

    def note(self, word: str, number: int) -> None:
        """Take over one field of the hash, *word* without the source; words of other releases are passed over."""
        kind, _, name = word.partition(":")
        if kind == "last":
            self.last_ms = number
        elif kind == "invalid":
            self.invalid = number
        elif kind in ("deliveries", "taken", "ignored"):
            getattr(self, kind)[name] = number

    def view(self) -> dict[str, Any]:
        """Return the facts as `relay senders --json` shows them."""
        return {
            "last_delivery_at": None if self.last_ms is None else iso(self.last_ms),
            "deliveries": self.deliveries,
            "events": {
                "taken": dict(sorted(self.taken.items())),
                "ignored": dict(sorted(self.ignored.items())),
                "invalid": self.invalid,
            },
            "set_up": self.set_ups[0] if self.set_ups else None,
            "earlier_set_ups": self.set_ups[1:],
        }


async def read(redis: Redis, sources: Sequence[str]) -> dict[str, Sender]:
    """Return what is known of each of *sources*, in their order; also from a Redis that is full."""
    known = {source: Sender() for source in sources}
    # no MULTI: a full Redis refuses whatever is in one, reads too
    async with redis.pipeline(transaction=False) as pipe:
        pipe.hgetall(keys.SENDERS)
        pipe.mget([keys.set_up(source) for source in sources])
        numbers, set_ups = await pipe.execute()
    for name, number in numbers.items():
        source, _, word = str_if_bytes(name).partition(":")
        if source in known:
            known[source].note(word, int(number))
    for source, stored in zip(sources, set_ups, strict=True):
        known[source].set_ups = _set_ups_view(stored) if stored else []
    return known


async def keep_set_up(redis: Redis, source: str, received_at_ms: int, brought: SetUp) -> None:
    """Keep what a set-up of *source* brought, for `SET_UP_KEEP_MS`, beside the others that came last."""
    args: list[str | int] = [source, received_at_ms, brought.callback_id, brought.verification_key]
    await script(redis, "set_up")(args=[*args, MOST_SET_UPS, SET_UP_KEEP_MS])


def _set_ups_view(stored: bytes) -> list[dict[str, str]]:
    return [
        {
            "callback_id": one["callback_id"],
            "verification_key": one["verification_key"],
            "received_at": iso(int(one["received_at_ms"])),
        }
        for one in orjson.loads(stored)
    ]


def signature_view(wanted: Sequence[str], secrets: Mapping[str, str]) -> dict[str, Any]:
    """Return whether a signature is checked: which of the settings *wanted* are among the *secrets* that are set.

    `check` is `on`, `off`, `incomplete` when only some are set, `none` when the source has no signature.
    """
    settings = {name: name in secrets for name in wanted}
    if not settings:
        check = "none"
    elif all(settings.values()):
        check = "on"
    else:
        check = "incomplete" if any(settings.values()) else "off"
    return {"check": check, "settings": settings}
