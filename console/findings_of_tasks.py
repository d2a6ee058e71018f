"""What `relay doctor` finds about work that is no stage's own, and that only a worker's log would tell of.

Segments and pixels that are walked by themselves, the poll of scores, bulk jobs, and the CRM that hears of changes.
What another side said is shown without keys, tokens and addresses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from console.findings import Finding, bad, looked, ok, warn
from console.vendors import hidden
from pipeline import books, bulk_jobs, imports, keys, loopback, polls
from pipeline.addresses import mask
from pipeline.clock import DAY_MS, HOUR_MS, iso, redis_now_ms
from pipeline.endpoints import Endpoint
from pipeline.imports import Import, Kind
from pipeline.outcomes import Stage

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from pipeline.bulk_jobs import Tally
    from pipeline.polls import Poll
    from pipeline.settings import Settings

#: how long somebody should know of the last bulk job that was given up
RECENT_MS = 7 * DAY_MS
_COMMANDS = {Kind.SEGMENT: "relay segments import", Kind.PIXEL: "relay pixels backfill"}


async def of_tasks(redis: Redis, settings: Settings) -> list[Finding]:
    """Return what the relay's data tell. Raises redis-py's errors, but for what Redis refuses to tell."""
    return [
        *await looked("reconciling", _reconciling(redis, settings)),
        *await looked("polling of scores", _polling(redis, settings)),
        *await looked("bulk jobs", _bulk(redis, settings)),
        *await looked("score changes", _notify(redis, settings)),
    ]


def _said(words: str, settings: Settings) -> str:
    """Return what another side said, fit to be shown."""
    return mask(hidden(words, settings)).rstrip(".")


# reconciling --------------------------------------------------------------------------------------------


async def _reconciling(redis: Redis, settings: Settings) -> list[Finding]:
    """Return a finding for each id of the settings, and one of a pause."""
    wanted = [
        *((Kind.SEGMENT, each) for each in settings.reconciled_segments()),
        *((Kind.PIXEL, each) for each in settings.reconciled_pixels()),
    ]
    now_ms = await redis_now_ms(redis)
    pause = books.pause_view(await redis.hget(keys.PAUSED, Endpoint.IMPORTS))
    paused = [_paused("reconciling", Endpoint.IMPORTS, pause, settings)] if pause else []
    if not wanted:
        return paused or [ok("reconciling", "RECONCILE_SEGMENTS and RECONCILE_PIXELS name no id")]
    return paused + [
        _walk(kind, name, await imports.read(redis, kind, name), now_ms, settings)
        for kind, name in wanted
    ]


def _walk(kind: Kind, name: str, known: Import | None, now_ms: int, settings: Settings) -> Finding:
    from workers.walk import MOST_BREAKS

    check, setting = f"reconciling {kind} {name}", f"RECONCILE_{kind.upper()}S"
    if known is None:
        do = f"workers do it, one after the other; restart them when {setting} is new"
        return warn(check, "never walked", do)
    last = known.last_finished_at_ms
    finished = f"last finished {iso(last) if last else 'never'}"
    if known.error is not None:
        again = f"tried again at {iso(known.again_at_ms)}" if known.again_at_ms else "tried again"
        found = f"{finished}; put off: {_said(known.error, settings)}; {again}"
        if known.breaks:
            do = f"after {MOST_BREAKS} tries it ends there by itself; if the service is down, mend that"
            return warn(check, found, do)
        do = f"mend what it says; `{_COMMANDS[kind]} {name}` tries at once; or take it out of {setting}"
        return bad(check, found, do)
    if known.is_finished:
        told = f"{finished}, {known.rows} rows"
        if known.short and known.rows < (known.total or 0):
            told += f" of the {known.total} that AudienceLab tells of"
    else:
        told = f"{finished}; under way since {iso(known.started_at_ms)}, {known.rows} rows so far"
    if known.started_at_ms + 2 * int(settings.reconcile_every_h * HOUR_MS) < now_ms:
        do = "the next one should have begun: look whether workers have this setting, and at their log"
        return warn(check, f"{told}; begun {iso(known.started_at_ms)}", do)
    if known.is_finished and known.short:
        do = (
            "some may be missing: compare with Studio; the next walk begins at the first page again"
        )
        return warn(check, f"{told}; AudienceLab's list ended before the end that it tells of", do)
    return ok(check, told)


# polling ------------------------------------------------------------------------------------------------


async def _polling(redis: Redis, settings: Settings) -> list[Finding]:
    check = "polling of scores"
    if not settings.score_poll_every_h:
        return [ok(check, "switched off by SCORE_POLL_EVERY_H=0")]
    if settings.audiencepoint_api_key is None:
        return [ok(check, "nobody to ask without AUDIENCEPOINT_API_KEY")]
    return [_poll(check, await polls.read(redis), settings)]


def _paused(check: str, name: str, pause: Mapping[str, str | None], settings: Settings) -> Finding:
    why = _said(pause["reason"] or "", settings)
    found = f"paused by the operator since {pause['since']}: {why}"
    return warn(check, found, f"`relay resume {name}` lifts it")


def _poll(check: str, poll: Poll, settings: Settings) -> Finding:
    from workers.poll_scores import QUIET_MS

    if poll.pushed_ms + QUIET_MS > poll.now_ms:
        return ok(check, f"it rests: scores are pushed, last at {iso(poll.pushed_ms)}")
    again = f"tried again at {iso(poll.due_ms)}"
    if poll.pause is not None and poll.pause["by"] == "operator":
        return _paused(check, Endpoint.POLLING, poll.pause, settings)
    if poll.pause is not None:
        why = _said(poll.pause["reason"] or "", settings)
        found = f"put off since {poll.pause['since']}: {why}; {again}"
        return bad(check, found, "mend what it says; it goes on by itself")
    if poll.failures:
        do = "it goes on by itself; the workers' log says why"
        return warn(check, f"{poll.failures} calls failed in a row; {again}", do)
    if not poll.began_ms:
        return ok(check, "it has not begun yet")
    how = "is over" if poll.is_over else "goes on"
    return ok(check, f"no score was pushed for a week: the walk of {iso(poll.began_ms)} {how}")


# bulk jobs ----------------------------------------------------------------------------------------------


async def _bulk(redis: Redis, settings: Settings) -> list[Finding]:
    return [_given_up(await bulk_jobs.tally(redis), await redis_now_ms(redis), settings)]


def _given_up(tally: Tally, now_ms: int, settings: Settings) -> Finding:
    check, under_way = "bulk jobs", f"{tally.under_way} under way"
    if not tally.given_up:
        return ok(check, f"{under_way}, none was ever given up")
    found = (
        f"{under_way}; {tally.given_up} given up so far, of {tally.visitors} visitors,"
        f" the last at {iso(tally.last_ms)}: {_said(tally.why, settings)}"
    )
    if tally.last_ms + RECENT_MS < now_ms:
        return ok(check, found)
    do = "nothing is lost, they are asked about one by one; if every job ends so, set ENRICH_BULK_FROM=0"
    return warn(check, found, do)


# notify -------------------------------------------------------------------------------------------------


async def _notify(redis: Redis, settings: Settings) -> list[Finding]:
    snapshot = await books.snapshot(redis)
    return list(_told(settings, snapshot["stages"][Stage.NOTIFY], snapshot["paused"][Stage.NOTIFY]))


def _told(
    settings: Settings, row: Mapping[str, int], pause: Mapping[str, Any] | None
) -> Iterator[Finding]:
    """Yield whom changes of scores are told, and how the stage `notify` is doing; of the address only the host."""
    check, url = "setting SCORES_WEBHOOK_URL", settings.scores_webhook_url
    if url is None:
        if settings.scores_webhook_secret is not None:
            do = "set SCORES_WEBHOOK_URL, or take SCORES_WEBHOOK_SECRET out"
            yield warn(check, "not set, though its secret is: nobody hears of score changes", do)
        else:
            yield ok(check, "not set: nobody hears of score changes")
        return
    parts = urlsplit(url.get_secret_value())
    told = f"{parts.scheme}://{parts.hostname}, signed with {_keys(len(settings.webhook_keys()))}"
    if parts.scheme == "http" and parts.hostname not in loopback.HOSTS:
        yield warn(check, f"{told}: everybody on the way can read it", "let it be https")
    else:
        yield ok(check, told)
    yield _stage(row, pause, settings)


def _keys(number: int) -> str:
    return (
        "one key of SCORES_WEBHOOK_SECRET" if number == 1 else f"{number} keys, while they change"
    )


def _stage(row: Mapping[str, int], pause: Mapping[str, Any] | None, settings: Settings) -> Finding:
    check = "score changes"
    counts = f"{row['done']} told, {row['waiting']} wait, {row['dead']} are dead"
    if pause is not None:
        found = f"{counts}; paused since {pause['since']}: {_said(pause['reason'], settings)}"
        if pause["by"] == "operator":
            return warn(check, found, "`relay resume notify` lifts it")
        return bad(check, found, "mend what it says; the relay goes on by itself")
    if row["dead"]:
        return warn(check, counts, "`relay dead list --stage notify` says why")
    return ok(check, counts)
