"""AudienceLab's pixels and what they have seen.

As observed, `GET /pixels/{id}` is a page of V3 events and `/v4` one of V4 events; as documented the
first is the pixel itself and there is no second. An id such as `pixel-5000` is a pixel that nobody
made, with five thousand events.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandbox.account import Account, Pixel
from sandbox.audiencelab_rules import (
    DELETED,
    LIST_SIZES,
    envelope,
    message_of,
    optional_text,
    page_asked,
    refusal,
    text_of,
    unknown,
)
from sandbox.audiencelab_segments import drifted, size_in
from sandbox.desk import Answer, Asked, Handle
from sandbox.invented import v3_event, v4_event
from sandbox.settings import Settings

_KEYS = ("websiteName", "websiteUrl", "webhookUrl", "version")
_DOCUMENTED_KEYS = ("name", "domain", "webhook_url", "integrations", "custom_params")


def listed(account: Account, settings: Settings) -> Handle:
    """`GET /pixels`: pages as observed, all of them as documented."""

    def handle(asked: Asked) -> Answer:
        pixels = [_shown(pixel) for pixel in account.pixels.values()]
        if settings.dialect == "documented":
            return Answer(200, {"data": pixels, "total": len(pixels)}, len(pixels))
        page = page_asked(asked, len(pixels), LIST_SIZES, settings)
        data = page.cut_from(pixels)
        return Answer(200, envelope(page, settings, data=data), len(data))

    return handle


def one(account: Account) -> Handle:
    """`GET /pixels/{id}` as documented: the pixel itself."""

    def handle(asked: Asked) -> Answer:
        return Answer(200, _shown(_pixel(account, asked)), 1)

    return handle


def v3_events(account: Account, settings: Settings) -> Handle:
    """`GET /pixels/{id}` as observed: a page of events."""
    return _events(account, settings, v3_event)


def v4_events(account: Account, settings: Settings) -> Handle:
    """`GET /pixels/{id}/v4`: a page of events in the newer form."""
    return _events(account, settings, v4_event)


def _events(
    account: Account, settings: Settings, make: Callable[[int, str], dict[str, Any]]
) -> Handle:
    def handle(asked: Asked) -> Answer:
        pixel = _pixel(account, asked)
        page_asked(asked, pixel.events, LIST_SIZES, settings)
        total = drifted(pixel.id, pixel.events, account, settings)
        page = page_asked(asked, total, LIST_SIZES, settings)
        events = [make(total - 1 - position, pixel.provider_id) for position in page.positions]
        return Answer(200, envelope(page, settings, events=events), len(events))

    return handle


def created(account: Account) -> Handle:
    """`POST /pixels` as observed: camelCase, answered with id and script."""

    def handle(asked: Asked) -> Answer:
        message = message_of(asked, _KEYS)
        version = message.get("version") or "v3"
        if version not in ("v3", "v4"):
            raise refusal("version is v3 or v4")
        name, url = text_of(message, "websiteName"), text_of(message, "websiteUrl")
        pixel = _add(account, name, url, optional_text(message, "webhookUrl"), version)
        return Answer(200, {"pixel_id": pixel.id, "install_url": pixel.install_url}, 1)

    return handle


def created_as_documented(account: Account) -> Handle:
    """`POST /pixels` as documented: snake_case, answered with the whole pixel."""

    def handle(asked: Asked) -> Answer:
        message = message_of(asked, _DOCUMENTED_KEYS)
        for key in ("integrations", "custom_params"):
            if not isinstance(message.get(key, {}), dict):
                raise refusal(f"{key} is an object")
        name, domain = text_of(message, "name"), text_of(message, "domain")
        webhook_url = optional_text(message, "webhook_url")
        pixel = _add(account, name, f"https://{domain}", webhook_url, "v3")
        return Answer(201, _shown(pixel), 1)

    return handle


def deleted(account: Account, settings: Settings) -> Handle:
    """`DELETE /pixels/{id}`: 204 as observed, `{"success": true}` as documented."""

    def handle(asked: Asked) -> Answer:
        if account.pixels.pop(asked.piece("id"), None) is None:
            raise unknown("Pixel")
        is_observed = settings.dialect == "observed"
        return Answer(204, None, 1) if is_observed else Answer(200, DELETED, 1)

    return handle


def _pixel(account: Account, asked: Asked) -> Pixel:
    name = asked.piece("id")
    if name in account.pixels:
        return account.pixels[name]
    size = size_in(name)
    if size is None or not name.startswith("pixel-"):
        raise unknown("Pixel")
    return Pixel(name, name, "Invented", "https://example.com", events=size)


def _add(account: Account, name: str, url: str, webhook_url: str | None, version: str) -> Pixel:
    provider_id = account.new_id("provider")
    if version == "v4":
        provider_id = provider_id.replace("-", "")[:24]
    pixel = Pixel(account.new_id("pixel"), provider_id, name, url, webhook_url, version)
    account.pixels[pixel.id] = pixel
    return pixel


def _shown(pixel: Pixel) -> dict[str, Any]:
    return {
        "id": pixel.id,
        "install_url": pixel.install_url,
        "last_sync": pixel.last_sync,
        "webhook_url": pixel.webhook_url,
        "website_name": pixel.website_name,
        "website_url": pixel.website_url,
    }
