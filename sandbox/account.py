"""What the account at AudienceLab holds: pixels, audiences, enrichment jobs.

It starts with two pixels and two audiences, one of each with something in it, and lives in this
process. Ids are counted, not drawn, so that a run can be repeated; they look as the vendor's do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import NAMESPACE_URL, uuid5

_FIRST_DAY = datetime(2026, 1, 7, 8, 0, 0, 419445, UTC)


@dataclass(slots=True)
class Pixel:
    """A pixel: *id* is the account's own, *provider_id* the one in the install URL and events."""

    id: str
    provider_id: str
    website_name: str
    website_url: str
    webhook_url: str | None = None
    version: str = "v3"
    events: int = 0
    last_sync: str | None = None

    @property
    def install_url(self) -> str:
        """The address of the script, whose form tells the generation."""
        if self.version == "v4":
            return f"https://cdn.idpixel.app/v1/idp-analytics-{self.provider_id}.min.js"
        return f"https://cdn.v3.identitypxl.app/pixels/{self.provider_id}/p.js"


@dataclass(slots=True)
class Audience:
    """An audience with *people* in it, once it was looked at *looks* more times."""

    id: str
    name: str
    people: int = 0
    looks: int = 0
    webhook_url: str | None = None
    scheduled_refresh: bool = False
    refresh_interval: int | None = None
    next_scheduled_refresh: str | None = None


@dataclass(slots=True)
class Job:
    """An enrichment job: the *rows* it will have found when it ends, their *columns* if not all."""

    id: str
    name: str
    rows: list[dict[str, str]]
    created_at: str
    looks: int = 0
    columns: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Account:
    """Everything by its id, the oldest first."""

    pixels: dict[str, Pixel] = field(default_factory=dict)
    audiences: dict[str, Audience] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    # How often rows came to or left a segment or pixel, by its id.
    drifts: Counter[str] = field(default_factory=Counter)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        self._furnish()

    def new_id(self, kind: str) -> str:
        """Return an id that nothing has yet, in the form of a UUID."""
        return str(uuid5(NAMESPACE_URL, f"sandbox:{kind}:{next(self._numbers)}"))

    def new_moment(self) -> str:
        """Return a time later than the last, by no clock."""
        moment = _FIRST_DAY + timedelta(seconds=next(self._numbers))
        return moment.isoformat()

    def clear(self) -> None:
        """Leave an account with nothing in it."""
        held: tuple[dict[str, Any], ...] = (self.pixels, self.audiences, self.jobs)
        for each in held:
            each.clear()
        self.drifts.clear()

    def forget(self) -> None:
        """Start again with what there was at first."""
        self.clear()
        self._numbers = count(1)
        self._furnish()

    def _furnish(self) -> None:
        synced = "2026-01-07T07:05:02+00:00"
        shop = Pixel(self.new_id("pixel"), self.new_id("provider"), "Shop", "https://example.com")
        shop.events, shop.last_sync = 250, synced
        blog = Pixel(self.new_id("pixel"), self.new_id("provider").replace("-", "")[:24], "", "")
        blog.website_name, blog.website_url, blog.version = "Blog", "https://example.org", "v4"
        self.pixels |= {each.id: each for each in (shop, blog)}
        buyers = Audience(self.new_id("audience"), "Buyers of lamps", people=120)
        buyers.scheduled_refresh, buyers.refresh_interval = True, 30
        buyers.next_scheduled_refresh = "2026-02-06T00:00:00Z"
        nobody = Audience(self.new_id("audience"), "Nobody yet")
        self.audiences |= {each.id: each for each in (buyers, nobody)}
