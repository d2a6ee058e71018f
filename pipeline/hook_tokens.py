"""Hook tokens: what a sender shows in the path or a header of `/hooks/{source}`, and which source each is for."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

SOURCES = frozenset(
    [
        "pixel",
        "audience",
        "workflow",
        "scores",
        "events",
        "sendgrid",
        "mailgun",
        "postmark",
        "ses",
        "sparkpost",
        "mandrill",
        "brevo",
        "mailjet",
        "resend",
        "mailersend",
        "mailtrap",
        "mailchimp",
        "klaviyo",
        "customerio",
        "iterable",
        "braze",
        "sfmc",
    ]
)
"""Every word that can stand in `/hooks/{source}`."""

MIN_TOKEN_LENGTH = 16
# printable ASCII that neither ends nor changes a URL's path or query, nor separates tokens
_TOKEN = re.compile(r"[!$'()*.0-9;<=>@A-Z\[\]^_`a-z{|}~-]+")


@dataclass(frozen=True, slots=True)
class HookToken:
    """A secret that a sender shows, valid for *source* only; None is every source."""

    source: str | None
    token: str = field(repr=False)


def parse_tokens(text: str) -> list[HookToken]:
    """Read comma-separated `token` and `source:token`; a ValueError counts, never quotes."""
    tokens: list[HookToken] = []
    for number, item in enumerate((part.strip() for part in text.split(",")), start=1):
        if not item:
            continue
        source, colon, token = item.rpartition(":")
        if colon and source not in SOURCES:
            raise ValueError(
                f"the part before ':' of token {number} is not a source;"
                f" known are {', '.join(sorted(SOURCES))}"
            )
        if len(token) < MIN_TOKEN_LENGTH:
            raise ValueError(
                f"token {number} is shorter than {MIN_TOKEN_LENGTH} characters; make one with"
                " `python -c 'import secrets; print(secrets.token_urlsafe(24))'`"
            )
        if not _TOKEN.fullmatch(token):
            raise ValueError(
                f"token {number} has a character that cannot stand in a URL;"
                " use letters, digits and - . _ ~"
            )
        tokens.append(HookToken(source or None, token))
    if not tokens:
        raise ValueError("holds no token; set at least one, or leave it out")
    return tokens


def token_for(tokens: list[HookToken], source: str) -> str | None:
    """Return the first of *tokens* that is valid for *source*, to post something there."""
    return next((each.token for each in tokens if each.source in (None, source)), None)
