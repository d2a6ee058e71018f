"""Reconcile: walks the configured segments and pixels every so often, because webhooks can be missed.

A task of the worker like the sweep; one of all workers does it at a time, by a lease. What came by webhook before is
a duplicate when it is unpacked, so a walk that finds nothing new costs its calls and little else. It ranks behind
`enrich` in the rate that both share, waits while Redis is nearly full, and goes on where it stood after a restart.
What an operator began with `relay segments import` or `relay pixels backfill` and left is gone on with, too, where
its id is one of these.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from pipeline import imports, leases, pauses
from pipeline.clock import HOUR_MS, redis_now_ms
from pipeline.endpoints import Endpoint
from pipeline.imports import Import, Kind
from pipeline.inbox import Inbox, NotPossible, NotStored
from pipeline.outcomes import Stage
from pipeline.scripts import words_of
from workers.clients.audiencelab import AudienceLab
from workers.clients.errors import CallFailed
from workers.fates import last_line
from workers.stopping import rest
from workers.walk import PAGE_SIZE, Walker

if TYPE_CHECKING:
    from workers.context import Context

logger = logging.getLogger(__name__)

LEASE_MS = 120_000
#: behind `enrich`, which has rank 0
RANK = 1
#: other ids are not kept waiting for one whose calls are to wait for longer
LONGEST_WAIT_S = 60.0


async def keep_reconciling(context: Context) -> None:
    """Reconcile until the worker stops; nothing without the key, or when no id is set."""
    if context.audiencelab is None or not list(wanted(context)):
        return
    inbox = Inbox(context.redis, context.settings.ack_policy)
    while not context.stopping.is_set():
        try:
            await reconcile(context, context.audiencelab, inbox)
        except NotPossible as error:
            logger.warning("not reconciled error=%s", error)
        except Exception as error:  # whatever it was, a moment later tries again
            logger.warning("reconciling failed error=%s", words_of(error))
        await rest(context.stopping, context.timing.reconcile_s)


def wanted(context: Context) -> Iterator[tuple[Kind, str]]:
    """Yield what is to be reconciled, in the order of the settings."""
    settings = context.settings
    yield from ((Kind.SEGMENT, each) for each in settings.reconciled_segments())
    yield from ((Kind.PIXEL, each) for each in settings.reconciled_pixels())


async def reconcile(context: Context, client: AudienceLab, inbox: Inbox) -> None:
    """Walk whatever is due, one after the other, unless another worker does."""
    async with _leased(context) as is_ours:
        if not is_ours:
            return
        for kind, import_id in wanted(context):
            if context.stopping.is_set() or await pauses.is_asked_for(
                context.redis, Endpoint.IMPORTS
            ):
                return
            try:
                known = await imports.read(context.redis, kind, import_id)
                now_ms = await redis_now_ms(context.redis)
                if is_due(known, now_ms, every_ms(context)):
                    one = known or Import(kind, import_id, PAGE_SIZE)
                    anew = begins_anew(one, now_ms, every_ms(context))
                    await _walk(context, client, inbox, one, anew=anew)
            except (NotPossible, RedisError, OSError):
                raise  # the next one would fare no better
            except Exception as failure:  # ours, and no reason for the others to wait
                told = (kind, import_id, last_line(failure))
                logger.error("import failed kind=%s id=%s error=%s", *told)  # noqa: TRY400


def every_ms(context: Context) -> int:
    """Return the milliseconds from one walk's beginning to the next one's."""
    return int(context.settings.reconcile_every_h * HOUR_MS)


def is_due(known: Import | None, now_ms: int, every_ms: int) -> bool:
    """Tell whether an import is to be begun, begun anew, or gone on with."""
    if known is None:
        return True
    if known.is_finished:
        return begins_anew(known, now_ms, every_ms)
    return (known.again_at_ms or 0) <= now_ms


def begins_anew(known: Import, now_ms: int, every_ms: int) -> bool:
    """Tell whether an import that is due begins at the first page.

    So does one that is put off at a page since longer than a period: what is new comes on the first pages, and is
    not to wait for a page that may never come.
    """
    is_over = known.is_finished or known.error is not None
    return is_over and known.started_at_ms + every_ms <= now_ms


async def _walk(
    context: Context, client: AudienceLab, inbox: Inbox, known: Import, *, anew: bool
) -> None:
    """Walk one import as far as that goes; what fails is put off and told."""
    await inbox.start()
    try:
        one, is_ours = await imports.take(context.redis, _anew(known), context.consumer, anew=anew)
        if not is_ours:
            return
        begun_with = one.rows
        one = await _walker(context, client, inbox).walk(one)
    except imports.Busy:
        return
    except imports.Lost:
        logger.warning("import taken over kind=%s id=%s", known.kind, known.id)
    except (CallFailed, NotStored) as failure:
        logger.warning("import put off kind=%s id=%s error=%s", known.kind, known.id, failure)
    else:
        logger.info(
            "import kind=%s id=%s rows=%d finished=%s",
            *(one.kind, one.id, one.rows - begun_with, one.is_finished),
        )


def _anew(known: Import) -> Import:
    """Return the import as one that was not begun: what the operator said of it stays."""
    kept = replace(Import(known.kind, known.id, known.page_size), tag=known.tag)
    return replace(kept, version=known.version, own_id=known.own_id)


def _walker(context: Context, client: AudienceLab, inbox: Inbox) -> Walker:
    async def ring(number: int) -> None:
        await context.bell.ring(Stage.UNPACK, number)

    return Walker(
        redis=context.redis,
        client=client,
        inbox=inbox,
        holder=context.consumer,
        calls_per_s=context.settings.audiencelab_rate,
        rank=RANK,
        most_bytes=context.settings.max_body_bytes,
        stopping=context.stopping,
        ring=ring,
        timing=context.timing,
        longest_wait_s=LONGEST_WAIT_S,
        counted=partial(context.tally.counted, Endpoint.IMPORTS),
    )


@asynccontextmanager
async def _leased(context: Context) -> AsyncIterator[bool]:
    """Hold the lease for the length of the block; gives whether it is ours."""
    lease = (context.redis, leases.RECONCILING, context.consumer)
    if not await leases.hold(*lease, LEASE_MS):
        yield False
        return

    async def renew() -> None:
        while True:
            await asyncio.sleep(LEASE_MS / 4000)
            try:
                await leases.hold(*lease, LEASE_MS)
            except (RedisError, OSError) as error:
                logger.warning("lease not renewed error=%s", words_of(error))

    renewing = asyncio.create_task(renew())
    try:
        yield True
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
        await leases.leave(*lease)
