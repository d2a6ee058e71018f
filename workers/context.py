"""What every verb of the workers needs, made once for each process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

from pipeline.clock import DAY_MS, HOUR_MS
from pipeline.moves import Mover
from pipeline.outcomes import Stage
from pipeline.queues import Queues
from pipeline.settings import Settings
from pipeline.sources import Rules
from pipeline.tombstones import Tombstones
from pipeline.wake import Bell
from workers.asking import Asking
from workers.clients.audiencelab import AudienceLab
from workers.clients.audiencepoint import AudiencePoint
from workers.clients.crm import Crm
from workers.metrics import Metrics
from workers.room import Room
from workers.tally import Tally
from workers.timing import Timing
from workers.width import Width

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from workers.traced import Traced


class BellsSeen:
    """Which bell number each stage with work had, and since when, as this process saw it."""

    def __init__(self) -> None:
        self._seen: dict[Stage, tuple[int, float]] = {}

    def is_stale(self, stage: Stage, number: int | None, after_s: float) -> bool:
        """Note *number* (None: no work); tell whether it has been the same for *after_s* seconds."""
        if number is None:
            self._seen.pop(stage, None)
            return False
        known, since = self._seen.get(stage, (None, 0.0))
        if known != number:
            self._seen[stage] = (number, monotonic())
            return False
        return monotonic() - since >= after_s


@dataclass(slots=True)
class Context:
    """The tools of one worker process. A vendor without a key is None."""

    settings: Settings
    redis: Redis
    consumer: str
    mover: Mover
    queues: Queues
    bell: Bell
    tombstones: Tombstones
    audiencepoint: AudiencePoint | None
    audiencelab: AudienceLab | None
    crm: Crm | None = None
    """Whom score changes are told; None without an address."""
    timing: Timing = field(default_factory=Timing)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    bells_seen: BellsSeen = field(default_factory=BellsSeen)
    asking: Asking = field(default_factory=Asking)
    """What `unpack` asks others about deliveries."""

    metrics: Metrics = field(default_factory=Metrics)
    """What this process counts."""

    widths: dict[Stage, Width] = field(default_factory=dict)
    """How many calls of a stage may be on their way at a time."""

    tally: Tally = field(default_factory=Tally)
    """What the calls of the stages came to, for the operators to see."""

    traced: Traced | None = None
    """Tells of deliveries and calls; None without traces."""

    room: Room = field(init=False)
    """How much may be unpacked."""
    rules: Rules = field(init=False)
    """How mail senders' words are mapped."""

    drain: Callable[[Stage], Coroutine[None, None, None]] | None = None
    """Drains a stage in this process without arq."""
    _drains: set[asyncio.Task[None]] = field(default_factory=set)

    def drain_here(self, stage: Stage) -> None:
        """Drain *stage* without a job: when no bell can be rung, since a full server takes none."""
        if self.drain is not None:
            task = asyncio.create_task(self.drain(stage))
            self._drains.add(task)
            task.add_done_callback(self._drains.discard)

    def __post_init__(self) -> None:
        self.room = Room(self.redis)
        self.rules = self.settings.rules()

    @property
    def visitor_keep_ms(self) -> int:
        """Return how long a visitor is kept after the last sighting."""
        return int(self.settings.visitor_keep_d * DAY_MS)

    @property
    def window_ms(self) -> int:
        """Return how long a repeated event is recognised."""
        return int(self.settings.seen_window_h * HOUR_MS)

    async def ring(self, bells: Mapping[Stage, int], stages: Iterable[Stage]) -> None:
        """Wake the workers for *stages* with the numbers that a move answered."""
        for stage in set(stages):
            if not await self.bell.ring(stage, bells[stage]):
                self.drain_here(stage)
