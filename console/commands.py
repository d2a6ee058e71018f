"""What every command has in common: one way to reach Redis, one way to fail, one way to answer.

A command is a thin function for Typer around an async one that gets a client. It raises `Failed` or
`BadUsage`; `main` turns these into a sentence on stderr, or into `{"error": …}` on stdout with `--json`.
Everything heavy is imported when a command runs, so that `--help` stays quick.
"""

from __future__ import annotations

import asyncio
import getpass
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from pipeline.outcomes import Stage
    from pipeline.settings import Settings

T = TypeVar("T")

#: within which Redis answers the first command
ANSWERS_WITHIN_S = 10

AsJson = Annotated[
    bool, typer.Option("--json", help="Print the machine form, and nothing else, on stdout.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


class Failed(Exception):
    """The command could not do what it was asked for. The message is for the operator.

    *facts* are added to the machine form.
    """

    status = 1

    def __init__(self, message: str, facts: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.facts = dict(facts or {})


class BadUsage(Failed):
    """The command was called wrongly, or a setting is wrong."""

    status = 2


def run(work: Callable[[Redis], Awaitable[T]]) -> T:
    """Do *work* with a client of the relay's Redis; raises `Failed` with a sentence for what goes wrong."""
    from redis.exceptions import RedisError

    from pipeline.connections import NoRedis, Role, connection_pool
    from pipeline.wake import arq_redis

    settings = load()
    keep_logs_away()

    async def connected() -> T:
        # arq's client is redis-py's with the way to ring for a worker added
        redis = arq_redis(connection_pool(settings, Role.CONSOLE))
        try:
            # a wrong password or a Redis that loads is told plainly only in answer to a small command,
            # and one that hangs would be waited for at every try of the pool
            async with asyncio.timeout(ANSWERS_WITHIN_S):
                await redis.ping()
            return await work(redis)
        finally:
            await redis.aclose()
            await redis.connection_pool.disconnect()

    try:
        return asyncio.run(connected())
    except NoRedis as error:
        raise BadUsage(str(error)) from None
    except (RedisError, OSError) as error:
        raise Failed(redis_failure(error, settings)) from None
    except KeyboardInterrupt:
        raise Failed("Interrupted.") from None


def keep_logs_away() -> None:
    """Keep what workers would log off the terminal: a command tells in sentences of its own what it has to tell."""
    root = logging.getLogger()
    if not root.handlers:  # Python would print warnings on stderr, among bars and machine forms
        root.addHandler(logging.NullHandler())


def redis_failure(error: Exception, settings: Settings) -> str:
    """Return what Redis's refusal means for the operator.

    What could not be sent may quote the URL with its password, so only its kind is told.
    """
    from redis import exceptions as of_redis

    from console.setting_rows import without_user
    from pipeline.scripts import is_full, refused_with

    is_replica = "This Redis is a replica: REDIS_URL has to lead to the primary."
    full = "Redis is full: let the workers drain it, or raise its maxmemory."
    sentences: dict[type[Exception], str] = {
        of_redis.AuthenticationError: "Redis refuses the password of its address: look at REDIS_URL.",
        of_redis.NoPermissionError: "Redis does not let the user of REDIS_URL do this.",
        of_redis.BusyLoadingError: "Redis is still loading its data: try again in a moment.",
        of_redis.ReadOnlyError: is_replica,
        of_redis.OutOfMemoryError: full,
    }
    for kind, sentence in sentences.items():
        # what is said while connecting comes wrapped, by Redis 6
        if isinstance(error, kind) or isinstance(error.__cause__, kind):
            return sentence
    name = type(error).__name__
    if isinstance(error, of_redis.ResponseError):
        # what was sent is none of its words, except behind this one
        words = str(error).partition(", with args")[0]
        if refused_with(error, "READONLY"):
            return is_replica
        if is_full(error):
            return full
        return f"Redis refuses the command: {words[:200]}"
    if settings.redis_url is None:
        return (
            f"The Redis of `relay up` does not answer ({name}): if it was killed, start it again."
        )
    where = without_user(settings.redis_url.get_secret_value())
    return f"Redis cannot be reached or does not answer at {where} ({name}): look at REDIS_URL and the server."


def load() -> Settings:
    """Return the settings; raises `BadUsage` with every problem."""
    from pipeline.settings import SettingsError, load_settings

    try:
        return load_settings()
    except SettingsError as error:
        raise wrong_settings(error.problems) from None


def wrong_settings(problems: list[str]) -> BadUsage:
    """Return the failure that lists *problems*."""
    lines = "\n".join(["These settings are wrong:", *(f"  {problem}" for problem in problems)])
    return BadUsage(lines, {"problems": problems})


async def ring(redis: Any, stages: set[Stage]) -> None:
    """Wake a worker for each of *stages*; *redis* is the client that `run` gives."""
    from pipeline import keys
    from pipeline.wake import Bell

    if not stages:
        return
    bells = await redis.hgetall(keys.BELLS)
    numbers = {stage: int(bells.get(stage.encode(), 0)) for stage in stages}
    # a new one each time: a bell rings each number only once
    await Bell(redis).ring_all(numbers, stages)


def operator() -> str:
    """Return the name of whoever runs this, as the machine knows them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in some containers
        return "unknown"


def check_can_ask(*, as_json: bool) -> None:
    """Raise `BadUsage` where nobody can answer a question."""
    # there is no stdin at all where it was closed
    if as_json or sys.stdin is None or not sys.stdin.isatty():
        raise BadUsage("This has to be confirmed, and nobody can be asked here: pass --yes.")


def confirm(question: str) -> None:
    """Ask before something that cannot be taken back; raises `Failed` when the answer is no."""
    if not typer.confirm(question, err=True):
        raise Failed("Nothing was done.")
