"""The source `brevo`: its words become AudiencePoint's, of its many times the right one is read."""

from __future__ import annotations

import pytest

from pipeline.outcomes import MailEvent
from pipeline.sources import Rules
from pipeline.sources.brevo import BREVO
from tests.pipeline.sample_outcomes import NOW, delivery


@pytest.mark.parametrize("name", ["unique_opened", "proxy_open", "click", "unsubscribed"])
def test_brevos_own_server_is_never_taken_for_the_person(name: str) -> None:
    """`sending_ip` is Brevo's: it does not leave, whatever the event."""
    item = {"event": name, "email": "ada@example.com", "message-id": "m", "ts": 1}
    (found,) = BREVO.parse(delivery("brevo", {**item, "sending_ip": "192.0.2.9"}), Rules(), NOW)
    assert isinstance(found, MailEvent)
    assert found.ip_address is None
