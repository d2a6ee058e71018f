"""A request and its answer as plain data: what a vendor says can be read without a network.

`audiencepoint` and `audiencelab` make `Request`s and read `Answer`s; only `http` carries them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson


@dataclass(frozen=True, slots=True)
class Request:
    """What goes to a vendor: *path* is below the base URL, *headers* are added to its own."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: header names in lower case, the body decompressed but otherwise untouched."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether the status is a 2xx. Only the keys of the body make it a success."""
        return 200 <= self.status < 300

    def members(self) -> dict[str, object]:
        """Return the body's JSON object; an empty one when it is anything else."""
        try:
            decoded = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return {}
        return decoded if isinstance(decoded, dict) else {}
