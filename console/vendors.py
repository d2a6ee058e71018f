"""The vendors' clients for commands: one place that makes them, and tells what they refuse in words.

AudienceLab's commands use Redis as well: what they change is audited, and which form of a call worked is
remembered there for all processes. Settings that are missing are told before anything is opened.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from console.commands import BadUsage, Failed, keep_logs_away, load, run

if TYPE_CHECKING:
    from pydantic import SecretStr
    from redis.asyncio import Redis

    from pipeline.settings import Settings
    from workers.clients.audiencelab import AudienceLab
    from workers.clients.audiencepoint import AudiencePoint

T = TypeVar("T")

HIDDEN = "****"
_URL = re.compile(r"""(https?://)(?:[^\s/"'@]*@)?([^\s/?#"'\\]*)[^\s"'\\]*""", re.IGNORECASE)
#: characters of a secret that are taken for its beginning where a text was cut
SHORTEST_BEGINNING = 6


def ask_audiencelab(work: Callable[[AudienceLab, Redis], Awaitable[T]]) -> T:
    """Do *work* with AudienceLab's client and one of Redis; raises `Failed` with a sentence."""
    settings = load()
    key_of(settings, "audiencelab_api_key")

    async def asked(redis: Redis) -> T:
        async with audiencelab(settings, redis) as lab:
            return await work(lab, redis)

    return run(asked)


def ask_audiencepoint(work: Callable[[AudiencePoint], Awaitable[T]]) -> T:
    """Do *work* with AudiencePoint's client; raises `Failed` with a sentence."""
    settings = load()
    key_of(settings, "audiencepoint_api_key")
    keep_logs_away()

    async def asked() -> T:
        async with audiencepoint(settings) as point:
            return await work(point)

    try:
        return asyncio.run(asked())
    except KeyboardInterrupt:
        raise Failed("Interrupted.") from None


@asynccontextmanager
async def audiencelab(settings: Settings, redis: Redis) -> AsyncIterator[AudienceLab]:
    """Give AudienceLab's client; a call that fails inside is raised as `Failed`."""
    from pipeline import dialects
    from workers.clients.http import new_client
    from workers.vendors import audiencelab_client

    key = key_of(settings, "audiencelab_api_key")
    worked, keeper = await dialects.read(redis), dialects.Keeper(redis)
    async with new_client() as connections:
        with failures_told(settings):
            try:
                yield audiencelab_client(settings, key, connections, worked, keeper)
            finally:
                await keeper.settle()


@asynccontextmanager
async def audiencepoint(settings: Settings) -> AsyncIterator[AudiencePoint]:
    """Give AudiencePoint's client; a call that fails inside is raised as `Failed`."""
    from workers.clients.http import new_client
    from workers.vendors import audiencepoint_client

    key = key_of(settings, "audiencepoint_api_key")
    async with new_client() as connections:
        with failures_told(settings):
            yield audiencepoint_client(settings, key, connections)


def check_id(given_id: str) -> None:
    """Raise `BadUsage` for what can be no id of AudienceLab's, before anything is begun with it."""
    from workers.clients.audiencelab.answers import piece

    try:
        piece(given_id)
    except ValueError as error:
        words = str(error)
        raise BadUsage(f"{words[:1].upper()}{words[1:]}.") from None


def shown(told: Mapping[str, object]) -> dict[str, object]:
    """Return what a vendor *told* beside the facts that are known, of each URL its host alone.

    The rest of a URL may be somebody's secret, as that of a webhook is.
    """
    import orjson

    text = orjson.dumps(dict(told)).decode()
    found: dict[str, object] = orjson.loads(_URL.sub(r"\1\2", text))
    return found


def check_text(option: str, value: str | None) -> None:
    """Raise `BadUsage` for what cannot be sent: bytes of the command line that are no UTF-8."""
    if value is not None and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadUsage(f"{option} is no UTF-8 text.") from None


def key_of(settings: Settings, name: str) -> SecretStr:
    """Return the vendor's key that the setting *name* holds; raises `BadUsage` where it is not set."""
    key: SecretStr | None = getattr(settings, name)
    if key is None:
        raise BadUsage(
            f"{name.upper()} is not set: put the vendor's key into the environment or .env."
        )
    return key


@contextmanager
def failures_told(settings: Settings) -> Iterator[None]:
    """Raise what a client raises as `Failed`, and as `BadUsage` what was asked wrongly.

    A vendor's words may repeat what it was sent: a key or a hook token of ours is hidden in them.
    """
    from workers.clients.errors import CallFailed

    try:
        yield
    except CallFailed as failed:
        facts: dict[str, object] = {"kind": type(failed).__name__, "status": failed.status}
        if failed.retry_after_s is not None:
            facts["retry_after_s"] = failed.retry_after_s
        facts["maybe_stored"] = failed.maybe_stored
        raise Failed(hidden(f"{failed.sentence}.", settings), facts) from None
    except ValueError as error:
        words = str(error)
        raise BadUsage(hidden(f"{words[:1].upper()}{words[1:]}.", settings)) from None


def hidden(text: str, settings: Settings) -> str:
    """Return *text* without any key or hook token of *settings*, also where *text* was cut in the middle of one."""
    from pipeline.settings import SettingsError

    keys = (settings.audiencelab_api_key, settings.audiencepoint_api_key)
    secrets = [key.get_secret_value() for key in keys if key is not None]
    with suppress(SettingsError):  # there are none to hide
        secrets += [each.token for each in settings.tokens()]
    secrets += [quote(secret, safe="") for secret in secrets]
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    for secret in secrets:
        text = _without_beginning(text, secret)
    return text


def _without_beginning(text: str, secret: str) -> str:
    """Return *text* without a beginning of *secret* before its end, or before the `…` where it was cut."""
    for length in range(len(secret) - 1, SHORTEST_BEGINNING - 1, -1):
        begun = secret[:length]
        text = text.replace(f"{begun}…", f"{HIDDEN}…")
        if text.endswith(begun):
            text = text.removesuffix(begun) + HIDDEN
    return text
