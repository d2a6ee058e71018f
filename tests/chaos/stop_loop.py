"""Run by `test_stops`: makes workers in this process and sends it SIGTERM while they work, again and again.

Usage: stop_loop.py COUNT. Prints how many stops there were and how many were ignored.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import threading
import time
import warnings

from arq.worker import Worker

from pipeline.settings import load_settings
from tests.workbench import QUICK
from workers.app import worker_settings

#: a stop that takes longer than this was ignored
WITHIN_S = 10.0

warnings.filterwarnings("ignore")


def stop_one(moment_s: float) -> bool:
    """Start a worker and stop it after *moment_s* of work; return whether it obeyed."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    options = worker_settings(load_settings(), QUICK)
    worker = Worker(**(options | {"handle_signals": True, "poll_delay": 0.01}))
    over = threading.Event()

    def disturb() -> None:
        while "context" not in worker.ctx:
            time.sleep(0.001)
        time.sleep(moment_s)
        os.kill(os.getpid(), signal.SIGTERM)
        if not over.wait(WITHIN_S):
            os._exit(9)  # nothing short of this ends a worker that swallowed its cancellation

    disturber = threading.Thread(target=disturb)
    disturber.start()
    worker.run()
    over.set()
    disturber.join()
    pending = [task for task in asyncio.all_tasks(loop) if not task.done()]
    loop.close()
    return not pending


if __name__ == "__main__":
    clean = 0
    for _ in range(int(sys.argv[1])):
        clean += stop_one(random.uniform(0.0, 0.15))
    print(clean)
