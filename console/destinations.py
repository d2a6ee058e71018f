"""Destinations: whom the relay calls, whether it may at this moment, how fast, and how the last calls went.

Addresses are those of this process's settings, without whatever may be a secret in them. An endpoint that is called
for a stage beside its single calls stops with that stage's pause; those of tasks have a pause of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline import books, calls, dialects, imports, keys, polls
from pipeline.clock import HOUR_MS, iso, redis_now_ms
from pipeline.endpoints import STAGE_OF, Endpoint
from pipeline.imports import Import, Kind
from pipeline.paces import CALLING
from workers.clients.audiencelab.dialects import AUTO, Dialect
from workers.clients.audiencelab.enrichment import (
    DOCUMENTED_ENRICH_PATH,
    DOCUMENTED_JOBS_PATH,
    ENRICH_PATH,
    JOBS_PATH,
)

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from pipeline.settings import Settings

#: whose rate the calls share; the CRM and Amazon have none
VENDOR_OF = {
    Endpoint.ENRICH: "audiencelab",
    Endpoint.BULK: "audiencelab",
    Endpoint.IMPORTS: "audiencelab",
    Endpoint.SUBSCRIBE: "audiencepoint",
    Endpoint.VERIFY: "audiencepoint",
    Endpoint.FORWARD: "audiencepoint",
    Endpoint.POLLING: "audiencepoint",
}
_KEY_OF = {"audiencelab": "AUDIENCELAB_API_KEY", "audiencepoint": "AUDIENCEPOINT_API_KEY"}


@dataclass(frozen=True, slots=True)
class _State:
    """Whether calls are made, in a word, and when the next one goes, where that is known."""

    word: str
    next_try: str | None = None
    pause: Any = None


async def read(redis: Redis, settings: Settings) -> dict[str, Any]:
    """Return what is known of each endpoint that is called, as /api shows it."""
    status = await books.snapshot(redis, settings=settings)
    known = await calls.read(redis, list(Endpoint))
    worked = await dialects.read(redis)
    tasks = {
        Endpoint.IMPORTS: await _of_imports(redis, settings),
        Endpoint.POLLING: await _of_polling(redis, settings),
    }
    return {
        str(endpoint): _view(
            endpoint,
            settings,
            status,
            known[endpoint],
            tasks.get(endpoint) or _of_stage(endpoint, settings, status, known),
            _address_of(endpoint, settings, worked),
        )
        for endpoint in Endpoint
    }


def _view(
    endpoint: Endpoint,
    settings: Settings,
    status: dict[str, Any],
    known: calls.Calls,
    state: _State,
    address: str | None,
) -> dict[str, Any]:
    is_stage, vendor = str(endpoint) in CALLING, VENDOR_OF.get(endpoint)
    stage = STAGE_OF.get(endpoint)
    return {
        "stage": str(endpoint) if is_stage else stage and str(stage),
        "endpoint": address,
        "key": _key(endpoint, settings),
        "state": state.word,
        "pause": state.pause,
        "next_try": state.next_try,
        "waiting": status["stages"][endpoint]["waiting"] if is_stage else None,
        "rate": status["rates"][vendor] if vendor else None,
        "calls": status["calls"][endpoint] if is_stage else None,
        "hour": known.hour.view(),
        "day": known.day.view(),
        "failures": [failure.view() for failure in known.failures],
    }


# whether calls are made -------------------------------------------------------------------------------


def _of_stage(
    endpoint: Endpoint, settings: Settings, status: dict[str, Any], known: dict[str, calls.Calls]
) -> _State:
    """Tell of a stage's calls, or of those that stop with it: an operator's pause also holds what is switched off."""
    stage = STAGE_OF.get(endpoint, endpoint)
    pause, is_off = status["paused"][stage], _is_off(endpoint, settings)
    due_ms = known[stage].due_ms if stage in known else None
    next_try = None if due_ms is None else iso(due_ms)
    if pause:
        next_try = pause["until"] if pause["by"] == "relay" else None
    is_asked_for = pause and pause["by"] == "operator" and stage is endpoint
    if is_asked_for or (pause and not is_off):
        word = "paused"
    elif is_off:
        word = "switched_off"
    else:
        word = "backs_off" if next_try else "flows"
    return _State(word, next_try, pause)


def _is_off(endpoint: Endpoint, settings: Settings) -> bool:
    """Tell whether the settings want none of these calls."""
    match endpoint:
        case Endpoint.BULK:
            return settings.is_off("enrich") or not settings.enrich_bulk_from
        case Endpoint.VERIFY:
            return settings.is_off("subscribe") or settings.verify != "before_subscribe"
        case Endpoint.IMPORTS:
            return not (settings.reconciled_segments() or settings.reconciled_pixels())
        case Endpoint.POLLING:
            return not settings.score_poll_every_h
        case Endpoint.PROOFS:
            return settings.ses_topic_arns is None
    return settings.is_off(endpoint)


async def _of_polling(redis: Redis, settings: Settings) -> _State:
    """Tell of the poll of scores, which rests while scores are pushed, and between two walks."""
    from workers.poll_scores import QUIET_MS

    poll = await polls.read(redis)
    if (found := _held(Endpoint.POLLING, settings, poll.pause)) is not None:
        return found
    period_ms = int(settings.score_poll_every_h * HOUR_MS)
    rests_ms = poll.pushed_ms + QUIET_MS if poll.pushed_ms else 0
    if poll.is_over:
        rests_ms = max(rests_ms, poll.began_ms + period_ms)
    if rests_ms > poll.now_ms:
        return _State("rests", iso(rests_ms))
    if poll.pause is not None:
        return _State("paused", poll.pause["until"], poll.pause)
    puts_off = poll.failures and poll.due_ms > poll.now_ms
    return _State("backs_off", iso(poll.due_ms)) if puts_off else _State("flows")


async def _of_imports(redis: Redis, settings: Settings) -> _State:
    """Tell of the walks: some are to be made now, or the first of those that wait is due at a time."""
    pause = books.pause_view(await redis.hget(keys.PAUSED, Endpoint.IMPORTS))
    if (found := _held(Endpoint.IMPORTS, settings, pause)) is not None:
        return found
    wanted = [(Kind.SEGMENT, each) for each in settings.reconciled_segments()]
    wanted += [(Kind.PIXEL, each) for each in settings.reconciled_pixels()]
    now_ms, every_ms = await redis_now_ms(redis), int(settings.reconcile_every_h * HOUR_MS)
    known = [await imports.read(redis, kind, name) for kind, name in wanted]
    due = [_due_ms(one, every_ms) for one in known]
    put_off = [
        at for one, at in zip(known, due, strict=True) if one is not None and one.again_at_ms
    ]
    if put_off and min(put_off) > now_ms:
        return _State("backs_off", iso(min(put_off)))
    return _State("rests", iso(min(due))) if min(due) > now_ms else _State("flows")


def _due_ms(one: Import | None, every_ms: int) -> int:
    """Return when an import is walked again, or gone on with; 0 for at once."""
    if one is None:
        return 0
    return one.started_at_ms + every_ms if one.is_finished else one.again_at_ms or 0


def _held(endpoint: Endpoint, settings: Settings, pause: Any) -> _State | None:
    """Tell whether an operator, the settings or a missing key keep a task from calling; None when it may."""
    if pause is not None and pause["by"] == "operator":
        return _State("paused", None, pause)
    if _is_off(endpoint, settings):
        return _State("switched_off")
    key = _key(endpoint, settings)
    return _State("no_key") if key and not key["is_set"] else None


# whom -------------------------------------------------------------------------------------------------


def _address_of(endpoint: Endpoint, settings: Settings, worked: dict[str, str]) -> str | None:
    """Return the address that is called; of the CRM's only the host, whose path may be a secret."""
    lab, point = settings.audiencelab_base_url, settings.audiencepoint_base_url
    match endpoint:
        case Endpoint.ENRICH:
            is_documented = _is_documented("enrich", settings, worked)
            return _address(lab, DOCUMENTED_ENRICH_PATH if is_documented else ENRICH_PATH)
        case Endpoint.BULK:
            is_documented = _is_documented("create_enrichment_job", settings, worked)
            return _address(lab, DOCUMENTED_JOBS_PATH if is_documented else JOBS_PATH)
        case Endpoint.IMPORTS:
            return _address(lab, "")
        case Endpoint.SUBSCRIBE:
            return _address(point, settings.audiencepoint_subscription_path)
        case Endpoint.VERIFY:
            return _address(point, settings.audiencepoint_verification_path)
        case Endpoint.FORWARD:
            return _address(point, settings.audiencepoint_events_path)
        case Endpoint.POLLING:
            return _address(point, settings.audiencepoint_scores_path)
        case Endpoint.PROOFS:
            return "https://sns.*.amazonaws.com/"
    url = settings.scores_webhook_url
    if url is None:
        return None
    parts = urlsplit(url.get_secret_value())
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/…"


def _is_documented(call: str, settings: Settings, worked: dict[str, str]) -> bool:
    """Tell which form of *call* is spoken, the one of the settings or the one that has worked."""
    mode = settings.audiencelab_dialect
    return (worked.get(call) if mode == AUTO else mode) == Dialect.DOCUMENTED


def _address(base: str, path: str) -> str:
    parts = urlsplit(base)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}/{path.lstrip('/')}"


def _key(endpoint: Endpoint, settings: Settings) -> dict[str, str | bool] | None:
    """Return which setting holds the key, and whether it is set; Amazon wants none."""
    if endpoint is Endpoint.PROOFS:
        return None
    name = _KEY_OF[VENDOR_OF[endpoint]] if endpoint in VENDOR_OF else "SCORES_WEBHOOK_SECRET"
    return {"name": name, "is_set": getattr(settings, name.lower()) is not None}
