"""Source `scores`: AudiencePoint tells that the scores of subscribed addresses changed.

How such changes arrive is agreed with the account manager and written down nowhere, so every likely
envelope of the Scores Model (APIs 1.5) is taken: one object, an array, `{"scores": [...]}` or
`{"events": [...]}`. All values are strings in the model; whatever comes is kept as text under the
vendor's own name, unknown fields too, because the next edition of the model may bring them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pipeline.addresses import clean, is_address, is_hash
from pipeline.deliveries import Delivery
from pipeline.outcomes import Ignored, Invalid, Outcome, Reason, ScoreChange, Stage, Unreadable
from pipeline.sources import Rules
from pipeline.sources.json_body import as_json, as_sent, check_json, read_json

_ADDRESS = "emailAddress"
#: The Scores Model's names: any of them makes an object one address's scores, not an envelope.
_MODEL = frozenset(
    (
        _ADDRESS,
        "matched",
        "domain_owner",
        "best_day_of_week",
        "best_time_of_day",
        "last_touch",
        "send_time",
        "score",
        "frequency",
        "codes",
        "devices",
        "email_clients",
        "first_touch",
        "last_send_no_bounce",
        "last_seen",
        "last_seen_auto_open",
    )
)
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
    if isinstance(body, list):
        return body
    if isinstance(body, dict):
        if not _MODEL.isdisjoint(body):
            return [body]
        for envelope in ("scores", "events"):
            if isinstance(body.get(envelope), list):
                return list(body[envelope])
    raise Unreadable(
        Reason.UNKNOWN_SHAPE, 'neither scores, an array, {"scores": [...]} nor {"events": [...]}'
    )


def _outcome(item: object) -> Outcome:
    if not isinstance(item, dict):
        return Invalid(Stage.SCORES, "the item is not an object", as_json(item))
    matched = item.get("matched")
    if isinstance(matched, str) and (why := _WITHOUT_SCORES.get(matched.strip().lower())):
        return Ignored(Stage.SCORES, why)
    address = item.get(_ADDRESS)
    email = clean(address) if isinstance(address, str) else ""
    if is_hash(email):
        email = email.lower()
    elif not is_address(email):
        error = f"{_ADDRESS} is missing, or neither an address nor 64 hex digits"
        return Invalid(Stage.SCORES, error, as_json(item))
    return ScoreChange(email, _texts(item))


def _texts(item: Mapping[str, object]) -> dict[str, str]:
    return {
        name: _text(value) for name, value in item.items() if name != _ADDRESS and value is not None
    }


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"  # as the model spells last_seen_auto_open
    return as_json(value).decode()
