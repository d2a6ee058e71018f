"""The Lua scripts of `pipeline/lua`, each one atomic step, by the name of its file.

Every script begins with what it uses of `pace.lua`, which is arithmetic, and of `prelude.lua`: Redis makes all that is
defined there anew for each call, which takes longer than to store a delivery. redis-py sends the digest and, when the
server does not know it (a restart, a fail-over), the text. When a reply is lost, it sends the same call again, so every
script may run twice; what its second run does stands in its head.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from redis.exceptions import OutOfMemoryError, ResponseError

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.commands.core import AsyncScript

#: whose second run could not be told from a new call: before its arguments each call brings the name of its caller,
#: under which the answer is kept, and a word of its own
TOLD_APART = frozenset({"claim", "drop", "failed", "refusal", "resume", "setback", "take"})
#: such a call is given up long before its answer is forgotten (30 minutes, `prelude.lua`): redis-py's own patience,
#: tries to connect within tries to send, may last hours on a silent network
GIVEN_UP_S = 900.0

#: what Redis puts before a script's own refusal
_WRAPPING = re.compile(r"^Error running script .*@user_script: ?\d+: -?")
#: as much of Redis's own words as a log line may hold
_LONGEST_WORDS = 120

#: names whose last call was answered; the one that was used last is used first
_names: list[str] = []


@contextmanager
def _name() -> Iterator[str]:
    """Give a name that no other call has at this moment, so there are as many as calls at one time.

    One whose call was never answered is not used again: the server may still come to that call.
    """
    try:
        name = _names.pop()
    except IndexError:
        name = token_hex(8)
    try:
        yield name
    except ResponseError:
        _names.append(name)
        raise
    _names.append(name)


class Script:
    """One script of one server."""

    def __init__(self, run: AsyncScript, *, told_apart: bool) -> None:
        self._run = run
        self._told_apart = told_apart

    async def __call__(
        self, *, args: Iterable[str | bytes | float], client: Redis | None = None
    ) -> Any:
        """Run it, or add it to the pipeline *client*; return its answer.

        One that is told apart runs alone: raises `ValueError` with a *client*, `TimeoutError` when given up.
        """
        if not self._told_apart:
            return await self._run(args=list(args), client=client)
        if client is not None:
            raise ValueError("its caller would have two calls at a time")
        with _name() as name:
            async with asyncio.timeout(GIVEN_UP_S):
                return await self._run(args=[name, token_hex(8), *args])


@cache
def text(name: str) -> str:
    """Return the whole text of the script *name* as Redis gets it."""
    own = _file(name)
    used, words = [own], _words(own)
    # the last first: a part names only what stands before it
    for part in reversed(shared_parts()):
        if not words.isdisjoint(_defined(part)):
            used.append(part)
            words |= _words(part)
    return "\n\n".join(reversed(used))


@cache
def shared_parts() -> tuple[str, ...]:
    """Return what scripts share, in the parts between empty lines: definitions, with a comment before them."""
    return tuple(part for name in ("pace", "prelude") for part in _file(name).strip().split("\n\n"))


def _file(name: str) -> str:
    return (files("pipeline") / "lua" / f"{name}.lua").read_text()


def _words(lua: str) -> set[str]:
    """Return every name that Lua code may speak of: what stands neither in a comment nor in a text."""
    return set(re.findall(r"[A-Za-z_]\w*", re.sub(r"--.*|'[^'\n]*'", "", lua)))


def _defined(part: str) -> set[str]:
    """Return the names that a part defines for all who come after it."""
    names = re.findall(r"^local (?:function )?([\w, ]+?) *(?:[=(]|$)", part, re.MULTILINE)
    return {name.strip() for line in names for name in line.split(",")}


def script(redis: Redis, name: str) -> Script:
    """Return the script *name*, ready to be called with `args=[…]`."""
    return Script(redis.register_script(text(name)), told_apart=name in TOLD_APART)


def words_of(error: Exception) -> str:
    """Return what happened for a log: the error's kind, and a refusal in Redis's own words, without what was sent."""
    words = type(error).__name__
    if isinstance(error, ResponseError):
        said = str(error).partition("\n")[0].rpartition("of pipeline caused error: ")[2]
        words += ": " + _WRAPPING.sub("", said.partition(", with args")[0])[:_LONGEST_WORDS]
    return words


def refused_with(error: Exception, code: str) -> bool:
    """Tell whether *error* is a refusal with *code*, as Redis 6 wraps it when a script was refused."""
    # what was sent is none of its words
    return f": -{code} " in str(error).partition(", with args")[0]


def is_full(error: Exception) -> bool:
    """Tell whether Redis refuses something because it holds as much as it may."""
    return isinstance(error, OutOfMemoryError) or refused_with(error, "OOM")
