"""Somebody who wants to be told: a receiver of signed webhooks, as a CRM would run one.

It holds every call against Standard Webhooks (https://www.standardwebhooks.com): the three headers,
the signature over the body as it came, and a time within five minutes of its own clock. It knows
the key's two forms, `whsec_` and base64, and nothing of who sends.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable
from hashlib import sha256
from time import time

from starlette.routing import Route

from sandbox.desk import Answer, Asked, Desks, Handle, Refused
from sandbox.memory import Memory

_PREFIX = "whsec_"
# The sandbox's own key, for whoever starts it without one.
KEY = _PREFIX + base64.b64encode(b"a key of the sandbox, no secret.").decode()
TOLERANCE_S = 300


def route(desks: Desks, key: str = KEY, now: Callable[[], float] = time) -> Route:
    """Return the receiver as `POST /crm`. Raises `ValueError` for a key that is none."""
    desk = desks.open("crm", lambda request: None, _told(desks.memory, _bytes_of(key), now))
    return Route("/crm", desk.serve, methods=["POST"])


def signature(key: str, webhook_id: str, timestamp: str, raw: bytes) -> str:
    """Return the signature that a call with body *raw* must have."""
    return _signature(_bytes_of(key), webhook_id, timestamp, raw)


def _told(memory: Memory, key: bytes, now: Callable[[], float]) -> Handle:
    def handle(asked: Asked) -> Answer:
        names = ("webhook-id", "webhook-timestamp", "webhook-signature")
        webhook_id, timestamp, given = (asked.request.headers.get(name, "") for name in names)
        if not (webhook_id and timestamp and given):
            raise _refusal(400, "a webhook has an id, a timestamp and a signature")
        if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 12):
            raise _refusal(400, "webhook-timestamp counts seconds")
        if abs(now() - int(timestamp)) > TOLERANCE_S:
            raise _refusal(401, "webhook-timestamp is too far from now")
        wanted = _signature(key, webhook_id, timestamp, asked.raw).encode()
        # Several stand beside each other while a key is being changed.
        if not any(hmac.compare_digest(each.encode(), wanted) for each in given.split(" ")):
            raise _refusal(401, "no signature is right")
        memory.keep_told(webhook_id, timestamp, asked.raw)
        return Answer(204, None, 1)

    return handle


def _signature(key: bytes, webhook_id: str, timestamp: str, raw: bytes) -> str:
    signed = f"{webhook_id}.{timestamp}.".encode() + raw
    return "v1," + base64.b64encode(hmac.digest(key, signed, sha256)).decode()


def _bytes_of(key: str) -> bytes:
    try:
        return base64.b64decode(key.removeprefix(_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError("a key is whsec_ and base64") from error


def _refusal(status: int, why: str) -> Refused:
    return Refused(Answer(status, {"message": why}))
