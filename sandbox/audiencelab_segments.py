"""AudienceLab's segments: pages of rows, newest first. There is no list of segments.

`segment-100000` is one of a hundred thousand rows, `segment-0` an empty one; any other id is
unknown. A segment that drifts gains or loses its newest rows with each page that is answered.
"""

from __future__ import annotations

import re
from typing import Any

from sandbox.account import Account
from sandbox.audiencelab_rules import SEGMENT_SIZES, PageAsked, page_asked, unknown
from sandbox.desk import Answer, Asked, Handle
from sandbox.invented import visits
from sandbox.settings import Settings

# The pixel of all rows of all segments.
PIXEL_ID = "11111111-742b-4b12-afab-c090e4550d66"
_SIZED = re.compile(r"(?:segment|pixel)-([0-9]{1,8})")


def size_in(name: str) -> int | None:
    """Return how many rows an id such as `segment-100` asks for; None where it names none."""
    sized = _SIZED.fullmatch(name)
    return int(sized[1]) if sized else None


def drifted(name: str, size: int, account: Account, settings: Settings) -> int:
    """Return how many rows *name* has now, and let it drift for the next page."""
    drifts = account.drifts[name]
    if settings.drift_times is None or drifts < settings.drift_times:
        account.drifts[name] += 1
    return max(0, size + drifts * settings.drift)


def segment(account: Account, settings: Settings) -> Handle:
    """`GET /segments/{id}`."""

    def handle(asked: Asked) -> Answer:
        name = asked.piece("id")
        size = size_in(name)
        if size is None or not name.startswith("segment-"):
            raise unknown("Segment")
        # The rules come first: a page that is refused lets nothing drift.
        page_asked(asked, size, SEGMENT_SIZES, settings)
        total = drifted(name, size, account, settings)
        page = page_asked(asked, total, SEGMENT_SIZES, settings)
        rows = visits((total - 1 - position for position in page.positions), PIXEL_ID)
        told = _observed(name, page) if settings.dialect == "observed" else _documented(page)
        return Answer(200, {**told, "data": rows}, len(page.positions))

    return handle


def _observed(name: str, page: PageAsked) -> dict[str, Any]:
    return {
        "segment_id": name,
        "segment_name": f"The segment {name}",
        "total_records": page.total,
        "page_size": page.page_size,
        "page": page.page,
        "total_pages": page.total_pages,
        "has_more": page.page < page.total_pages,
    }


def _documented(page: PageAsked) -> dict[str, Any]:
    return {"total": page.total, "page": page.page, "page_size": page.page_size}
