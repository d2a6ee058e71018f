"""Examination: what `relay doctor` looks at, in the background: it waits for vendors and for an event of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from console.examination import examine
from console.findings import Finding
from console.web.errands import Busy, Errand, Errands
from console.web.replay import WHO
from pipeline import audit
from pipeline.clock import iso, redis_now_ms

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from pipeline.settings import Settings


@dataclass(slots=True)
class Examination(Errand):
    """One of them, begun at *at*."""

    at: str
    findings: list[Finding] = field(default_factory=list)


class Examinations(Errands[Examination]):
    """Examines once at a time."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        super().__init__()
        self._redis = redis
        self._settings = settings

    async def begin(self) -> Examination:
        """Begin to look at everything; raises `Busy`."""
        self._check_free()
        now_ms = await redis_now_ms(self._redis)
        await audit.record(self._redis, "doctor", who=WHO, count=1)
        self._check_free()  # another form may have come in between
        examination = Examination(iso(now_ms))
        return self.start(examination, self._examine(examination))

    def _check_free(self) -> None:
        if self.going_on:
            raise Busy("It goes on already.")

    async def _examine(self, examination: Examination) -> bool:
        examination.findings = await examine(self._redis, self._settings, is_whole=True)
        return True
