"""`python -m chaos`: break a relay for two minutes, and say whether anything was lost; 1 when something was."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from secrets import randbelow
from typing import Annotated, Any, TypeVar

import typer

from chaos import report
from chaos.judge import judge
from chaos.parts import ROOT
from chaos.run import run
from chaos.schedule import draw

T = TypeVar("T")

DOCUMENT = ROOT / "docs" / "reliability.md"


def chaos(
    minutes: Annotated[float, typer.Option(help="how long things break", min=0.1)] = 2.0,
    seed: Annotated[
        int | None, typer.Option(help="what breaks when; by chance if left out")
    ] = None,
    write: Annotated[bool, typer.Option(help="put the report into docs/reliability.md")] = False,
    keep: Annotated[
        bool, typer.Option(help="keep the folder with logs, also of a good run")
    ] = False,
    plan: Annotated[bool, typer.Option(help="only print what would be broken when")] = False,
) -> None:
    """Kill, stop, pause, fill and delay a whole relay under load; then count every acknowledged event.

    Example: scripts/chaos --minutes 10 --seed 7
    """
    seed = randbelow(1_000_000) if seed is None else seed
    if plan:
        for act in draw(seed, minutes * 60):
            told = [act.kind, act.part, act.detail, str(act.point or ""), f"{act.lasts_s or ''}"]
            print(f"{act.at_s:8.2f} s  {'  '.join(word for word in told if word)}")
        return
    asked = report.Asked(seed, minutes * 60, datetime.now(UTC).date().isoformat())
    # not under TMPDIR's long paths: the socket's path must fit
    home = Path(tempfile.mkdtemp(prefix="chaos-"))
    print(f"{asked.command}   (logs in {home})", flush=True)
    try:
        done, evidence = asyncio.run(_until_told(run(seed, asked.seconds, home, print)))
    except asyncio.CancelledError:
        print(f"ended early; the logs are in {home}")
        raise typer.Exit(130) from None
    verdict = judge(evidence)
    told = list(report.lines(asked, done, verdict))
    print("\n".join(told))
    if write:
        report.write(DOCUMENT, told)
    if verdict.problems:
        for problem in verdict.problems:
            print(f"WRONG: {problem}")
        print(f"repeat it with: {asked.command}\nlogs, journal and data are kept in {home}")
        raise typer.Exit(1)
    if not keep:
        shutil.rmtree(home)


async def _until_told(work: Coroutine[Any, Any, T]) -> T:
    """Do *work*; ended by Ctrl-C or from outside it takes its processes with it."""
    task = asyncio.ensure_future(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await task


if __name__ == "__main__":
    typer.run(chaos)
