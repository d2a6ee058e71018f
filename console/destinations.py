"""Destinations: whom each stage calls, whether it may at this moment, how fast, and how the last calls went.

Addresses are those of this process's settings, without whatever may be a secret in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline import books, calls, dialects
from pipeline.clock import iso
from pipeline.outcomes import Stage
from pipeline.paces import CALLING
from workers.clients.audiencelab.dialects import AUTO, Dialect
from workers.clients.audiencelab.enrichment import DOCUMENTED_ENRICH_PATH, ENRICH_PATH

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from pipeline.settings import Settings

#: whose rate the calls of a stage share; the CRM's has none
VENDOR_OF = {
    Stage.ENRICH: "audiencelab",
    Stage.SUBSCRIBE: "audiencepoint",
    Stage.FORWARD: "audiencepoint",
}


async def read(redis: Redis, settings: Settings) -> dict[str, Any]:
    """Return what is known of each stage that calls somebody, as /api shows it."""
    status = await books.snapshot(redis, settings=settings)
    known = await calls.read(redis, CALLING)
    worked = await dialects.read(redis)
    return {str(stage): _view(stage, settings, status, known[stage], worked) for stage in CALLING}


def _view(
    stage: Stage,
    settings: Settings,
    status: dict[str, Any],
    known: calls.Calls,
    worked: dict[str, str],
) -> dict[str, Any]:
    pause = status["paused"][stage]
    vendor = VENDOR_OF.get(stage)
    due = None if known.due_ms is None else iso(known.due_ms)
    return {
        "endpoint": _endpoint(stage, settings, worked),
        "key": _key(stage, settings),
        "state": _state(stage, settings, pause, due),
        "pause": pause,
        "next_try": (pause["until"] if pause["by"] == "relay" else None) if pause else due,
        "waiting": status["stages"][stage]["waiting"],
        "rate": status["rates"][vendor] if vendor else None,
        "calls": status["calls"][stage],
        "hour": known.hour.view(),
        "day": known.day.view(),
        "failures": [failure.view() for failure in known.failures],
    }


def _state(stage: Stage, settings: Settings, pause: Any, due: str | None) -> str:
    """Return in a word whether calls are made: an operator's pause also holds what is switched off."""
    is_off = settings.is_off(stage)
    if pause and (pause["by"] == "operator" or not is_off):
        return "paused"
    if is_off:
        return "switched_off"
    return "backs_off" if due else "flows"


def _endpoint(stage: Stage, settings: Settings, worked: dict[str, str]) -> str | None:
    """Return the address that is called; of the CRM's only the host, whose path may be a secret."""
    match stage:
        case Stage.ENRICH:
            mode = settings.audiencelab_dialect
            form = worked.get("enrich") if mode == AUTO else mode
            path = DOCUMENTED_ENRICH_PATH if form == Dialect.DOCUMENTED else ENRICH_PATH
            return _address(settings.audiencelab_base_url, path)
        case Stage.SUBSCRIBE:
            path = settings.audiencepoint_subscription_path
            return _address(settings.audiencepoint_base_url, path)
        case Stage.FORWARD:
            return _address(settings.audiencepoint_base_url, settings.audiencepoint_events_path)
    url = settings.scores_webhook_url
    if url is None:
        return None
    parts = urlsplit(url.get_secret_value())
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/…"


def _address(base: str, path: str) -> str:
    parts = urlsplit(base)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}/{path.lstrip('/')}"


def _key(stage: Stage, settings: Settings) -> dict[str, str | bool]:
    """Return which setting holds the key, and whether it is set."""
    match stage:
        case Stage.ENRICH:
            name, key = "AUDIENCELAB_API_KEY", settings.audiencelab_api_key
        case Stage.SUBSCRIBE | Stage.FORWARD:
            name, key = "AUDIENCEPOINT_API_KEY", settings.audiencepoint_api_key
        case _:
            name, key = "SCORES_WEBHOOK_SECRET", settings.scores_webhook_secret
    return {"name": name, "is_set": key is not None}
