"""`relay segments import` and `relay pixels backfill`: what AudienceLab holds goes the way of its webhooks.

An import is resumable: Ctrl-C, a crash or an outage leaves its place in Redis, and the same command goes on there.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from secrets import token_hex
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from console.commands import AsJson, BadUsage, Failed, load, operator, run
from console.hooks import checked_tag
from console.pixels import PixelId

if TYPE_CHECKING:
    import asyncio

    from redis.asyncio import Redis

    from console.output import Naming
    from pipeline.imports import Import, Kind
    from pipeline.settings import Settings

Restart = Annotated[bool, typer.Option("--restart", help="Start again at the first page.")]
PageSize = Annotated[
    int | None,
    typer.Option(min=1, help="Rows a page; 500, or as it was begun. All of one is in memory."),
]
Tag = Annotated[
    str | None,
    typer.Option(callback=checked_tag, help="Kept with the visitors, as ?tag= of a hook's URL is."),
]
SegmentId = Annotated[str, typer.Argument(metavar="ID", help="The segment's id, from Studio.")]
Version = Annotated[
    Literal["v3", "v4"] | None,
    typer.Option(help="v3 or v4; read from the install URL unless given."),
]
_ID = re.compile(r"[\w.~:-]{1,200}", re.ASCII)


def help_of(what: str) -> str:
    """Return what `--help` says of the command that imports *what*."""
    return (
        f"Import {what}; what came by webhook before changes nothing.\n\n"
        "Interrupted, it goes on where it stood when it is called again. Finished, it does nothing without"
        " --restart: --json says then that nothing was walked."
    )


def import_segment(
    segment_id: SegmentId,
    page_size: PageSize = None,
    tag: Tag = None,
    restart: Restart = False,
    as_json: AsJson = False,
) -> None:
    """Carry out `relay segments import`."""
    from pipeline.imports import Kind

    _carry_out(Order(Kind.SEGMENT, segment_id, page_size, tag, None, restart, as_json))


def backfill_pixel(
    pixel_id: PixelId,
    page_size: PageSize = None,
    tag: Tag = None,
    version: Version = None,
    restart: Restart = False,
    as_json: AsJson = False,
) -> None:
    """Carry out `relay pixels backfill`."""
    from pipeline.imports import Kind

    _carry_out(Order(Kind.PIXEL, pixel_id, page_size, tag, version, restart, as_json))


def _carry_out(order: Order) -> None:
    order.check()
    _report(run(order.carry_out), order)


@dataclass(slots=True)
class Order:
    """What an import was told, and how it is carried out."""

    kind: Kind
    id: str
    page_size: int | None
    tag: str | None
    version: str | None
    restart: bool
    as_json: bool
    was_known: bool = False

    @property
    def command(self) -> str:
        """Return the words that were typed, without options."""
        verb = {"segment": "segments import", "pixel": "pixels backfill"}[self.kind]
        return f"relay {verb} {self.id}"

    async def carry_out(self, redis: Redis) -> tuple[Import, bool]:
        """Walk the import to its end; return it, and whether there was anything left to do."""
        from console.vendors import audiencelab
        from pipeline import imports

        settings = load()
        holder = f"console:{socket.gethostname()}:{os.getpid()}:{token_hex(3)}"
        async with audiencelab(settings, redis) as client, _started_inbox(redis, settings) as inbox:
            known = await imports.read(redis, self.kind, self.id)
            self.was_known = known is not None
            begun = self._wanted(known)
            try:
                one, is_ours = await imports.take(redis, begun, holder, anew=self.restart)
                if not is_ours:
                    return one, False
                one = await imports.note(redis, one, holder, **self._changed(one))
            except imports.Busy:
                raise Failed(
                    "It is being imported at this moment, by another command or by a worker that"
                    " reconciles. If that was killed, try again in two minutes."
                ) from None
            return await self._walk(redis, settings, (client, inbox, holder), one), True

    def check(self) -> None:
        """Raise `BadUsage` for what cannot be meant."""
        from console.vendors import key_of
        from workers.walk import MOST_ROWS

        key_of(load(), "audiencelab_api_key")
        if not _ID.fullmatch(self.id):
            raise BadUsage("An id of AudienceLab has letters, digits and - . _ ~ : only.")
        if self.page_size is not None and self.page_size > MOST_ROWS[self.kind]:
            raise BadUsage(f"A page of a {self.kind} has at most {MOST_ROWS[self.kind]} rows.")

    def _wanted(self, known: Import | None) -> Import:
        """Return the import as one that was not begun; what is not said now stays as it was."""
        from pipeline.imports import Import
        from workers.walk import PAGE_SIZE

        size = self.page_size or (known.page_size if known else PAGE_SIZE)
        tag = self.tag or (known.tag if known else None)
        return Import(self.kind, self.id, size, tag, self.version)

    def _changed(self, one: Import) -> dict[str, Any]:
        """Return what this command says otherwise than the one that began *one*."""
        changed: dict[str, Any] = {}
        if self.page_size and self.page_size != one.page_size:
            resized = one.with_page_size(self.page_size)
            changed = {
                name: getattr(resized, name)
                for name in ("page_size", "next_page", "given", "digest")
            }
        if self.tag and self.tag != one.tag:
            changed["tag"] = self.tag
        if self.version and self.version != one.version:
            changed["version"] = self.version
        return changed

    async def _walk(
        self, redis: Redis, settings: Settings, tools: tuple[Any, Any, str], one: Import
    ) -> Import:
        from redis.exceptions import RedisError

        from console.orders import stopping_on_signals
        from console.output import progress
        from console.vendors import hidden
        from pipeline import imports
        from pipeline.inbox import NotStored
        from workers.clients.errors import CallFailed, NotFound

        await self._audit(redis, "import" if one.pages == 0 else "import resumed", one)
        telling, is_seen = _Telling(one), not self.as_json and sys.stdout.isatty()
        with (
            stopping_on_signals() as stopping,
            progress("importing", one.total, is_seen=is_seen) as (advance, name),
        ):
            advance(one.rows)
            telling.advance, telling.name = advance, name if is_seen else None
            walker = self._walker(redis, settings, tools, stopping)
            walker.tell = telling.tell
            walker.hold = lambda why: telling.hold(hidden(why, settings))
            try:
                one = await walker.walk(one)
            except (CallFailed, NotStored) as failure:
                await self._audit(redis, "import interrupted", telling.came)
                words = hidden(str(failure), settings)
                if isinstance(failure, NotFound):
                    raise await self._unknown(redis, telling.came, words) from None
                raise self.failed(telling.came, words) from None
            except imports.Lost:
                raise self.failed(telling.came, "The import was begun anew by another") from None
            except (RedisError, OSError) as error:
                why = f"Redis failed ({type(error).__name__})"
                raise self.failed(telling.came, why) from None
        end = "import finished" if one.is_finished else "import interrupted"
        await self._audit(redis, end, one)
        return one

    async def _unknown(self, redis: Redis, came: Import, words: str) -> Failed:
        """Return the failure of an id that AudienceLab does not know; nothing is kept of one that is new."""
        from pipeline import keys

        if not came.pages and not self.was_known:
            await redis.unlink(keys.import_of(self.kind, self.id))
        return self.failed(came, words, goes_on=False)

    def _walker(
        self, redis: Any, settings: Settings, tools: tuple[Any, Any, str], stopping: asyncio.Event
    ) -> Any:
        from pipeline.outcomes import Stage
        from pipeline.wake import Bell
        from workers.walk import Walker

        client, inbox, holder = tools
        bell = Bell(redis)
        return Walker(
            redis=redis,
            client=client,
            inbox=inbox,
            holder=holder,
            calls_per_s=settings.audiencelab_rate,
            # a person waits for it: it shares the rate with `enrich`, as one of two
            rank=0,
            most_bytes=settings.max_body_bytes,
            stopping=stopping,
            ring=lambda number: bell.ring(Stage.UNPACK, number),
        )

    async def _audit(self, redis: Redis, what: str, one: Import) -> None:
        from pipeline import audit

        words = {"kind": self.kind, "id": self.id}
        await audit.record(redis, what, who=operator(), count=one.rows, wanted=words)

    def failed(self, one: Import, why: str, *, goes_on: bool = True) -> Failed:
        """Return the failure that says how far *one* has come, and, where something does, what *goes_on* with it."""
        facts = {name: value for name, value in one.view().items() if name != "error"}
        end = f"; `{self.command}` goes on where it stopped." if goes_on else "."
        return Failed(f"{why.rstrip('.')}. {one.rows} rows are imported{end}", facts)


@dataclass(slots=True)
class _Telling:
    """Tells on stderr how an import goes: by a bar, or where none is shown by one line at the first wait."""

    came: Import
    advance: Callable[[int], None] = lambda n: None
    name: Naming | None = None
    has_waited: bool = False

    def tell(self, now: Import) -> None:
        """Tell that *now* is how far it has come."""
        if self.name is not None:
            self.name(f"page {now.pages}", now.total)
        self.advance(now.rows - self.came.rows)
        self.came = now

    def hold(self, why: str) -> None:
        """Tell why it waits."""
        from console.output import warn

        if self.name is not None:
            self.name(f"waiting: {why}")
        elif not self.has_waited:
            warn(f"It waits, and goes on by itself: {why.rstrip('.')}.")
        self.has_waited = True


def _report(result: tuple[Import, bool], order: Order) -> None:
    from console.output import print_json, say, warn
    from console.vendors import hidden
    from pipeline.clock import iso

    one, was_walked = result
    if was_walked and not one.is_finished:
        raise order.failed(one, "Interrupted")
    if order.as_json:
        # a vendor's words, perhaps kept by a worker
        error = None if one.error is None else hidden(one.error, load())
        print_json({**one.view(), "error": error, "walked": was_walked})
        return
    rows = f"{one.rows} rows in {one.pages} pages"
    if was_walked:
        say(f"{rows} are in the inbox; `relay status` shows what comes of it.")
    else:
        again = f"`{order.command} --restart` begins again."
        say(f"It was finished at {iso(one.finished_at_ms or 0)}: {rows}. {again}")
    if one.short:
        told = "more rows" if one.rows >= (one.total or 0) else f"{one.total} rows"
        warn(f"AudienceLab tells of {told}, and gave no more: some may be missing.")


@asynccontextmanager
async def _started_inbox(redis: Redis, settings: Settings) -> AsyncIterator[Any]:
    """Give the inbox as a receiver would have it; raises `Failed` where it cannot keep ACK_POLICY."""
    from pipeline.inbox import Inbox, NotPossible

    inbox = Inbox(redis, settings.ack_policy)
    try:
        await inbox.start()
    except NotPossible as error:
        raise Failed(str(error)) from None
    yield inbox
