"""Exporting visitors: a walk over all of them in pages, each written as it was when its page was read.

Nothing is frozen meanwhile. A visitor who is there all the time is exported exactly once, one who comes or goes
during the walk perhaps, and none twice under one id; when two turn out to be one person, both may have been written.
In memory are a page and sixteen to forty bytes for each visitor that was met, because a walk over an index that
shrinks may meet some twice.

Who exported how much, by which filters, stands in the audit before the first visitor is read, and how much it came
to at the end; an export without an end was killed or lost Redis. A file appears whole under its name or not at all.
What may go wrong: a SIGKILL leaves `.NAME.….part`, readable for its owner only.
"""

from __future__ import annotations

import os
import sys
import tempfile
from array import array
from asyncio import Event
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from console.commands import BadUsage, Failed, operator, run
from console.export_rows import FORMS, Filter, Row
from console.orders import stopping_on_signals
from console.output import progress, stdout_failed
from console.selection import Since
from pipeline import audit, keys, visitors
from pipeline.clock import iso, redis_now_ms
from pipeline.scripts import GIVEN_UP_S

if TYPE_CHECKING:
    from redis.asyncio import Redis

PAGE = 500
Write = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The filters of the command, before Redis's clock was asked."""

    changed_since: Since | None = None
    score_min: int | None = None
    score_max: int | None = None
    frequencies: tuple[str, ...] = ()
    seen_since: Since | None = None
    seen_before: Since | None = None
    visited_since: Since | None = None
    visited_before: Since | None = None
    tags: tuple[str, ...] = ()

    async def filter(self, redis: Redis) -> Filter:
        """Return the filter with moments instead of ages."""

        async def at_ms(since: Since | None) -> int | None:
            return await since.at_ms(redis) if since else None

        return Filter(
            await at_ms(self.changed_since),
            self.score_min,
            self.score_max,
            self.frequencies,
            await at_ms(self.seen_since),
            await at_ms(self.seen_before),
            await at_ms(self.visited_since),
            await at_ms(self.visited_before),
            self.tags,
        )


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export came to."""

    exported: int
    looked_at: int
    started_at: str
    next_changed_since: str
    """From when to ask for changes next time. A worker may store a change as late as it goes on trying to reach
    Redis; so the next export tells some changes again and misses none."""


@dataclass(slots=True)
class Order:
    """What `relay visitors export` was told, and how it is carried out."""

    wanted: Wanted
    form: str
    columns: tuple[str, ...]
    output: Path | None
    as_json: bool
    exported: int = field(default=0, init=False)
    looked_at: int = field(default=0, init=False)
    total: int = field(default=0, init=False)

    def carry_out(self) -> Exported:
        """Export; raises `Failed` with how far it came."""
        try:
            with whole_file(self.output) if self.output else standard_output() as write:
                return run(lambda redis: self._export(redis, write))
        except BadUsage:
            raise
        except Failed as failed:
            raise self._broken_off(failed) from None

    def _broken_off(self, failed: Failed) -> Failed:
        end = f"nothing is in {self.output}" if self.output else "what was printed is not all"
        how_far = (
            f"{self.looked_at} of {self.total} visitors were looked at, {self.exported} exported"
        )
        facts = {"exported": self.exported, "looked_at": self.looked_at, "of": self.total}
        return Failed(f"{failed} {how_far}; {end}.", {**failed.facts, **facts})

    async def _export(self, redis: Redis, write: Write) -> Exported:
        meant = await self.wanted.filter(redis)
        server, started_ms = await _server(redis), await redis_now_ms(redis)
        self.total = await redis.zcard(keys.VISITORS)
        words = self._words(meant)
        await audit.record(redis, "export", who=operator(), count=self.total, wanted=words)
        try:
            await self._walk(redis, meant, write)
            await _check_same(redis, server)
        except Failed:
            await self._audit_end(redis, "export interrupted", words)
            raise
        await self._audit_end(redis, "export finished", words)
        again_ms = max(started_ms - int(GIVEN_UP_S * 1000), 0)
        return Exported(self.exported, self.looked_at, iso(started_ms), iso(again_ms))

    async def _audit_end(self, redis: Redis, what: str, words: dict[str, object]) -> None:
        await audit.record(redis, what, who=operator(), count=self.exported, wanted=words)

    async def _walk(self, redis: Redis, meant: Filter, write: Write) -> None:
        form = FORMS[self.form](self.columns)
        # a bar among the rows would spoil both
        is_seen = (self.output is not None or not sys.stdout.isatty()) and sys.stderr.isatty()
        with (
            stopping_on_signals() as stopping,
            progress("exporting", self.total, wanted=not self.as_json, is_seen=is_seen) as (
                advance,
                _,
            ),
        ):
            write(form.head())
            async for page in pages(redis):
                _check_goes_on(stopping)
                people = await visitors.fetch(redis, page)
                rows = [row for row in map(Row, people.values()) if meant.admits(row)]
                write(form.page(rows))
                self.exported += len(rows)
                self.looked_at += len(page)
                advance(len(page))
            _check_goes_on(stopping)

    def _words(self, meant: Filter) -> dict[str, object]:
        """Return what the audit is told: the filters that are set, and in which form the export left."""
        told: dict[str, object] = {
            name.removesuffix("_ms"): iso(value) if name.endswith("_ms") else value
            for name in Filter.__slots__
            if (value := getattr(meant, name)) not in (None, ())
        }
        where = "file" if self.output else "stdout"
        return {**told, "format": self.form, "columns": self.columns or None, "to": where}


def _check_goes_on(stopping: Event) -> None:
    if stopping.is_set():
        raise Failed("Interrupted.")


async def _server(redis: Redis) -> str:
    """Return the name of the server's run: a cursor of one means nothing to the next."""
    return str((await redis.info("server"))["run_id"])


