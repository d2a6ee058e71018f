"""Where Chromium is, and what is missing when it cannot be driven."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec

_NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    """Return the system's Chromium, or the one that CHROMIUM names; None where there is none."""
    named = os.environ.get("CHROMIUM")
    return shutil.which(named) if named else next(filter(None, map(shutil.which, _NAMES)), None)


def what_is_missing() -> str | None:
    """Return what to install before these tests can run; None when they can."""
    if find_spec("playwright") is None or find_spec("axe_playwright_python") is None:
        return "Playwright is not installed: scripts/setup-browser installs it"
    if chromium() is None:
        return (
            "no Chromium on PATH: install it (Debian: apt install chromium), or name it in CHROMIUM"
        )
    return None
