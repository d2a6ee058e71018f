"""The outgoing webhook: tells a CRM, or whoever else wants to hear of it, that scores changed.

Signed as Standard Webhooks asks (https://www.standardwebhooks.com): `webhook-id` is the message's own id, which
stays the same however often it is sent; `webhook-timestamp` is the time of this attempt; `webhook-signature`
holds one `v1,<base64>` for each key in use. The request is made and the answer read by pure functions; `Crm`
carries them.

Any 2xx means that the message was taken, whatever the body. What may go wrong: the other side is anybody's
program, so a status says less than a vendor's. What points at the address or the key stops everything and loses
nothing (also 410, by which a receiver asks to be left alone, and a redirect, which is not followed); only what is
said of the message itself (400, 409, 413, 422 and their like) is a refusal.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Callable, Sequence
from time import time
from urllib.parse import urlsplit

from workers.clients.errors import (
    LONGEST_SENTENCE,
    CallFailed,
    Misconfigured,
    Rejected,
    Unavailable,
)
from workers.clients.http import VendorHttp
from workers.clients.messages import Answer, Request
from workers.clients.refusals import retry_after_s, words

VENDOR = "the CRM"
_URL, _SECRET = "SCORES_WEBHOOK_URL", "SCORES_WEBHOOK_SECRET"


class Crm:
    """The one call, over one `VendorHttp`. Every failure is a `CallFailed`."""

    def __init__(
        self,
        http: VendorHttp,
        path: str,
        keys: Sequence[bytes],
        clock: Callable[[], float] = time,
    ) -> None:
        self._http = http
        self._path = path
        self._keys = keys
        self._clock = clock

    async def tell(self, message_id: str, body: bytes) -> None:
        """Send one message, *body* byte for byte. Safe to repeat: the receiver knows it by *message_id*."""
        now = int(self._clock())
        try:
            answer = await self._http.send(request(self._path, message_id, body, now, self._keys))
        except Misconfigured:
            raise Misconfigured(f"{VENDOR} has no usable address: check {_URL}") from None
        except Unavailable as failure:
            if 200 <= (failure.status or 0) < 300:  # taken, only with more to say than we listen to
                return
            raise
        check(answer)


def place(url: str) -> tuple[str, str]:
    """Return the base of *url*, for `VendorHttp`, and what follows it, query included."""
    parts = urlsplit(url)
    base = f"{parts.scheme}://{parts.netloc}"
    return base, url[len(base) :] or "/"


def request(
    path: str, message_id: str, body: bytes, timestamp: int, keys: Sequence[bytes]
) -> Request:
    """Return the signed request; *timestamp* is Unix time in seconds."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    signatures = [b64encode(hmac.digest(key, signed, "sha256")).decode() for key in keys]
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
    return Request("POST", path, body, headers)


def check(answer: Answer) -> None:
    """Raise the `CallFailed` that *answer* means; nothing for any 2xx."""
    if answer.is_success:
        return
    own_words = words(answer)
    said = f'{answer.status}: "{own_words}"' if own_words else str(answer.status)
    kind, sentence = _judge(answer.status, said)
    raise kind(
        sentence[:LONGEST_SENTENCE],
        status=answer.status,
        retry_after_s=retry_after_s(answer.headers),
        maybe_stored=answer.status == 504,  # a gateway gave up on a program that may yet finish
    )


def _judge(status: int, said: str) -> tuple[type[CallFailed], str]:
    match status:
        case 401 | 402 | 403:
            return Misconfigured, f"{VENDOR} refuses us ({said}): check {_SECRET} and {_URL}"
        case 404 | 405 | 410 | 415:
            return Misconfigured, f"{VENDOR} takes nothing at this address ({said}): check {_URL}"
        case _ if 300 <= status < 400:
            there = f"it is not followed, set {_URL} to where it leads"
            return Misconfigured, f"{VENDOR} answers with a redirect ({said}): {there}"
        # 407 is a proxy's; 408, 421 and 425 ask for the same again
        case 407 | 408 | 421 | 425 | 429:
            return Unavailable, f"{VENDOR} cannot take it now ({said})"
        case _ if 400 <= status < 500:
            return Rejected, f"{VENDOR} refused the message ({said})"
        case _:
            return Unavailable, f"{VENDOR} gave no usable answer ({said})"
