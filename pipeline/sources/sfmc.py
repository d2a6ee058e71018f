"""Source `sfmc`: Salesforce Marketing Cloud's Event Notification Service, a JSON array of events.

Words and fields: https://developer.salesforce.com/docs/marketing/marketing-cloud/guide/ens-supported-events.html.
Signature: https://developer.salesforce.com/docs/marketing/marketing-cloud/guide/ens-notification-signing.html.
Set-up: https://developer.salesforce.com/docs/marketing/marketing-cloud/references/mc_rest_event_notification/createCallback.html.

Authentication: base64 HMAC-SHA256 of the body in `x-sfmc-ens-signature`; the callback's key is used as
the text that it is. Marketing Cloud repeats what was not answered 200 for up to seven days.
What may go wrong: opens and clicks name the subscriber by a number and carry no address; the first
POST, at set-up, is not signed, and only 200 within 30 seconds lets the callback be made; one
published sample is a bare object.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pipeline.deliveries import Delivery
from pipeline.outcomes import EventType, Outcome, Probe, Reason, Unreadable
from pipeline.sources import Rules, mail, signatures
from pipeline.sources.json_body import as_sent, check_json, read_json

_SECRET = "SFMC_SIGNING_KEY"  # noqa: S105 - the setting's name
_SIGNATURE = "x-sfmc-ens-signature"

#: why an open or click that names no address is ignored
NO_ADDRESS = "no_address"

# `EmailBounced` (its code) needs a look
_TYPES = {
    # the only one that tells of a sending: SEND_FROM has no choice
    "TransactionalSendEvents.EmailSent": EventType.SEND,
    "EngagementEvents.EmailOpen": EventType.OPEN,
    "EngagementEvents.EmailClick": EventType.CLICK,
    "EngagementEvents.EmailUnsubscribe": EventType.UNSUBSCRIBE,
}
_IGNORED = {"TransactionalSendEvents.EmailNotSent": mail.SUPPRESSED}
# names of other channels, and of automations, begin with these
_NOT_MAIL = ("TransactionalSendEvents.Sms", "TransactionalSendEvents.Push", "SendEvents.Automation")
_BOUNCES = {"HARD": EventType.HARD_BOUNCE, "SOFT": EventType.SOFT_BOUNCE}


class Sfmc:
    """The source `sfmc`."""

    name = "sfmc"
    success: Literal[200, 202] = 200
    keeps_headers: frozenset[str] = frozenset()

    def check(self, body: bytes, content_type: str) -> None:
        """Raise `Malformed` unless *body* is JSON."""
        check_json(body)

    def verify(
        self, headers: Mapping[str, str], body: bytes, secrets: Mapping[str, str], now: float
    ) -> None:
        """Raise `Unauthentic` unless Marketing Cloud signed *body*, or it is the set-up's POST.

        That one comes before anybody knows a key, and `parse` finds no event in it, whoever sent it.
        """
        secret = secrets.get(_SECRET)
        if not secret or _is_set_up_body(body):
            return
        given = signatures.header(headers, _SIGNATURE)
        signatures.check_base64(given, signatures.keys_of(secret), body)

    def parse(self, delivery: Delivery, rules: Rules, now: float) -> list[Outcome]:
        """Return one `MailEvent`, `Ignored` or `Invalid` for each event; the set-up's POST is a probe."""
        body = read_json(delivery.body)
        if _is_set_up(body):
            raise Probe("the set-up of a callback")
        items = _items(body)
        if not items:
            raise Probe("an empty batch")
        outcomes = [_outcome(item, now) for item in items]
        return as_sent(outcomes, delivery.body, _items)


SFMC = Sfmc()


def _is_set_up_body(body: bytes) -> bool:
    # nearly no body holds the word, so that nearly none is read here
    if b"verificationKey" not in body:
        return False
    try:
        return _is_set_up(read_json(body))
    except Unreadable:
        return False


def _is_set_up(body: object) -> bool:
    # an object that would be read as an event is never taken for the set-up: that would save its signature
    return (
        isinstance(body, dict)
        and {"callbackId", "verificationKey"} <= body.keys()
        and "eventCategoryType" not in body
    )


def _items(body: object) -> list[object]:
    if isinstance(body, list):
        return body
    if isinstance(body, dict) and "eventCategoryType" in body:
        return [body]
    raise Unreadable(Reason.UNKNOWN_SHAPE, "neither an array of events nor one event")


def _outcome(item: object, now: float) -> Outcome:
    if not isinstance(item, dict):
        return mail.invalid("the event is not an object", item)
    name = item.get("eventCategoryType")
    if not isinstance(name, str):
        return mail.invalid("eventCategoryType is missing or not a string", item)
    verdict = _verdict(name, item)
    if not isinstance(verdict, EventType):
        return mail.ignored(verdict)
    told = mail.Told(
        type=verdict,
        email=mail.part(item, "info", "to"),
        time=item.get("timestampUTC"),
        # one job is one campaign's run. `definitionKey` would be the campaign, but is "NA" on engagement:
        # with SEND_ID=campaign a message and its unsubscription would no longer belong together
        send_id=mail.part(item, "composite", "jobId"),
        ip=mail.part(item, "info", "ipAddress"),
        user_agent=mail.part(item, "info", "userAgent"),
    )
    return mail.event_of(told, item, now)


def _verdict(name: str, item: Mapping[str, object]) -> mail.Verdict:
    """Return the event's type, or the word why there is none."""
    if name == "TransactionalSendEvents.EmailBounced":
        code = mail.text(mail.part(item, "info", "bounceCode")).upper()
        return _BOUNCES.get(code) or mail.bounce_by_status(mail.part(item, "info", "smtpReason"))
    if name.startswith(_NOT_MAIL):
        return mail.NOT_A_MAIL_EVENT
    found = _TYPES.get(name)
    if found in (EventType.OPEN, EventType.CLICK) and not mail.text(mail.part(item, "info", "to")):
        return NO_ADDRESS
    return found or _IGNORED.get(name, mail.UNMAPPED)
