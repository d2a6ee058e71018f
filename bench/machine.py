"""What the figures were measured on, in one line."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from console.redis_server import binaries, identify


def describe() -> str:
    """Return cores, CPU, system, Python and the Redis that the bench starts."""
    servers = (identify(binary) for binary in binaries())
    server = next((str(found) for found in servers if found), "no Redis")
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return (
        f"{cores()} cores, {_cpu()}, {platform.system()} {platform.machine()}, {python}, {server}"
    )


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown CPU"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown CPU"
