"""The tally: what a call came to, by how it failed, and which calls tell how long the vendor takes."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx
import pytest
from redis.asyncio import Redis

from pipeline import calls
from pipeline.calls import Outcome
from pipeline.outcomes import Stage
from workers.clients.errors import (
    CallFailed,
    Misconfigured,
    NotFound,
    QuotaExceeded,
    Rejected,
    Throttled,
    TimedOut,
    Unavailable,
)
from workers.clients.http import Answered, VendorHttp, calls_noted
from workers.clients.messages import Request
from workers.tally import Tally, outcome_of

pytestmark = pytest.mark.anyio

FORWARD = Stage.FORWARD


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (Rejected("no", status=400), Outcome.REFUSED),
        (NotFound("gone", status=404), Outcome.REFUSED),
        (Misconfigured("key", status=401), Outcome.REFUSED),
        (Misconfigured("no usable address"), Outcome.FAILED),
        (Throttled("slower", status=429), Outcome.THROTTLED),
        (QuotaExceeded("enough", status=429), Outcome.THROTTLED),
        (Unavailable("busy", status=503), Outcome.FAILED),
        (Unavailable("cannot be reached"), Outcome.FAILED),
        (TimedOut("no answer", maybe_stored=True), Outcome.TIMED_OUT),
    ],
)
def test_a_failure_has_its_outcome(failure: CallFailed, outcome: Outcome) -> None:
    """The vendor's no, the vendor's trouble, its silence and its wish for fewer are told apart."""
    assert outcome_of(failure) is outcome


async def test_what_is_told_is_what_was_counted(redis: Redis) -> None:
    """Each answer is in the bucket that ends at or after it, a time-out too; who was not reached took no time."""
    tally = Tally()
    tally.answered(FORWARD, [Answered(0, 0.05), Answered(0, 0.06)])
    tally.answered(FORWARD, [])  # known without a call
    tally.failed(FORWARD, [Answered(0, 0.25)], Unavailable("busy", status=503), 9.0)
    tally.failed(FORWARD, [], TimedOut("no answer", maybe_stored=True), 31.0)
    tally.failed(FORWARD, [], Unavailable("cannot be reached"), 0.01)
    await tally.tell(redis)
    await tally.tell(redis)  # nothing new
    hour = (await calls.read(redis, [FORWARD]))[FORWARD].hour
    assert hour.outcomes == {"ok": 2, "refused": 0, "failed": 2, "timed_out": 1, "throttled": 0}
    assert {n: count for n, count in enumerate(hour.buckets) if count} == {0: 1, 1: 1, 3: 1, 16: 1}
    assert (await calls.read_all(redis, [FORWARD]))[FORWARD].seconds == 31.36


async def test_of_several_calls_the_last_is_the_one_that_failed(redis: Redis) -> None:
    """A batch of several calls whose third broke off without an answer had two that went well."""
    tally = Tally()
    tally.failed(FORWARD, [Answered(0, 0.1), Answered(1, 0.1)], Unavailable("broke off"), 1.0)
    await tally.tell(redis)
    hour = (await calls.read(redis, [FORWARD]))[FORWARD].hour
    assert (hour.outcomes["ok"], hour.outcomes["failed"], sum(hour.buckets)) == (2, 1, 2)


async def trip(http: VendorHttp, failure: BaseException) -> None:
    """Make a call, and fail with *failure* over its answer."""
    await http.send(Request("GET", "/three"))
    raise failure


async def test_calls_of_another_endpoint_are_counted_once(redis: Redis) -> None:
    """What is called inside a batch for something else is told of there only, and known to the batch all the same."""
    tally, vendor = Tally(), httpx.MockTransport(lambda request: httpx.Response(200, json={}))
    async with httpx.AsyncClient(transport=vendor) as client:
        http = VendorHttp("Vendor", "http://vendor.example.com", {}, client)
        with calls_noted() as calls_made:
            with tally.counted("verify"):
                await http.send(Request("GET", "/one"))
            await http.send(Request("GET", "/two"))
            with pytest.raises(Rejected) as refusal, tally.counted("verify"):
                await trip(http, Rejected("no", status=400))
    tally.failed(FORWARD, calls_made, refusal.value, 9.0)
    await tally.tell(redis)
    found = await calls.read(redis, [FORWARD, "verify"])
    assert len(calls_made) == 3
    assert Counter(found[FORWARD].hour.outcomes) == Counter(ok=1)
    assert Counter(found["verify"].hour.outcomes) == Counter(ok=1, refused=1)
    assert (sum(found[FORWARD].hour.buckets), sum(found["verify"].hour.buckets)) == (1, 2)


async def test_what_was_answered_is_counted_when_our_own_code_fails(redis: Redis) -> None:
    """Also when a stop ends what was done with it."""
    tally, vendor = Tally(), httpx.MockTransport(lambda request: httpx.Response(200, json={}))
    async with httpx.AsyncClient(transport=vendor) as client:
        http = VendorHttp("Vendor", "http://vendor.example.com", {}, client)
        for ours in (ZeroDivisionError, asyncio.CancelledError):
            with pytest.raises(ours), tally.counted("bulk"):
                await trip(http, ours())
    await tally.tell(redis)
    assert (await calls.read(redis, ["bulk"]))["bulk"].hour.outcomes["ok"] == 2


async def test_a_time_out_takes_no_time_of_the_calls_before_it(redis: Redis) -> None:
    """Of a batch whose second call was given up after ten seconds, the first took one of eleven."""
    tally = Tally()
    tally.failed(FORWARD, [Answered(0, 1.0)], TimedOut("no answer", maybe_stored=True), 11.0)
    await tally.tell(redis)
    ever = (await calls.read_all(redis, [FORWARD]))[FORWARD]
    assert {n: count for n, count in enumerate(ever.calls.buckets) if count} == {6: 1, 12: 1}
    assert ever.seconds == 11.0
