"""Poll scores: asks AudiencePoint for the scores of subscribed addresses while it pushes none.

How it pushes changes is agreed with the account manager and documented nowhere, so a relay may well never hear of
any. When no score has arrived at /hooks/scores for a week, every subscribed address is asked about once in
`SCORE_POLL_EVERY_H`, thirty a call. It takes a fifth of the rate at most and only while neither `forward` nor
`subscribe` has a batch to send; the first push ends it. A task of the process beside the sweep, one worker at a time.

A walk goes over all visitors by the cursor of a scan, which is kept in Redis. What a call answered goes to the stage
`scores` in the step that notes how far the walk is, and only when it differs from what the visitor holds and from what
the address was answered last: several addresses of one visitor would otherwise take turns for ever. What may go wrong:
a crash asks the addresses of one page again, which is no news then; after a restart of Redis the cursor means other
visitors, and some are not asked before the next walk; a visitor who comes during a walk may be, too.

A call that fails is put off as a stage's is, under the name `polling`, and stops nobody else; so is a fault of ours,
which would come again at once. Of a call that is refused (400) halves are asked; what is refused alone is left out of
this walk, and is no call that went well. An address that AudiencePoint does not answer (`err`), or takes for none
(`invalid`), changes nothing. On a full Redis, which could not keep the answer, nobody is asked.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING

import orjson
from redis.exceptions import RedisError

from pipeline import keys, leases, polls, visitors
from pipeline.addresses import digest
from pipeline.clock import DAY_MS, HOUR_MS, redis_now_ms
from pipeline.endpoints import Endpoint
from pipeline.origins import Origin
from pipeline.outcomes import ScoreChange, Stage
from pipeline.scores import Score
from pipeline.scripts import script, words_of
from pipeline.visitors import Visitor
from workers import setbacks
from workers.clients.audiencepoint import MOST_ADDRESSES, AudiencePoint
from workers.clients.audiencepoint.addresses import calls
from workers.clients.errors import Rejected, Throttled, Unavailable
from workers.fates import Case, Setback, decide, last_line, sentence
from workers.merge import as_it_leaves, unknown_hashes
from workers.stopping import Stopped, rest, unless_stopped

if TYPE_CHECKING:
    from workers.context import Context

logger = logging.getLogger(__name__)

VENDOR = "audiencepoint"
#: after `forward` and `subscribe`
RANK = 2
#: "at most a fifth" of the rate
SHARE = 5
#: scores of somebody or other change every day; a week of silence is no coincidence, and no weekend
QUIET_MS = 7 * DAY_MS
#: visitors read at a time: some hundred kilobytes
PAGE = 100
#: pages without a subscribed address in a row, after which the place is noted
MOST_PAGES = 50
#: addresses refused alone, and none answered: everything is refused
MOST_REFUSED = 3
#: a call that fails so often in a row may do so because of one address
STUCK_AFTER = 3
#: `matched` of what carries no scores; the same words are ignored when they are pushed
_WITHOUT_SCORES = frozenset({"invalid", "err"})


class Interrupted(Stopped):
    """The walk cannot go on now: the worker stops, a push was seen, or another worker walks."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One subscribed address as it leaves, and its visitor."""

    address: str
    visitor: Visitor


async def keep_polling(context: Context) -> None:
    """Poll until the worker stops; Redis being away is waited for."""
    client, timing = context.audiencepoint, context.timing
    if client is None or not context.settings.score_poll_every_h:
        return
    polling, rest_s = Polling(context, client), timing.poll_s
    await rest(context.stopping, rest_s)
    while not context.stopping.is_set():
        try:
            rest_s = await polling.step()
        except Stopped:
            rest_s = timing.poll_s
        except (RedisError, OSError) as error:
            logger.warning("polling waits for Redis error=%s", words_of(error))
            rest_s = timing.poll_s
        except Exception as failure:  # a second fault of ours, while the first was put off
            logger.error("polling failed error=%s", last_line(failure))  # noqa: TRY400
            rest_s = timing.poll_s
        await rest(context.stopping, min(rest_s, timing.poll_s))
    with suppress(RedisError, OSError):  # or it runs out by itself
        await polling.leave()


