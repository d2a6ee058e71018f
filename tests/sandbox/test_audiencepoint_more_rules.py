"""Verification, send times and changing scores of AudiencePoint's stand-in."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from sandbox.addresses import hash_of
from sandbox.faults import poisoned
from sandbox.memory import Memory
from sandbox.settings import Settings

pytestmark = pytest.mark.anyio

KNOWN, OTHER, STRANGER = "mara.quill@example.com", "tobias.fenn@example.com", "no@example.com"
CAMPAIGN = {"startTimeUtc": "2026-03-01T00:00:00", "endTimeUtc": "2026-03-08T00:00:00"}


async def _verify(point: httpx.AsyncClient, email: str) -> dict[str, str]:
    answer = await point.post("/email-verification", json={"email": email})
    assert answer.status_code == 200
    told: dict[str, str] = answer.json()
    return told


@pytest.mark.parametrize(
    ("email", "result"),
    [
        (KNOWN, "Verified"),
        ("verified@example.com", "Verified"),
        ("invalid.one@example.com", "Invalid"),
        ("spamtrap.2@example.com", "Spamtrap"),
        ("postmaster@example.com", "Role"),
        ("team@example.org", "Role"),
        ("disposable-5@example.com", "Caution"),
        ("abandoned@example.com", "Abandoned"),
        ("somebody@example.com", "Unknown"),
        ("1@example.com", "Unknown"),
    ],
)
async def test_the_address_tells_its_result(
    point: httpx.AsyncClient, email: str, result: str
) -> None:
    """Each of the seven results has addresses of its own; the keys are capitalised."""
    assert await _verify(point, email) == {"Email": email, "Result": result}


@pytest.mark.parametrize(
    ("email", "suggestion"),
    [
        ("testemail@gnail.com", "testemail@gmail.com"),
        ("testemail@yaho.con", "testemail@yahoo.com"),
        (
            "no address",
            "The provided email is not in valid email address format, "
            "please check for correctness.",
        ),
    ],
)
async def test_a_suggestion_is_an_address_or_a_sentence(
    point: httpx.AsyncClient, email: str, suggestion: str
) -> None:
    """What can be put right is put right; of anything else it is said what is wrong."""
    told = await _verify(point, email)
    assert told == {"Email": email, "Result": "Invalid", "Suggestion": suggestion}


async def test_verification_by_get_is_answered_alike_and_counted(
    point: httpx.AsyncClient, memory: Memory
) -> None:
    """Both ways are documented; an address in an address line is counted, for it gets logged."""
    told = await point.get("/email-verification", params={"email": KNOWN})
    assert told.json() == await _verify(point, KNOWN)
    counters = memory.counters()
    assert (counters["verification_calls"], counters["verified_by_get"]) == (2, 1)
    assert memory.full("verification_calls") == [KNOWN, KNOWN]


@pytest.mark.parametrize(
    "email", [hash_of(KNOWN), hash_of(KNOWN).upper(), "", " ", None, 5, [KNOWN]]
)
async def test_a_hash_cannot_be_verified(point: httpx.AsyncClient, email: object) -> None:
    """One plain address is needed, and a hash is none."""
    assert (await point.post("/email-verification", json={"email": email})).status_code == 400
    assert (await point.get(f"/email-verification?email={hash_of(KNOWN)}")).status_code == 400
    assert (await point.get("/email-verification")).status_code == 400


async def test_a_fault_finds_the_address_of_a_get(point: httpx.AsyncClient, app: Any) -> None:
    """An address in the query is held against a fault as one in a body is."""
    app.state.faults.add(poisoned("email-verification", KNOWN))
    statuses = [
        (await point.get("/email-verification", params={"email": email})).status_code
        for email in (KNOWN, OTHER)
    ]
    assert statuses == [400, 200]


async def test_verification_needs_the_key(point: httpx.AsyncClient) -> None:
    """A GET without content type is let in with the key, and with the key only."""
    answer = await point.get("/email-verification?email=a@b.example", headers={"X-API-Key": "no"})
    assert (answer.status_code, answer.json()) == (403, {"message": "Forbidden"})


async def test_send_times_are_an_array_of_one(point: httpx.AsyncClient, memory: Memory) -> None:
    """One object with an entry for each address; its default is spelled as the vendor spells it."""
    body = {"emailAddresses": [KNOWN, STRANGER], **CAMPAIGN}
    [told] = (await point.post("/sto", json=body)).json()
    assert set(told) == {"emailAddresses", "startTimeUtc", "endTimeUtc", "defaultSendTIme"}
    assert told["defaultSendTIme"] == "2026-03-08T00:20:00"
    known, stranger = told["emailAddresses"]
    assert CAMPAIGN["startTimeUtc"] <= known["sendTimeUtc"] <= CAMPAIGN["endTimeUtc"]
    assert stranger == {"emailAddress": STRANGER, "sendTimeUtc": told["defaultSendTIme"]}
    assert memory.full("send_time_calls") == [body]


async def test_a_default_that_was_sent_is_kept(point: httpx.AsyncClient) -> None:
    """It comes back as it was asked for, under the other spelling."""
    body = {"emailAddresses": [STRANGER], **CAMPAIGN, "defaultSendTime": "2026-03-02T11:00:00"}
    [told] = (await point.post("/sto", json=body)).json()
    assert told["defaultSendTIme"] == "2026-03-02T11:00:00"


@pytest.mark.parametrize(
    "more",
    [
        {"emailAddresses": []},
        {"emailAddresses": [KNOWN] * 31},
        {"startTimeUtc": None},
        {"endTimeUtc": None},
        {"endTimeUtc": CAMPAIGN["startTimeUtc"]},
        {"startTimeUtc": "2026-03-01T00:00:00Z"},
        {"startTimeUtc": "2026-03-01T00:00:00.5"},
        {"startTimeUtc": "2026-02-30T00:00:00"},
        {"defaultSendTime": "soon"},
    ],
)
async def test_send_times_need_both_ends_and_thirty_at_most(
    point: httpx.AsyncClient, more: dict[str, Any]
) -> None:
    """Times have no zone letter and no fraction, and the end comes after the start."""
    body = {"emailAddresses": [KNOWN], **CAMPAIGN, **more}
    answer = await point.post("/sto", json={k: v for k, v in body.items() if v is not None})
    assert answer.status_code == 400


async def _scores(point: httpx.AsyncClient, *addresses: str) -> list[dict[str, Any]]:
    told: list[dict[str, Any]]
    told = (await point.post("/scores", json={"emailAddresses": addresses})).json()
    return told


async def test_a_score_changes_when_it_is_told_to(
    point: httpx.AsyncClient, settings: Settings
) -> None:
    """Only what is set differs, for the address and for its hash; nobody else changes."""
    [before, other] = await _scores(point, KNOWN, OTHER)
    settings.change_scores(KNOWN.upper(), score="9")
    settings.change_scores(KNOWN.upper(), frequency="Weekly")
    [plain, hashed, untouched] = await _scores(point, KNOWN, hash_of(KNOWN), OTHER)
    assert plain == before | {"score": "9", "frequency": "Weekly"}
    assert hashed == plain | {"emailAddress": hash_of(KNOWN)}
    assert untouched == other


async def test_a_stranger_can_get_scores_an_err_or_no_answer(
    point: httpx.AsyncClient, settings: Settings
) -> None:
    """What is set makes somebody known; `matched` can be any word; None leaves the address out."""
    settings.change_scores(STRANGER, score="5")
    settings.change_scores(OTHER, matched="err")
    settings.scores |= {KNOWN: None}
    known, failed = await _scores(point, STRANGER, KNOWN, OTHER)
    assert (known["matched"], known["score"]) == ("yes", "5")
    assert failed == {"emailAddress": OTHER, "matched": "err"}


async def test_scores_can_come_in_another_order_and_with_types(
    point: httpx.AsyncClient, settings: Settings
) -> None:
    """The order is not promised, and another edition may send numbers."""
    [plain] = await _scores(point, KNOWN)
    settings.scores_reversed = settings.scores_typed = True
    told = await _scores(point, KNOWN, STRANGER)
    assert [each["emailAddress"] for each in told] == [STRANGER, KNOWN]
    assert told[1]["score"] == int(plain["score"])
    assert told[1]["send_time"] == int(plain["send_time"])
    assert told[1]["last_seen_auto_open"] is False
