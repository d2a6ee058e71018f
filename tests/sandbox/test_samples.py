"""The sample deliveries look like the vendors' own, name nobody real, and can be made fresh."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from sandbox.addresses import hash_of
from sandbox.people import people_known_by
from sandbox.samples import SAMPLES, Sample, fresh

ALL = [sample for samples in SAMPLES.values() for sample in samples]
NOW = datetime(2026, 11, 3, 17, 20, 5, 678000, tzinfo=UTC).timestamp()
every_sample = pytest.mark.parametrize("sample", ALL, ids=lambda each: f"{each.source}-{each.name}")


def _sample(source: str, name: str) -> Any:
    [sample] = [each for each in SAMPLES[source] if each.name == name]
    return orjson.loads(sample.body)


def _objects(message: object) -> Iterator[dict[str, Any]]:
    if isinstance(message, dict):
        yield message
    inner = message.values() if isinstance(message, dict) else message
    if isinstance(inner, str | int | None):
        return
    for each in inner:  # type: ignore[attr-defined]
        yield from _objects(each)


def test_every_source_has_samples() -> None:
    """There is something to send for each source, and names are not used twice."""
    assert set(SAMPLES) == {"pixel", "audience", "workflow", "events", "scores", "sendgrid"}
    assert len({(each.source, each.name) for each in ALL}) == len(ALL)


@every_sample
def test_nobody_in_a_sample_is_real(sample: Sample) -> None:
    """Addresses, telephone numbers and IP addresses are from the ranges kept for examples."""
    text = sample.body.decode()
    for domain in re.findall(r"[\w.+-]+@([\w.-]+)", text):
        assert re.search(r"(^|\.)example\.(com|net|org)$", domain)
    for number in re.findall(r"\"\+?1([0-9]{10})\b", text):
        assert re.fullmatch(r"[0-9]{3}55501[0-9]{2}", number)
    for address in re.findall(r"\"([0-9]+\.[0-9]+\.[0-9]+\.[0-9]+)\"", text):
        assert address.startswith("192.0.2.")


@every_sample
def test_hashes_belong_to_the_addresses_beside_them(sample: Sample) -> None:
    """Where a row has both, the hashes are those of its addresses, in their order."""
    for row in _objects(orjson.loads(sample.body)):
        for hashes, addresses in (
            ("SHA256_PERSONAL_EMAIL", "PERSONAL_EMAILS"),
            ("SHA256_BUSINESS_EMAIL", "BUSINESS_EMAIL"),
        ):
            plain = [each for each in row.get(addresses, "").split(", ") if each]
            assert row.get(hashes, "") == ", ".join(map(hash_of, plain))


def test_one_click_is_two_people() -> None:
    """Two rows of one click differ in nothing but the person and the hash."""
    first, second = _sample("pixel", "two-people")["events"]
    assert first["resolution"]["UUID"] != second["resolution"]["UUID"]
    assert first["hem_sha256"] != second["hem_sha256"]
    for row in (first, second):
        assert row["hem_sha256"] in row["resolution"]["SHA256_PERSONAL_EMAIL"]
        del row["resolution"], row["hem_sha256"]
    assert first == second


def test_the_unresolved_row_can_be_found_by_its_hash() -> None:
    """A row that knows a hash only is one the enrichment's stand-in has a person for."""
    [event] = _sample("pixel", "unresolved")["events"]
    assert not any(event["resolution"].values())
    [person] = people_known_by("sha256_personal_email", event["hem_sha256"])
    assert person["FIRST_NAME"] == "Leonie"


def test_the_window_comes_again_with_other_bytes() -> None:
    """The second window repeats the first, one event longer, also when both are made fresh."""
    window, again = (each for each in SAMPLES["pixel"] if each.name.startswith("window"))
    for first, second in ((window, again), (fresh(window, NOW), fresh(again, NOW))):
        events = orjson.loads(first.body)["events"]
        assert orjson.loads(second.body)["events"][:3] == events
        assert second.body[:200] != first.body[:200]


