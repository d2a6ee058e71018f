"""The source `sparkpost`: its words become AudiencePoint's, whatever a batch holds."""

from __future__ import annotations

from pipeline.outcomes import MailEvent
from pipeline.sources import Rules
from pipeline.sources.sparkpost import SPARKPOST
from tests.pipeline.sample_outcomes import NOW, delivery

_CLICK = {
    "type": "click",
    "rcpt_to": "ada@example.com",
    "timestamp": "1685620800",
    "message_id": "m-1",
}


def test_two_messages_of_one_transmission_stay_two() -> None:
    """Only `message_id` tells apart what one transmission sent twice to one address."""
    both = [{**_CLICK, "message_id": name, "transmission_id": "t"} for name in ("m-1", "m-2")]
    body = [{"msys": {"track_event": event}} for event in both]
    found = SPARKPOST.parse(delivery("sparkpost", body), Rules(), NOW)
    assert [event.send_id for event in found if isinstance(event, MailEvent)] == ["m-1", "m-2"]
