"""The source `iterable`: its names become AudiencePoint's, wherever in the body a field stands."""

from __future__ import annotations

import pytest

from pipeline.sources import Rules
from pipeline.sources.iterable import ITERABLE
from tests.pipeline.sample_outcomes import NOW, delivery, shown


@pytest.mark.parametrize("name", ["emailSend", "emailBounce", "emailComplaint"])
def test_what_no_person_did_has_no_address_of_a_machine(name: str) -> None:
    """`ip` and `userAgent` leave only on what the person did."""
    fields = {"messageId": "m", "createdAt": "2023-06-01 12:00:00 +00:00", "ip": "192.0.2.1"}
    body = {
        "email": "ada@example.com",
        "eventName": name,
        "dataFields": {**fields, "userAgent": "x"},
    }
    (found,) = ITERABLE.parse(delivery("iterable", body), Rules(), NOW)
    assert not {"ip_address", "user_agent"} & shown(found).keys()
