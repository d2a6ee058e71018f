"""Pace: the arithmetic by itself, without any clock, and one halving for each burst of 429 in Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis as PlainRedis
from redis.asyncio import Redis

from pipeline import books, keys, paces
from pipeline.clock import redis_now_ms
from pipeline.outcomes import Stage
from pipeline.scripts import script
from pipeline.settings import Settings
from tests.pipeline.work import claim, full, seal, set_back, succeed

#: of the arithmetic in `pipeline/lua/pace.lua`
LEAST, STEP = 0.05, 0.05
PACE = keys.pace("audiencepoint")
RATES = ("audiencepoint", "audiencelab")
CONFIGURED = Settings.model_validate({"audiencepoint_rate": 5, "audiencelab_rate": 0})

#: what comes to a vendor: a call that goes well, or one that is asked to slow down
CALLS = st.lists(st.booleans(), max_size=120)
GAPS_MS = st.floats(min_value=0.01, max_value=200_000)


@pytest.fixture(scope="module")
def plain(redis_server: object) -> PlainRedis:
    """Give a client for the arithmetic, which needs a server only because it is Lua."""
    return PlainRedis.from_url(redis_server.url)  # type: ignore[attr-defined]


def shares(plain: PlainRedis, body: str, *args: float) -> list[float]:
    """Return the shares that *body*, which has the arithmetic before it, puts into `told`."""
    from importlib.resources import files

    arithmetic = (files("pipeline") / "lua" / "pace.lua").read_text()
    ends = "\nfor i = 1, #told do told[i] = string.format('%.17g', told[i]) end return told"
    told = plain.eval(arithmetic + "local told, share = {}, 1\n" + body + ends, 0, *args)
    return [float(each) for each in told]


def run(plain: PlainRedis, gap_ms: float, throttled: Sequence[bool]) -> list[float]:
    """Return the share after each call, of which *throttled* ones were asked to slow down."""
    body = (
        "local gap = tonumber(ARGV[1])\n"
        "for i = 2, #ARGV do\n"
        "  if ARGV[i] == '1' then share = slower(share, gap) else share = faster(share, gap) end\n"
        "  told[#told + 1] = share\n"
        "end"
    )
    return shares(plain, body, gap_ms, *map(int, throttled))


@settings(deadline=None, max_examples=150)
@given(throttled=CALLS, gap_ms=GAPS_MS)
def test_it_stays_between_the_floor_and_the_configured_rate(
    plain: PlainRedis, throttled: list[bool], gap_ms: float
) -> None:
    """Whatever comes: never more than configured, never less than a twentieth, and once a minute at least."""
    floor = min(1.0, max(LEAST, gap_ms / 60_000))
    for share in run(plain, gap_ms, throttled):
        assert floor - 1e-9 <= share <= 1
        assert gap_ms / share <= max(60_000, gap_ms) * 1.001


@settings(deadline=None, max_examples=150)
@given(throttled=CALLS, gap_ms=GAPS_MS)
def test_it_falls_with_a_429_and_climbs_slowly_with_every_other_call(
    plain: PlainRedis, throttled: list[bool], gap_ms: float
) -> None:
    """Down by half, or to the floor; up by a twentieth of the configured rate for each call at the very most."""
    before = 1.0
    for slow, share in zip(throttled, run(plain, gap_ms, throttled), strict=True):
        if slow:
            assert share <= before or share == min(1.0, max(LEAST, gap_ms / 60_000))
            assert share >= before / 2 - 1e-9
        else:
            assert before <= share <= before + STEP + 1e-9
        before = share


@settings(deadline=None, max_examples=40)
@given(
    limit=st.floats(min_value=0.1, max_value=0.99), gap_ms=st.floats(min_value=10, max_value=4_000)
)
def test_it_swings_below_what_the_vendor_really_takes(
    plain: PlainRedis, limit: float, gap_ms: float
) -> None:
    """Where a vendor takes less than configured: a little above its limit at most, and on average more than half of it.

    Time passes only by the gaps between the calls; the vendor refuses each one that comes faster than it likes.
    """
    body = (
        "local gap, limit, spent, after = tonumber(ARGV[1]), tonumber(ARGV[2]), 0, 0\n"
        "local calls, most = 0, 0\n"
        "while spent < 1200000 do\n"
        "  spent = spent + gap / share\n"
        "  if share > limit then share = slower(share, gap) else share = faster(share, gap) end\n"
        "  if spent > 600000 then\n"
        "    calls, after = calls + 1, after + gap / share\n"
        "    most = math.max(most, share)\n"
        "  end\n"
        "end\n"
        "told = {most, calls * gap / after}"
    )
    most, average = shares(plain, body, gap_ms, limit)
    assert most <= limit + STEP + 1e-9
    assert limit / 2 <= average <= limit + STEP


def test_a_call_that_was_on_its_way_is_no_news(plain: PlainRedis) -> None:
    """Only a call begun after the last halving counts; where nobody knows, one in ten seconds does."""
    cases = [(1_001, 1_000, 1_002), (1_000, 1_000, 1_002), (None, 1_000, 10_999), (None, 0, 10_000)]
    body = (
        "for i = 1, #ARGV, 3 do\n"
        "  local news = is_news(tonumber(ARGV[i]), tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]))\n"
        "  told[#told + 1] = news and 1 or 0\n"
        "end"
    )
    flat: list[float | str] = ["" if word is None else word for case in cases for word in case]
    assert shares(plain, body, *flat) == [1, 0, 0, 1]  # type: ignore[arg-type] # Redis takes texts


# in Redis ---------------------------------------------------------------------------------------------


async def slow_down(redis: Redis, begun_ms: int | None = None, rate: float = 5.0) -> bool:
    """Tell that AudiencePoint asked for fewer requests."""
    return await paces.slow_down(redis, "audiencepoint", rate, "asks for fewer", begun_ms)


async def told(redis: Redis, configured: Settings = CONFIGURED) -> dict[str, paces.View]:
    """Return the rates as `relay status --json` shows them."""
    rates: dict[str, paces.View] = (await books.snapshot(redis, settings=configured))["rates"]
    return rates


def whole(rate: float) -> paces.View:
    """Return what is told of a rate that nothing has slowed."""
    return {"configured": rate, "now": rate, "why": None, "slowed_at": None}


async def share_of(redis: Redis) -> float:
    """Return the share that is written down; 1 for none."""
    return float(await redis.hget(PACE, "share") or 1)


@pytest.mark.anyio
async def test_ten_429_of_one_moment_are_one_signal(redis: Redis) -> None:
    """Ten calls that were on their way together halve the rate once; one begun later halves it again."""
    begun = await redis_now_ms(redis)
    told = await asyncio.gather(*(slow_down(redis, begun) for _ in range(10)))
    assert sorted(told) == [False] * 9 + [True]
    assert await share_of(redis) == 0.5
    assert await slow_down(redis, await redis_now_ms(redis) + 1)
    assert await share_of(redis) == 0.25
    assert not await slow_down(redis)  # nobody knows when it was begun: it may be of the same burst
    assert await redis.pttl(PACE) > 0


@pytest.mark.anyio
async def test_both_workers_keep_to_the_pace(redis: Redis) -> None:
    """What one worker was told widens the gap of all: the second call waits for twice the configured gap."""
    for payload in (b"1", b"2"):
        await seal(redis, Stage.FORWARD, [payload])
    assert not await slow_down(redis, 1, rate=1 / 60)  # as slow as it may get already
    assert not await redis.exists(PACE)
    await slow_down(redis, 1, rate=0.1)
    assert (await claim(redis, consumer="one", gap_ms=10_000)).word == "batch"
    waiting = await claim(redis, consumer="two", gap_ms=10_000)
    assert waiting.word == "wait"
    assert 10_000 < waiting.wait_ms <= 20_000


@pytest.mark.anyio
async def test_it_climbs_only_with_what_is_answered_well(redis: Redis) -> None:
    """Each success raises it; waiting, a call and its failure do not. At the configured rate nothing is kept."""
    for number in range(4):
        await seal(redis, Stage.FORWARD, [b"%d" % number])
    await slow_down(redis, 1, rate=0.25)
    failed = await claim(redis, gap_ms=4_000)
    await set_back(redis, failed, base_ms=0)
    assert await share_of(redis) == 0.5
    for share in (0.54, 0.54 + 0.05 * 4_000 / 0.54 / 10_000):
        await redis.hset(keys.PREFIX + "rate:audiencepoint", "next", 1)  # its time has come
        called = await claim(redis, gap_ms=4_000)
        assert (await claim(redis, gap_ms=4_000)).word == "wait"
        await succeed(redis, called)
        assert await share_of(redis) == pytest.approx(share, abs=1e-4)
    await redis.hset(PACE, "share", 0.9999)
    await redis.hset(keys.PREFIX + "rate:audiencepoint", "next", 1)
    await succeed(redis, await claim(redis, gap_ms=4_000))
    assert not await redis.exists(PACE)


@pytest.mark.anyio
async def test_each_vendors_success_is_its_own(redis: Redis) -> None:
    """What AudiencePoint answers well says nothing of AudienceLab, nor does a call of `notify` of either."""
    for vendor in ("audiencepoint", "audiencelab"):
        await paces.slow_down(redis, vendor, 0.25, "asks for fewer", 1)
    for stage, climbing in (
        (Stage.NOTIFY, ""),
        (Stage.ENRICH, "audiencelab"),
        (Stage.SUBSCRIBE, "audiencepoint"),
        (Stage.FORWARD, "audiencepoint"),
    ):
        before = {each: await redis.hget(keys.pace(each), "share") for each in RATES}
        await seal(redis, stage, [b"1"])
        await succeed(redis, await claim(redis, stage), stage)
        after = {each: await redis.hget(keys.pace(each), "share") for each in RATES}
        assert [each for each in RATES if before[each] != after[each]] == [climbing] * bool(
            climbing
        )
    await paces.went_well(redis, "audiencelab")
    assert await redis.hget(keys.pace("audiencelab"), "share") > after["audiencelab"]


@pytest.mark.anyio
async def test_a_changed_setting_begins_anew(redis: Redis) -> None:
    """A share of five a second is none of another rate: no call waits for it, none is told, a 429 halves the whole."""
    await slow_down(redis, 1)
    lower = Settings.model_validate({"audiencepoint_rate": 1.25, "audiencelab_rate": 0})
    assert await told(redis, lower) == {"audiencepoint": whole(1.25), "audiencelab": whole(0)}
    turn = script(redis, "turn")
    assert await turn(args=["audiencepoint", 30_000, 0]) == 0
    assert await turn(args=["audiencepoint", 30_000, 0]) <= 30_000
    assert await slow_down(redis, await redis_now_ms(redis) + 1, rate=1.25)
    assert await share_of(redis) == 0.5


@pytest.mark.anyio
async def test_a_429_at_the_floor_changes_nothing(redis: Redis) -> None:
    """It never makes calls faster, and nobody is told that it halved the rate."""
    await slow_down(redis, 1)
    await redis.hset(PACE, "share", 0.04)
    assert not await slow_down(redis, await redis_now_ms(redis) + 1)
    assert await share_of(redis) == 0.04


@pytest.mark.anyio
async def test_no_limit_is_never_halved(redis: Redis) -> None:
    """A rate of 0 has no half: what was said is left to pauses and to the number of calls at a time."""
    assert not await slow_down(redis, 1, rate=0)
    assert not await redis.exists(PACE)


@pytest.mark.anyio
async def test_it_is_halved_on_a_full_server(redis: Redis) -> None:
    """A full server is drained at the pace that the vendor takes, too."""
    async with full(redis):
        assert await slow_down(redis, 1)
    assert await share_of(redis) == 0.5


@pytest.mark.anyio
async def test_polling_takes_a_fifth_of_the_pace(redis: Redis) -> None:
    """Five gaps of the pace lie between two polls, not of the configured rate."""
    await slow_down(redis, 1, rate=0.1)
    week = 7 * 86_400_000
    args: list[str | float] = ["audiencepoint", 10_000, 2, 5, week, week, 1]
    assert (await script(redis, "poll")(args=args))[0] == b"go"
    state, wait_ms, _ = await script(redis, "poll")(args=args)
    assert state == b"wait"
    assert 50_000 < wait_ms <= 100_000


@pytest.mark.anyio
async def test_it_is_told_with_the_vendors_words(redis: Redis) -> None:
    """What is configured, what is used now, why, and since when; nothing where all is well."""
    assert await told(redis) == {"audiencepoint": whole(5), "audiencelab": whole(0)}
    await slow_down(redis, 1)
    pace = (await told(redis))["audiencepoint"]
    assert isinstance(pace.pop("slowed_at"), str)
    assert pace == {"configured": 5, "now": 2.5, "why": "asks for fewer"}
