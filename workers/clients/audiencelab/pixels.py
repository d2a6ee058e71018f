"""Pixels: the snippets that resolve a site's visitors, and the events they have seen.

Observed is `{websiteName, websiteUrl, webhookUrl, version}` for a new one; documented is `{name,
domain, webhook_url}`. What may go wrong: a pixel has two ids. The one of these calls is
AudienceLab's own; events and the install URL carry the provider's, `Pixel.provider_id`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from workers.clients.audiencelab.answers import (
    VENDOR,
    folded,
    is_failure,
    others,
    refused,
    text,
)
from workers.clients.audiencelab.listed import Listed
from workers.clients.audiencelab.pages import Page
from workers.clients.errors import CallFailed, Misconfigured
from workers.clients.messages import Answer, Request, json_bytes

PIXELS_PATH = "/pixels"

_V3_URL = re.compile(r"/pixels/([\w-]+)/")
_V4_URL = re.compile(r"/idp-analytics-([0-9a-fA-F]{24})")


@dataclass(frozen=True, slots=True)
class Pixel:
    """A pixel as the list shows it. *last_sync* is ISO-8601 with an offset; None before the first.

    *other* holds what the answer tells beside these, under the names it came with.
    """

    id: str
    install_url: str | None
    website_name: str | None
    website_url: str | None
    webhook_url: str | None = None
    last_sync: str | None = None
    other: Mapping[str, object] = field(default_factory=dict)

    @property
    def provider_id(self) -> str | None:
        """The id that this pixel's events carry as `pixel_id`, read from the install URL."""
        return _provider_id(self.install_url)


@dataclass(frozen=True, slots=True)
class CreatedPixel:
    """A new pixel. Whether *id* is AudienceLab's or the provider's is not known for sure."""

    id: str
    install_url: str | None

    @property
    def provider_id(self) -> str | None:
        """The id that this pixel's events carry as `pixel_id`, read from the install URL."""
        return _provider_id(self.install_url)


def _provider_id(install_url: str | None) -> str | None:
    found = _V3_URL.search(install_url or "") or _V4_URL.search(install_url or "")
    return found[1] if found else None


def _pixel(members: Mapping[str, object]) -> Pixel | None:
    """Return a pixel; None for an object that is none."""
    told = folded(members)
    own_id = text(told.get("id"))
    if own_id is None:
        return None
    names = ("installurl", "websitename", "websiteurl", "webhookurl", "lastsync")
    url, name, site, webhook_url, last_sync = (text(told.get(each)) for each in names)
    rest = others(members, "id", *names)
    return Pixel(own_id, url, name, site, webhook_url, last_sync, rest)


#: the account's pixels, the events of one, its end
PIXELS = Listed(PIXELS_PATH, "pixel", "events", _pixel)


def create_request(
    website_name: str, website_url: str, webhook_url: str | None, version: str | None
) -> Request:
    """Return the observed request for a new pixel; what is None is not sent.

    *version* is `v3`, the vendor's default, or `v4`.
    """
    form = {
        "websiteName": website_name,
        "websiteUrl": website_url,
        "webhookUrl": webhook_url,
        "version": version,
    }
    return Request("POST", PIXELS_PATH, _told(form))


def documented_create_request(
    website_name: str, website_url: str, webhook_url: str | None
) -> Request:
    """Return the documented request for a new pixel: by its site's domain, without a version."""
    domain = urlsplit(website_url if "//" in website_url else f"//{website_url}").hostname
    form = {"name": website_name, "domain": domain or website_url, "webhook_url": webhook_url}
    return Request("POST", PIXELS_PATH, _told(form))


def _told(form: Mapping[str, object]) -> bytes:
    return json_bytes({name: value for name, value in form.items() if value is not None})


def read_created(answer: Answer) -> CreatedPixel:
    """Return the new pixel: `{pixel_id, install_url}` (observed) or the whole pixel (documented)."""
    members = answer.members()
    told = folded(members)
    new_id = text(told.get("pixelid")) or text(told.get("id"))
    if not answer.is_success or new_id is None or is_failure(members):
        raise refused(answer, PIXELS_PATH, changes=True)
    return CreatedPixel(new_id, text(told.get("installurl")))


def events_path(version: str) -> str:
    """Return the path of a pixel's events: those of V4 have one of their own (observed)."""
    if version not in ("v3", "v4"):
        raise ValueError("a pixel's version is v3 or v4")
    return f"{PIXELS.path_of_one}/v4" if version == "v4" else PIXELS.path_of_one


def events_request(pixel_id: str, page: int, page_size: int, version: str) -> Request:
    """Return the request for a page of a pixel's events, 1 to 1000 a page (observed)."""
    return PIXELS.contents_request(pixel_id, page, page_size, events_path(version))


def no_events(version: str, failed: CallFailed) -> CallFailed:
    """Return what *failed*, by which no pixel is known, means for a pixel that is listed."""
    path = events_path(version)
    told = f"{VENDOR} lists this pixel, but knows nothing of it at {path} ({failed.status})"
    form = "the service speaks the documented form only, which has no call for a pixel's events"
    return Misconfigured(f"{told}: it is no pixel of {version}, or {form}", status=failed.status)


def read_events(answer: Answer, page: int, page_size: int, version: str) -> Page[dict[str, object]]:
    """Return a page of events as they came, which is as the webhook delivers them.

    Raises what `Listed.read_contents` does.
    """
    return PIXELS.read_contents(answer, page, page_size, "events", events_path(version))