def test_the_events_fill_a_batch_and_half() -> None:
    """Forty-five events of all seven types, so that one full batch leaves."""
    events = _sample("events", "forty-five")["events"]
    assert len(events) == 45
    assert {each["type"] for each in events} == {
        *("Open", "Click", "Send", "SoftBounce", "HardBounce", "Unsubscribe", "Complaint")
    }


def test_the_scores_are_of_somebody_the_pixel_saw() -> None:
    """The score change meets a visitor of the pixel's sample."""
    [scores] = _sample("scores", "change")
    events = _sample("pixel", "two-people")["events"]
    assert scores["emailAddress"] in events[0]["resolution"]["SHA256_PERSONAL_EMAIL"]


def test_sendgrid_says_every_kind_of_event() -> None:
    """Each event word of the sender occurs, and both kinds of bounce."""
    events = _sample("sendgrid", "every-kind")
    assert {each["event"] for each in events} == {
        *("processed", "delivered", "deferred", "bounce", "dropped", "open", "click"),
        *("spamreport", "unsubscribe", "group_unsubscribe", "group_resubscribe"),
        "account_status_change",
    }
    assert {each["type"] for each in events if each["event"] == "bounce"} == {"bounce", "blocked"}


@every_sample
def test_a_fresh_sample_has_new_times_or_ids_and_the_same_shape(sample: Sample) -> None:
    """Sent twice, a sample is not the same delivery; made twice for one moment, it is."""
    once, twice = fresh(sample, NOW), fresh(sample, NOW + 1)
    assert once == fresh(sample, NOW)
    assert len({sample.body, once.body, twice.body}) == 3
    assert (once.name, once.source, once.content_type) == (
        *(sample.name, sample.source),
        "application/json",
    )
    shapes = [[list(each) for each in _objects(orjson.loads(each.body))] for each in (sample, once)]
    assert shapes[0] == shapes[1]


def test_fresh_times_end_now_and_keep_their_form() -> None:
    """Every form of time is moved to today, floored to its own precision, and none is ahead."""
    events = {each.source: orjson.loads(fresh(each, NOW).body) for each in reversed(ALL)}
    click = events["pixel"]["events"][0]
    assert click["event_timestamp"] == "2026-11-03T17:08:04Z"
    assert click["event_data"]["timestamp"] == "2026-11-03T17:08:05.315Z"
    assert events["workflow"]["visitor"]["EVENT_TIMESTAMP"] == "2026-11-03T17:16:05Z"
    assert events["scores"][0]["last_touch"] == "2026-11-03 05:01:05 PM"
    assert all(each["timestamp"] <= NOW for each in events["sendgrid"])
    times = [each["occurred_at_utc"] for each in events["events"]["events"]]
    assert all(re.fullmatch(r"2026-11-03T[0-9:]{8}", each) for each in times)
    assert max(times) <= "2026-11-03T17:20:05"


def test_fresh_ids_still_hang_together() -> None:
    """Events of one message share their id after the change, and it still ends as it did."""
    sample = SAMPLES["sendgrid"][0]
    before, after = orjson.loads(sample.body), orjson.loads(fresh(sample, NOW).body)
    pairs = {
        (old["sg_message_id"], new["sg_message_id"])
        for old, new in zip(before, after, strict=True)
        if "sg_message_id" in old
    }
    assert len(pairs) == len({old for old, _ in pairs}) == len({new for _, new in pairs})
    assert (
        after[0]["smtp-id"].strip("<").partition("@")[0] == after[0]["sg_message_id"].split(".")[0]
    )


def test_a_time_that_is_none_is_left_alone() -> None:
    """What stands where a time is expected and is none comes through as it is."""
    body = orjson.dumps({"timestamp": "soon", "occurred_at_utc": None})
    sample = Sample("odd", "events", body)
    assert fresh(sample, NOW).body == body
