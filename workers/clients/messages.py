"""A request and its answer as plain data: what a vendor says can be read without a network.

`audiencepoint` and `audiencelab` make `Request`s and read `Answer`s; only `http` carries them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

#: What a body is decoded to that is no JSON: null would be a value.
NO_JSON = object()

_NUMBER = re.compile(r"\d{1,16}(\.\d{1,9})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Request:
    """What goes to a vendor: *path* is below the base URL, *headers* are added to its own."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def json_bytes(value: object) -> bytes:
    """Return *value* as JSON; `ValueError` for what JSON cannot say, such as half a character."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError as error:  # a TypeError, which would seem to be our own mistake
        raise ValueError(f"this cannot be sent as JSON: {error}") from None


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What `X-RateLimit-Limit`, `-Remaining` and `-Reset` say; None for what was not said.

    *reset* is as it came: some services mean seconds from now, others a Unix time.
    """

    limit: int | None
    remaining: int | None
    reset: float | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: header names in lower case, the body decompressed but otherwise untouched."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    #: what must not be repeated of it: the keys that were sent along
    secrets: tuple[str, ...] = field(default=(), repr=False, compare=False)
    #: who was asked, with the port where one was named; a proxy on the way may have answered
    host: str = field(default="", compare=False)

    @property
    def is_success(self) -> bool:
        """Whether the status is a 2xx. Only the keys of the body make it a success."""
        return 200 <= self.status < 300

    def members(self) -> dict[str, object]:
        """Return the body's JSON object; an empty one when it is anything else."""
        decoded = self.decoded()
        return decoded if isinstance(decoded, dict) else {}

    def decoded(self) -> object:
        """Return the body's JSON value; `NO_JSON` for a body that is none, or half of one."""
        try:
            value: object = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return NO_JSON
        return value

    @property
    def rate_limit(self) -> RateLimit | None:
        """The vendor's words about how much may still be asked; None when it says nothing."""
        limit, remaining, reset = (
            self._number(f"x-ratelimit-{name}") for name in ("limit", "remaining", "reset")
        )
        if limit is None and remaining is None and reset is None:
            return None
        return RateLimit(
            None if limit is None else int(limit),
            None if remaining is None else int(remaining),
            reset,
        )

    def _number(self, name: str) -> float | None:
        """Return a header's number, not negative; None for nonsense."""
        value = self.headers.get(name, "").strip()
        return float(value) if _NUMBER.fullmatch(value) else None
