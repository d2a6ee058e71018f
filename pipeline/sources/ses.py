"""Source `ses`: Amazon SES, whose events come through Amazon SNS, one a call, as JSON called text/plain.

Two vocabularies with the same fields: event publishing (`eventType`) and the older feedback notifications of an
identity (`notificationType`). SNS wraps them in an envelope (`sns`) that holds the event as a *string*;
with raw delivery the event is the body. Words and fields:
https://docs.aws.amazon.com/ses/latest/dg/event-publishing-retrieving-sns-contents.html,
https://docs.aws.amazon.com/ses/latest/dg/notification-contents.html.
What may go wrong: the envelope's time is the call's, not the event's; one event tells of several recipients, but
an open does not say whose it was; `mail.messageId` is SES's id, `mail.commonHeaders.messageId` is not.
An identity that publishes its feedback beside event publishing tells each bounce twice, under two ids.
SNS signs the envelope with a certificate that must be fetched, so everything is let in and `workers.proofs` judges
topic and signature. What comes by raw delivery is not signed at all, and judged there too. After 5xx SNS repeats,
three times in a minute unless its policy says otherwise; a 4xx is final for it:
https://docs.aws.amazon.com/sns/latest/dg/sns-message-delivery-retries.html.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from pipeline.deliveries import Delivery
from pipeline.outcomes import EventType, Invalid, Outcome, Probe, Reason, Unreadable
from pipeline.sources import Rules, mail, sns
from pipeline.sources.json_body import as_json, as_sent, check_json, read_json
from pipeline.sources.json_sender import by_token_only, outcomes_of

_MESSAGE_ID = "x-amz-sns-message-id"

# `Send`, `Delivery` (SEND_FROM), `Bounce` (its type), `DeliveryDelay` (DEFERRAL_AS), `Complaint` and
# `Subscription` (what they say) are decided in `_verdict`
_TYPES = {"Open": EventType.OPEN, "Click": EventType.CLICK}
_IGNORED = {
    "Reject": mail.SUPPRESSED,  # SES found a virus and sent nothing
    "Rendering Failure": mail.SUPPRESSED,
    "RenderingFailure": mail.SUPPRESSED,
    "Received": mail.NOT_A_MAIL_EVENT,  # incoming mail
}
# where a kind of event has its facts, when not under its own name in lower case
_SECTIONS = {"Send": "mail", "DeliveryDelay": "deliveryDelay"}
# where those are whom it is about, section and field
_RECIPIENTS = {
    "Send": ("mail", "destination"),
    "Delivery": ("delivery", "recipients"),
    "Bounce": ("bounce", "bouncedRecipients"),
    "Complaint": ("complaint", "complainedRecipients"),
    "DeliveryDelay": ("deliveryDelay", "delayedRecipients"),
}
# the other kinds are about one of these
_ALL_RECIPIENTS = ("mail", "destination")
# what Amazon publishes to try a topic; the first is text, the other the notification's type
_VALIDATED = "successfully validated sns topic"
_SUBSCRIBED = "AmazonSnsSubscriptionSucceeded"
#: of a message with many recipients, what is kept with a wrong one of them: nothing of the others
_KEPT_OF_MAIL = ("messageId", "timestamp")


class Ses:
    """The source `ses`."""

    name = "ses"
    success: Literal[200, 202] = 200
    keeps_headers: frozenset[str] = frozenset((_MESSAGE_ID,))

    def check(self, body: bytes, content_type: str) -> None:
        """Raise `Malformed` unless *body* is JSON, whatever it is called."""
        check_json(body)

    # a worker judges topic and signature, and whether raw delivery is wanted
    verify = staticmethod(by_token_only)

    def parse(self, delivery: Delivery, rules: Rules, now: float) -> list[Outcome]:
        """Return one outcome for each recipient of the event."""
        value = read_json(delivery.body)
        envelope = sns.envelope_in(value)
        if envelope is None:
            event = _event(value, "neither a message of SNS's nor an event of SES")
            outer = {"MessageId": delivery.headers.get(_MESSAGE_ID)}
            return _outcomes(delivery.body, event, outer, rules, now)
        if envelope["Type"] in (sns.CONFIRMATION, sns.UNSUBSCRIBED):
            raise Probe
        message = _message(envelope)
        event = _event(_json_in(message), "the message in the envelope is not an event of SES")
        outcomes = _outcomes(message, event, envelope, rules, now)
        return [_wrapped(one, envelope) if isinstance(one, Invalid) else one for one in outcomes]


SES = Ses()


def is_raw(value: object) -> bool:
    """Tell whether a body's JSON value is SES's event itself, without SNS's envelope: unsigned."""
    return isinstance(value, dict) and sns.envelope_in(value) is None and bool(_kind(value))


def _message(envelope: sns.Envelope) -> bytes:
    message = envelope["Message"]
    if not isinstance(message, str):
        raise Unreadable(Reason.UNKNOWN_SHAPE, "the message in the envelope is not text")
    if message.lstrip()[: len(_VALIDATED)].lower() == _VALIDATED:
        raise Probe
    return message.encode()


def _json_in(message: bytes) -> object:
    try:
        return read_json(message)
    except Unreadable:
        return None


def _event(value: object, else_it_is: str) -> Mapping[str, object]:
    if isinstance(value, dict) and _kind(value):
        return value
    raise Unreadable(Reason.UNKNOWN_SHAPE, else_it_is)


