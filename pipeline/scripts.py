"""The Lua scripts of `pipeline/lua`, each one atomic step, by the name of its file.

Every script begins with `prelude.lua`. redis-py sends the digest and, when the server does not know it
(a restart, a fail-over), the text. When a reply is lost, it sends the same call again, so every script may run
twice; what its second run does stands in its head.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from secrets import token_hex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.commands.core import AsyncScript

#: whose second run could not be told from a new call: each call brings a word of its own, before its arguments
TOLD_APART = frozenset({"claim", "drop", "failed", "refusal", "resume", "setback", "take"})


class Script:
    """One script of one server."""

    def __init__(self, run: AsyncScript, *, told_apart: bool) -> None:
        self._run = run
        self._told_apart = told_apart

    async def __call__(
        self, *, args: Iterable[str | bytes | float], client: Redis | None = None
    ) -> Any:
        """Run it, or add it to the pipeline *client*; return its answer."""
        word = [token_hex(8)] if self._told_apart else []
        return await self._run(args=[*word, *args], client=client)


@cache
def text(name: str) -> str:
    """Return the whole text of the script *name* as Redis gets it."""
    folder = files("pipeline") / "lua"
    return (folder / "prelude.lua").read_text() + (folder / f"{name}.lua").read_text()


def script(redis: Redis, name: str) -> Script:
    """Return the script *name*, ready to be called with `args=[…]`."""
    return Script(redis.register_script(text(name)), told_apart=name in TOLD_APART)
