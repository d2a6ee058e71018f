"""Source `mailchimp`: Mailchimp Marketing's audience webhook, one form for each change of a contact.

Words and fields: https://mailchimp.com/developer/marketing/guides/sync-audience-data-webhooks/.
It tells of people who leave and of addresses that are dead; sends, opens and clicks it does not tell.
Before the URL is saved, Mailchimp asks it with a GET and wants 200.

Authentication: none but the secret in the URL. After an answer that is not 200 Mailchimp tries a few
times more and gives up; how often it does not say.
What may go wrong: `fired_at` has no zone and is read as UTC; an unsubscription by hand belongs to no
campaign; `data[ip_opt]` is where somebody joined, not where they left.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pipeline.deliveries import Delivery
from pipeline.outcomes import EventType, Outcome, Reason, Unreadable
from pipeline.sources import Malformed, Rules, mail
from pipeline.sources.form_body import check_form, is_form, read_form
from pipeline.sources.json_body import read_json
from pipeline.sources.json_sender import by_token_only, outcomes_of

# `cleaned` (its reason) needs a look
_TYPES = {"unsubscribe": EventType.UNSUBSCRIBE}
_IGNORED = dict.fromkeys(("subscribe", "profile", "upemail", "campaign"), mail.NOT_A_MAIL_EVENT)
# https://mailchimp.com/help/about-cleaned-contacts/: what no longer takes mail, or called it spam
_CLEANED = {"hard": EventType.HARD_BOUNCE, "abuse": EventType.COMPLAINT}


class Mailchimp:
    """The source `mailchimp`."""

    name = "mailchimp"
    success: Literal[200, 202] = 200
    keeps_headers: frozenset[str] = frozenset()

    def check(self, body: bytes, content_type: str) -> None:
        """Raise `Malformed` unless *body* is a form, and is not said to be anything else."""
        if content_type.strip() and not is_form(content_type):
            raise Malformed("the body is not a form: its Content-Type says otherwise")
        if _is_read_again(body, content_type):
            raise Malformed("the body is JSON, not a form")
        check_form(body, content_type)

    verify = staticmethod(by_token_only)

    def parse(self, delivery: Delivery, rules: Rules, now: float) -> list[Outcome]:
        """Return the one `MailEvent`, `Ignored` or `Invalid` of the form."""
        fields = _fields(delivery.body, delivery.content_type)
        if "type" not in fields:
            raise Unreadable(Reason.UNKNOWN_SHAPE, "the form has no field `type`")
        return outcomes_of([fields], _read, rules, now)


MAILCHIMP = Mailchimp()


def _is_read_again(body: bytes, content_type: str) -> bool:
    # a form that was buried comes back as the JSON of its fields, without a Content-Type
    return not is_form(content_type) and body.lstrip()[:1] == b"{"


def _fields(body: bytes, content_type: str) -> dict[str, object]:
    if _is_read_again(body, content_type):
        again = read_json(body)
        return again if isinstance(again, dict) else {}
    found = read_form(body, content_type)
    fields: dict[str, object] = dict(found)
    if len(fields) < len(found):  # of several fields of one name the first counts
        fields |= reversed(found)
    return fields


def _read(fields: Mapping[str, object], rules: Rules) -> mail.Told | str:
    verdict = _verdict(fields)
    if not isinstance(verdict, EventType):
        return verdict
    return {
        "type": verdict,
        "email": fields.get("data[email]"),
        "time": fields.get("fired_at"),
        "send_id": _send_id(fields),
    }


def _verdict(fields: Mapping[str, object]) -> mail.Verdict:
    """Return the event's type, or the word why there is none."""
    name = mail.text(fields["type"])
    if name == "cleaned":
        # without a reason that is known nobody has said that the address is dead for good
        return _CLEANED.get(mail.text(fields.get("data[reason]")).lower(), EventType.SOFT_BOUNCE)
    return _TYPES.get(name) or _IGNORED.get(name, mail.UNMAPPED)


def _send_id(fields: Mapping[str, object]) -> str:
    if campaign := mail.first_id((fields.get("data[campaign_id]"),)):
        return campaign
    # who leaves by hand, by a form or by the API leaves the list, not a campaign
    audience = mail.text(fields.get("data[list_id]"))
    return f"list:{audience}" if audience else ""
