"""What commands print: the machine form, tables, and progress on stderr while stdout is a terminal.

Texts come from senders and vendors, so nothing of them is read as markup or reaches the terminal as a
control character.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, Protocol

import orjson


def print_json(value: object) -> None:
    """Print *value* as JSON on stdout."""
    sys.stdout.flush()
    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n")
    sys.stdout.buffer.flush()


def say(text: str) -> None:
    """Print *text* on stdout."""
    print(safe(text))


def warn(text: str) -> None:
    """Print *text* on stderr."""
    print(safe(text), file=sys.stderr)


def safe(text: str) -> str:
    """Return *text* without what a terminal would obey."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "\ufffd" for sign in text)


def stdout_failed(error: OSError) -> str:
    """Return the sentence for stdout that failed by *error*; what is still to be printed there goes nowhere."""
    # else Python would try once more at its end, and say so
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return "The output was closed by its reader."
    return f"stdout cannot be written: {error.strerror}."


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    numbers: Iterable[str] = (),
    folds: str = "",
) -> None:
    """Print a table; the columns of *numbers* are set to the right, the one called *folds* may be folded."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    right = set(numbers)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        side: Literal["left", "right"] = "right" if name in right else "left"
        table.add_column(name, justify=side, overflow="fold", no_wrap=name != folds)
    for row in rows:
        table.add_row(*(Text(safe(str(cell))) for cell in row))
    # a file or a pipe has no width: nothing is folded there
    Console(width=None if sys.stdout.isatty() else 1_000).print(table)


class Naming(Protocol):
    """Says what goes on beside a bar and, where that is known only now, of how much."""

    def __call__(self, text: str, total: int | None = None) -> None:
        """Show *text*, and *total* as the end of the bar."""


@contextmanager
def progress(
    what: str, total: int | None, *, wanted: bool = True, is_seen: bool | None = None
) -> Iterator[tuple[Callable[[int], None], Naming]]:
    """Show a bar on stderr while stdout is a terminal; gives a function to advance it and one to name it.

    *is_seen* says in place of stdout whether anybody looks: a command's rows may go elsewhere.
    """
    if not (wanted and (sys.stdout.isatty() if is_seen is None else is_seen)):
        yield (lambda n: None), (lambda text, total=None: None)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield (
            lambda n: bar.advance(task, n),
            lambda text, total=None: bar.update(task, description=text, total=total),
        )
