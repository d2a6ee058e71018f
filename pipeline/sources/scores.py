"""Source `scores`: AudiencePoint tells that the scores of subscribed addresses changed.

How such changes arrive is agreed with the account manager and written down nowhere, so every likely
envelope of the Scores Model (APIs 1.5) is taken: one object, an array, `{"scores": [...]}` or
`{"events": [...]}`. All values are strings in the model; whatever comes is kept as text under the
vendor's own name, unknown fields too (`pipeline.scores`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pipeline import scores
from pipeline.addresses import clean, is_address, is_hash
from pipeline.deliveries import Delivery
from pipeline.outcomes import Ignored, Invalid, Outcome, Reason, ScoreChange, Stage, Unreadable
from pipeline.sources import Rules
from pipeline.sources.json_body import as_json, as_sent, check_json, read_json

# `matched` with these carries no scores: the address is no address, or the vendor's lookup failed
_WITHOUT_SCORES = {"invalid": "address_not_valid", "err": "vendor_error"}


class Scores:
    """The source `scores`."""

    name = "scores"
    success: Literal[200, 202] = 202
    keeps_headers: frozenset[str] = frozenset()

    def check(self, body: bytes, content_type: str) -> None:
        """Raise `Malformed` unless *body* is JSON."""
        check_json(body)

    def verify(
        self, headers: Mapping[str, str], body: bytes, secrets: Mapping[str, str], now: float
    ) -> None:
        """Accept everything: no signature is described, the token is all the proof there is."""

    def parse(self, delivery: Delivery, rules: Rules, now: float) -> list[Outcome]:
        """Return one `ScoreChange`, `Ignored` or `Invalid` for each object of the body."""
        outcomes = [_outcome(item) for item in _items(read_json(delivery.body))]
        return as_sent(outcomes, delivery.body, _items)


SCORES = Scores()


def _items(body: object) -> list[object]:
    found = scores.items(body)
    if found is None:
        raise Unreadable(
            Reason.UNKNOWN_SHAPE,
            'neither scores, an array, {"scores": [...]} nor {"events": [...]}',
        )
    return found


def _outcome(item: object) -> Outcome:
    if not isinstance(item, dict):
        return Invalid(Stage.SCORES, "the item is not an object", as_json(item))
    matched = item.get(scores.MATCHED)
    if isinstance(matched, str) and (why := _WITHOUT_SCORES.get(matched.strip().lower())):
        return Ignored(Stage.SCORES, why)
    address = item.get(scores.ADDRESS)
    email = clean(address) if isinstance(address, str) else ""
    if is_hash(email):
        email = email.lower()
    elif not is_address(email):
        error = f"{scores.ADDRESS} is missing, or neither an address nor 64 hex digits"
        return Invalid(Stage.SCORES, error, as_json(item))
    return ScoreChange(email, scores.texts(item))
