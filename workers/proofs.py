"""Proofs: what must be asked before a delivery is taken apart, because the receiver asks nobody.

Amazon's messages (`ses`): the certificate that signed them is fetched, from an address that is Amazon's own, and
kept; a subscription that is asked for by an allowed topic is confirmed. Mailgun's: its signature covers a token
and not the event, so a token that comes with another event is a replay. That counts where the signature was checked,
which the receiver notes with the delivery.

What is false is buried as `signature`, and can be retried from the dead letters. What cannot be found out now waits
(`questions`): neither an outage nor a flood of forged messages keeps other deliveries from being taken apart.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import orjson

from pipeline.clock import DAY_MS
from pipeline.deliveries import SIGNED, Delivery
from pipeline.outcomes import Reason, Unreadable
from pipeline.sources import Unauthentic, mail, ses, sns
from pipeline.sources.form_body import read_form
from pipeline.sources.json_body import read_json
from pipeline.sources.mailgun import MAILGUN, is_sent_as_form
from workers.asking import Later
from workers.questions import Question, answer_to, digest, keep

if TYPE_CHECKING:
    from pydantic import SecretStr

    from workers.context import Context

logger = logging.getLogger(__name__)

#: Amazon's certificates have about 2 kB
MOST_CERTIFICATE_BYTES = 64 * 1024
#: what is behind a certificate's address never changes: a new certificate gets a new one
CERTIFICATE_KEEP_MS = 7 * DAY_MS
#: longer than a crash and a second try need
CONFIRMED_KEEP_MS = DAY_MS
#: Mailgun's signatures are taken for twelve hours; a token costs Redis about 200 bytes
TOKEN_KEEP_MS = DAY_MS

_CONFIRMED = b"yes"
_NOT_CONTENT = frozenset(("signature", "parent-signature", "token"))

__all__ = ["ASKED", "Later", "check"]


async def check(context: Context, delivery: Delivery) -> None:
    """Return when *delivery* may be taken apart; raise `Unreadable` to bury it, `Later` to let it wait."""
    if delivery.source not in ASKED:
        return
    try:
        await _ASKS[delivery.source](context, delivery)
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
    url = sns.certificate_url(envelope)
    try:
        certificate = await answer_to(
            context, Question("certificate", url, CERTIFICATE_KEEP_MS, _read_certificate)
        )
        sns.check_signature(envelope, certificate)
    except sns.NoCertificate as error:
        raise Unauthentic(str(error)) from None
    if is_confirmation:
        url = sns.subscribe_url(envelope)
        await answer_to(context, Question("confirmed", url, CONFIRMED_KEEP_MS, _read_confirmation))
        logger.info("subscription confirmed delivery=%s", delivery.id)


def _read_certificate(body: bytes) -> bytes:
    if len(body) > MOST_CERTIFICATE_BYTES:
        raise Unauthentic("what is at the certificate's address is too long for one")
    try:
        sns.check_certificate(body)
    except sns.NoCertificate as error:
        raise Unauthentic(str(error)) from None
    return body


def _read_confirmation(_: bytes) -> bytes:
    return _CONFIRMED


# Mailgun's -------------------------------------------------------------------------------------------


async def _ask_for_mailgun(context: Context, delivery: Delivery) -> None:
    # a release before this one noted nothing
    if SIGNED not in delivery.headers and not _value(context.settings.mailgun_signing_key):
        return
    token, content = _token_and_content(delivery)
    if not token:
        return
    name, ours = f"mailgun-token:{digest(token.encode())}", digest(content).encode()
    before = await keep(context, name, ours, TOKEN_KEEP_MS, replaces=False)
    if before in (None, ours):
        return
    # so that the letter, retried while it is kept, is no news then
    letters_ms = int(context.settings.dead_keep_d * DAY_MS)
    await keep(context, name, before, max(TOKEN_KEEP_MS, letters_ms + DAY_MS))
    raise Unauthentic("its token came before, with another event: a replay")


def _token_and_content(delivery: Delivery) -> tuple[str, bytes]:
    """Return the token of the signature, and what the signature says nothing of, the same in every repetition.

    A body that cannot be read has no token: `parse` says what is wrong with it.
    """
    try:
        # as Mailgun's source decides: what one reads as a form and the other as JSON would have another token here
        if is_sent_as_form(delivery.body, delivery.content_type):
            return _of_form(read_form(delivery.body, delivery.content_type))
        value = read_json(delivery.body)
    except Unreadable:
        return "", b""
    if not isinstance(value, dict):
        return "", b""
    content = {name: one for name, one in value.items() if name not in _NOT_CONTENT}
    token = mail.text(mail.part(value, "signature", "token"))
    try:
        return token, orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # nested deeper than orjson writes
        return token, delivery.body


def _of_form(form: list[tuple[str, str]]) -> tuple[str, bytes]:
    # of several tokens Mailgun's own comes last; of other fields of one name the first counts, so the order is content
    content = [pair for pair in form if pair[0] not in _NOT_CONTENT]
    return mail.text(dict(form).get("token")), orjson.dumps(content)


def _value(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""


_ASKS: dict[str, Callable[[Context, Delivery], Awaitable[None]]] = {
    ses.SES.name: _ask_for_ses,
    MAILGUN.name: _ask_for_mailgun,
}
#: the sources of which anything is asked
ASKED = frozenset(_ASKS)
