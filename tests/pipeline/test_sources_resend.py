"""The source `resend`: its words become AudiencePoint's, several recipients, Svix's signature."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from pipeline.deliveries import Delivery
from pipeline.mail_events import fingerprint
from pipeline.outcomes import Invalid, MailEvent, Stage
from pipeline.sources import Rules, Unauthentic
from pipeline.sources.resend import RESEND
from tests.pipeline.sample_outcomes import NOW, delivery, shown
from tests.pipeline.signers import KEY, SIGNERS, verify

_RESEND = SIGNERS["resend"].sign(KEY)
_GOOD = _RESEND.signed["svix-signature"]
_OLD = SIGNERS["resend"].sign("the-key-before").signed["svix-signature"]


def _sent(*to: object, **more: object) -> dict[str, Any]:
    data = {"email_id": "m-1", "to": list(to)}
    return {"type": "email.sent", "created_at": "2023-06-01T12:00:00Z", "data": data, **more}


def _called(body: object, svix_id: str) -> Delivery:
    found = delivery("resend", body)
    found.headers = {"svix-id": svix_id}
    return found


def test_an_event_is_recognised_by_the_id_of_its_call() -> None:
    """Two opens in the same second are two events when Resend gave them two ids."""
    body = {**_sent("ada@example.com"), "type": "email.opened"}
    found = [RESEND.parse(_called(body, name), Rules(), NOW)[0] for name in ("a", "b", "b")]
    prints = [fingerprint("resend", event) for event in found if isinstance(event, MailEvent)]
    assert prints[0] != prints[1]
    assert prints[1] == prints[2]


def test_a_send_to_several_is_one_send_each_however_often_it_is_told() -> None:
    """A call for each recipient, all of them naming both, still gives two Sends."""
    body = _sent("ada@example.com", "bob@example.com")
    found = [*RESEND.parse(_called(body, "a"), Rules(), NOW)]
    found += RESEND.parse(_called(body, "b"), Rules(), NOW)
    prints = {fingerprint("resend", event) for event in found if isinstance(event, MailEvent)}
    assert len(found) == 4
    assert len(prints) == 2


def test_a_send_is_told_once_however_many_calls_tell_it() -> None:
    """Who has a copy causes a call too, which names the same one recipient: the call's id is not the Send's."""
    body = _sent("ada@example.com")
    body["data"]["cc"] = ["bob@example.com"]
    found = [RESEND.parse(_called(body, name), Rules(), NOW)[0] for name in ("a", "b")]
    prints = {fingerprint("resend", event) for event in found if isinstance(event, MailEvent)}
    assert len(prints) == 1


def test_only_the_wrong_recipient_is_buried_and_its_numbers_stay() -> None:
    """What is buried names nobody else, keeps long numbers, and is read again as what it is."""
    body = b'{"type":"email.sent","created_at":"2023-06-01T12:00:00Z","n":12345678901234567890123,'
    body += b'"data":{"email_id":"m-1","to":["ada@example.com","nobody"]}}'
    good, wrong = RESEND.parse(delivery("resend", body), Rules(), NOW)
    assert isinstance(good, MailEvent)
    assert isinstance(wrong, Invalid)
    assert wrong.stage is Stage.FORWARD
    assert b"12345678901234567890123" in wrong.payload
    assert orjson.loads(wrong.payload)["data"]["to"] == ["nobody"]
    (again,) = RESEND.parse(delivery("resend", wrong.payload), Rules(), NOW)
    assert shown(again) == shown(wrong)


@pytest.mark.parametrize("signatures", [f"{_OLD} {_GOOD}", f"{_GOOD} {_OLD}", f"v2,AAAA {_GOOD}"])
def test_one_of_several_signatures_is_enough(signatures: str) -> None:
    """While Resend changes its key it signs with both; another version stands beside and is not looked at."""
    verify("resend", {**_RESEND.signed, "svix-signature": signatures}, _RESEND.body)


@pytest.mark.parametrize(
    "signature",
    [_GOOD.removeprefix("v1,"), "v2" + _GOOD[2:], "v1,", "v1,%%%", "v1,é\udcff", f"{_OLD} {_OLD}"],
    ids=["no version", "another version", "nothing", "not base64", "not ASCII", "another key"],
)
def test_only_a_signature_of_version_1_counts(signature: str) -> None:
    """What is no version 1, or holds no base64 in it, proves nothing."""
    with pytest.raises(Unauthentic):
        verify("resend", {**_RESEND.signed, "svix-signature": signature}, _RESEND.body)


@pytest.mark.parametrize("secret", ["whsec_%%%", "whsec_é", "whsec_"])
def test_with_a_secret_that_is_not_base64_nothing_is_believed(secret: str) -> None:
    """A setting that holds no key refuses instead of failing."""
    with pytest.raises(Unauthentic):
        verify("resend", _RESEND.signed, _RESEND.body, secret)
