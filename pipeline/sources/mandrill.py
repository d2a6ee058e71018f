"""Source `mandrill`: Mailchimp Transactional's webhooks, a form whose `mandrill_events` is a JSON array.

Words, fields and signature: https://mailchimp.com/developer/transactional/guides/track-respond-activity-webhooks/.
It signs the webhook's URL and the form's fields, so MANDRILL_WEBHOOK_URL must be exactly what was typed there.
It repeats what is not answered 200 by itself, until it gives up or is told to; the schedule is not published.
What may go wrong: saving a webhook posts an empty batch, and *Send Test* nine invented events, both signed with
the key `test-webhook`, because the real one is not known to the receiver yet; an address that does not answer
them cannot be saved. `ts` is the event's time and `msg.ts` the message's. Changes of the deny list come in the
same array, without an `event`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pipeline.deliveries import Delivery
from pipeline.outcomes import EventType, Outcome, Probe, Reason, Unreadable
from pipeline.sources import Malformed, Rules, Unauthentic, mail
from pipeline.sources.form_body import check_form, is_form, read_form
from pipeline.sources.json_body import as_sent, check_json, read_json
from pipeline.sources.signatures import check_base64, header, keys_of

_KEY = "MANDRILL_WEBHOOK_KEY"
_URL = "MANDRILL_WEBHOOK_URL"
_SIGNATURE = "x-mandrill-signature"
_FIELD = "mandrill_events"
_NO_FIELD = f"the form has no field {_FIELD}"
# public, and the same for everybody: it proves nothing, so only what is not forwarded may carry it
_TEST_KEY = b"test-webhook"
_NOBODYS_ADDRESS = "example.webhook@mandrillapp.com"

# `send`, `delivered` (SEND_FROM) and `deferral` (DEFERRAL_AS) need a look
_TYPES = {
    "hard_bounce": EventType.HARD_BOUNCE,
    "soft_bounce": EventType.SOFT_BOUNCE,
    "open": EventType.OPEN,
    "click": EventType.CLICK,
    "spam": EventType.COMPLAINT,
    "unsub": EventType.UNSUBSCRIBE,
}
_IGNORED = {
    "reject": mail.SUPPRESSED,  # never handed to the recipient's server: neither Send nor bounce
    "inbound": mail.NOT_A_MAIL_EVENT,
    # changes of the account's lists: the word stands in `type`, and there is no `event`
    "blacklist": mail.NOT_A_MAIL_EVENT,
    "whitelist": mail.NOT_A_MAIL_EVENT,
    "denylist": mail.NOT_A_MAIL_EVENT,
    "allowlist": mail.NOT_A_MAIL_EVENT,
}


class Mandrill:
    """The source `mandrill`."""

    name = "mandrill"
    success: Literal[200, 202] = 200
    keeps_headers: frozenset[str] = frozenset((_SIGNATURE,))

    def check(self, body: bytes, content_type: str) -> None:
        """Raise `Malformed` unless *body* is a form with JSON in its field `mandrill_events`."""
        check_form(body, content_type)
        events = _field(read_form(body, content_type))
        if events is None:
            raise Malformed(_NO_FIELD)
        check_json(events)

    def verify(
        self, headers: Mapping[str, str], body: bytes, secrets: Mapping[str, str], now: float
    ) -> None:
        """Raise `Unauthentic` unless Mandrill signed the URL and the fields: base64 of HMAC-SHA1.

        Signed with `test-webhook`, only a batch is accepted of which nothing would be forwarded.
        Nothing in a signature says when it was made, so age cannot be judged.
        """
        keys = keys_of(secrets.get(_KEY, ""))
        if not keys:
            return
        url = secrets.get(_URL, "").strip()
        if not url:
            raise Unauthentic(f"{_KEY} is set and {_URL} is not: Mandrill signs its whole URL")
        given = header(headers, _SIGNATURE)
        try:
            fields = read_form(body, headers.get("content-type", ""))
        except Unreadable:
            raise Unauthentic("the body is not the form that Mandrill signs") from None
        message = _signed_text(url, fields)
        try:
            check_base64(given, keys, message, "sha1")
        except Unauthentic:
            if not _is_test_batch(fields):
                raise
            check_base64(given, [_TEST_KEY], message, "sha1")

    def parse(self, delivery: Delivery, rules: Rules, now: float) -> list[Outcome]:
        """Return one `MailEvent`, `Ignored` or `Invalid` for each event of the body.

        Mandrill signs every call, so a batch of its own examples that came with a signature is its test.
        """
        events = _events_json(delivery)
        items = _items(read_json(events))
        if not items or (_SIGNATURE in delivery.headers and _are_examples(items)):
            raise Probe
        return as_sent([_outcome(item, rules, now) for item in items], events, _items)


MANDRILL = Mandrill()


def _signed_text(url: str, fields: list[tuple[str, str]]) -> bytes:
    by_name = sorted(fields, key=lambda field: field[0])
    text = url + "".join(name + value for name, value in by_name)
    return text.encode("utf-8", "replace")


def _field(fields: list[tuple[str, str]]) -> bytes | None:
    for name, value in fields:
        if name == _FIELD:
            return value.encode("utf-8", "replace")
    return None


def _events_json(delivery: Delivery) -> bytes:
    # an event that was buried alone comes back as its own JSON, without a Content-Type
    if not is_form(delivery.content_type) and delivery.body.lstrip()[:1] in (b"{", b"["):
        return delivery.body
    events = _field(read_form(delivery.body, delivery.content_type))
    if events is None:
        raise Unreadable(Reason.MALFORMED, _NO_FIELD)
    return events


def _items(body: object) -> list[object]:
    if isinstance(body, list):
        return body
    if isinstance(body, dict) and ("event" in body or "type" in body):
        return [body]
    raise Unreadable(Reason.UNKNOWN_SHAPE, "neither an array of events nor one event")


def _is_test_batch(fields: list[tuple[str, str]]) -> bool:
    try:
        items = _items(read_json(_field(fields) or b""))
    except Unreadable:
        return False
    return not items or _are_examples(items)


def _are_examples(items: list[object]) -> bool:
    """Whether nothing in *items* is about a person."""
    return all(_is_example(item) for item in items)


def _is_example(item: object) -> bool:
    if mail.text(mail.part(item, "msg", "email")).lower() == _NOBODYS_ADDRESS:
        return True
    return _IGNORED.get(_name(item)) == mail.NOT_A_MAIL_EVENT


def _name(item: object) -> str:
    # changes of the account's lists have no `event`, their word is the `type`
    return mail.text(mail.part(item, "event")) or mail.text(mail.part(item, "type"))


def _outcome(item: object, rules: Rules, now: float) -> Outcome:
    if not isinstance(item, dict):
        return mail.invalid("the event is not an object", item)
    name = _name(item)
    if not name:
        return mail.invalid("event is missing or not a string", item)
    verdict = _verdict(name, rules)
    if not isinstance(verdict, EventType):
        return mail.ignored(verdict)
    parsed = item.get("user_agent_parsed")
    program, kind = mail.part(parsed, "ua_name"), mail.text(mail.part(parsed, "type")).lower()
    told = mail.Told(
        type=verdict,
        email=mail.part(item, "msg", "email"),
        time=item.get("ts"),
        send_id=mail.bare_id(item.get("_id")) or mail.part(item, "msg", "_id"),
        ip=item.get("ip"),
        user_agent=item.get("user_agent"),
        client=program if "email" in kind else None,
        browser=program if "browser" in kind else None,
        os=mail.part(parsed, "os_name"),
        device=_device(mail.part(parsed, "mobile")),
    )
    return mail.event_of(told, item, now)


def _verdict(name: str, rules: Rules) -> mail.Verdict:
    """Return the event's type, or the word why there is none."""
    if name in _TYPES:
        return _TYPES[name]
    if name in ("send", "delivered"):
        return mail.send_when("accepted" if name == "send" else "delivered", rules)
    return mail.deferral(rules) if name == "deferral" else _IGNORED.get(name, mail.UNMAPPED)


def _device(is_mobile: object) -> str | None:
    if not isinstance(is_mobile, bool):
        return None
    return "Mobile" if is_mobile else "Desktop"
