"""Source `sfmc`: Salesforce Marketing Cloud's Event Notification Service, a JSON array of events.

Words and fields: https://developer.salesforce.com/docs/marketing/marketing-cloud/guide/transactional_email_events.html,
https://developer.salesforce.com/docs/marketing/marketing-cloud/guide/engagement_email_events.html.
Signature: https://developer.salesforce.com/docs/marketing/marketing-cloud/guide/ens-notification-signing.html.
Set-up: https://developer.salesforce.com/docs/marketing/marketing-cloud/references/mc_rest_event_notification/createCallback.html.

Authentication: base64 HMAC-SHA256 of the body in `x-sfmc-ens-signature`; the callback's key is used as
the text that it is. Marketing Cloud repeats what was not answered 200 for up to seven days.
What may go wrong: opens and clicks name the subscriber by a number and carry no address, so the address of
an EmailSent is remembered for them (`pipeline.recipients`); the first POST, at set-up, is not signed, and only
200 within 30 seconds lets the callback be made; one published sample is a bare object; all who got mail of one
job share its id (`jobId`), which is the only one that every event has.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.outcomes import EventType, Probe, SetUp, Unreadable
from pipeline.sources import Rules, mail, signatures
from pipeline.sources.json_body import read_json
from pipeline.sources.json_sender import JsonSender, one_or_many

_SECRET = "SFMC_SIGNING_KEY"  # noqa: S105 - the setting's name
_SIGNATURE = "x-sfmc-ens-signature"

# far above both, which are ids; they are kept and shown
_LONGEST_OF_SET_UP = 255

# `EmailBounced` (its code) needs a look
_TYPES = {
    # the only one that tells of a sending: SEND_FROM has no choice
    "TransactionalSendEvents.EmailSent": EventType.SEND,
    "EngagementEvents.EmailOpen": EventType.OPEN,
    "EngagementEvents.EmailClick": EventType.CLICK,
    "EngagementEvents.EmailUnsubscribe": EventType.UNSUBSCRIBE,
}
_BY_NUMBER = (EventType.OPEN, EventType.CLICK)
_IGNORED = {"TransactionalSendEvents.EmailNotSent": mail.SUPPRESSED}
# names of other channels, and of automations, begin with these
_NOT_MAIL = (
    *("TransactionalSendEvents.Sms", "TransactionalSendEvents.Push", "TransactionalSendEvents.Ott"),
    *("EngagementEvents.Ott", "SendEvents.Automation"),
)
_BOUNCES = {"HARD": EventType.HARD_BOUNCE, "SOFT": EventType.SOFT_BOUNCE}


# one published sample is bare
_array_or_one = one_or_many("eventCategoryType")


def _items(body: object) -> list[object]:
    if _is_set_up(body):
        raise _set_up(body)
    return _array_or_one(body)


def _verify(
    headers: Mapping[str, str], body: bytes, secrets: Mapping[str, str], now: float
) -> None:
    """Raise `Unauthentic` unless Marketing Cloud signed *body*, or it is the set-up's POST.

    That one comes before anybody knows a key, and `parse` finds no event in it, whoever sent it.
    """
    secret = secrets.get(_SECRET)
    if not secret or _is_set_up_body(body):
        return
    given = signatures.header(headers, _SIGNATURE)
    signatures.check_base64(given, signatures.keys_of(secret), body)


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


def _set_up(body: object) -> Probe:
    callback_id, key = (
        mail.text(mail.part(body, name)) for name in ("callbackId", "verificationKey")
    )
    if all(0 < len(one) <= _LONGEST_OF_SET_UP and one.isprintable() for one in (callback_id, key)):
        return SetUp(callback_id, key)
    return Probe("a set-up without a key")


def _read(item: Mapping[str, object], rules: Rules) -> mail.Told | str:
    verdict = _verdict(mail.word(item, "eventCategoryType"), item)
    if not isinstance(verdict, EventType):
        return verdict
    info = mail.section(item, "info")
    address, recipient = mail.text(info.get("to")), None
    if verdict is EventType.SEND and address:
        recipient = _subscriber(item)  # it teaches whose number that is
    elif verdict in _BY_NUMBER and not address:
        recipient = _subscriber(item)
        if recipient is None:
            return mail.NO_ADDRESS
    return {
        "type": verdict,
        "email": address,
        "time": item.get("timestampUTC"),
        # one job is one campaign's run. `definitionKey` would be the campaign, but is "NA" on engagement:
        # with SEND_ID=campaign a message and its unsubscription would no longer belong together
        "send_id": mail.section(item, "composite").get("jobId"),
        "ip": info.get("ipAddress"),
        "user_agent": info.get("userAgent"),
        "recipient": recipient,
    }


def _subscriber(item: Mapping[str, object]) -> str | None:
    """Return the subscriber's number with that of the enterprise, in which alone it means somebody."""
    enterprise = mail.text(item.get("eid"))
    subscriber = mail.text(mail.section(item, "composite").get("subscriberId"))
    # what was never sent has 0
    return f"{enterprise}:{subscriber}" if subscriber.strip("0") else None


def _verdict(name: str, item: Mapping[str, object]) -> mail.Verdict:
    """Return the event's type, or the word why there is none."""
    if name in _TYPES:
        return _TYPES[name]
    if name == "TransactionalSendEvents.EmailBounced":
        return _bounce(mail.section(item, "info"))
    if name.startswith(_NOT_MAIL):
        return mail.NOT_A_MAIL_EVENT
    return _IGNORED.get(name, mail.UNMAPPED)


def _bounce(info: Mapping[str, object]) -> EventType:
    if code := mail.text(info.get("bounceCode")).upper():
        return _BOUNCES.get(code, EventType.SOFT_BOUNCE)
    return mail.bounce_by_status(info.get("smtpReason"), info.get("bounceMessage"))


SFMC = JsonSender("sfmc", _items, _read, _verify)
