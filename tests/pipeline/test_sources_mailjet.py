"""The source `mailjet`: its words become AudiencePoint's, its long ids stay exact."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.outcomes import Invalid, MailEvent, Stage
from pipeline.sources import Rules
from pipeline.sources.mailjet import MAILJET
from tests.pipeline.sample_outcomes import NOW, delivery


@given(st.integers(1, 2**64 - 1))
def test_the_id_of_a_message_is_exact_to_the_last_digit(message_id: int) -> None:
    """No id of up to 64 bits is rounded as a double would be: neighbours stay two messages."""
    body = b'{"event":"sent","email":"a@example.com","time":1685620800,"MessageID":%d}' % message_id
    (found,) = MAILJET.parse(delivery("mailjet", body), Rules(), NOW)
    assert isinstance(found, MailEvent)
    assert found.send_id == str(message_id)


def test_a_number_that_was_rounded_is_no_id() -> None:
    """Of more than 64 bits only a rounded number is left: buried, with every digit that came."""
    body = b'{"event":"sent","email":"a@example.com","time":1685620800,"MessageID":18446744073709551617}'
    (found,) = MAILJET.parse(delivery("mailjet", body), Rules(), NOW)
    assert isinstance(found, Invalid)
    assert (found.stage, found.payload) == (Stage.FORWARD, body)
    assert found.error == "the id of the message is missing, or neither text nor a whole number"