def _outcomes(
    message: bytes, event: Mapping[str, object], outer: sns.Envelope, rules: Rules, now: float
) -> list[Outcome]:
    kind = _kind(event)
    if kind == _SUBSCRIBED:
        raise Probe

    def read(item: Mapping[str, object], rules: Rules) -> mail.Told | str:
        return _read(kind, item, outer, rules)

    return as_sent(outcomes_of(_each(kind, event), read, rules, now), message, _items)


def _wrapped(outcome: Invalid, envelope: sns.Envelope) -> Invalid:
    """Put a wrong event back into its envelope, which has its id and may have its time, to be read again."""
    kept = {name: envelope[name] for name in ("Type", "MessageId", "Timestamp") if name in envelope}
    kept["Message"] = outcome.payload.decode()
    return replace(outcome, payload=as_json(kept))


def _kind(event: Mapping[str, object]) -> str:
    return mail.text(event.get("eventType")) or mail.text(event.get("notificationType"))


def _items(event: object) -> list[object]:
    return _each(_kind(event), event) if isinstance(event, dict) else [event]


def _each(kind: str, event: Mapping[str, object]) -> list[object]:
    """Return the event once for each of its recipients, each with that one only."""
    people = _recipients(kind, event)
    if len(people) < 2 or kind not in _RECIPIENTS:
        return [event]
    section, where = _RECIPIENTS[kind]
    found = mail.section(event, "mail")
    kept = {name: found[name] for name in _KEPT_OF_MAIL if name in found}
    rest = {**event, "mail": kept}
    if section == "mail":
        return [{**rest, "mail": {**kept, where: [one]}} for one in people]
    facts = mail.section(event, section)
    return [{**rest, section: {**facts, where: [one]}} for one in people]


def _read(
    kind: str, item: Mapping[str, object], outer: sns.Envelope, rules: Rules
) -> mail.Told | str:
    facts = mail.section(item, _SECTIONS.get(kind) or kind.lower())
    recipients = _recipients(kind, item)
    verdict = _verdict(kind, facts, recipients, rules)
    if not isinstance(verdict, EventType):
        return verdict
    return {
        "type": verdict,
        "email": _address(recipients[0])
        if recipients
        else None,  # as the header has it, with a name
        # the envelope's time is when SNS was told, and only better than none
        "time": facts.get("timestamp") or outer.get("Timestamp"),
        "send_id": mail.section(item, "mail").get("messageId"),
        "provider_id": outer.get("MessageId") or facts.get("feedbackId"),
        "ip": facts.get("ipAddress"),
        "user_agent": facts.get("userAgent"),
    }


def _recipients(kind: str, item: Mapping[str, object]) -> list[object]:
    section, where = _RECIPIENTS.get(kind, _ALL_RECIPIENTS)
    found = mail.section(item, section).get(where)
    return found if isinstance(found, list) else []


def _address(recipient: object) -> object:
    return recipient.get("emailAddress") if isinstance(recipient, dict) else recipient


def _verdict(
    kind: str, facts: Mapping[str, object], recipients: list[object], rules: Rules
) -> mail.Verdict:
    """Return the event's type, or the word why there is none."""
    if kind in ("Send", "Delivery"):
        return mail.send_when("accepted" if kind == "Send" else "delivered", rules)
    if kind == "Bounce":
        return _bounce(facts, recipients)
    if kind == "Complaint":
        feedback = mail.text(facts.get("complaintFeedbackType")).lower()
        return mail.NOT_A_MAIL_EVENT if feedback == "not-spam" else EventType.COMPLAINT
    if kind == "DeliveryDelay":
        return mail.deferral(rules)
    if kind == "Subscription":
        verdict: mail.Verdict = EventType.UNSUBSCRIBE if _opts_out(facts) else mail.NOT_A_MAIL_EVENT
    else:
        verdict = _TYPES.get(kind) or _IGNORED.get(kind, mail.UNMAPPED)
    # SES does not say which of several recipients it was, and nobody shall be taken for another
    if isinstance(verdict, EventType) and len(recipients) > 1:
        return mail.SEVERAL_RECIPIENTS
    return verdict


def _bounce(facts: Mapping[str, object], recipients: list[object]) -> EventType:
    """Return the bounce by SES's own verdict; `Undetermined` is soft, a new word is judged by the status.

    Also what was not even tried, because the address is on a suppression list, is `Permanent` for SES:
    https://docs.aws.amazon.com/ses/latest/dg/notification-contents.html#bounce-types.
    """
    said = mail.text(facts.get("bounceType")).lower()
    if said == "permanent":
        return EventType.HARD_BOUNCE
    if said in ("transient", "undetermined"):
        return EventType.SOFT_BOUNCE
    one = recipients[0] if recipients else None
    return mail.bounce_by_status(mail.part(one, "status"), mail.part(one, "diagnosticCode"))


def _opts_out(facts: Mapping[str, object]) -> bool:
    """Tell whether somebody has left a list: all of its topics, or one."""
    wanted = mail.section(facts, "newTopicPreferences")
    if mail.is_true(wanted.get("unsubscribeAll")):
        return True
    topics = wanted.get("topicSubscriptionStatus")
    words = (
        [mail.text(mail.part(one, "subscriptionStatus")) for one in topics]
        if isinstance(topics, list)
        else []
    )
    return any(word.replace("_", "").lower() == "optout" for word in words)
