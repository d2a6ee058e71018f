"""`python -m bench`: measures, prints a table, and writes JSON on request."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import orjson
import typer
import uvloop
from rich.console import Console
from rich.table import Table

from bench import console as pages
from bench import (
    drain,
    endurance,
    flow,
    fsynced,
    idle,
    imports,
    large,
    latency,
    machine,
    memory,
    mixed,
    parse,
    plot,
    receive,
    seen,
    workers,
)
from bench.peers import installed, race
from bench.processes import Fsync, Place, place
from bench.results import Figure, WrongCount
from bench.sizes import FULL, QUICK, Sizes

Measure = Callable[[Place, Sizes], Coroutine[Any, Any, list[Figure]]]
Plan = list[tuple[str, Fsync, Measure]]


class Bench(StrEnum):
    """What can be measured."""

    RECEIVE = "receive"
    PEERS = "peers"
    LATENCY = "latency"
    FSYNCED = "fsynced"
    FLOW = "flow"
    WORKERS = "workers"
    ENDURANCE = "endurance"
    IDLE = "idle"
    MEMORY = "memory"
    SEEN = "seen"
    IMPORT = "import"
    PARSE = "parse"
    MIXED = "mixed"
    BACKLOG = "backlog"
    LARGE = "large"
    CONSOLE = "console"


def bench(
    names: Annotated[
        list[Bench] | None, typer.Argument(help="what to measure; everything when left out")
    ] = None,
    full: Annotated[
        bool, typer.Option(help="the sizes of the targets, half an hour or more")
    ] = False,
    rounds: Annotated[int, typer.Option(help="turns of each side; 0 is as usual", min=0)] = 0,
    appendfsync: Annotated[
        str, typer.Option(help="only this of Redis's policies: always, everysec, no")
    ] = "",
    wrk: Annotated[bool, typer.Option(help="post with wrk instead of our own generator")] = False,
    peers: Annotated[
        bool, typer.Option("--peers", help="install the peers on Node first (npm, into .peers)")
    ] = False,
    sandbox: Annotated[bool, typer.Option(help="forward to the sandbox, not the sink")] = False,
    json: Annotated[Path | None, typer.Option(help="write the figures to this file")] = None,
    draw: Annotated[
        Path | None, typer.Option("--plot", help="draw the figures into this SVG file")
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(help="write cProfile files of all processes to this folder")
    ] = None,
) -> None:
    """Measure the figures of docs/performance.md.

    Example: scripts/bench receive flow --rounds 5
    """
    console = Console(stderr=True)
    console.print(machine.describe())
    if profile is not None:
        profile = profile.absolute()
        profile.mkdir(parents=True, exist_ok=True)
    chosen = names or list(Bench)
    if Bench.PEERS in chosen:
        _have_peers(peers, console)
    plan = _plan(chosen, appendfsync, wrk, sandbox)
    figures = _measured(plan, _sizes(full, rounds), profile, console)
    # a narrow pipe would break every row
    Console(width=None if sys.stdout.isatty() else 140).print(_table(figures))
    about = {"machine": machine.describe(), "figures": [_row(one) for one in figures]}
    if json is not None:
        json.write_bytes(orjson.dumps(about, option=orjson.OPT_INDENT_2))
    if draw is not None:
        draw.write_text(plot.drawn(about))


def _have_peers(install: bool, console: Console) -> None:
    """Install the peers on Node if that is wished; say so when they take no part."""
    try:
        if install:
            installed.install()
    except installed.NoNode as error:
        console.print(str(error))
        raise typer.Exit(1) from None
    if not installed.are_installed():
        console.print("without the peers on Node: scripts/bench --peers installs them")


def _sizes(full: bool, rounds: int) -> Sizes:
    sizes = FULL if full else QUICK
    if not rounds:
        return sizes
    return replace(
        sizes,
        rounds=rounds,
        receive_rounds=rounds,
        parse_rounds=rounds,
        mixed_rounds=rounds,
        peer_rounds=rounds,
        latency_rounds=rounds,
        fsynced_rounds=rounds,
    )


def _plan(chosen: list[Bench], appendfsync: str, wrk: bool, sandbox: bool) -> Plan:
    """Return what to run: a label, Redis's policy, the measurement."""
    policies = _policies(appendfsync)
    with_each: dict[Bench, Callable[[Place, Sizes, Fsync], Any]] = {
        Bench.RECEIVE: partial(receive.measure, wrk=wrk),
        Bench.PEERS: race.measure,
        Bench.LATENCY: latency.measure,
    }
    whole_way = partial(flow.measure, sandbox=sandbox)
    with_one: dict[Bench, tuple[str, Fsync, Measure]] = {
        Bench.FSYNCED: ("fsynced", "everysec", fsynced.measure),
        Bench.FLOW: (f"flow, {policies[0]}", policies[0], whole_way),
        Bench.WORKERS: ("workers", "everysec", workers.measure),
        Bench.ENDURANCE: ("endurance", "everysec", endurance.measure),
        Bench.IDLE: ("idle", "always", idle.measure),
        Bench.MEMORY: ("memory", "everysec", memory.measure),
        Bench.SEEN: ("seen", "no", seen.measure),
        Bench.IMPORT: ("import", "everysec", imports.measure),
        Bench.PARSE: ("parse", "no", parse.measure),
        Bench.MIXED: ("mixed", "everysec", mixed.measure),
        Bench.BACKLOG: ("backlog", "everysec", drain.measure),
        Bench.LARGE: ("large", "everysec", large.measure),
        Bench.CONSOLE: ("console", "no", pages.measure),
    }
    plan = [
        (f"{name}, {policy}", policy, _with(measure, policy))
        for name, measure in with_each.items()
        if name in chosen
        for policy in policies
    ]
    return plan + [one for name, one in with_one.items() if name in chosen]


