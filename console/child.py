"""Run a Python module as a child that does not outlive its supervisor, on any POSIX system.

    python -P -m console.child LIFELINE MODULE [ARGUMENT ...]

LIFELINE is the inherited read end of a pipe whose write end only the supervisor has. When the
supervisor ends, however it ends (also by SIGKILL), the kernel closes that end, we read the end of
the file, ask ourselves to stop as SIGTERM would, and insist a few seconds later: a receiver that
nobody supervises would keep the port. Whatever is cut off so was either not acknowledged or lies
in Redis.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

# as long as open requests may reasonably take; the next `relay up` waits longer for the port
INSIST_AFTER_S = 5.0


def _watch(lifeline: int) -> None:
    while os.read(lifeline, 64):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(INSIST_AFTER_S)
    os._exit(1)


def main() -> None:
    """Tie our life to the lifeline, then be the module."""
    lifeline, module, *arguments = sys.argv[1:]
    threading.Thread(target=_watch, args=(int(lifeline),), daemon=True).start()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
