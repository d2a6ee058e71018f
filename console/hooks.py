"""This relay's hook URLs: what a vendor is given, and whether a URL that a vendor holds leads here.

A hook's URL is a secret, because of the token in it: it is shown masked, and of URLs that lead elsewhere only the
host is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

import typer

from console.commands import BadUsage, Failed, load, wrong_settings
from console.vendors import HIDDEN

if TYPE_CHECKING:
    from pipeline.hook_tokens import HookToken
    from pipeline.settings import Settings

#: what AudienceLab may deliver to; these three sources read the same
SOURCES = ("pixel", "audience", "workflow")

_TAG = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_PORTS = {"http": 80, "https": 443}


def checked_tag(tag: str | None) -> str | None:
    """Return *tag* as an option takes it; raises `typer.BadParameter` for one that no URL could have."""
    if tag is not None and not _TAG.fullmatch(tag):
        raise typer.BadParameter("should be 1 to 64 letters, digits and - _ .")
    return tag


Tag = Annotated[
    str | None,
    typer.Option(callback=checked_tag, help="Kept with every visitor who comes by this webhook."),
]
ShowUrl = Annotated[
    bool, typer.Option("--show-url", help="Print the webhook's URL whole, with its token.")
]


class Points(StrEnum):
    """Where a webhook leads."""

    HERE = "here"
    ELSEWHERE = "elsewhere"
    NOWHERE = "nowhere"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a vendor's webhook leads: *host* only, beside what is the relay's own.

    *token_valid* is None where it does not lead here; *problem* says why deliveries would be refused.
    """

    points: Points
    host: str | None = None
    source: str | None = None
    tag: str | None = None
    token_valid: bool | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Hooks:
    """The hook URLs below *public_url*, opened by *tokens*."""

    public_url: str
    tokens: Sequence[HookToken]

    def url(self, source: str, tag: str | None = None, *, masked: bool = False) -> str:
        """Return the whole URL for *source*; raises `BadUsage` where no token is valid for it."""
        from pipeline.hook_tokens import token_for

        token = token_for(list(self.tokens), source)
        if token is None:
            raise BadUsage(f"No token of HOOK_TOKENS is valid for {source}: add one.")
        query = f"?tag={tag}" if tag else ""
        shown = HIDDEN if masked else quote(token, safe="")
        return f"{self.public_url}/hooks/{source}/{shown}{query}"

    def place(self, webhook_url: str | None) -> Place:
        """Return where *webhook_url* leads."""
        if not webhook_url or not webhook_url.strip():
            return Place(Points.NOWHERE)
        parts, own = _split(webhook_url.strip()), urlsplit(self.public_url)
        if parts is None:
            return Place(Points.ELSEWHERE, problem="it is not a URL")
        prefix = f"{own.path}/hooks/"
        leads_here = _origin(parts) == _origin(own)
        if leads_here and own.path and not parts.path.startswith(prefix):
            leads_here = False  # something else behind the same proxy
        if not leads_here:
            return Place(Points.ELSEWHERE, host_of(webhook_url))
        if not parts.path.startswith(prefix):
            problem = "its path is no hook's: everything is answered 404"
            return Place(Points.HERE, parts.hostname, token_valid=False, problem=problem)
        return self._own(parts, parts.path.removeprefix(prefix))

    def _own(self, parts: SplitResult, rest: str) -> Place:
        """Return what is to be said of a hook of this relay, *rest* being `source[/token]`."""
        source, _, in_path = rest.partition("/")
        asked = dict(
            reversed(parse_qsl(parts.query))
        )  # of a name that comes twice, the first counts
        token = unquote(in_path).rstrip("/") or asked.get("token", "")
        valid = any(each.token == token and each.source in (None, source) for each in self.tokens)
        problem = None
        if source not in SOURCES:
            # not quoted: it may be the token, put there by mistake
            problem = f"its source is none of {', '.join(SOURCES)}"
        elif not token:
            problem = "there is no token in it: its deliveries are refused"
        elif not valid:
            problem = f"the token in it is not valid for {source}: its deliveries are refused"
        tag = asked.get("tag")
        return Place(
            Points.HERE,
            parts.hostname,
            source if source in SOURCES else None,
            tag if tag and _TAG.fullmatch(tag) else None,
            valid,
            problem,
        )


def own_hooks(settings: Settings | None = None) -> Hooks:
    """Return this relay's hooks; raises `BadUsage` for what is not set."""
    from pipeline.settings import SettingsError

    settings = settings or load()
    if settings.public_url is None:
        raise BadUsage(
            "PUBLIC_URL is not set: set it to where senders reach the receiver, such as"
            " https://relay.example.com."
        )
    _check_no_trial(settings)
    try:
        return Hooks(settings.public_url, settings.tokens())
    except SettingsError as error:
        raise wrong_settings(error.problems) from None


def _check_no_trial(settings: Settings) -> None:
    """Raise `Failed` while the tokens are those of a trial, which no vendor must be given."""
    from pipeline.home import Home, HomeError

    try:
        running = None if settings.redis_url else Home(settings.relay_home).running()
    except HomeError as error:
        raise Failed(str(error)) from None
    if running is not None and running.trial:
        raise Failed("A trial runs, and no vendor may be given its token: end it first.")


def host_of(webhook_url: str | None) -> str | None:
    """Return the host of a URL that a vendor holds, which is all that is shown of it."""
    parts = _split((webhook_url or "").strip())
    return parts.hostname if parts else None


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for one that is no number
    except ValueError:
        return None
    return parts if parts.hostname else None


def _origin(parts: SplitResult) -> tuple[str, int | None]:
    """Return host and port; http and https at their own ports count as one, a proxy redirects them."""
    port = parts.port
    return (parts.hostname or "").rstrip("."), None if port == _PORTS.get(parts.scheme) else port


def place_view(place: Place) -> Mapping[str, object]:
    """Return *place* as the machine form shows it."""
    return {
        "points": place.points,
        "host": place.host,
        "source": place.source,
        "tag": place.tag,
        "token_valid": place.token_valid,
        "problem": place.problem,
    }