def _policies(appendfsync: str) -> list[Fsync]:
    """Return the policies of Redis that are measured; *appendfsync* names one, or is empty."""
    if appendfsync == "no":
        return ["no"]
    both: list[Fsync] = ["everysec", "always"]
    policies = [policy for policy in both if appendfsync in ("", policy)]
    if not policies:
        raise typer.BadParameter("--appendfsync is always, everysec or no")
    return policies


def _with(measure: Callable[[Place, Sizes, Fsync], Any], policy: Fsync) -> Measure:
    def measured(at: Place, sizes: Sizes) -> Coroutine[Any, Any, list[Figure]]:
        found: Coroutine[Any, Any, list[Figure]] = measure(at, sizes, policy)
        return found

    return measured


def _measured(plan: Plan, sizes: Sizes, profile: Path | None, console: Console) -> list[Figure]:
    """Return all figures of *plan*; a count that is wrong ends the command with 1."""
    figures: list[Figure] = []
    try:
        for label, fsync, measure in plan:
            began = perf_counter()
            figures += _run(measure, fsync, sizes, profile)
            console.print(f"{label}: {perf_counter() - began:.0f} s")
    except WrongCount as wrong:
        console.print(f"[red]wrong: {wrong}")
        raise typer.Exit(1) from None
    return figures


def _run(measure: Measure, fsync: Fsync, sizes: Sizes, profile: Path | None) -> list[Figure]:
    with (
        place(fsync, profile) as at,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(measure(at, sizes))


def _table(figures: list[Figure]) -> Table:
    table = Table("bench", "figure", "median", "rounds", "target", "", title_justify="left")
    for one in figures:
        target = ""
        if one.at_least is not None:
            target = f">= {one.at_least:g}"
        elif one.at_most is not None:
            target = f"<= {one.at_most:g}"
        verdict = {None: "", True: "[green]met", False: "[red]missed"}[one.is_met]
        rounds = _rounds(one.rounds)
        table.add_row(
            one.bench, one.name, f"{_number(one.value)} {one.unit}", rounds, target, verdict
        )
    return table


def _rounds(values: Sequence[float]) -> str:
    if len(values) <= 5:
        return " ".join(_number(value) for value in values)
    lowest, *_, highest = sorted(values)
    return f"{_number(lowest)} to {_number(highest)} ({len(values)})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _row(figure: Figure) -> dict[str, object]:
    return {**asdict(figure), "is_met": figure.is_met}


if __name__ == "__main__":
    # ended from outside it must take its servers with it, as after Ctrl-C
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    typer.run(bench)