async def _check_same(redis: Redis, server: str) -> None:
    if await _server(redis) != server:
        raise Failed(
            "Redis was restarted or replaced meanwhile, and some visitors may have been left out: export again."
        )


# walking --------------------------------------------------------------------------------------------------


async def pages(redis: Redis) -> AsyncIterator[list[str]]:
    """Walk the ids of all visitors in pages, none twice."""
    met, page = Met(), []
    async for name in visitors.ids(redis):
        if met.is_new(name):
            page.append(name)
        if len(page) == PAGE:
            yield page
            page = []
    if page:
        yield page


class Met:
    """Remembers which names it was asked about, by 64 bits each, in one flat table.

    Two names of ten million look the same with a probability of one in 370 000.
    """

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * 1024))
        self._count = 0

    def is_new(self, name: str) -> bool:
        """Tell whether *name* was not asked about before."""
        mark = int.from_bytes(blake2b(name.encode(), digest_size=8).digest()) or 1
        place = self._place(mark)
        if self._slots[place]:
            return False
        self._slots[place] = mark
        self._count += 1
        if self._count * 2 > len(self._slots):
            self._grow()
        return True

    def _place(self, mark: int) -> int:
        """Return the slot that holds *mark*, or the free one where it belongs."""
        slots = self._slots
        place, last = mark & (len(slots) - 1), len(slots) - 1
        while slots[place] not in (0, mark):
            place = place + 1 if place < last else 0
        return place

    def _grow(self) -> None:
        marks, self._slots = self._slots, array("Q", bytes(16 * len(self._slots)))
        for mark in marks:
            if mark:
                self._slots[self._place(mark)] = mark


# writing --------------------------------------------------------------------------------------------------


def check_output(path: Path) -> Path:
    """Return where *path* leads; raises `BadUsage` where no file can be put."""
    goal = path.resolve()
    if goal.exists() and not goal.is_file():
        raise BadUsage(f"--output {path} is no ordinary file.")
    if not goal.parent.is_dir():
        raise BadUsage(f"--output: there is no directory {goal.parent}.")
    return goal


@contextmanager
def whole_file(path: Path) -> Iterator[Write]:
    """Give what writes to *path*, which has the old content, or none, until the block ends well.

    Only its owner may read it: it is full of addresses.
    """
    with _failure_told(path):
        # mkstemp gives 0600
        number, name = tempfile.mkstemp(
            prefix=f".{path.name[:100]}.", suffix=".part", dir=path.parent
        )
    part = Path(name)
    try:
        with os.fdopen(number, "wb", buffering=0) as file:

            def write(data: bytes) -> None:
                rest = memoryview(data)
                with _failure_told(path):
                    while rest:
                        rest = rest[file.write(rest) :]

            yield write
            with _failure_told(path):
                os.fsync(file.fileno())
        with _failure_told(path):
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _failure_told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Failed(f"{path} cannot be written: {error.strerror}.") from None


@contextmanager
def standard_output() -> Iterator[Write]:
    """Give what writes to stdout, each page at once."""
    yield _print


def _print(data: bytes) -> None:
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        raise Failed(stdout_failed(error)) from None
