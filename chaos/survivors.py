"""`python -m chaos.survivors`: whoever would outlive a run is killed with it, also when the run itself is killed.

Its stdin is a pipe whose other end only the run has, and the run writes down who lives: `+PID` or `-PID`, a line each.
When the run ends, however it ends, the pipe does, and whoever is still written down is killed: Redis, which knows
nothing of us, and who stands still and could not end by itself.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Survivors:
    """The run's side of the pipe."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def watch(self) -> None:
        """Begin, in a session of its own: Ctrl-C must not end it before the others."""
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "chaos.survivors"], stdin=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True,
        )  # fmt: skip

    def note(self, pid: int) -> None:
        """Write down that *pid* lives."""
        self._write(f"+{pid}\n")

    def forget(self, pid: int) -> None:
        """Write down that *pid* has ended, and may be another's soon."""
        self._write(f"-{pid}\n")

    def close(self) -> None:
        """End; nobody is left to be killed."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()
            process.wait()

    def _write(self, line: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            os.write(self._process.stdin.fileno(), line.encode())


def living(lines: Iterable[str]) -> set[int]:
    """Return who lives after all that was written down."""
    found: set[int] = set()
    for line in lines:
        (found.add if line[0] == "+" else found.discard)(int(line[1:]))
    return found


def main() -> None:
    """Wait for the end of the run, then kill whoever is left of it."""
    for pid in living(sys.stdin):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
