"""Sample deliveries of the mail senders beside SendGrid: `relay send SENDER` posts them.

One call each, as the sender posts it. All times of the samples' morning are moved to now in the text, in whatever
form they stand; an event with another time is another event, so ids may stay.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from urllib.parse import urlencode

import orjson

from sandbox.samples import Sample

_MORNING = datetime(2026, 1, 12, 9, 0, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# seconds, milliseconds or more of the morning's day, and its date with a time of the day
_UNIX = re.compile(r"\b(1768(?:1|2)\d{5})(\d{0,9})\b")
_ISO = re.compile(r"2026-01-12([T ])(\d\d):(\d\d):(\d\d)")

_JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"
#: what is posted as a form: its only field, or None where the sample's keys are the fields
_FORMS: dict[str, str | None] = {"mandrill": "mandrill_events", "mailchimp": None}
_PLAIN_TEXT = {"ses": "text/plain; charset=UTF-8"}

MAIL_SENDERS = (
    *("mailgun", "postmark", "ses", "sparkpost", "mandrill", "brevo", "mailjet", "resend"),
    *("mailersend", "mailtrap", "mailchimp", "klaviyo", "customerio", "iterable", "braze", "sfmc"),
)


def mail_sample(source: str, now: float) -> Sample:
    """Return the sample of the sender *source* as if it had just happened at *now* (Unix seconds)."""
    text = files("sandbox.samples").joinpath(f"{source}-every-kind.json").read_text("utf-8")
    text = _moved(text, timedelta(seconds=int(now)) - (_MORNING - _EPOCH))
    if source not in _FORMS:
        return Sample("every-kind", source, text.encode(), _PLAIN_TEXT.get(source, _JSON))
    field = _FORMS[source]
    fields = orjson.loads(text) if field is None else {field: text}
    return Sample("every-kind", source, urlencode(fields).encode(), _FORM)


def _moved(text: str, by: timedelta) -> str:
    def move_unix(found: re.Match[str]) -> str:
        return f"{int(found[1]) + int(by.total_seconds())}{found[2]}"

    def move_iso(found: re.Match[str]) -> str:
        hour, minute, second = map(int, found.group(2, 3, 4))
        moment = datetime(2026, 1, 12, hour, minute, second, tzinfo=UTC) + by
        return moment.strftime(f"%Y-%m-%d{found[1]}%H:%M:%S")

    return _ISO.sub(move_iso, _UNIX.sub(move_unix, text))
