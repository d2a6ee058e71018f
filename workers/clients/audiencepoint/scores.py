"""Scores: what AudiencePoint knows of up to thirty addresses a call.

The Scores Model and the limit are documented, the path is not. The answer is a bare array; its order
is not documented, so each object is given to its address by `emailAddress`, which is the address or
its hash. What may go wrong: an address that the answer leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline import scores as model
from pipeline.addresses import digest
from pipeline.scores import Score, score_of
from workers.clients.audiencepoint.addresses import body_of
from workers.clients.audiencepoint.answers import refused
from workers.clients.messages import Answer, Request

SCORES_PATH = "/scores"
_SETTING = "AUDIENCEPOINT_SCORES_PATH"

#: What `scoreSelection` may name.
SCORE_NAMES = model.NAMES

#: `matched` of an address that could not be looked up, which an answer that leaves it out amounts to.
LEFT_OUT = {model.MATCHED: "err"}

Found = dict[str, Mapping[str, object]]
"""What answers tell of addresses, by their hash."""


def scores_request(
    addresses: Sequence[str], selection: Sequence[str] | None = None, path: str = SCORES_PATH
) -> Request:
    """Return the request for the scores of 1 to 30 different *addresses*, plain or hashed.

    *selection* is some of `SCORE_NAMES`; without any, all scores are answered. Raises `ValueError`
    for an unknown one and for addresses that one call cannot carry.
    """
    chosen = [selection] if isinstance(selection, str) else list(selection or ())
    if unknown := set(chosen) - set(SCORE_NAMES):
        raise ValueError(f"unknown scores: {', '.join(sorted(unknown))}")
    more = {"scoreSelection": chosen} if chosen else {}
    return Request("POST", path, body_of(addresses, **more))


def read_scores(answer: Answer, path: str = SCORES_PATH) -> Found:
    """Return what *answer* tells, by the hash of the address, or raise the `CallFailed` it means."""
    items = model.items(answer.decoded())
    if not answer.is_success or items is None:
        raise refused(answer, path, _SETTING)
    found: Found = {}
    for item in items:
        address = item.get(model.ADDRESS) if isinstance(item, dict) else None
        if isinstance(item, dict) and isinstance(address, str):
            found.setdefault(digest(address), item)
    if items and not found:  # things that are nobody's scores: an error told in an odd form
        raise refused(answer, path, _SETTING)
    return found


def scores_in_order(addresses: Sequence[str], found: Found) -> list[Score]:
    """Return one `Score` for each of *addresses*, in their order and under the names asked for."""
    return [score_of(address, found.get(digest(address), LEFT_OUT)) for address in addresses]
