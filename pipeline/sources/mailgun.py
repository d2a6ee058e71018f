"""Source `mailgun`: Mailgun's webhooks, one event a call, with the proof of who sent it in the body.

Three forms: `{"signature": ..., "event-data": ...}`; event-data alone, as the documentation prints it; and
the form posts of before 2018 ("legacy"), flat, urlencoded or in parts. Words and fields:
https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/webhooks.
What may go wrong: `signature.timestamp` is the call's time and not the event's; empty objects come as
arrays and `bot` as null; in a legacy form the customer's own variables stand among Mailgun's fields under
the same names. The signature proves the call, not the event: it does not cover event-data.
Mailgun takes 200 as done and 406 as a final no; after anything else, a 401 too, it repeats for 8 hours,
but `delivered` not at all: https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/webhook-retries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from pipeline.deliveries import SIGNED, Delivery
from pipeline.outcomes import EventType, Outcome, Reason, Unreadable
from pipeline.sources import Rules, Unauthentic, mail, signatures
from pipeline.sources.form_body import check_form, is_form, read_form
from pipeline.sources.json_body import check_json, read_json
from pipeline.sources.json_sender import JsonSender, outcomes_of

_SECRET = "MAILGUN_SIGNING_KEY"  # noqa: S105 - the setting's name
# Mailgun repeats for 8 hours and does not say that it signs anew; four more for its own delays, which it
# asks to allow for, and for clocks that are wrong. What is older is no repetition of Mailgun's.
_TOLERANCE_S = 12 * 60 * 60

# `accepted`, `delivered` (SEND_FROM), `failed`, `bounced` and `dropped` (why) are decided in `_verdict`
_TYPES = {
    "opened": EventType.OPEN,
    "clicked": EventType.CLICK,
    "complained": EventType.COMPLAINT,
    "unsubscribed": EventType.UNSUBSCRIBE,
}
_IGNORED = {
    "rejected": mail.SUPPRESSED,  # by Mailgun itself, never handed to the recipient's server
    "stored": mail.NOT_A_MAIL_EVENT,  # an incoming message
    "list_member_uploaded": mail.NOT_A_MAIL_EVENT,
    "list_member_upload_error": mail.NOT_A_MAIL_EVENT,
    "list_uploaded": mail.NOT_A_MAIL_EVENT,
}
# Mailgun's own codes for an address on one of its suppression lists, which it does not try at all
_NOT_TRIED = frozenset(("605", "606", "607", "625"))
_PROOF = frozenset(("signature", "timestamp", "token", "parent-signature"))


class _Mailgun(JsonSender):
    def check(self, body: bytes, content_type: str) -> None:
        """Raise `Malformed` unless *body* is JSON, or the form that *content_type* says."""
        if is_sent_as_form(body, content_type):
            check_form(body, content_type)
        else:
            check_json(body)

    def parse(self, delivery: Delivery, rules: Rules, now: float) -> list[Outcome]:
        """Return what the one event of the body is."""
        body = delivery.body
        if is_sent_as_form(body, delivery.content_type):
            return outcomes_of([_form_event(body, delivery.content_type)], _read, rules, now)
        return self.read_document(body, rules, now)


def _verify(
    headers: Mapping[str, str], body: bytes, secrets: Mapping[str, str], now: float
) -> None:
    """Raise `Unauthentic` unless *body* holds Mailgun's HMAC of its timestamp and token, 12 hours old at most.

    Age matters here: the signature does not cover the event, so whoever has one call could put any
    other event beside it. An account's key is its subaccounts' too, as `parent-signature`:
    https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/securing-webhooks.
    """
    secret = secrets.get(_SECRET)
    if not secret:
        return
    proof = _proof(body, headers.get("content-type", ""))
    stamp, token = mail.text(proof.get("timestamp")), mail.text(proof.get("token"))
    if not (stamp and token):
        raise Unauthentic("the signature is missing")
    message = (stamp + token).encode("utf-8", "replace")
    given = [mail.text(proof.get(name)) for name in ("signature", "parent-signature")]
    matches = [_is_true(one, secret, message) for one in given]
    if not any(matches):
        raise Unauthentic("the signature is false")
    signatures.check_age(stamp, now, _TOLERANCE_S)


def is_sent_as_form(body: bytes, content_type: str) -> bool:
    """Tell whether *body* is read as a form; curl calls everything one unless told otherwise."""
    # in a form a brace would be written %7B
    return is_form(content_type) and not body[:64].lstrip().startswith(b"{")


def _proof(body: bytes, content_type: str) -> Mapping[str, object]:
    """Return the fields that prove the call; none where there are none."""
    try:
        if is_sent_as_form(body, content_type):
            return _fields(read_form(body, content_type))
        found = mail.part(read_json(body), "signature")
    except Unreadable:
        raise Unauthentic("the body that should hold the signature cannot be read") from None
    return found if isinstance(found, dict) else {}


def _is_true(given: str, secret: str, message: bytes) -> bool:
    try:
        signatures.check_hex(given, signatures.keys_of(secret), message)
    except Unauthentic:
        return False
    return True


def _fields(form: Iterable[tuple[str, str]]) -> dict[str, object]:
    """Return a legacy form as Mailgun filled it in, without the customer's variables of the same names.

    Those come after Mailgun's fields, but before its proof.
    """
    fields: dict[str, object] = {}
    for name, value in form:
        if name in _PROOF or name not in fields:
            fields[name] = value
    return fields


def _form_event(body: bytes, content_type: str) -> dict[str, object]:
    event = _fields(read_form(body, content_type))
    if "event" not in event:
        raise Unreadable(Reason.UNKNOWN_SHAPE, "a form without an event, perhaps a route's")
    return event


def _items(body: object) -> list[object]:
    if isinstance(body, dict) and "event-data" in body:
        return [body["event-data"]]
    # on the wire it is always beside its signature; the documentation prints it alone
    if isinstance(body, dict) and "event" in body:
        return [body]
    raise Unreadable(Reason.UNKNOWN_SHAPE, "neither event-data nor an event")


def _read(item: Mapping[str, object], rules: Rules) -> mail.Told | str:
    name = mail.word(item, "event")
    verdict = _verdict(name, item, rules)
    if not isinstance(verdict, EventType):
        return verdict
    # a buried legacy event is read again as JSON, so the form is told by the fields alone
    told = _told if isinstance(item.get("message"), dict) else _told_of_old
    return told(verdict, item, rules)


def _verdict(name: str, item: Mapping[str, object], rules: Rules) -> mail.Verdict:
    """Return the event's type, or the word why there is none."""
    if name in _TYPES:
        return _TYPES[name]
    if name in ("accepted", "delivered"):
        return mail.send_when(name, rules, usual="delivered")
    if name == "failed":
        return _failure(item, rules)
    if name == "bounced":  # legacy
        code = item.get("code")
        return _not_tried(item, code) or mail.bounce_by_status(code, item.get("error"))
    if name == "dropped":  # legacy: given up after hours of trying ("old"), or not tried at all
        return EventType.SOFT_BOUNCE if _reason(item) == "old" else mail.SUPPRESSED
    return _IGNORED.get(name, mail.UNMAPPED)


