"""Both vendors' clients, made from the settings: for the worker, and for the commands."""

from __future__ import annotations

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


def audiencepoint_client(
    settings: Settings, key: SecretStr, connections: httpx.AsyncClient
) -> AudiencePoint:
    """Return AudiencePoint's client. Raises `ValueError` for a *key* that cannot stand in a header."""
    headers = audiencepoint.headers(key.get_secret_value())
    http = VendorHttp(audiencepoint.VENDOR, settings.audiencepoint_base_url, headers, connections)
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
) -> AudienceLab:
    """Return AudienceLab's client, which begins with the forms that *worked* and tells *keeper* of others.

    Raises `ValueError` for a *key* that cannot stand in a header.
    """
    headers = audiencelab.headers(key.get_secret_value())
    http = VendorHttp(audiencelab.VENDOR, settings.audiencelab_base_url, headers, connections)
    dialects = Dialects(settings.audiencelab_dialect, worked, keeper.learned)
    return AudienceLab(http, hash_filter=settings.audiencelab_hash_filter, dialects=dialects)
