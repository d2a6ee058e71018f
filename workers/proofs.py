"""Proofs: what must be asked before a delivery is taken apart, because the receiver asks nobody.

Amazon's messages (`ses`): the certificate that signed them is fetched, from an address that is Amazon's own, and
kept; a subscription that is asked for by an allowed topic is confirmed. Mailgun's: its signature covers a token
and not the event, so a token that comes with another event is a replay.

What is false is buried as `signature`. What cannot be found out now, because a network or a server over there
fails, waits: a mark in Redis says for how long nobody asks again. What is final in Amazon's answers is final
here too, and all of it can be retried from the dead letters.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import orjson

from pipeline import keys
from pipeline.outcomes import Reason, Unreadable
from pipeline.scripts import script
from pipeline.sources import Unauthentic, mail, ses, sns
from pipeline.sources.form_body import read_form
from pipeline.sources.json_body import read_json
from workers.clients.errors import CallFailed
from workers.clients.http import VendorHttp, new_client
from workers.clients.messages import Answer, Request
from workers.context import DAY_MS

if TYPE_CHECKING:
    from pydantic import SecretStr

    from pipeline.deliveries import Delivery
    from workers.context import Context

logger = logging.getLogger(__name__)

#: seconds for a whole call: nothing else is taken apart meanwhile
DEADLINE_S = 5.0
#: Amazon's certificates have about 2 kB
MOST_CERTIFICATE_BYTES = 64 * 1024
#: what is behind a certificate's address never changes: a new certificate gets a new one
CERTIFICATE_KEEP_MS = 7 * DAY_MS
#: longer than a crash and a second try need
CONFIRMED_KEEP_MS = DAY_MS
#: Mailgun's signatures are taken for twelve hours
TOKEN_KEEP_MS = DAY_MS

# kept while somebody asks, and until it may be asked again
_ASKED = b""
_CONFIRMED = b"yes"
# The answers that asking again cannot change. A 403 is not among them: firewalls give it too.
_FINAL = frozenset((400, 404, 410))
_NOT_CONTENT = frozenset(("signature", "parent-signature", "token"))


class Later(Exception):
    """It cannot be found out now; the delivery waits."""


async def check(context: Context, delivery: Delivery) -> None:
    """Return when *delivery* may be taken apart; raise `Unreadable` to bury it, `Later` to let it wait."""
    ask = _ASKS.get(delivery.source)
    if ask is None:
        return
    try:
        await ask(context, delivery)
    except Unauthentic as error:
        raise Unreadable(Reason.SIGNATURE, str(error)) from None


# Amazon's --------------------------------------------------------------------------------------------


async def _ask_for_ses(context: Context, delivery: Delivery) -> None:
    topics = sns.topics_in(_value(context.settings.ses_topic_arns))
    value = read_json(delivery.body)
    if ses.is_raw(value) and not context.settings.ses_raw_delivery:
        raise Unauthentic("raw delivery is not signed; it is taken with SES_RAW_DELIVERY only")
    envelope = sns.envelope_in(value)
    if envelope is None:
        return
    is_confirmation = envelope["Type"] == sns.CONFIRMATION
    if not topics:
        if is_confirmation:
            logger.warning(
                "subscription not confirmed delivery=%s: set SES_TOPIC_ARNS, then request it again in SNS",
                delivery.id,
            )
        return
    sns.check_topic(envelope, topics)
    try:
        certificate = await _certificate(context, sns.certificate_url(envelope))
        sns.check_signature(envelope, certificate)
    except sns.NoCertificate as error:
        raise Unauthentic(str(error)) from None
    if is_confirmation:
        await _confirm(context, sns.subscribe_url(envelope))
        logger.info("subscription confirmed delivery=%s", delivery.id)


async def _certificate(context: Context, url: str) -> bytes:
    name = _name("certificate", url)
    known = await _asked_before(context, name)
    if known is not None:
        return known
    answer = await _get(context, url)
    if len(answer.body) > MOST_CERTIFICATE_BYTES:
        raise Unauthentic("what is at the certificate's address is too long for one")
    sns.check_certificate(answer.body)
    await _keep(context, name, answer.body, CERTIFICATE_KEEP_MS)
    return answer.body


async def _confirm(context: Context, url: str) -> None:
    name = _name("confirmed", url)
    if await _asked_before(context, name) is not None:
        return
    await _get(context, url)
    await _keep(context, name, _CONFIRMED, CONFIRMED_KEEP_MS)


async def _asked_before(context: Context, name: str) -> bytes | None:
    """Return what was found out, None when this caller is the one to ask; raise `Later` when it is too early."""
    known = await _keep(context, name, _ASKED, _wait_ms(context), replaces=False)
    if known == _ASKED:
        raise Later("it was asked a moment ago")
    return known


async def _get(context: Context, url: str) -> Answer:
    """Return a good answer from an address that is Amazon's; redirects are not followed.

    Raises `Later` when there is none now, `Unauthentic` when there never will be. A host that cannot be reached
    is left alone for a while, whatever was to be asked there: everything else waits for a call to end.
    """
    parts = urlsplit(url)
    base_url = f"{parts.scheme}://{parts.netloc}"
    unreachable = _name("unreachable", base_url)
    if await context.redis.exists(f"{keys.PREFIX}proof:{unreachable}"):
        raise Later("Amazon could not be reached a moment ago")
    try:
        async with new_client(most_connections=1) as client:
            http = VendorHttp("Amazon", base_url, {}, client, deadline_s=DEADLINE_S)
            answer = await http.send(Request("GET", url.removeprefix(base_url)))
    except (CallFailed, OSError) as failure:
        await _keep(context, unreachable, _ASKED, _wait_ms(context))
        logger.warning("proof put off error=%s", str(failure) or type(failure).__name__)
        raise Later("Amazon cannot be reached") from None
    if answer.status in _FINAL:
        raise Unauthentic(f"Amazon answers {answer.status} at the address in the message")
    if answer.status != 200:
        logger.warning("proof put off status=%d", answer.status)
        raise Later(f"Amazon answered {answer.status}")
    return answer


def _wait_ms(context: Context) -> int:
    return max(1, int(context.timing.backoff_cap_s * 1000))


# Mailgun's -------------------------------------------------------------------------------------------


async def _ask_for_mailgun(context: Context, delivery: Delivery) -> None:
    if not _value(context.settings.mailgun_signing_key):
        return
    token, content = _token_and_content(delivery)
    if not token:
        return
    digest = _digest(content).encode()
    before = await _keep(
        context, _name("mailgun-token", token), digest, TOKEN_KEEP_MS, replaces=False
    )
    if before not in (None, digest):
        raise Unauthentic("its token came before, with another event: a replay")


def _token_and_content(delivery: Delivery) -> tuple[str, bytes]:
    """Return the token of the signature, and what the signature says nothing of, the same in every repetition.

    A body that cannot be read has no token: `parse` says what is wrong with it.
    """
    try:
        value = read_json(delivery.body)
    except Unreadable:
        return _of_form(delivery)
    if not isinstance(value, dict):
        return "", b""
    content = {name: one for name, one in value.items() if name not in _NOT_CONTENT}
    token = mail.text(mail.part(value, "signature", "token")) or mail.text(value.get("token"))
    try:
        return token, orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # nested deeper than orjson writes
        return token, delivery.body


def _of_form(delivery: Delivery) -> tuple[str, bytes]:
    try:
        form = read_form(delivery.body, delivery.content_type)
    except Unreadable:
        return "", b""
    # of several, Mailgun's own comes last
    token = mail.text(dict(form).get("token"))
    return token, orjson.dumps(sorted(pair for pair in form if pair[0] not in _NOT_CONTENT))


# Redis -----------------------------------------------------------------------------------------------


async def _keep(
    context: Context, name: str, value: bytes, keep_ms: int, *, replaces: bool = True
) -> bytes | None:
    """Keep *value* under *name*, where nothing is kept or it *replaces* that; return what was kept before."""
    args: list[str | bytes | float] = [name, value, keep_ms, int(replaces)]
    before: bytes | None = await script(context.redis, "proof")(args=args)
    return before


def _name(kind: str, of: str) -> str:
    return f"{kind}:{_digest(of.encode())}"


def _digest(value: bytes) -> str:
    return blake2b(value, digest_size=16).hexdigest()


def _value(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""


_ASKS: dict[str, Callable[[Context, Delivery], Awaitable[None]]] = {
    ses.SES.name: _ask_for_ses,
    "mailgun": _ask_for_mailgun,
}
