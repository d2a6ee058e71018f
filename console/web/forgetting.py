"""Forgetting: a person who was to be forgotten, looked for in the background among all visitors and dead letters.

What is known here of it is counts: neither the page nor the audit may name whom they say was forgotten. Stopped by the
process's end it has done no harm, and who forgets again finds what is left (`pipeline.forgetting`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from console.web.errands import Busy, Errand, Errands
from console.web.replay import WHO
from pipeline import audit, forgetting, keys
from pipeline.forgetting import Forgotten

if TYPE_CHECKING:
    from redis.asyncio import Redis


@dataclass(slots=True)
class Forgetting(Errand):
    """How far it has come: of *meant* visitors and dead letters so many were *looked_at*."""

    meant: int
    looked_at: int = 0
    gone: Forgotten | None = None


class Forgettings(Errands[Forgetting]):
    """Forgets one person at a time."""

    def __init__(self, redis: Redis) -> None:
        super().__init__()
        self._redis = redis

    async def forget(self, who: str) -> Forgetting:
        """Begin to forget whoever *who* means; raises `Busy`."""
        meant = await to_look_at(self._redis)
        if self.going_on:
            raise Busy("Another person is being forgotten at this moment: repeat it after that.")
        errand = Forgetting(meant)
        return self.start(errand, self._forget(errand, who))

    async def _forget(self, errand: Forgetting, who: str) -> bool:
        def tell(looked_at: int) -> None:
            errand.looked_at += looked_at

        await audit.record(self._redis, "forget", who=WHO, count=1)
        gone = await forgetting.forget(self._redis, who, tell)
        counted = {"visitors": gone.visitors, "dead_letters": gone.dead_letters}
        await audit.record(
            self._redis, "forget finished", who=WHO, count=gone.visitors, wanted=counted
        )
        errand.gone = gone
        return True


async def to_look_at(redis: Redis) -> int:
    """Return how many visitors and dead letters there are, which are all looked at."""
    return int(await redis.zcard(keys.VISITORS)) + int(await redis.zcard(keys.DEAD))
