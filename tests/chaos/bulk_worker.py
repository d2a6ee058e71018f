"""A worker in a process of its own that looks at bulk jobs at once and not after a minute, to be killed."""

from __future__ import annotations

from arq.worker import Worker

from pipeline.settings import Settings
from workers.app import worker_settings
from workers.timing import Timing

QUICK = Timing(backoff_base_s=0.01, bulk_poll_s=0.05, bulk_lease_s=1.0, sweep_s=0.1)

if __name__ == "__main__":
    Worker(**worker_settings(Settings(), QUICK)).run()
