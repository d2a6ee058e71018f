"""Source `brevo`: Brevo (formerly Sendinblue), one JSON object for each event, or an array when batched.

Words and fields: https://developers.brevo.com/docs/transactional-webhooks.
Batches of at most 500 every five minutes: https://developers.brevo.com/docs/batch-webhooks.
Brevo signs nothing: our token authenticates it, in the path, as bearer or as basic password.
After a 4xx (but 429) or a 5xx answer it throws the event away; only without an answer it tries again,
after 10 minutes, 1, 2 and 8 hours: https://developers.brevo.com/docs/retry-mechanism.
What may go wrong: an event carries up to five times, of which `date` is in the account's zone; `ts_epoch` is
in milliseconds, but in seconds in some documented samples; `sending_ip` is Brevo's own server; events of
marketing webhooks have the same names but no `message-id`, only the campaign's `camp_id`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pipeline.deliveries import Delivery
from pipeline.mail_events import utc_second
from pipeline.outcomes import EventType, Outcome, Probe, Reason, Unreadable
from pipeline.sources import Rules, mail
from pipeline.sources.json_body import as_sent, check_json, read_json

# `request`, `delivered` (SEND_FROM) and `deferred` (DEFERRAL_AS) need a look
_TYPES = {
    "hard_bounce": EventType.HARD_BOUNCE,
    "invalid_email": EventType.HARD_BOUNCE,
    "soft_bounce": EventType.SOFT_BOUNCE,
    # the first and the later opens: each is told once, under one of the two names
    "unique_opened": EventType.OPEN,
    "opened": EventType.OPEN,
    "unique_proxy_open": EventType.OPEN,
    "proxy_open": EventType.OPEN,
    "click": EventType.CLICK,
    "spam": EventType.COMPLAINT,
    # documented as `spam` in one table, seen as `complaint` on the wire
    "complaint": EventType.COMPLAINT,
    "unsubscribed": EventType.UNSUBSCRIBE,
    "unsubscribe": EventType.UNSUBSCRIBE,  # the marketing webhook's word
}
_IGNORED = {
    "blocked": mail.SUPPRESSED,  # both were never handed to the recipient's server
    "error": mail.SUPPRESSED,
    # https://developers.brevo.com/docs/marketing-webhooks
    "list_addition": mail.NOT_A_MAIL_EVENT,
    "contact_updated": mail.NOT_A_MAIL_EVENT,
    "contact_deleted": mail.NOT_A_MAIL_EVENT,
}
# "Loaded by proxy" is Apple's Mail Privacy Protection
_BY_A_MACHINE = frozenset(("proxy_open", "unique_proxy_open"))
# Best first: in a recorded call of 2018 `ts` and `ts_event` were hours off and only `ts_epoch` was right;
# `s_epoch` is how some documented samples spell it. `date` is never read: its zone is not told.
_TIMES = ("ts_epoch", "ts_event", "s_epoch", "ts")


class Brevo:
    """The source `brevo`."""

    name = "brevo"
    success: Literal[200, 202] = 200
    keeps_headers: frozenset[str] = frozenset()

    def check(self, body: bytes, content_type: str) -> None:
        """Raise `Malformed` unless *body* is JSON."""
        check_json(body)

    def verify(
        self, headers: Mapping[str, str], body: bytes, secrets: Mapping[str, str], now: float
    ) -> None:
        """Accept everything: Brevo signs nothing, our token is the proof."""

    def parse(self, delivery: Delivery, rules: Rules, now: float) -> list[Outcome]:
        """Return one `MailEvent`, `Ignored` or `Invalid` for each event of the body."""
        items = _items(read_json(delivery.body))
        if not items:
            raise Probe("an empty batch")
        return as_sent([_outcome(item, rules, now) for item in items], delivery.body, _items)


BREVO = Brevo()


def _items(body: object) -> list[object]:
    if isinstance(body, list):
        return body
    # text messages are told to the same URL, with `msg_status` instead of `event`
    if isinstance(body, dict) and ("event" in body or "msg_status" in body):
        return [body]
    raise Unreadable(Reason.UNKNOWN_SHAPE, "neither one event nor an array of events")


def _outcome(item: object, rules: Rules, now: float) -> Outcome:
    if not isinstance(item, dict):
        return mail.invalid("the event is not an object", item)
    if "event" not in item and "msg_status" in item:
        return mail.ignored(mail.NOT_A_MAIL_EVENT)
    name = item.get("event")
    if not isinstance(name, str):
        return mail.invalid("event is missing or not a string", item)
    verdict = _verdict(name, rules)
    if not isinstance(verdict, EventType):
        return mail.ignored(verdict)
    told = mail.Told(
        type=verdict,
        email=item.get("email"),
        time=_time(item),
        send_id=_send_id(item, rules),
        # `id` is the webhook's or the account's, not the event's
        user_agent=item.get("user_agent"),
        machine_open=name in _BY_A_MACHINE,
    )
    return mail.event_of(told, item, now)


def _verdict(name: str, rules: Rules) -> mail.Verdict:
    """Return the event's type, or the word why there is none."""
    if name in _TYPES:
        return _TYPES[name]
    if name in ("request", "delivered"):
        return mail.send_when("accepted" if name == "request" else "delivered", rules)
    if name == "deferred":
        return mail.deferral(rules)
    return _IGNORED.get(name, mail.UNMAPPED)


def _time(item: Mapping[str, object]) -> str | None:
    for field in _TIMES:
        if found := utc_second(item.get(field)):
            return found
    return None


def _send_id(item: Mapping[str, object], rules: Rules) -> str:
    if rules.send_id == "campaign" and (campaign := mail.text(item.get("camp_id"))):
        return campaign
    return mail.bare_id(item.get("message-id"))
