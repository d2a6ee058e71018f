"""Which dead letters a command means: named ones, those of a filter, or all; never all by accident."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from console.commands import BadUsage
from pipeline.outcomes import Reason, Stage

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from pipeline.dead_letters import Filter

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, slots=True)
class Since:
    """A moment, told as such or as an age, which Redis's clock makes a moment."""

    age: timedelta | None = None
    moment: datetime | None = None

    async def at_ms(self, redis: Redis) -> int:
        """Return the moment as Unix milliseconds."""
        from pipeline.clock import redis_now_ms

        if self.moment is not None:
            return int(self.moment.timestamp() * 1000)
        age_s = self.age.total_seconds() if self.age else 0
        return await redis_now_ms(redis) - int(age_s * 1000)


def read_since(text: str) -> Since:
    """Read `90s`, `15m`, `2h`, `3d` or an ISO-8601 time (UTC when it names no zone)."""
    try:
        if found := re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)([smhd])", text.strip()):
            return Since(age=timedelta(**{_UNITS[found[2]]: float(found[1])}))
        moment = datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            "should be an age such as 90s, 15m, 2h or 3d, or a time such as 2026-01-31T09:00:00Z"
        ) from None
    return Since(moment=moment if moment.tzinfo else moment.replace(tzinfo=UTC))


StageFilter = Annotated[Stage | None, typer.Option("--stage", help="Only letters of this stage.")]
SourceFilter = Annotated[
    str | None, typer.Option("--source", help="Only letters of this source, such as sendgrid.")
]
ReasonFilter = Annotated[
    Reason | None, typer.Option("--reason", help="Only letters with this reason.")
]
SinceFilter = Annotated[
    Since | None,
    typer.Option(
        "--since",
        parser=read_since,
        metavar="AGE|TIME",
        help="Only letters buried since then: 90s, 15m, 2h, 3d, or an ISO-8601 time.",
    ),
]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The filters of a command, before Redis's clock was asked."""

    stage: Stage | None = None
    source: str | None = None
    reason: Reason | None = None
    since: Since | None = None

    @property
    def is_set(self) -> bool:
        """Tell whether any filter is set."""
        return any((self.stage, self.source, self.reason, self.since))

    async def filter(self, redis: Redis) -> Filter:
        """Return the filter; the only thing here that needs Redis is its clock."""
        from pipeline.dead_letters import Filter

        since_ms = await self.since.at_ms(redis) if self.since else None
        return Filter(self.stage, self.source, self.reason, since_ms)


def check_selection(ids: list[str], wanted: Wanted, *, everything: bool) -> None:
    """Raise `BadUsage` unless letters are meant in exactly one way."""
    ways = [name for name, given in _ways(ids, wanted, everything) if given]
    if not ways:
        raise BadUsage(
            "Which letters? Name ids, give filters (--stage, --source, --reason, --since), or --all."
        )
    if len(ways) > 1:
        raise BadUsage(f"{' and '.join(ways)} exclude each other.")


def _ways(ids: list[str], wanted: Wanted, everything: bool) -> list[tuple[str, bool]]:
    return [("ids", bool(ids)), ("filters", wanted.is_set), ("--all", everything)]
