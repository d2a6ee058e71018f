"""What a server loads by way of `console.main:app`.

Wrong settings are printed as one list, and the process exits with 2 before it listens.
"""

from __future__ import annotations

import gc
import logging
from typing import TYPE_CHECKING

from console.web.app import make_app
from pipeline.connections import Role, connection_pool
from pipeline.starting import made_of_settings
from pipeline.wake import arq_redis

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from pipeline.settings import Settings


def build() -> Starlette:
    """Return the console as the environment describes it; exits with 2 when that cannot be."""
    made = made_of_settings(_make)
    # what lives as long as the process is kept out of the collector's way: to search it takes as long as ten pages
    gc.collect()
    gc.freeze()
    return made


def _make(settings: Settings) -> Starlette:
    # a look for somebody has an id in its path
    logging.getLogger("uvicorn.access").disabled = True
    return make_app(settings, arq_redis(connection_pool(settings, Role.CONSOLE)))
