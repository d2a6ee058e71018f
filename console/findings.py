"""What `relay doctor` finds in the settings; a finding is ok, warn or bad, and says what to do.

Nothing here leaves the machine; Redis is asked by what `looked` is given. Values that may be secrets are judged and
never shown.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING

from pipeline.loopback import is_loopback

if TYPE_CHECKING:
    from pipeline.hook_tokens import HookToken
    from pipeline.settings import Settings

#: sixteen characters, the fewest that are allowed, come to about 60 when a generator made them; words and keys in a
#: row to less than 50
STRONG_BITS = 56.0
# how much alike two names are of which one is a slip: SENDGRID_PUBLIC_KEYS, PROT
_ALIKE = 0.75


class State(StrEnum):
    """How a finding is."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: what was *found*, and what to *do* unless it is ok."""

    check: str
    state: State
    found: str
    do: str = ""

    def view(self) -> dict[str, str]:
        """Return the finding as the machine form shows it."""
        return {"check": self.check, "state": self.state, "found": self.found, "do": self.do}


def ok(check: str, found: str) -> Finding:
    """Return a finding that is as it should be."""
    return Finding(check, State.OK, found)


def warn(check: str, found: str, do: str) -> Finding:
    """Return a finding that somebody should know of."""
    return Finding(check, State.WARN, found, do)


def bad(check: str, found: str, do: str) -> Finding:
    """Return a finding by which work is lost, refused or at rest."""
    return Finding(check, State.BAD, found, do)


async def looked(check: str, looking: Awaitable[Sequence[Finding]]) -> Sequence[Finding]:
    """Return what *looking* finds, or that Redis refuses to tell: what cannot be looked at hides nothing else."""
    from redis.exceptions import NoPermissionError, ResponseError

    from pipeline.scripts import is_full

    try:
        return await looking
    except ResponseError as error:
        words = f"it refuses to tell: {str(error).partition(', with args')[0][:200]}"
        if is_full(error):
            found = "it refuses to tell: Redis is full"
            return [bad(check, found, "let the workers drain it, or raise its maxmemory")]
        if isinstance(error, NoPermissionError):
            return [bad(check, words, "let the user of REDIS_URL ask this")]
        return [bad(check, words, "look at what holds this data in Redis, and at its rights")]


def of_settings(settings: Settings) -> Iterator[Finding]:
    """Yield what the settings tell by themselves."""
    yield ok("settings", "read, none is wrong")
    yield from _of_slips(settings)
    if settings.is_beside_trial():
        found = "one runs here, with keys, rates and stand-ins of its own, and checks no signatures"
        yield ok("trial", f"{found}; the settings below are your own")
    else:
        yield from _of_keys(settings)
    yield _of_public_url(settings)
    yield from _of_tokens(settings)


def _of_slips(settings: Settings) -> Iterator[Finding]:
    """Yield the names in `.env` that are no settings and nearly are; of all others it is other programs' business."""
    from pydantic_settings import DotEnvSettingsSource

    names = [name.upper() for name in type(settings).model_fields]
    for told in DotEnvSettingsSource(type(settings)).env_vars:
        name = told.upper()
        meant = [] if name in names else get_close_matches(name, names, 1, _ALIKE)
        if meant:
            yield warn("settings", f".env sets {name}, which is no setting", f"write {meant[0]}")


def _of_keys(settings: Settings) -> Iterator[Finding]:
    for name, stages in (
        ("AUDIENCELAB_API_KEY", "nobody is enriched"),
        ("AUDIENCEPOINT_API_KEY", "nothing is forwarded or subscribed"),
    ):
        check = f"setting {name}"
        if getattr(settings, name.lower()) is None:
            yield warn(check, f"not set: {stages}, its stages wait", f"set {name}")
        else:
            yield ok(check, "set")


def _of_public_url(settings: Settings) -> Finding:
    check, url = "setting PUBLIC_URL", settings.public_url
    if url is None:
        do = "set it to where senders reach the receiver: pixels are made and checked with it"
        return warn(check, "not set", do)
    if url.startswith("http://") and not is_loopback(url):
        do = "put a proxy that ends TLS before the receiver"
        return warn(check, f"{url}: tokens and people's data travel in the clear", do)
    return ok(check, url)


def _of_tokens(settings: Settings) -> Iterator[Finding]:
    from pipeline.settings import SettingsError

    check = "hook tokens"
    try:
        tokens = settings.tokens()
    except SettingsError as error:
        for problem in error.problems:
            yield bad(check, problem, "set HOOK_TOKENS, or run `relay up` once")
        return
    weak = [number for number, each in enumerate(tokens, 1) if bits(each) < STRONG_BITS]
    if weak:
        which = ", ".join(map(str, weak))
        do = "make another with `python -c 'import secrets; print(secrets.token_urlsafe(24))'`"
        yield warn(check, f"{len(tokens)}, of which number {which} could be guessed", do)
    else:
        yield ok(check, f"{len(tokens)}, long and mixed enough")


def bits(token: HookToken) -> float:
    """Return about how hard *token* is to guess: the Shannon entropy of its characters, times its length.

    A word that is repeated scores by its letters only, so that it is low for what people think up in a hurry; for
    what a generator makes it is near the truth, as far as so few characters can tell.
    """
    text = token.token
    spread = Counter(text)
    entropy = -sum(n / len(text) * math.log2(n / len(text)) for n in spread.values())
    is_run = sum(ord(b) - ord(a) in (0, 1) for a, b in pairwise(text))
    return entropy * (len(text) - is_run)
