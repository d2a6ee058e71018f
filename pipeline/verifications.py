"""Verifications: what AudiencePoint said of an address before it was subscribed, kept with the address.

It holds for thirty days; after that an address that waits to be subscribed is asked about again. The suggestion
stays as long as the address does, for `relay visitors show`: a sentence, or the address that was perhaps meant,
which is personal data and is forgotten with the person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import orjson

from pipeline import hashes, keys
from pipeline.clock import DAY_MS, iso
from pipeline.scripts import script

if TYPE_CHECKING:
    from redis.asyncio import Redis

HOLDS_MS = 30 * DAY_MS


@dataclass(frozen=True, slots=True)
class Verification:
    """What was said of one address. *result* is the vendor's word (`Verified`, `Invalid`, ...), an open set."""

    result: str
    suggestion: str | None = None
    said_ms: int = 0
    """Unix time by Redis's clock."""

    def holds(self, now_ms: int) -> bool:
        """Tell whether it need not be asked again."""
        return now_ms < self.said_ms + HOLDS_MS

    def view(self) -> dict[str, str | None]:
        """Return it as `relay visitors show --json` does."""
        return {
            "result": self.result,
            "suggestion": self.suggestion,
            "verified_at": iso(self.said_ms),
        }


async def keep(redis: Redis, digest: str, result: str, suggestion: str | None) -> None:
    """Keep what was just said of the address with the hash *digest*, unless it was forgotten meanwhile."""
    said = asdict(Verification(result, suggestion))
    del said["said_ms"]
    await script(redis, "verified")(args=[digest, orjson.dumps(said)])


async def read(redis: Redis, digests: Sequence[str]) -> dict[str, Verification]:
    """Return what was said of each of *digests*, however long ago; nothing for those never asked about."""
    names = [keys.address(name) for name in digests]
    rows = await hashes.read(redis, names, "verification", "verified_ms")
    return {
        name: Verification(**orjson.loads(said), said_ms=int(at or 0))
        for name, (said, at) in zip(digests, rows, strict=True)
        if said
    }
