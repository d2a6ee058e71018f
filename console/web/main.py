"""What a server loads by way of `console.main:app`.

Wrong settings are printed as one list, and the process exits with 2 before it listens.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from console.web.app import make_app
from pipeline import logs
from pipeline.connections import NoRedis, Role, connection_pool
from pipeline.settings import SettingsError, exit_with, load_settings
from pipeline.wake import arq_redis

if TYPE_CHECKING:
    from starlette.applications import Starlette


def build() -> Starlette:
    """Return the console as the environment describes it; exits with 2 when that cannot be."""
    try:
        settings = load_settings()
        logs.configure(settings.log_format, settings.log_level)
        # a look for somebody has an id in its path
        logging.getLogger("uvicorn.access").disabled = True
        return make_app(settings, arq_redis(connection_pool(settings, Role.CONSOLE)))
    except SettingsError as error:
        exit_with(error)
    except NoRedis as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