def _failure(item: Mapping[str, object], rules: Rules) -> mail.Verdict:
    status = mail.section(item, "delivery-status")
    severity = mail.text(item.get("severity")).lower()
    if severity == "temporary":
        return mail.deferral(rules)
    if not_tried := _not_tried(item, status.get("code")):
        return not_tried
    kind = mail.text(status.get("bounce-type")) or mail.text(item.get("bounce-type"))
    if _reason(item) == "old" or kind.lower() == "soft":
        return EventType.SOFT_BOUNCE
    if severity == "permanent" or kind.lower() == "hard":
        return EventType.HARD_BOUNCE
    enhanced = mail.text(status.get("enhanced-code"))
    said = (status.get("message"), status.get("description"))
    return mail.bounce_by_status(enhanced or status.get("code"), *said)


def _not_tried(item: Mapping[str, object], code: object) -> str | None:
    is_suppressed = _reason(item).startswith("suppress-") or mail.text(code) in _NOT_TRIED
    return mail.SUPPRESSED if is_suppressed else None


def _reason(item: Mapping[str, object]) -> str:
    return mail.text(item.get("reason")).lower()


def _told(kind: EventType, item: Mapping[str, object], rules: Rules) -> mail.Told:
    headers = mail.section(mail.section(item, "message"), "headers")
    told: mail.Told = {
        "type": kind,
        "email": item.get("recipient"),
        "time": item.get("timestamp"),
        "send_id": mail.send_id(
            rules,
            campaign=_campaigns(item),
            message=(headers.get("message-id"),),
        ),
        # unique within a day, so within a second; the token is the call's, and may change when it is repeated
        "provider_id": item.get("id"),
        "ip": item.get("ip"),
    }
    if info := mail.section(item, "client-info"):
        told["user_agent"] = info.get("user-agent")
        told["client"], told["browser"] = _program(info.get("client-name"), info.get("client-type"))
        told["os"], told["device"] = info.get("client-os"), info.get("device-type")
        told["machine_open"] = mail.text(info.get("bot")).lower() == "apple"
    return told


def _campaigns(item: Mapping[str, object]) -> Iterator[object]:
    found = item.get("campaigns")
    if isinstance(found, list) and found:
        yield mail.part(found[0], "id")


def _told_of_old(kind: EventType, item: Mapping[str, object], rules: Rules) -> mail.Told:
    """Return what a legacy form tells; an `id` in it is the customer's variable."""
    client, browser = _program(item.get("client-name"), item.get("client-type"))
    return {
        "type": kind,
        "email": item.get("recipient"),
        "time": item.get("timestamp"),
        # both spellings are seen, the lower one without <>
        "send_id": mail.send_id(
            rules,
            campaign=[item.get("campaign-id")],
            message=[item.get("Message-Id"), item.get("message-id")],
        ),
        "ip": item.get("ip"),
        "user_agent": item.get("user-agent"),
        "client": client,
        "browser": browser,
        "os": item.get("client-os"),
        "device": item.get("device-type"),
    }


def _program(name: object, kind: object) -> tuple[object, object]:
    # a "browser" or "mobile browser", or what reads mail
    return mail.client_or_browser(name, is_browser="browser" in mail.text(kind).lower())


# where a signature is checked, a worker remembers its token: see `workers.proofs`
MAILGUN = _Mailgun("mailgun", _items, _read, _verify, keeps_headers=frozenset({SIGNED}))
