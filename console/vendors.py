"""The vendors' clients for commands: one place that makes them, and tells what they refuse in words.

AudienceLab's commands use Redis as well: what they change is audited, and which form of a call worked is
remembered there for all processes. A 429 slows the workers down, too. Calls that come in numbers keep to the rate that
the workers share; AudiencePoint's need no Redis for anything else, and do without it where it cannot be reached.
Settings that are missing are told before anything is opened.
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
#: a Redis that is not needed is not waited for longer
REDIS_WITHIN_S = 2.0


def ask_audiencelab(
    work: Callable[[AudienceLab, Redis], Awaitable[T]], *, in_turn: bool = False
) -> T:
    """Do *work* with AudienceLab's client and one of Redis; raises `Failed` with a sentence.

    *in_turn* keeps its calls to the rate that the workers share.
    """
    settings = load()
    key_of(settings, "audiencelab_api_key")

    async def asked(redis: Redis) -> T:
        async with audiencelab(settings, redis, in_turn=in_turn) as lab:
            return await work(lab, redis)

    return run(asked)


def ask_audiencepoint(work: Callable[[AudiencePoint], Awaitable[T]]) -> T:
    """Do *work* with AudiencePoint's client; raises `Failed` with a sentence."""
    settings = load()
    key_of(settings, "audiencepoint_api_key")
    keep_logs_away()

    async def asked() -> T:
        async with redis_if_any(settings) as redis, audiencepoint(settings, redis) as point:
            return await work(point)

    try:
        return asyncio.run(asked())
    except KeyboardInterrupt:
        raise Failed("Interrupted.") from None


class Turns:
    """Calls by hand: each waits for its turn of the rate that the workers share, and a 429 slows them down, too.

    Without Redis nobody is waited for and nobody told.
    """

    def __init__(self, redis: Redis | None, vendor: str, calls_per_s: float) -> None:
        self._redis = redis
        self._vendor = vendor
        self._calls_per_s = calls_per_s
        self._has_called = False

    async def wait(self) -> None:
        """Wait for a call; the one before, if there was one, went well."""
        from pipeline import paces

        while (redis := self._redis) and self._calls_per_s:
            with self._without_redis():
                if self._has_called:
                    await paces.went_well(redis, self._vendor)
                    self._has_called = False
                wait_s = await paces.turn(redis, self._vendor, self._calls_per_s, rank=0)
                if not wait_s:
                    break
                await asyncio.sleep(wait_s)
        self._has_called = True

    @asynccontextmanager
    async def told(self) -> AsyncIterator[None]:
        """Slow all calls down when one that is made inside is answered with a 429."""
        from pipeline import paces
        from workers.clients.errors import Throttled

        try:
            yield
        except Throttled as failure:
            if self._redis:
                with self._without_redis():
                    words, rate = failure.sentence, self._calls_per_s
                    await paces.slow_down(self._redis, self._vendor, rate, words)
            raise

    @contextmanager
    def _without_redis(self) -> Iterator[None]:
        """Do without Redis once it fails: whoever needs it for more will tell."""
        from redis.exceptions import RedisError

        try:
            yield
        except (RedisError, OSError):
            self._redis = None


@asynccontextmanager
async def redis_if_any(settings: Settings) -> AsyncIterator[Redis | None]:
    """Give a client of the relay's Redis; None where there is none, or none that answers soon."""
    from redis.asyncio import Redis
    from redis.exceptions import RedisError

    from pipeline.connections import NoRedis, Role, connection_pool

    try:
        redis = Redis(connection_pool=connection_pool(settings, Role.CONSOLE))
    except NoRedis:
        yield None
        return
    answers = False
    try:
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(REDIS_WITHIN_S):
                answers = bool(await redis.ping())
        yield redis if answers else None
    finally:
        await redis.aclose()
        await redis.connection_pool.disconnect()


@asynccontextmanager
async def audiencelab(
    settings: Settings, redis: Redis, *, in_turn: bool = False
) -> AsyncIterator[AudienceLab]:
    """Give AudienceLab's client; a call that fails inside is raised as `Failed`."""
    from pipeline import dialects
    from workers.clients.http import new_client
    from workers.vendors import audiencelab_client

    key = key_of(settings, "audiencelab_api_key")
    worked, keeper = await dialects.read(redis), dialects.Keeper(redis)
    turns = Turns(redis, "audiencelab", settings.audiencelab_rate)
    async with new_client() as connections:
        with failures_told(settings):
            try:
                async with turns.told():
                    turn = turns.wait if in_turn else None
                    yield audiencelab_client(settings, key, connections, worked, keeper, turn)
            finally:
                await keeper.settle()


@asynccontextmanager
async def audiencepoint(settings: Settings, redis: Redis | None) -> AsyncIterator[AudiencePoint]:
    """Give AudiencePoint's client, whose calls keep to the rate; one that fails inside is raised as `Failed`."""
    from workers.clients.http import new_client
    from workers.vendors import audiencepoint_client

    key = key_of(settings, "audiencepoint_api_key")
    turns = Turns(redis, "audiencepoint", settings.audiencepoint_rate)
    async with new_client() as connections:
        with failures_told(settings):
            async with turns.told():
                yield audiencepoint_client(settings, key, connections, turns.wait)


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
