"""Starting: what every process does before it is anything: read the settings, set up the log, be made of them.

Nobody else reads the environment, and nobody listens or works on settings that are wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from pipeline import logs
from pipeline.connections import NoRedis
from pipeline.settings import Settings, SettingsError, exit_with, load_settings

T = TypeVar("T")


def made_of_settings(make: Callable[[Settings], T]) -> T:
    """Return what *make* makes of the settings, the log set up; what is wrong is printed, and ends us with 2."""
    try:
        settings = load_settings()
        logs.configure(settings.log_format, settings.log_level)
        return make(settings)
    except SettingsError as error:
        exit_with(error)
    except NoRedis as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
