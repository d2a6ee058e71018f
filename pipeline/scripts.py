"""The Lua scripts of `pipeline/lua`, each one atomic step, by the name of its file.

Every script begins with `prelude.lua`. redis-py sends the digest and, when the server does not know it
(a restart, a fail-over), the text.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.commands.core import AsyncScript


@cache
def text(name: str) -> str:
    """Return the whole text of the script *name* as Redis gets it."""
    folder = files("pipeline") / "lua"
    return (folder / "prelude.lua").read_text() + (folder / f"{name}.lua").read_text()


def script(redis: Redis, name: str) -> AsyncScript:
    """Return the script *name*, ready to be called with `args=[…]`."""
    return redis.register_script(text(name))
