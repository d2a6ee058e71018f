"""Source `mandrill`: Mailchimp Transactional's webhooks, a form whose `mandrill_events` is a JSON array.

Words, fields and signature: https://mailchimp.com/developer/transactional/guides/track-respond-activity-webhooks/.
It signs the webhook's URL and the form's fields, so MANDRILL_WEBHOOK_URL must be exactly what was typed there.
It repeats what is not answered 200 by itself, until it gives up or is told to; the schedule is not published.
What may go wrong: saving a webhook posts an empty batch, and *Send Test* nine invented events, both signed with
the key `test-webhook`, because the real one is not known to the receiver yet; an address that does not answer
them cannot be saved. Where no key is set, that test cannot be told from events. `ts` is the event's time and
`msg.ts` the message's. Changes of the deny list come in the same array, without an `event`.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.deliveries import Delivery
from pipeline.outcomes import EventType, Outcome, Probe, Reason, Unreadable
from pipeline.sources import Malformed, Rules, Unauthentic, mail
from pipeline.sources.form_body import is_form, read_form
from pipeline.sources.json_body import check_json, read_json
from pipeline.sources.json_sender import JsonSender, one_or_many
from pipeline.sources.signatures import check_base64, header, keys_of

_KEY = "MANDRILL_WEBHOOK_KEY"
_URL = "MANDRILL_WEBHOOK_URL"
_SIGNATURE = "x-mandrill-signature"
_FIELD = "mandrill_events"
_NO_FIELD = f"the form has no field {_FIELD}"
# public, and the same for everybody: it proves nothing, so only what is not forwarded may carry it
_TEST_KEY = b"test-webhook"
_NOBODYS_ADDRESS = "example.webhook@mandrillapp.com"

# `send`, `delivered` (SEND_FROM) and `deferral` (DEFERRAL_AS) are decided in `_verdict`
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


class _Mandrill(JsonSender):
    def check(self, body: bytes, content_type: str) -> None:
        """Raise `Malformed` unless *body* is a form with JSON in its field `mandrill_events`."""
        if _is_read_again(body, content_type):
            raise Malformed(_NO_FIELD)
        try:
            events = _field(read_form(body, content_type))
        except Unreadable as error:
            raise Malformed(error.error) from None
        if events is None:
            raise Malformed(_NO_FIELD)
        check_json(events)

    def parse(self, delivery: Delivery, rules: Rules, now: float) -> list[Outcome]:
        """Return one `MailEvent`, `Ignored` or `Invalid` for each event of the body."""
        return self.read_document(_events_json(delivery), rules, now)


def _verify(
    headers: Mapping[str, str], body: bytes, secrets: Mapping[str, str], now: float
) -> None:
    """Raise `Unauthentic` unless Mandrill signed the URL and the fields: base64 of HMAC-SHA1.

    Nothing in a signature says when it was made, so age cannot be judged. A test is a `Probe`: only here is
    it known which key a call was signed with.
    """
    if not secrets.get(_KEY):
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
    keys = [key for key in keys_of(secrets[_KEY]) if key != _TEST_KEY]
    try:
        check_base64(given, keys, message, "sha1")
    except Unauthentic:
        check_base64(given, [_TEST_KEY], message, "sha1")
        _check_is_test(fields)


_items = one_or_many("event", "type")


def _signed_text(url: str, fields: list[tuple[str, str]]) -> bytes:
    by_name = sorted(fields, key=lambda field: field[0])
    text = url + "".join(name + value for name, value in by_name)
    return text.encode("utf-8", "replace")


def _field(fields: list[tuple[str, str]]) -> bytes | None:
    for name, value in fields:
        if name == _FIELD:
            return value.encode("utf-8", "replace")
    return None


def _is_read_again(body: bytes, content_type: str) -> bool:
    # an event that was buried alone comes back as its own JSON, without a Content-Type
    return not is_form(content_type) and body.lstrip()[:1] in (b"{", b"[")


def _events_json(delivery: Delivery) -> bytes:
    if _is_read_again(delivery.body, delivery.content_type):
        return delivery.body
    events = _field(read_form(delivery.body, delivery.content_type))
    if events is None:
        raise Unreadable(Reason.MALFORMED, _NO_FIELD)
    return events


def _check_is_test(fields: list[tuple[str, str]]) -> None:
    """Raise `Probe` for *Send Test*, and `Unauthentic` when anything in the batch could be about a person.

    The empty batch of a webhook that is being saved passes, and `parse` finds nothing in it.
    """
    try:
        items = _items(read_json(_field(fields) or b""))
    except Unreadable:
        items = [None]  # what cannot be read is no test
    if not all(_is_example(item) for item in items):
        raise Unauthentic("signed with the key of tests, and no test")
    if items:
        raise Probe("Mandrill's test")


def _is_example(item: object) -> bool:
    if mail.text(mail.part(item, "msg", "email")).lower() == _NOBODYS_ADDRESS:
        return True
    return isinstance(item, dict) and _IGNORED.get(_name(item)) == mail.NOT_A_MAIL_EVENT


def _name(item: Mapping[str, object]) -> str:
    # changes of the account's lists have no `event`, their word is the `type`
    return mail.text(item.get("event")) or mail.text(item.get("type"))


def _read(item: Mapping[str, object], rules: Rules) -> mail.Told | str:
    name = _name(item)
    if not name:
        raise mail.Wrong("event is missing or not a string")
    verdict = _verdict(name, rules)
    if not isinstance(verdict, EventType):
        return verdict
    message = mail.section(item, "msg")
    told: mail.Told = {
        "type": verdict,
        "email": message.get("email"),
        "time": item.get("ts"),
        "send_id": mail.first_id((item.get("_id"), message.get("_id"))),
        "ip": item.get("ip"),
        "user_agent": item.get("user_agent"),
    }
    if parsed := mail.section(item, "user_agent_parsed"):
        _add_program(told, parsed)
    return told


def _add_program(told: mail.Told, parsed: Mapping[str, object]) -> None:
    told["client"], told["browser"] = mail.client_or_browser(
        parsed.get("ua_name"),
        # else an "Email Client", or what is neither: a library, a robot
        is_browser="browser" in mail.text(parsed.get("type")).lower(),
    )
    told["os"] = parsed.get("os_name")
    told["device"] = mail.mobile_or_desktop(parsed.get("mobile"))


def _verdict(name: str, rules: Rules) -> mail.Verdict:
    """Return the event's type, or the word why there is none."""
    if name in _TYPES:
        return _TYPES[name]
    if name in ("send", "delivered"):
        return mail.send_when("accepted" if name == "send" else "delivered", rules)
    return mail.deferral(rules) if name == "deferral" else _IGNORED.get(name, mail.UNMAPPED)


MANDRILL = _Mandrill("mandrill", _items, _read, _verify)
