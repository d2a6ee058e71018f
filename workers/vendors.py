"""Both vendors' clients, made from the settings: for the worker, and for the commands."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from workers.clients import audiencelab, audiencepoint
from workers.clients.audiencelab import AudienceLab, Dialects
from workers.clients.audiencepoint import AudiencePoint, Paths
from workers.clients.http import VendorHttp

if TYPE_CHECKING:
    import httpx
    from pydantic import SecretStr

    from pipeline.dialects import Keeper
    from pipeline.settings import Settings

Turn = Callable[[], Awaitable[None]]


def audiencepoint_client(
    settings: Settings, key: SecretStr, connections: httpx.AsyncClient, turn: Turn | None = None
) -> AudiencePoint:
    """Return AudiencePoint's client, which waits for *turn* before each call.

    Raises `ValueError` for a *key* that cannot stand in a header.
    """
    headers, url = audiencepoint.headers(key.get_secret_value()), settings.audiencepoint_base_url
    http = VendorHttp(audiencepoint.VENDOR, url, headers, connections, turn=turn)
    paths = Paths(
        events=settings.audiencepoint_events_path,
        subscription=settings.audiencepoint_subscription_path,
        scores=settings.audiencepoint_scores_path,
        verification=settings.audiencepoint_verification_path,
        send_times=settings.audiencepoint_sto_path,
    )
    return AudiencePoint(http, paths)


def audiencelab_client(
    settings: Settings,
    key: SecretStr,
    connections: httpx.AsyncClient,
    worked: dict[str, str],
    keeper: Keeper,
    turn: Turn | None = None,
) -> AudienceLab:
    """Return AudienceLab's client, which begins with the forms that *worked* and tells *keeper* of others.

    It waits for *turn* before each call. Raises `ValueError` for a *key* that cannot stand in a header.
    """
    headers, url = audiencelab.headers(key.get_secret_value()), settings.audiencelab_base_url
    http = VendorHttp(audiencelab.VENDOR, url, headers, connections, turn=turn)
    dialects = Dialects(settings.audiencelab_dialect, worked, keeper.learned)
    return AudienceLab(http, hash_filter=settings.audiencelab_hash_filter, dialects=dialects)
