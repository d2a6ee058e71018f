"""Child processes under supervision: one merged log, restarts with back-off, an orderly end.

A child is a Python module run through `console.child`, in a session of its own (so Ctrl-C reaches
only the supervisor, which then stops the children) and with a lifeline (so none outlives a
supervisor that was killed).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

# a child that lived this long was well; its next death is a new story
WELL_AFTER_S = 60.0
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
# a longer line is cut into pieces; no line of ours comes near
LONGEST_LINE_BYTES = 64 * 1024
NAME_WIDTH = 8

ROOT = Path(__file__).resolve().parent.parent
"""Where the packages lie: the clone, or site-packages."""


class Terminal:
    """The one log: each line with its speaker's name, and TRIAL in front of all in a trial."""

    def __init__(self, trial: bool = False, write: Callable[[str], object] | None = None) -> None:
        self._prefix = "TRIAL " if trial else ""
        self._write = write or sys.stdout.write
        self._flush = sys.stdout.flush if write is None else lambda: None

    def say(self, name: str, text: str) -> None:
        """Print *text*, line by line. A terminal that went away is no reason to stop."""
        with suppress(OSError, ValueError):
            for line in text.splitlines() or [""]:
                self._write(f"{self._prefix}{name:<{NAME_WIDTH}} | {line}\n")
            self._flush()


def child_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return our environment with *settings* over it; a child imports the same code as we."""
    environment = {**os.environ, **settings, "PYTHONUNBUFFERED": "1"}
    # an installed package is found anyway; site-packages must not come before the standard library
    if ROOT.name not in ("site-packages", "dist-packages"):
        inherited = os.environ.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{inherited}" if inherited else str(ROOT)
    return environment


class Child:
    """One supervised module. *hear* is given every line it prints, before the terminal is."""

    def __init__(
        self,
        name: str,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        terminal: Terminal,
        hear: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.name = name
        self.arguments = list(arguments)
        self._module = module
        self._environment = dict(environment)
        self._terminal = terminal
        self._hear = hear
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self.died = asyncio.Event()
        """Set when the process ended although nobody asked it to."""

    @property
    def pid(self) -> int | None:
        """The process id of the run that lives or lived last."""
        return self._process.pid if self._process else None

    async def keep_running(self) -> None:
        """Start the child, and again whenever it dies, until `stop`."""
        pause_s = FIRST_PAUSE_S
        while not self._stopping:
            began = time.monotonic()
            try:
                how = _how_it_ended(await self._run_once())
            except (
                OSError
            ) as error:  # no process, memory or descriptor to be had: later there may be
                how = f"cannot be started: {error.strerror or type(error).__name__}"
            if self._stopping:
                return
            self.died.set()
            if time.monotonic() - began > WELL_AFTER_S:
                pause_s = FIRST_PAUSE_S
            self._terminal.say("relay", f"{self.name} {how}; again in {pause_s:g} s")
            await asyncio.sleep(pause_s)
            pause_s = min(LONGEST_PAUSE_S, pause_s * 2)

    async def _run_once(self) -> int:
        lifeline, ours = os.pipe()
        try:
            # -P: a folder of the working directory must not be taken for one of our packages
            command = [sys.executable, "-P", "-m", "console.child", str(lifeline), self._module]
            process = await asyncio.create_subprocess_exec(
                *command,
                *self.arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=self._environment,
                pass_fds=[lifeline],
                start_new_session=True,
            )
            self._process = process
            os.close(lifeline)
            lifeline = -1
            if self._stopping:  # asked to stop while it was being started
                self.signal(signal.SIGTERM)
            await self._relay_output(process)
            return await process.wait()
        finally:
            os.close(ours)
            if lifeline >= 0:
                os.close(lifeline)

    async def _relay_output(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        rest = b""
        while chunk := await process.stdout.read(LONGEST_LINE_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > LONGEST_LINE_BYTES:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._tell(line)
        if rest:
            self._tell(rest)

    def _tell(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\r")
        self._hear(text)
        self._terminal.say(self.name, text)

    def signal(self, number: int) -> None:
        """Send a signal to the child, if it lives."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def stop(self, keeper: asyncio.Task[None], deadline: float) -> None:
        """Ask the child to stop; kill it at *deadline* (`time.monotonic`).

        *keeper* is the task of `keep_running`.
        """
        self._stopping = True
        self.signal(signal.SIGTERM)
        if self._process is None or self._process.returncode is not None:
            keeper.cancel()  # it is between two runs
        done, _ = await asyncio.wait([keeper], timeout=max(0.0, deadline - time.monotonic()))
        if not done:
            self._terminal.say("relay", f"{self.name} does not stop; it is killed")
            self.signal(signal.SIGKILL)
        with suppress(asyncio.CancelledError):
            await keeper


def _how_it_ended(status: int) -> str:
    return f"ended (signal {-status})" if status < 0 else f"ended (status {status})"
