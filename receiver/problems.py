"""Every refusal the receiver can answer with, as RFC 9457 problems.

A sender's programmer reads these, so each has a stable `type`, and a sentence that says what to
do. Nothing of the request comes back in them: an answer lands in the sender's logs, where neither
a token nor a body belongs. The status decides the sender's next move: 4xx means "it will not get
better by itself", 503 means "send it again", and says when. Senders that read a status otherwise
get another one (`next_moves`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of refusal. *name* ends its `type` and is its word in logs and metrics."""

    name: str
    status: int
    title: str
    headers: Sequence[tuple[bytes, bytes]] = ()

    @property
    def type(self) -> str:
        """Return the URI that programs may compare."""
        return f"urn:audience-relay:problem:{self.name}"


# One second: the causes (a restart, a full flush queue) pass in seconds, and senders back off
# themselves.
RETRY = ((b"retry-after", b"1"),)
# A full Redis drains at the vendors' pace.
_RETRY_LATER = ((b"retry-after", b"30"),)
# SNS sends its credentials only after this challenge; RFC 9110 wants one on every 401.
_CHALLENGE = ((b"www-authenticate", b'Basic realm="webhooks", charset="UTF-8"'),)

NOT_FOUND = Problem("not-found", 404, "There is nothing at this path")
UNKNOWN_SOURCE = Problem("unknown-source", 404, "No such source")
METHOD_NOT_ALLOWED = Problem("method-not-allowed", 405, "This method is not allowed here")
WRONG_TOKEN = Problem("wrong-token", 401, "The token is missing or wrong", _CHALLENGE)
# Its `Retry-After` is of the moment; nothing that could be stored is refused so (receiver/strangers.py).
TOO_MANY_REFUSED = Problem("too-many-refused", 429, "Too many requests of this kind were refused")
TOO_LARGE = Problem("too-large", 413, "The body is too large")
BAD_SIGNATURE = Problem("bad-signature", 401, "The signature is missing or wrong", _CHALLENGE)
MALFORMED = Problem("malformed", 400, "The body does not have this sender's form")
UNKNOWN_ENCODING = Problem(
    "unknown-encoding",
    415,
    "This Content-Encoding is not understood",
    ((b"accept-encoding", b"gzip, deflate, identity"),),
)
STALLED = Problem("stalled", 408, "The body did not arrive in time", ((b"connection", b"close"),))
NOT_STORED = Problem("not-stored", 503, "The delivery could not be stored", RETRY)
STORAGE_FULL = Problem("storage-full", 503, "The storage is nearly full", _RETRY_LATER)
TOO_BUSY = Problem("too-busy", 503, "Too many bodies are being received", RETRY)
INTERNAL = Problem("internal", 503, "The relay failed on this request", RETRY)
NOT_READY = Problem("not-ready", 503, "The relay is not ready", RETRY)

#: refusals of a delivery that would be taken later
SEND_AGAIN = (STALLED, NOT_STORED, STORAGE_FULL, TOO_BUSY, INTERNAL)


class Refused(Exception):
    """A request not accepted. *detail* is for the sender's programmer and quotes nothing.

    One of many is refused *quietly*: it leaves no line in the log.
    """

    def __init__(
        self,
        problem: Problem,
        detail: str,
        *,
        headers: Headers | None = None,
        id: str | None = None,
        quietly: bool = False,
    ) -> None:
        super().__init__(detail)
        self.problem = problem
        self.detail = detail
        self.headers = headers or []
        self.id = id
        self.quietly = quietly


def render(refused: Refused, said: Problem | None = None) -> tuple[int, Headers, bytes]:
    """Return status, headers and body of the answer to a refused request, its problem *said* in another way."""
    problem = said or refused.problem
    about: dict[str, object] = {
        "type": problem.type,
        "title": problem.title,
        "status": problem.status,
        "detail": refused.detail,
    }
    if refused.id:
        about["id"] = refused.id
    body = orjson.dumps(about)
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        *problem.headers,
        *refused.headers,
    ]
    return problem.status, headers, body
