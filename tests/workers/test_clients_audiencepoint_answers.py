"""Each recorded answer of AudiencePoint, and what it is read as or refused with.

`tests/samples/audiencepoint-answers/<case>.json` is a call, what was asked, status and answer (text:
bytes as they are), and `reads` (the fields that are set) or `fails` and `says`. People are invented.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from workers.clients import errors
from workers.clients.audiencelab import audiences, enrichment, pixels
from workers.clients.audiencepoint import (
    Campaign,
    Score,
    Verification,
    digest,
    read_events,
    read_scores,
    read_send_times,
    read_subscription,
    read_verification,
    scores_in_order,
    subscription_request,
    verification_request,
)
from workers.clients.errors import CallFailed, Unavailable
from workers.clients.messages import Answer

FOLDER = Path(__file__).parent.parent / "samples" / "audiencepoint-answers"
SAMPLES = {path.stem: orjson.loads(path.read_bytes()) for path in sorted(FOLDER.glob("*.json"))}
READABLE = [name for name, sample in SAMPLES.items() if "reads" in sample]
REFUSED = [name for name, sample in SAMPLES.items() if "fails" in sample]
CAMPAIGN = Campaign(
    datetime(2024, 1, 1, tzinfo=UTC),
    datetime(2024, 3, 10, 20, tzinfo=UTC),
)
READERS: dict[str, Callable[[Answer, Any], object]] = {
    "post_events": lambda answer, _: read_events(answer),
    "subscribe": lambda answer, _: read_subscription(answer),
    "scores": lambda answer, asked: scores_in_order(asked or [], read_scores(answer)),
    "verify": lambda answer, asked: read_verification(answer, asked or ""),
    "send_times": lambda answer, _: read_send_times(answer, CAMPAIGN),
}
SETTINGS = {
    "post_events": "AUDIENCEPOINT_EVENTS_PATH",
    "subscribe": "AUDIENCEPOINT_SUBSCRIPTION_PATH",
    "scores": "AUDIENCEPOINT_SCORES_PATH",
    "verify": "AUDIENCEPOINT_VERIFICATION_PATH",
    "send_times": "AUDIENCEPOINT_STO_PATH",
}


def answer_of(sample: dict[str, Any]) -> Answer:
    """Return a sample's answer."""
    body = sample["answer"]
    raw = body.encode() if isinstance(body, str) else orjson.dumps(body)
    return Answer(sample["status"], sample.get("headers", {}), raw)


def shown(result: object) -> Any:
    """Return a result as a sample writes it: only the fields that say something."""
    if isinstance(result, list):
        return [shown(each) for each in result]
    fields: dict[str, Any] = asdict(result)  # type: ignore[call-overload]
    if isinstance(result, Score):
        del fields["raw"]
    if isinstance(result, Verification):
        fields["corrected_address"] = result.corrected_address
    said = {name: value for name, value in fields.items() if value not in (None, (), {})}
    return orjson.loads(orjson.dumps(said))


@pytest.mark.parametrize("name", READABLE)
def test_an_answer_is_read_as_its_sample_says(name: str) -> None:
    """Every recorded answer comes to exactly the values beside it."""
    sample = SAMPLES[name]
    result = READERS[sample["call"]](answer_of(sample), sample["asked"])
    assert shown(result) == sample["reads"]


@pytest.mark.parametrize(
    ("name", "call"),
    [
        (name, call)
        for name in REFUSED
        for call in READERS
        if SAMPLES[name]["call"] in ("any", call)
    ],
)
def test_an_answer_is_refused_as_its_sample_says(name: str, call: str) -> None:
    """The failure has exactly its kind, the words for an operator, and nobody's address."""
    sample = SAMPLES[name]
    with pytest.raises(CallFailed) as caught:
        READERS[call](answer_of(sample), sample.get("asked"))
    assert type(caught.value) is getattr(errors, sample["fails"])
    assert sample["says"] in caught.value.sentence
    assert caught.value.status == sample["status"]
    assert "example.com" not in caught.value.sentence


@pytest.mark.parametrize("call", READERS)
def test_a_wrong_path_names_the_setting_of_its_call(call: str) -> None:
    """403 "Missing Authentication Token" is no wrong key: it points at the path, each at its own."""
    with pytest.raises(errors.Misconfigured, match=SETTINGS[call]):
        READERS[call](answer_of(SAMPLES["refused-path"]), None)


@pytest.mark.parametrize("call", READERS)
def test_the_wait_that_is_asked_for_is_kept(call: str) -> None:
    """`Retry-After` comes along with the failure, whatever the call."""
    with pytest.raises(errors.Unavailable) as caught:
        READERS[call](answer_of(SAMPLES["refused-rate"]), None)
    assert caught.value.retry_after_s == 7


def test_scores_keep_their_strings() -> None:
    """Beside the typed values stands every field as text, also what no value could be made of."""
    sample = SAMPLES["scores-unreadable-values"]
    (score,) = scores_in_order(sample["asked"], read_scores(answer_of(sample)))
    told = {k: v for k, v in sample["answer"][0].items() if k != "emailAddress"}
    assert score.raw == told


@pytest.mark.parametrize(
    "addresses",
    [
        ["a@example.com", digest("b@example.com")],
        ["a@example.com", "A@example.com "],
        [digest("a@example.com"), digest("a@example.com").upper()],
        ["a@example.com", "  "],
    ],
)
def test_one_call_carries_different_addresses_of_one_kind(addresses: list[str]) -> None:
    """Plain ones beside hashes, and the same twice in another spelling, are refused before they leave."""
    with pytest.raises(ValueError, match="addresses"):
        subscription_request(addresses)


@pytest.mark.parametrize(
    "make",
    [
        lambda text: subscription_request([text]),
        verification_request,
        lambda text: verification_request(text, by_get=True),
        lambda text: enrichment.enrich_request({"email": text}),
        lambda text: audiences.create_request(text, {"city": ["Bergen"]}),
        lambda text: pixels.create_request(text, "https://example.com", None, None),
    ],
    ids=["subscription", "verification", "by get", "enrich", "audience", "pixel"],
)
def test_a_text_that_is_no_unicode_is_a_wrong_value(make: Callable[[str], object]) -> None:
    """Half a surrogate pair is told as what was passed wrongly, as any other."""
    with pytest.raises(ValueError, match=r"surrogate|str is not valid UTF-8"):
        make("a\udcff@example.com")


@pytest.mark.parametrize("body", [b'[{"message":"x","email":"y"}]', b'[{"error":"x","email":"y"}]'])
def test_a_message_is_no_send_time(body: bytes) -> None:
    """An array of what went wrong is not an array of entries."""
    campaign = Campaign(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC))
    with pytest.raises(Unavailable):
        read_send_times(Answer(200, {}, body), campaign)


def test_an_error_is_no_result_of_a_verification() -> None:
    """A new word is kept; the word for a failure is none of an address."""
    with pytest.raises(Unavailable):
        read_verification(Answer(200, {}, b'{"Result":"Error","message":"x"}'), "a@example.com")
