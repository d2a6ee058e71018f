"""E-mail verification: whether an address exists and should be written to. One address a call.

Documented, path and all. The request's key is in lower case, the answer's keys are capitalised. Only
a plain address can be verified.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from pipeline.addresses import clean, is_address, is_hash
from workers.clients.audiencepoint.answers import refused
from workers.clients.messages import Answer, Request, json_bytes

VERIFICATION_PATH = "/email-verification"
_SETTING = "AUDIENCEPOINT_VERIFICATION_PATH"

#: What an address can be. A word that is not among them is kept as it came.
RESULTS = (
    "Verified",  # it exists
    "Invalid",  # bad syntax, misspelt domain, takes no mail, known not to exist
    "Spamtrap",
    "Role",  # admin, postmaster, team
    "Caution",  # valid, but suppressed, disposable, a bot's, or a frequent complainer's
    "Abandoned",  # verified once, no activity for 365 days
    "Unknown",  # valid format, existence cannot be verified
)
_RESULTS = {result.lower(): result for result in RESULTS}


@dataclass(frozen=True, slots=True)
class Verification:
    """What became of one address; *suggestion* is an address, or a sentence about what to do."""

    email: str
    #: one of `RESULTS`
    result: str
    suggestion: str | None = None

    @property
    def corrected_address(self) -> str | None:
        """The address that was perhaps meant; None when the suggestion is a sentence, or none."""
        wanted = clean(self.suggestion or "")
        return wanted if is_address(wanted) else None


def verification_request(
    address: str, path: str = VERIFICATION_PATH, *, by_get: bool = False
) -> Request:
    """Return the request that verifies one plain *address*; `ValueError` for a hash or an empty one.

    *by_get* puts the address into the query, which the vendor advises against: URLs are logged and
    cached on their way.
    """
    email = clean(address)
    if not email or is_hash(email):
        raise ValueError("only a plain address can be verified, no hash")
    if by_get:
        return Request("GET", f"{path}?email={quote(email, safe='')}")
    return Request("POST", path, json_bytes({"email": email}))


def read_verification(answer: Answer, address: str, path: str = VERIFICATION_PATH) -> Verification:
    """Return what *answer* says of *address*, or raise the `CallFailed` that it means."""
    members = {name.lower(): value for name, value in answer.members().items()}
    result, suggestion = members.get("result"), members.get("suggestion")
    is_told = isinstance(result, str) and result.strip().lower() not in ("", "error", "failed")
    if not answer.is_success or not isinstance(result, str) or not is_told:
        raise refused(answer, path, _SETTING)
    email = members.get("email")
    return Verification(
        email if isinstance(email, str) and email else clean(address),
        _RESULTS.get(result.strip().lower(), result.strip()),
        suggestion if isinstance(suggestion, str) and suggestion.strip() else None,
    )
