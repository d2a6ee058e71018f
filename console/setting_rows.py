"""The settings as they are, for people: each with its value where that may be shown, and what it means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import SecretStr

from pipeline.settings import as_text

if TYPE_CHECKING:
    from pipeline.settings import Settings

#: as long whatever it stands for
STARS = "********"


@dataclass(frozen=True, slots=True)
class Row:
    """One setting."""

    name: str
    is_set: bool
    value: str
    default: str
    meaning: str


def rows_of(settings: Settings) -> list[Row]:
    """Return every setting, in the order of the README; no secret is told."""
    return [
        Row(
            name.upper(),
            name in settings.model_fields_set,
            _shown(name, getattr(settings, name)),
            as_text(info.default),
            info.description or "",
        )
        for name, info in type(settings).model_fields.items()
    ]


def _shown(name: str, value: object) -> str:
    if isinstance(value, SecretStr):
        # where Redis is has to be known, who may enter it has not; other addresses may be secrets themselves
        return without_user(value.get_secret_value()) if name == "redis_url" else STARS
    text = as_text(value)
    return without_user(text) if "://" in text else text


def without_user(url: str) -> str:
    """Return *url* without user, password and query, any of which may be a secret."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return STARS
    # a password may hold an @ by mistake, so that it ends at the last
    place = f"{parts.netloc}{parts.path}".rpartition("@")[2]
    return f"{parts.scheme}://{place}"
