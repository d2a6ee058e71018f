"""The source `sfmc`: its events become AudiencePoint's, only true signatures and the set-up are let in."""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from collections.abc import Mapping

import orjson
import pytest

from pipeline.outcomes import Probe
from pipeline.sources import Rules, Unauthentic
from pipeline.sources.sfmc import SFMC
from tests.pipeline.sample_outcomes import NOW, delivery

_KEY = "V27FXfqI3DnhfQW1bhFDeJixpt8eDAY5R24UJI3cK6M="
_BODY = b'[{"eventCategoryType":"EngagementEvents.EmailOpen"}]'
_SIGNATURE = "x-sfmc-ens-signature"
_GOOD = b64encode(hmac.digest(_KEY.encode(), _BODY, "sha256")).decode()
_HEADERS = {_SIGNATURE: _GOOD}
_SET_UP = {"callbackId": "65b885ab", "verificationKey": "once"}


def _verify(
    headers: Mapping[str, str], body: bytes = _BODY, secret: str = _KEY, now: float = NOW
) -> None:
    SFMC.verify(headers, body, {"SFMC_SIGNING_KEY": secret}, now)


def test_the_key_is_used_as_text() -> None:
    """Though it looks like base64 it is not decoded; the signature is base64."""
    _verify(_HEADERS)
    decoded = b64encode(hmac.digest(b64decode(_KEY), _BODY, "sha256")).decode()
    with pytest.raises(Unauthentic):
        _verify({_SIGNATURE: decoded})


@pytest.mark.parametrize("headers", [{}, {_SIGNATURE: "of a key that is not known yet"}])
@pytest.mark.parametrize("more", [{}, {"callbackName": "relay"}])
def test_the_set_up_is_let_in_and_is_a_probe(headers: dict[str, str], more: dict[str, str]) -> None:
    """The POST that brings the verification key passes unsigned though a key is set, and is no event."""
    body = orjson.dumps({**_SET_UP, **more})
    _verify(headers, body)
    with pytest.raises(Probe):
        SFMC.parse(delivery("sfmc", body), Rules(), NOW)


@pytest.mark.parametrize(
    "body",
    [
        {**_SET_UP, "eventCategoryType": "EngagementEvents.EmailUnsubscribe"},
        [_SET_UP],
        [{"eventCategoryType": "TransactionalSendEvents.EmailSent", **_SET_UP}],
        {"verificationKey": "once"},
        "verificationKey",
        None,
    ],
)
def test_no_event_comes_in_as_a_set_up(body: object) -> None:
    """What could hold an event needs a signature, whatever else stands in it."""
    with pytest.raises(Unauthentic):
        _verify({}, orjson.dumps(body))


def test_a_set_up_that_is_no_json_needs_a_signature() -> None:
    """Bytes that only look like the set-up are not let in by it."""
    with pytest.raises(Unauthentic):
        _verify({}, b'{"callbackId":"c","verificationKey":')
