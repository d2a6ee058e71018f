"""What commands change at a vendor's, and whose data they have it give out: written into the audit.

The audit is told before the vendor is, and again at the end. An order without an end was killed, or lost Redis: look
at the vendor's what became of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from console.commands import operator
from console.output import warn
from pipeline import audit
from workers.clients.errors import CallFailed

if TYPE_CHECKING:
    from redis.asyncio import Redis

# no address has this form, should somebody take one for an id
_ID = re.compile(r"[\w-]{1,64}", re.ASCII)


class Order:
    """One change, as the audit tells it: `WHAT`, then `WHAT finished` or `WHAT failed`.

    *words* say what is meant, without addresses or secrets; *about* is the id that it is done to. *again* says what to
    do where the answer was lost and it may have been done all the same; None is for what changes nothing.
    """

    def __init__(
        self,
        redis: Redis,
        what: str,
        words: Mapping[str, object],
        about: str | None = None,
        *,
        again: str | None = "look before you try again",
    ) -> None:
        self._redis, self._what, self._again = redis, what, again
        self._count: int | None = None
        self._words = {name: word for name, word in words.items() if word is not None}
        self._note(about)

    def done_with(self, new_id: str) -> None:
        """Note the id that the vendor has given."""
        self._note(new_id)

    def came_to(self, count: int) -> None:
        """Note that *count* were done by now; else the audit counts the order as one, or as none where it failed."""
        self._count = count

    def _note(self, found: str | None) -> None:
        if found is not None and _ID.fullmatch(found):
            self._words["id"] = found

    async def __aenter__(self) -> Order:
        await self._record(self._what, 1)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        count = self._count
        if error is None:
            await self._record_end(f"{self._what} finished", 1 if count is None else count)
        elif isinstance(error, CallFailed) and error.maybe_stored and self._again:
            error.sentence += f", and may have done it all the same: {self._again}"
            await self._record_end(f"{self._what} unclear", count or 0)
        elif isinstance(error, Exception):
            await self._record_end(f"{self._what} failed", count or 0)

    async def _record_end(self, what: str, count: int) -> None:
        """Record the end; the vendor has answered, and losing Redis now must not hide what."""
        try:
            await self._record(what, count)
        except (RedisError, OSError) as error:
            warn(f"Done, but the end could not be written to the audit ({type(error).__name__}).")

    async def _record(self, what: str, count: int) -> None:
        await audit.record(self._redis, what, who=operator(), count=count, wanted=self._words)
