"""What all of AudiencePoint's calls share: the key's header, and how an answer is refused.

The vendor documents no status, no error body and no rate limit; what is understood is what AWS API
Gateway answers, which seems to stand in front of it (`workers.clients.refusals`).
"""

from __future__ import annotations

from workers.clients.errors import CallFailed
from workers.clients.messages import Answer
from workers.clients.refusals import failure

VENDOR = "AudiencePoint"


def headers(key: str) -> dict[str, str]:
    """Return the headers that every call to AudiencePoint carries (documented)."""
    return {"X-API-Key": key}


def refused(answer: Answer, path: str, setting: str) -> CallFailed:
    """Return the failure that *answer* means; *setting* names where *path* is set."""
    return failure(answer, VENDOR, path, path_setting=setting)
