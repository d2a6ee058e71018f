"""Source `brevo`: Brevo (formerly Sendinblue), one JSON object for each event, or an array when batched.

Words and fields: https://developers.brevo.com/docs/transactional-webhooks.
Batches of at most 500 every five minutes: https://developers.brevo.com/docs/batch-webhooks.
Brevo signs nothing: our token authenticates it, in the path, as bearer or as basic password.
After a 4xx (but 429) or a 5xx answer it throws the event away; after 429 and without an answer it tries again,
after 10 minutes, 1, 2 and 8 hours: https://developers.brevo.com/docs/retry-mechanism.
What may go wrong: an event carries up to five times, of which `date` is in the account's zone; `ts_epoch` is
in milliseconds, but in seconds in some documented samples; `sending_ip` is Brevo's own server; events of
marketing webhooks have the same names but no `message-id`, only the campaign's `camp_id`.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.mail_events import utc_second
from pipeline.outcomes import EventType
from pipeline.sources import Rules, mail
from pipeline.sources.json_sender import JsonSender, one_or_many

# `request`, `delivered` (SEND_FROM) and `deferred` (DEFERRAL_AS) are decided in `_verdict`
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
}
# `contact_updated`, `contact_deleted`, ...: the same page
_OF_CONTACTS = "contact_"
# "Loaded by proxy" is Apple's Mail Privacy Protection
_BY_A_MACHINE = frozenset(("proxy_open", "unique_proxy_open"))
# Best first: in a recorded call of 2018 `ts` and `ts_event` were hours off and only `ts_epoch` was right;
# `s_epoch` is how some documented samples spell it. `date` is never read: its zone is not told.
_TIMES = ("ts_epoch", "ts_event", "s_epoch", "ts")


def _read(item: Mapping[str, object], rules: Rules) -> mail.Told | str:
    if "event" not in item and "msg_status" in item:
        return mail.NOT_A_MAIL_EVENT  # a text message
    name = mail.word(item, "event")
    verdict = _verdict(name, rules)
    if not isinstance(verdict, EventType):
        return verdict
    return {
        "type": verdict,
        "email": item.get("email"),
        "time": _time(item),
        "send_id": mail.send_id(
            rules, campaign=(item.get("camp_id"),), message=(item.get("message-id"),)
        ),
        # `id` is the webhook's or the account's, not the event's
        "user_agent": item.get("user_agent"),
        "machine_open": name in _BY_A_MACHINE,
    }


def _verdict(name: str, rules: Rules) -> mail.Verdict:
    """Return the event's type, or the word why there is none."""
    if name in _TYPES:
        return _TYPES[name]
    if name in ("request", "delivered"):
        return mail.send_when("accepted" if name == "request" else "delivered", rules)
    if name == "deferred":
        return mail.deferral(rules)
    if name.startswith(_OF_CONTACTS):
        return mail.NOT_A_MAIL_EVENT
    return _IGNORED.get(name, mail.UNMAPPED)


def _time(item: Mapping[str, object]) -> str | None:
    for field in _TIMES:
        if found := utc_second(item.get(field)):
            return found
    return None


# text messages are told to the same URL, with `msg_status` instead of `event`
BREVO = JsonSender("brevo", one_or_many("event", "msg_status"), _read)
