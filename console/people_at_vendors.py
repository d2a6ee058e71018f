"""People whom AudienceLab gives out page by page: a few of them as a table, all of them as JSON Lines.

Nothing of it is kept here, and one page is in memory at a time. Who had how many of which audience or job given out
stands in the audit, as exports of visitors do.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from console.commands import BadUsage, Failed, load
from console.vendors import ask_audiencelab, check_id, key_of

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from workers.clients.audiencelab import AudienceLab

Row = Mapping[str, object]

AudienceId = Annotated[str, typer.Argument(metavar="ID", help="The audience's id, as listed.")]
Limit = Annotated[
    int | None,
    typer.Option(min=1, help="No more people than this; without --json 20, else all."),
]
FEW = 20
#: rows that are written at once
CHUNK = 100
#: of some seventy columns, what a line of a terminal has room for
SHOWN = ("UUID", "FIRST_NAME", "LAST_NAME", "PERSONAL_CITY", "JOB_TITLE", "COMPANY_NAME")


def table(rows: Sequence[Row]) -> None:
    """Print those of `SHOWN` that say something of any of *rows*."""
    from console.output import print_table

    names = [name for name in SHOWN if any(row.get(name) for row in rows)]
    names = names or list(rows[0])[: len(SHOWN)]
    print_table(names, [[row.get(name) or "" for name in names] for row in rows])


@dataclass(slots=True)
class Reading:
    """What a command was told about people of *what*, a word of the audit such as `audiences records`."""

    what: str
    id: str
    limit: int | None
    as_json: bool
    count: int = field(default=0, init=False)
    #: what a failure tells beside: where it was
    facts: Mapping[str, object] = field(default_factory=dict, init=False)

    def carry_out(self, people: Callable[[AudienceLab], AsyncGenerator[Row]]) -> None:
        """Print the *people*, read at the rate that the workers share; what fails is one more of the JSON Lines."""
        import orjson

        key_of(load(), "audiencelab_api_key")
        check_id(self.id)
        try:
            ask_audiencelab(lambda lab, redis: self._read(redis, people(lab)), in_turn=True)
        except BadUsage:
            raise
        except Failed as failed:
            facts = {**failed.facts, **self.facts, "read": self.count}
            if not (self.as_json and self.count):
                raise Failed(str(failed), facts) from None
            print(orjson.dumps({"error": str(failed), **facts}).decode())
            raise typer.Exit(failed.status) from None

    async def _read(self, redis: Redis, people: AsyncGenerator[Row]) -> None:
        from console.orders_at_vendors import Order

        to_json = {"limit": self.limit, "format": "jsonl" if self.as_json else "table"}
        async with Order(redis, self.what, to_json, about=self.id, again=None) as order:
            try:
                async with aclosing(people):
                    await (self._write(people) if self.as_json else self._show(people))
            finally:
                order.came_to(self.count)

    async def _write(self, people: AsyncGenerator[Row]) -> None:
        import orjson

        from console.export import standard_output
        from workers.clients.errors import CallFailed

        lines: list[bytes] = []
        with standard_output() as write:

            def flush() -> None:
                write(b"".join(lines))
                self.count += len(lines)
                lines.clear()

            try:
                async for row in people:
                    lines.append(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
                    if len(lines) == CHUNK:
                        flush()
                    if self.count + len(lines) == self.limit:
                        break
            except CallFailed:
                flush()  # what came is good
                raise
            flush()

    async def _show(self, people: AsyncGenerator[Row]) -> None:
        from console.output import say

        most, rows = self.limit or FEW, list[Row]()
        async for row in people:
            rows.append(row)
            if len(rows) == most:
                break
        self.count = len(rows)
        if not rows:
            say("Nobody, or nobody yet.")
            return
        table(rows)
        say(
            f"{len(rows)} shown, at most {most}; --json prints all columns, a line for each person."
        )
