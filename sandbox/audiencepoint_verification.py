"""AudiencePoint's e-mail verification: one plain address, a capitalised answer.

Everybody of the table of people is `Verified`. Of anybody else the first word of the address tells:
`spamtrap.2@example.com` is a `Spamtrap`. Who says nothing is `Unknown`.
"""

from __future__ import annotations

import re

from sandbox.addresses import is_hash, is_valid
from sandbox.audiencepoint_rules import message_of, refusal
from sandbox.desk import Answer, Asked, Handle
from sandbox.memory import Memory
from sandbox.people import is_known

_RESULTS = {
    "verified": "Verified",
    "invalid": "Invalid",
    "spamtrap": "Spamtrap",
    **dict.fromkeys(("role", "admin", "postmaster", "team"), "Role"),
    **dict.fromkeys(("caution", "disposable", "abuse", "bot"), "Caution"),
    "abandoned": "Abandoned",
}
_MISSPELT = {
    "gnail.com": "gmail.com",
    "yaho.con": "yahoo.com",
    "exmaple.com": "example.com",
}
_SENTENCE = "The provided email is not in valid email address format, please check for correctness."


def verified(memory: Memory) -> Handle:
    """`POST /v1/email-verification`, and `GET` with `?email=`, which is not recommended."""

    def handle(asked: Asked) -> Answer:
        is_get = asked.request.method == "GET"
        email = asked.query.get("email") if is_get else message_of(asked).get("email")
        if not isinstance(email, str) or not email.strip():
            raise refusal("email is required and a string")
        if is_hash(email.strip()):
            raise refusal("email is an address and no hash")
        memory.keep_verification(email, by_get=is_get)
        result, suggestion = _judge(email.strip())
        more = {} if suggestion is None else {"Suggestion": suggestion}
        return Answer(200, {"Email": email, "Result": result, **more}, 1)

    return handle


def _judge(email: str) -> tuple[str, str | None]:
    """Return the result and, for what can be put right, a sentence or a better address."""
    if not is_valid(email):
        return "Invalid", _SENTENCE
    name, _, domain = email.lower().rpartition("@")
    if domain in _MISSPELT:
        return "Invalid", f"{name}@{_MISSPELT[domain]}"
    if is_known(email):
        return "Verified", None
    [word] = re.findall(r"^[a-z]*", name)
    return _RESULTS.get(word, "Unknown"), None