class Polling:
    """The walk, as one worker carries it on."""

    def __init__(self, context: Context, client: AudiencePoint) -> None:
        self._context = context
        self._client = client
        self._refused = 0
        self._went_well = False
        #: the first address of the call that failed last, and how often in a row
        self._stuck = "", 0

    async def step(self) -> float:
        """Ask about the next page of visitors; return how many seconds nothing more is to be done."""
        try:
            return await self._go_on()
        except (Stopped, RedisError, OSError):
            raise
        except Exception as failure:
            await self._put_off(failure)
            return 0.0

    async def _go_on(self) -> float:
        if not await self._is_ours():
            return self._context.timing.poll_s
        state, ms, place = await self._stand(calls_now=False)
        if state != "go":
            return ms / 1000
        began, _, cursor = place.partition(":")
        asked, following = await self._page(int(cursor))
        if not asked:
            await self._hand_over(place, f"{began}:{following}", {}, [])
            return 0.0
        bundles = list(calls([one.address for one in asked.values()]))
        for number, bundle in enumerate(bundles, start=1):
            self._went_well = False
            found = await self._answers_of(bundle, has_others=number > 1)
            after = f"{began}:{following}" if number == len(bundles) else place
            await self._hand_over(place, after, asked, found)
        return 0.0

    async def leave(self) -> None:
        """Let another worker poll at once."""
        await leases.leave(self._context.redis, leases.POLLING, self._context.consumer)

    # Redis -----------------------------------------------------------------------------------------

    async def _is_ours(self) -> bool:
        """Be the one worker that polls, for a while; tell whether it is."""
        context, lasts_ms = self._context, self._context.timing.poll_lease_s * 1000
        return await leases.hold(context.redis, leases.POLLING, context.consumer, lasts_ms)

    async def _stand(self, *, calls_now: bool) -> tuple[str, float, str]:
        """Return what `lua/poll.lua` answers; with *calls_now* `go` is one call of the rate."""
        settings = self._context.settings
        gap_ms = 1000 / settings.audiencepoint_rate if settings.audiencepoint_rate else 0
        period_ms = int(settings.score_poll_every_h * HOUR_MS)
        args: list[str | float] = [VENDOR, gap_ms, RANK, SHARE, QUIET_MS, period_ms, int(calls_now)]
        state, ms, place = await script(self._context.redis, "poll")(args=args)
        return state.decode(), float(ms), place.decode()

    async def _page(self, cursor: int) -> tuple[dict[str, Asked], str]:
        """Return at least a call's worth of subscribed addresses by hash, and the cursor behind them."""
        found: dict[str, Asked] = {}
        for _ in range(MOST_PAGES):
            cursor, rows = await self._context.redis.zscan(keys.VISITORS, cursor, count=PAGE)
            found |= await self._subscribed([name.decode() for name, _ in rows])
            if not cursor:
                return found, "end"
            if len(found) >= MOST_ADDRESSES:
                break
        return found, str(cursor)

    async def _subscribed(self, ids: Sequence[str]) -> dict[str, Asked]:
        """Return the subscribed addresses of the visitors *ids*, each by its hash and with whom it belongs to."""
        redis = self._context.redis
        people = (await visitors.fetch(redis, ids)).values()
        known = [
            (digest(address), address, person)
            for person in people
            for address in [*person.emails, *unknown_hashes(person)]
        ]
        async with redis.pipeline(transaction=False) as pipe:
            for name, _, _ in known:
                pipe.hmget(keys.address(name), "subscription", "visitor")
            rows = await pipe.execute()
        return {
            name: Asked(as_it_leaves(self._context, address)[0], person)
            for (name, address, person), (state, owner) in zip(known, rows, strict=True)
            if state == b"subscribed" and owner == person.id.encode()
        }

    async def _hand_over(
        self, place: str, after: str, asked: Mapping[str, Asked], found: Sequence[Score]
    ) -> None:
        """Give `scores` what is news in *found*, and note that the walk is at *after*. Raises `Interrupted`."""
        context = self._context
        answers: list[str | bytes] = []
        for score in found:
            name, visitor = digest(score.address), asked[digest(score.address)].visitor
            is_news = {**visitor.scores, **score.raw} != visitor.scores
            change = orjson.dumps(ScoreChange(score.address, score.raw)) if is_news else b""
            answers += (name, _mark(score), change)
        origin = Origin("scores", await redis_now_ms(context.redis)).pack()
        went_well = int(bool(asked) and self._went_well)
        args: list[str | bytes | int] = [context.consumer, place, after, went_well, origin]
        args += (len(answers), *answers)
        is_ours, bell = await script(context.redis, "polled")(args=args)
        if not is_ours:
            raise Interrupted
        if any(answers[2::3]):
            await context.ring({Stage.SCORES: int(bell)}, {Stage.SCORES})
        if found:
            logger.info(
                "scores asked for addresses=%d news=%d", len(found), sum(map(bool, answers[2::3]))
            )

    # asking ----------------------------------------------------------------------------------------

    async def _answers_of(self, bundle: Sequence[str], *, has_others: bool) -> list[Score]:
        """Return the scores that AudiencePoint has of *bundle*; one that keeps failing is parted.

        *has_others*: others of its page were answered just now. Raises `CallFailed`.
        """
        try:
            return await self._answers(bundle)
        except Unavailable as failure:
            if failure.status in (
                None,
                429,
            ):  # no answer at all, or too many calls: nobody's address
                raise
            name, times = self._stuck
            self._stuck = bundle[0], times + 1 if name == bundle[0] else 1
            if self._stuck[1] < STUCK_AFTER or (len(bundle) == 1 and not has_others):
                raise
            return await self._in_parts(bundle, failure)

    async def _in_parts(self, addresses: Sequence[str], failure: Unavailable) -> list[Score]:
        """Ask about halves while one of the two is answered; an address that alone fails is left out of this walk.

        Raises `Unavailable` when both fail: then it is AudiencePoint.
        """
        if len(addresses) == 1:
            logger.warning("scores of one address cannot be had error=%s", failure.sentence)
            return []
        middle = (len(addresses) + 1) // 2
        found: list[Score] = []
        failed: list[tuple[Sequence[str], Unavailable]] = []
        for half in (addresses[:middle], addresses[middle:]):
            try:
                found += await self._answers(half)
            except Unavailable as unavailable:
                failed.append((half, unavailable))
        if len(failed) > 1:
            raise failed[0][1]
        for half, its_failure in failed:
            found += await self._in_parts(half, its_failure)
        return found

    async def _answers(self, addresses: Sequence[str]) -> list[Score]:
        """Return the scores that AudiencePoint has of *addresses*; halves of them when all are refused.

        Raises `CallFailed` when nothing can be had, also when nothing but refusals came.
        """
        await self._turn()
        wanted = await self._without_forgotten(addresses)
        if not wanted:
            return []
        try:
            with self._context.tally.counted(Endpoint.POLLING):
                found = await unless_stopped(self._context.stopping, self._client.scores(wanted))
        except Rejected as refusal:
            if len(wanted) > 1:
                middle = (len(wanted) + 1) // 2
                return [
                    *await self._answers(wanted[:middle]),
                    *await self._answers(wanted[middle:]),
                ]
            self._refused += 1
            logger.warning("scores of one address are refused error=%s", refusal.sentence)
            if self._refused >= MOST_REFUSED:
                raise
            return []
        self._refused, self._went_well = 0, True
        return [score for score in found if score.matched not in _WITHOUT_SCORES]

    async def _turn(self) -> None:
        """Wait until a call may be made. Raises `Interrupted`."""
        timing = self._context.timing
        while not self._context.stopping.is_set() and await self._is_ours():
            state, ms, _ = await self._stand(calls_now=True)
            if state == "go":
                return
            if state == "rest":
                break
            await rest(self._context.stopping, min(ms / 1000, timing.poll_lease_s / 4))
        raise Interrupted

    async def _without_forgotten(self, addresses: Sequence[str]) -> list[str]:
        hits = await self._context.tombstones.found([digest(address) for address in addresses])
        return [address for address, hit in zip(addresses, hits, strict=True) if not hit]

    async def _put_off(self, failure: Exception) -> None:
        """Put off the next call by the rules that the stages have."""
        timing = self._context.timing
        if isinstance(failure, Throttled):
            rate = self._context.settings.audiencepoint_rate
            await setbacks.slow_down(self._context.redis, VENDOR, rate, failure)
        if isinstance(failure, Rejected):
            self._refused = 0
            reason = f"everything is refused: {failure.sentence}"
            setback = Setback(reason, at_once=True, probe_s=timing.misconfigured_probe_s)
        else:
            verdict = decide(failure, Case(), timing, datetime.now(UTC))
            setback = verdict.setback or Setback(sentence(failure))
        delay_ms = await setbacks.put_off(self._context, polls.NAME, setback)
        logger.warning(
            "polling of scores is put off next_call_ms=%d reason=%s", delay_ms, setback.reason
        )


def _mark(score: Score) -> str:
    """Return what tells one answer about an address from another one."""
    told = orjson.dumps(dict(score.raw), option=orjson.OPT_SORT_KEYS)
    return blake2b(told, digest_size=8).hexdigest()
