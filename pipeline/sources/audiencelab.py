"""AudienceLab: visitors of a pixel, people of an audience, people sent by a Studio workflow.

Three hooks and one parser: people paste the URL of one dialog into another, and a page of the
vendor's API may be replayed into any of them. Nothing is signed (the token in the URL is the only
secret), there are no event ids, and whole windows come again: `audiencelab_sightings` tells how
they are recognised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal

from pipeline.deliveries import Delivery
from pipeline.outcomes import Ignored, Invalid, Outcome, Probe, Reason, Stage, Unreadable
from pipeline.sources import Rules
from pipeline.sources.audiencelab_columns import Columns, has_known_column
from pipeline.sources.audiencelab_envelopes import (
    is_probe,
    is_test,
    names_events,
    open_envelopes,
    people,
)
from pipeline.sources.audiencelab_sightings import sighting
from pipeline.sources.json_body import as_json, as_sent, check_json, read_json

TEST: Final = Ignored(Stage.ENRICH, "test")


class AudienceLab:
    """One of AudienceLab's hooks; they differ in nothing but the name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.success: Literal[200, 202] = 202
        self.keeps_headers: frozenset[str] = frozenset()

    def check(self, body: bytes, content_type: str) -> None:
        """Raise `Malformed` unless *body* is JSON; an empty one is a reachability probe."""
        if body.strip():
            check_json(body)

    def verify(
        self, headers: Mapping[str, str], body: bytes, secrets: Mapping[str, str], now: float
    ) -> None:
        """Accept everything: no signature of this vendor was ever seen, whatever others say."""

    def parse(self, delivery: Delivery, rules: Rules, now: float) -> list[Outcome]:
        """Return one outcome per person seen, in the order of the body."""
        if not delivery.body.strip():
            raise Probe("empty body")
        document = read_json(delivery.body)
        if is_probe(document):
            raise Probe("reachability probe")
        outcomes = [_outcome(item) for item in _items(document)]
        if outcomes and all(outcome is TEST for outcome in outcomes):
            raise Probe("the vendor's test body")
        is_strange = outcomes and all(isinstance(outcome, Invalid) for outcome in outcomes)
        if is_strange and not names_events(document):
            raise Unreadable(Reason.UNKNOWN_SHAPE, "no event and no person could be found in it")
        return as_sent(outcomes, delivery.body, _items)


def _items(document: object) -> Iterator[object]:
    """Yield the columns of each person in *document* and, as it is, what is no event and no person."""
    for row in open_envelopes(document):
        if isinstance(row, dict) and has_known_column(row):
            yield from people(row)
        else:
            yield row


def _outcome(item: object) -> Outcome:
    if isinstance(item, Columns):
        return TEST if is_test(item) else sighting(item)
    is_object = isinstance(item, dict)
    error = "no known column of an event or a person" if is_object else "not an object"
    return Invalid(Stage.ENRICH, error, as_json(item))


PIXEL: Final = AudienceLab("pixel")
AUDIENCE: Final = AudienceLab("audience")
WORKFLOW: Final = AudienceLab("workflow")
