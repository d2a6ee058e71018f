"""Signatures: the true one is believed, everything else is `Unauthentic`, whatever a header holds."""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources import Unauthentic, signatures

KEY, OTHER = b"key-of-nobody", b"another-key"
BODY = b'{"type":"email.opened"}'
NOW = 1_700_000_000.0
SECRET = "whsec_" + b64encode(KEY).decode()


def svix(**changed: str) -> dict[str, str]:
    """Return the headers of a call that is signed now, with *changed*."""
    stamp = changed.get("svix-timestamp", str(int(NOW)))
    digest = hmac.digest(KEY, f"msg_1.{stamp}.".encode() + BODY, "sha256")
    return {
        "svix-id": "msg_1",
        "svix-timestamp": stamp,
        "svix-signature": f"v1,{b64encode(digest).decode()}",
    } | changed


def test_a_true_signature_is_believed() -> None:
    """Hexadecimal in any case, base64, and Svix's; with any of the keys that are set."""
    digest = hmac.digest(KEY, BODY, "sha256")
    keys = signatures.keys_of("another-key, key-of-nobody")
    assert keys == [OTHER, KEY]
    signatures.check_hex(digest.hex().upper(), keys, BODY)
    signatures.check_base64(b64encode(digest).decode(), keys, BODY)
    signatures.check_svix(svix(), BODY, SECRET, NOW)


def test_one_of_several_svix_signatures_is_enough() -> None:
    """While the sender changes its key it signs with both; other versions are not looked at."""
    good = svix()["svix-signature"]
    headers = svix(**{"svix-signature": f"v2,xxxx v1,AAAA nonsense {good}"})
    other = "whsec_" + b64encode(OTHER).decode()
    signatures.check_svix(headers, BODY, f"{other},{SECRET}", NOW)


@pytest.mark.parametrize(
    "wrong",
    [
        {"svix-signature": ""},
        {"svix-id": ""},
        {"svix-id": "msg_2"},
        {"svix-timestamp": "soon"},
        {"svix-timestamp": "\u0661\u0662"},
        {"svix-timestamp": "-1"},
        {"svix-timestamp": "nan"},
        {"svix-timestamp": "1e9"},
        {"svix-timestamp": "1_700_000_000"},
        {"svix-timestamp": "9" * 400},
        {"svix-timestamp": str(int(NOW) - 301)},
        {"svix-timestamp": str(int(NOW) + 301)},
        {"svix-signature": "v1,"},
        {"svix-signature": "v1,\u00e9\u00e9"},
        {"svix-signature": "v1," + "A" * 100_000},
        {"svix-signature": "v2," + svix()["svix-signature"][3:]},
    ],
)
def test_anything_else_is_not(wrong: dict[str, str]) -> None:
    """Missing, altered, late, early and malformed calls are refused, and nothing else is raised."""
    with pytest.raises(Unauthentic):
        signatures.check_svix(svix(**wrong), BODY, SECRET, NOW)


@pytest.mark.parametrize("check", [signatures.check_hex, signatures.check_base64])
@given(given_text=st.text(max_size=100))
def test_any_text_at_all_is_refused(check: Callable[..., None], given_text: str) -> None:
    """A header can hold anything."""
    with pytest.raises(Unauthentic):
        check(given_text, [KEY], BODY)


def test_no_key_believes_nothing() -> None:
    """A setting of commas alone is no open door."""
    for check in (signatures.check_hex, signatures.check_base64):
        with pytest.raises(Unauthentic):
            check("", signatures.keys_of(" , "), BODY)


def test_a_key_that_is_wrong_closes_no_door_to_the_others() -> None:
    """While keys are changed one may be pasted wrongly: the other still counts, and a wrong one alone is told."""
    for wrong in ("whsec_%%%", "whsec_", "whsec_\u00e9"):
        signatures.check_svix(svix(), BODY, f"{wrong},{SECRET}", NOW)
        with pytest.raises(Unauthentic, match="no key of ours"):
            signatures.check_svix(svix(), BODY, wrong, NOW)


def test_a_header_is_read_as_far_as_signatures_may_stand_in_it() -> None:
    """A header full of them costs no more than twenty: what stands behind is not looked at."""
    good = svix()["svix-signature"]
    behind = svix(**{"svix-signature": "v1,AAAA " * 19 + good})
    signatures.check_svix(behind, BODY, SECRET, NOW)
    too_far = svix(**{"svix-signature": "v1,AAAA " * 20 + good})
    with pytest.raises(Unauthentic):
        signatures.check_svix(too_far, BODY, SECRET, NOW)
