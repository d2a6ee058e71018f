"""Walk: reads a segment or a pixel page by page and puts each page where the webhooks go, into the inbox.

Nothing is understood here: `unpack` takes a page apart as if it had been posted, so what came by webhook before
counts as a duplicate. One page is in memory at a time. A walk may end at any await, and goes on where it stood:
the page is stored first and noted then. While it goes on, live work goes first: a call waits for the rate that it
shares with `enrich`, and a page waits until what is stored is unpacked and Redis has room.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass, field
from hashlib import blake2b
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from redis.exceptions import RedisError

from pipeline import imports, keys, paces, pauses
from pipeline.clock import redis_now_ms
from pipeline.deliveries import Delivery, new_delivery_id
from pipeline.endpoints import Endpoint
from pipeline.imports import Import, Kind
from pipeline.inbox import Inbox, NotStored
from pipeline.outcomes import Stage
from pipeline.sources.audiencelab_columns import tells_of_events
from workers import setbacks
from workers.clients.audiencelab import AudienceLab, Course, Page, walk
from workers.clients.audiencelab.pixels import Pixel
from workers.clients.errors import (
    BreaksOff,
    CallFailed,
    NotFound,
    QuotaExceeded,
    Rejected,
    Throttled,
    Unavailable,
)
from workers.fates import last_line
from workers.stopping import Stopped, rest, unless_stopped
from workers.timing import Timing

if TYPE_CHECKING:
    from redis.asyncio import Redis

logger = logging.getLogger(__name__)

T = TypeVar("T")
Row = dict[str, object]

VENDOR = "audiencelab"
#: Up to 1000 events or 10 000 rows a page are allowed. At 2 to 4 KB a row this one stays far below MAX_BODY_BYTES,
#: is unpacked in one slice, and what a crash repeats is little.
PAGE_SIZE = 500
#: what both forms of the calls allow
SMALL_PAGE_SIZE = 100
MOST_ROWS = {Kind.SEGMENT: 5000, Kind.PIXEL: 1000}
#: five points below where the receiver refuses: an import is never why a webhook finds no room
FULL_AT = 0.8
#: entries of the inbox (seconds of a worker's time) and sightings (a minute) behind which another page waits: live
#: work is served in its turn, so this is what a walk may delay it by
MOST_DELIVERIES = 8
MOST_SIGHTINGS = 50_000
HOLD_S = 0.25
#: how soon a walk goes on that an operator resumes
PAUSED_S = 2.0
#: failures in a row before a walk is put off: about a minute of back-off
MOST_TRIES = 8
#: who asks us to wait for longer than this is left alone until later
LONGEST_WAIT_S = 300.0
#: after which an import that was put off may be tried again: an outage ends, what is wrong has to be mended
SOON_S = 300.0
LATER_S = 3600.0
#: a list that breaks off at the same page this often, minutes apart, tells of rows that it does not have
MOST_BREAKS = 3
#: what is noted once it goes on
NOT_PUT_OFF: dict[str, Any] = {"error": None, "again_at_ms": None, "breaks": 0}
#: a list that lengthens faster than this while it is read has no end for us
MOST_GROWTH = 10


def put_off_s(failure: Exception) -> float:
    """Return the seconds after which an import that ended with *failure* may be tried again."""
    if isinstance(failure, Unavailable):
        return max(SOON_S, failure.retry_after_s or 0.0)
    if isinstance(failure, QuotaExceeded):
        return failure.retry_after_s or LATER_S
    return SOON_S if isinstance(failure, NotStored) else LATER_S


def words_of(failure: Exception) -> str:
    """Return what an operator reads about *failure*; of a fault of ours without the values that it may quote."""
    if isinstance(failure, CallFailed):
        return failure.sentence
    return str(failure) if isinstance(failure, NotStored) else last_line(failure)


@dataclass(slots=True)
class Walker:
    """What a walk needs of its process. *rank* 0 shares the rate with `enrich`, 1 leaves it the first place.

    Who asks for more than *longest_wait_s* of patience is left alone until later. *ring* wakes a worker for the bell
    number that the inbox answered, *tell* hears of each page that was stored, *hold* why a walk waits;
    *counted* counts what is called inside.
    """

    redis: Redis
    client: AudienceLab
    inbox: Inbox
    holder: str
    calls_per_s: float
    rank: int
    most_bytes: int
    stopping: asyncio.Event
    ring: Callable[[int], Awaitable[object]]
    timing: Timing = field(default_factory=Timing)
    longest_wait_s: float = LONGEST_WAIT_S
    tell: Callable[[Import], None] = lambda one: None
    hold: Callable[[str], None] = lambda why: None
    counted: Callable[[], AbstractContextManager[None, bool | None]] = nullcontext

    async def walk(self, one: Import) -> Import:
        """Walk *one*, which is in this holder's hands, to its end; return it as it is then.

        It is not finished when the walk was stopped. Raises `CallFailed`, `NotStored` and `imports.Lost`; after
        all but the last, anyone may go on where it stands. What fails is put off and its error noted, also a fault of
        ours: what trips the code once would trip it again at once.
        """
        course = _OneWalk(self, one)
        try:
            await course.to_the_end()
        except Stopped:
            return await imports.leave(self.redis, course.one, self.holder)
        except (imports.Lost, RedisError, OSError):
            raise  # nothing can be written down
        except Exception as failure:
            await self._put_off(course.one, failure)
            raise
        changed = {"finished_at_ms": await redis_now_ms(self.redis), **NOT_PUT_OFF}
        changed["short"] = int(course.is_short)
        return await imports.leave(self.redis, course.one, self.holder, **changed)

    async def _put_off(self, one: Import, failure: Exception) -> None:
        """Let anyone go on with *one*, but for a while nobody without being told to."""
        again_ms = await redis_now_ms(self.redis) + int(put_off_s(failure) * 1000)
        changed: dict[str, Any] = {"error": words_of(failure), "again_at_ms": again_ms}
        changed["breaks"] = one.breaks + 1 if isinstance(failure, BreaksOff) else 0
        if isinstance(failure, NotFound):  # AudienceLab's own id of a pixel that was made anew
            changed["own_id"] = None
        await imports.leave(self.redis, one, self.holder, **changed)

    # waiting ---------------------------------------------------------------------------------------

    async def rest(self, seconds: float) -> None:
        """Wait; raises `Stopped` as soon as the walk is to stop."""
        await rest(self.stopping, seconds)
        if self.stopping.is_set():
            raise Stopped

    async def turn(self, keep: Callable[[], Awaitable[None]]) -> None:
        """Wait for a call of the rate that all processes share; *keep* is called meanwhile."""
        while wait_s := await paces.turn(self.redis, VENDOR, self.calls_per_s, self.rank):
            await keep()
            await self.rest(min(wait_s, LONGEST_WAIT_S))

    async def heed(self, failure: Unavailable) -> None:
        """Ask less often, all of us, when that is what *failure* is about."""
        if isinstance(failure, Throttled):
            await setbacks.slow_down(self.redis, VENDOR, self.calls_per_s, failure)

    async def room(self, keep: Callable[[], Awaitable[None]]) -> None:
        """Wait until another page may be asked for and stored; *keep* is called meanwhile."""
        while True:
            if await pauses.is_asked_for(self.redis, Endpoint.IMPORTS):
                why, rest_s = "an operator has paused imports", PAUSED_S
            elif full := await self._no_room():
                why, rest_s = full, HOLD_S
            else:
                return
            self.hold(why)
            await keep()
            await self.rest(rest_s)

    async def _no_room(self) -> str | None:
        async with self.redis.pipeline(transaction=False) as pipe:
            pipe.info("memory")
            pipe.xlen(keys.queue(Stage.UNPACK))
            pipe.xlen(keys.queue(Stage.ENRICH))
            pipe.xlen(keys.queue(keys.retried(Stage.ENRICH)))
            memory, deliveries, new, retried = await pipe.execute()
        limit, sightings = int(memory.get("maxmemory", 0)), new + retried
        if limit and int(memory["used_memory"]) >= FULL_AT * limit:
            return "Redis is nearly full"
        if deliveries >= MOST_DELIVERIES:
            return f"{deliveries} entries wait to be unpacked"
        return f"{sightings} sightings wait to be merged" if sightings >= MOST_SIGHTINGS else None

    async def put(self, deliveries: list[Delivery], keep: Callable[[], Awaitable[None]]) -> int:
        """Store one page; return the bell number of `unpack`. Raises `NotStored`."""
        for tries in range(MOST_TRIES):
            try:
                return await self.inbox.put(deliveries)
            except NotStored as failure:
                if tries + 1 == MOST_TRIES:
                    raise
                self.hold(str(failure))
            await keep()
            await self.rest(self.backoff_s(tries))
        raise AssertionError

    def backoff_s(self, tries: int) -> float:
        """Return the wait after *tries* earlier failures in a row: full jitter, as everywhere."""
        most_s: float = min(self.timing.backoff_cap_s, self.timing.backoff_base_s * 2.0**tries)
        return random.random() * most_s


class _OneWalk:
    """One walk over one import."""

    def __init__(self, walker: Walker, one: Import) -> None:
        self._walker = walker
        self.one = one
        self._course = Course(
            one.next_page, total=one.total, stepped_back=one.steps_back, pages=one.pages
        )
        self._number = one.next_page
        self._renewed_at = monotonic()

    async def to_the_end(self) -> None:
        """Tell every page from the next one on. Raises what `Walker.walk` does, and `Stopped`."""
        if self.one.kind is Kind.PIXEL and self.one.own_id is None:
            await self._find_pixel()
        async with aclosing(walk(self._page, course=self._course)) as pages:
            async for page in pages:
                await self._tell(page)
        if self.is_short:
            logger.warning(
                "import ends short kind=%s rows=%d total=%s",
                *(self.one.kind, self.one.rows, self.one.total),
            )

    @property
    def is_short(self) -> bool:
        """Tell whether the list gave less than it told of; rows that come twice are counted twice, and may hide it."""
        return self._course.ends_short or self.one.rows < (self.one.total or 0)

    async def _note(self, **changed: Any) -> None:
        self.one = await imports.note(self._walker.redis, self.one, self._walker.holder, **changed)
        self._renewed_at = monotonic()

    async def _keep(self) -> None:
        """Renew the lease when a good part of it is over."""
        if monotonic() - self._renewed_at > imports.LEASE_MS / 4000:
            await self._note()

    # reading ---------------------------------------------------------------------------------------

    async def _call(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what AudienceLab answers; what is only a moment's trouble is waited for."""
        walker, tries = self._walker, 0
        while True:
            await walker.room(self._keep)
            await walker.turn(self._keep)
            await self._keep()
            try:
                with walker.counted():
                    answer = await unless_stopped(walker.stopping, ask())
            except Unavailable as failure:
                await walker.heed(failure)
                wait_s = max(walker.backoff_s(tries), failure.retry_after_s or 0.0)
                tries += 1
                if tries >= MOST_TRIES or wait_s > walker.longest_wait_s:
                    raise
                walker.hold(failure.sentence)
                logger.warning(
                    "import waits kind=%s page=%d tries=%d error=%s",
                    *(self.one.kind, self._number, tries, failure.sentence),
                )
            else:
                if walker.calls_per_s:
                    await paces.went_well(walker.redis, VENDOR)
                return answer
            await self._patience(wait_s)

    async def _patience(self, wait_s: float) -> None:
        until = monotonic() + wait_s
        while (left := until - monotonic()) > 0:
            await self._keep()
            await self._walker.rest(min(left, imports.LEASE_MS / 4000))

    async def _page(self, number: int) -> Page[Row]:
        """Read page *number*."""
        self._number = number
        try:
            return await self._call(lambda: self._ask(number))
        except BreaksOff:
            if self.one.breaks + 1 < MOST_BREAKS:
                raise
            self._course.settle(number)
            return await self._call(lambda: self._ask(number))
        except NotFound:
            raise
        except Rejected as failure:
            if failure.status != 400 or self.one.pages or self.one.page_size <= SMALL_PAGE_SIZE:
                raise
            # a service of the documented form refuses larger pages
            await self._note(page_size=SMALL_PAGE_SIZE)
            return await self._call(lambda: self._ask(number))

    async def _ask(self, number: int) -> Page[Row]:
        client, one = self._walker.client, self.one
        if one.kind is Kind.SEGMENT:
            page = await client.segment_page(one.id, number, one.page_size)
        else:
            own_id, version = one.own_id or one.id, one.version or "v4"
            page = await client.pixel_events(own_id, number, one.page_size, version)
        self._course.check_end(page)  # here, where what fails is tried again
        return page

    async def _find_pixel(self) -> None:
        """Find the pixel in the list by either of its two ids; one that is not there is asked for as it is."""
        one = self.one
        found: Pixel | None = None

        async def listed(number: int) -> Page[Pixel]:
            return await self._call(lambda: self._walker.client.list_pixels(number))

        async with aclosing(walk(listed)) as pages:
            async for page in pages:
                names = ((pixel, (pixel.id, pixel.provider_id)) for pixel in page.items)
                found = next((pixel for pixel, ids in names if one.id in ids), None)
                if found is not None:
                    break
        if found is None:  # it may be listed at the next try: nothing is noted that would hide it
            return
        # the generations differ by their ids: 24 hex digits, or a UUID
        is_old = "-" in (found.provider_id or "")
        await self._note(own_id=found.id, version=one.version or ("v3" if is_old else "v4"))

    # telling ---------------------------------------------------------------------------------------

    async def _tell(self, page: Page[Row]) -> None:
        """Store the page, then note it: in between, a crash makes one page be told twice."""
        walker, one = self._walker, self.one
        bodies = bodies_of(one, page.items, walker.most_bytes)
        digest = blake2b(b"".join(bodies), digest_size=16).hexdigest()
        is_next = self._number == one.next_page  # the page after the one whose digest is kept
        if is_next and digest == one.digest and (page.total or 0) <= (one.total or 0):
            raise Unavailable(
                "AudienceLab answers with the rows of the page before: it ignores the page's number"
            )
        first_total = one.first_total if one.first_total is not None else page.total
        rows_a_page = max(1, min(one.rows_a_page, page.page_size, len(page.items)))
        told_enough = MOST_GROWTH * ((first_total or 0) // rows_a_page + 10)
        if first_total is not None and one.pages >= told_enough:
            raise Unavailable("AudienceLab's list grows faster than it can be read")
        now_ms = await redis_now_ms(walker.redis)
        source = source_of(one.kind, page.items)
        about = {imports.HEADER: f"{one.kind}:{one.id}"}
        deliveries = [
            Delivery(new_delivery_id(), source, body, now_ms, "application/json", one.tag, about)
            for body in bodies
        ]
        await walker.ring(await walker.put(deliveries, self._keep))
        await self._note(
            next_page=self._number + 1,
            pages=one.pages + 1,
            rows=one.rows + len(page.items),
            given=rows_a_page,
            total=page.total,
            first_total=first_total,
            steps_back=self._course.stepped_back,
            digest=digest,
            **NOT_PUT_OFF,
        )
        walker.tell(self.one)


def source_of(kind: Kind, rows: list[Row]) -> str:
    """Return the hook by which *rows* would have come: sightings by the pixel's, people by the audience's."""
    return "pixel" if kind is Kind.PIXEL or tells_of_events(rows) else "audience"


def bodies_of(one: Import, rows: list[Row], most_bytes: int) -> list[bytes]:
    """Return *rows* as the body of one delivery, or of several where it would be larger than a webhook may be."""
    if one.kind is Kind.SEGMENT:
        body = orjson.dumps({"segment_id": one.id, "data": rows})
    else:
        body = orjson.dumps({"events": rows})
    if len(body) <= most_bytes or len(rows) < 2:
        return [body]
    middle = len(rows) // 2
    return [*bodies_of(one, rows[:middle], most_bytes), *bodies_of(one, rows[middle:], most_bytes)]
