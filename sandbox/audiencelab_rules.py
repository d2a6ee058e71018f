"""What AudienceLab's stand-ins share: its refusals, the requests it can read, its pages.

Sizes of pages: lists 100 unless told, 1 to 1000; segments 50, 1 to 10000 (observed). The older
reference says 20 and 50, and 100 at most.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from sandbox.desk import Answer, Asked, Refused
from sandbox.settings import Settings

UNKNOWN_KEY = "Malformed JSON/Unknown Field detected: <nil>"
# What is answered, with 200, about an audience that nobody knows or that has nobody in it yet.
UNKNOWN_ID = {"status": "NOT_FOUND"}
NO_DATA = {"status": "no data"}
DELETED = {"success": True}


def error(status: int, code: str, message: str) -> Answer:
    """Return an error in the shape that the vendor's pages show."""
    return Answer(status, {"error": {"code": code, "message": message, "details": {}}})


def refusal(why: str) -> Refused:
    """Return the refusal of a request, to be raised."""
    return Refused(error(400, "VALIDATION_ERROR", why))


def unknown(what: str) -> Refused:
    """Return the refusal of an id that nothing has, to be raised."""
    return Refused(error(404, "NOT_FOUND", f"{what} not found"))


def reshaped(answer: Answer, settings: Settings) -> Answer:
    """Return *answer*, an error, in the shape that is set."""
    told = answer.body["error"]
    if settings.error_shape == "text":
        return Answer(answer.status, {"error": told["message"], "status": answer.status})
    if settings.error_shape == "message":
        return Answer(answer.status, {"message": told["message"]})
    return answer


def message_of(asked: Asked, keys: Collection[str]) -> dict[str, Any]:
    """Return the JSON object of a request that has none but these *keys*."""
    try:
        message = orjson.loads(asked.raw)
    except orjson.JSONDecodeError:
        message = None
    if not isinstance(message, dict) or set(message) - set(keys):
        raise refusal(UNKNOWN_KEY)
    return message


def text_of(message: dict[str, Any], name: str) -> str:
    """Return the text *name*, which is required."""
    value = message.get(name)
    if not isinstance(value, str) or not value.strip():
        raise refusal(f"{name} is required")
    return value


def optional_text(message: dict[str, Any], name: str) -> str | None:
    """Return the text *name*, or None where it is null or not there."""
    value = message.get(name)
    if value is not None and not isinstance(value, str):
        raise refusal(f"{name} is a string")
    return value


def is_texts(things: object) -> bool:
    """Tell whether *things* is a list of texts, which may be empty."""
    return isinstance(things, list) and all(isinstance(each, str) for each in things)


@dataclass(frozen=True, slots=True)
class PageAsked:
    """Which page of *total* things was asked for; page 1 is the first."""

    page: int
    page_size: int
    total: int

    @property
    def positions(self) -> range:
        """The positions of the page's things, the first being 0."""
        start = min((self.page - 1) * self.page_size, self.total)
        return range(start, min(start + self.page_size, self.total))

    @property
    def total_pages(self) -> int:
        """How many pages there are; of nothing there is none."""
        return -(-self.total // self.page_size)

    def cut_from(self, things: Sequence[Any]) -> list[Any]:
        """Return the page's things, of all *things* in order."""
        return [things[position] for position in self.positions]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many things a page has unless told, and at most, in both dialects."""

    usual: int
    most: int
    documented_usual: int
    documented_most: int = 100


LIST_SIZES = Sizes(100, 1000, 20)
SEGMENT_SIZES = Sizes(50, 10_000, 50)


def page_asked(asked: Asked, total: int, sizes: Sizes, settings: Settings) -> PageAsked:
    """Return which page is asked for. A size beyond the limit, or page 0, is refused."""
    is_observed = settings.dialect == "observed"
    usual = sizes.usual if is_observed else sizes.documented_usual
    most = sizes.most if is_observed else sizes.documented_most
    page = _number(asked, "page", 1)
    page_size = _number(asked, "page_size", usual)
    if page_size > most:
        raise refusal(f"page_size is at most {most}")
    return PageAsked(1 if settings.pages == "stuck" else page, page_size, total)


def _number(asked: Asked, name: str, usual: int) -> int:
    value = asked.query.get(name)
    if value is None:
        return usual
    if not (value.isascii() and value.isdigit() and len(value) < 10 and int(value) > 0):
        raise refusal(f"{name} is a number from 1")
    return int(value)


def envelope(page: PageAsked, settings: Settings, **things: list[Any]) -> dict[str, Any]:
    """Return a page of a list: as observed, or `{data, total}` as documented."""
    if settings.dialect == "documented":
        return {**things, "total": page.total}
    return {
        settings.total_name: page.total,
        "page_size": page.page_size,
        "page": page.page,
        "total_pages": page.total_pages,
        **things,
    }
