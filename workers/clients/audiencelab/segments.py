"""Segments: the rows of a segment of Studio, 84 columns for one of a pixel, 74 for one of people.

There is no call that lists segments: an id comes from Studio. Observed in live answers: newest rows
first, `{segment_id, segment_name, total_records, page_size, page, total_pages, has_more, data}`.
"""

from __future__ import annotations

from workers.clients.audiencelab.answers import piece, upper_case
from workers.clients.audiencelab.pages import Page, page_request, read_page
from workers.clients.messages import Answer, Request

SEGMENTS_PATH = "/segments/{id}"
SEGMENT = "segment"

#: Rows a page: observed. The older reference says 100, which is why that is what we ask for.
MOST_ROWS = 10_000


def page_of_request(segment_id: str, page: int, page_size: int) -> Request:
    """Return the request for a page of rows: `GET /segments/{id}`, 1 to 10 000 a page."""
    path = SEGMENTS_PATH.replace("{id}", piece(segment_id))
    return page_request(path, page, page_size, MOST_ROWS)


def read_rows(answer: Answer, page: int, page_size: int) -> Page[dict[str, object]]:
    """Return a page of rows with UPPER_CASE columns, values as they came."""
    return read_page(answer, SEGMENTS_PATH, page, page_size, what=SEGMENT).of(upper_case)
