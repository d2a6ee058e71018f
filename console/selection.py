"""Which dead letters a command means: named ones, those of a filter, or all; never all by accident.

The options of the commands are declared here, once; Typer wants each command to list those it takes.
"""

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


Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Letters by their ids.")]
StageFilter = Annotated[Stage | None, typer.Option("--stage", help="Only letters of this stage.")]


def _checked_source(source: str | None) -> str | None:
    from pipeline.hook_tokens import SOURCES

    if source is not None and source not in SOURCES:
        raise typer.BadParameter(f"{source!r} is no source; known are {', '.join(sorted(SOURCES))}")
    return source


SourceFilter = Annotated[
    str | None,
    typer.Option(
        "--source",
        help="Only letters of this source, such as sendgrid.",
        callback=_checked_source,
    ),
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
All = Annotated[bool, typer.Option("--all", help="All letters there are.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a retry that was interrupted.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count, per stage and reason.")]

# far above what one Redis does; it keeps infinity out, for which there is 0
_FASTEST = 100_000
RetryRate = Annotated[
    float,
    typer.Option(
        min=0,
        max=_FASTEST,
        help="Letters per second. The retry also waits while a stage is busy; 0 turns both off.",
    ),
]
DropRate = Annotated[
    float, typer.Option(min=0, max=_FASTEST, help="Letters a second; 0 is no limit.")
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


def distinct(ids: list[str] | None) -> list[str]:
    """Return the ids that were named, each once, in their order."""
    return list(dict.fromkeys(ids or []))


def check_selection(
    ids: list[str], wanted: Wanted, *, everything: bool, resume: bool = False
) -> None:
    """Raise `BadUsage` unless letters are meant in exactly one way."""
    ways = {"ids": ids, "filters": wanted.is_set, "--all": everything, "--resume": resume}
    given = [name for name, is_given in ways.items() if is_given]
    if not given:
        raise BadUsage(
            "Which letters? Name ids, give filters (--stage, --source, --reason, --since), or --all."
        )
    if len(given) > 1:
        why = ", which goes on with the filters its retry began with" if resume else ""
        raise BadUsage(f"{' and '.join(given)} exclude each other{why}.")
