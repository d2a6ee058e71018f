"""What a server loads: `uvicorn receiver.main:app`.

`app` is made when it is asked for, not when this module is imported, so that importing it (for
types, for tests) needs no settings. Wrong settings are printed as one list, and the process exits
with 2 before it listens. The log is set up here too, because nobody else does when uvicorn is
started plainly.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from pipeline.connections import receiver_redis
from pipeline.sources.registry import SOURCES
from pipeline.starting import made_of_settings
from pipeline.traces import open_spans
from receiver import access_log
from receiver.app import make_app

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from pipeline.settings import Settings

    app: Starlette


def build() -> Starlette:
    """Return the receiver as the environment describes it; exits with 2 when that cannot be."""
    made = made_of_settings(_make)
    _spare_the_collector()
    return made


def _make(settings: Settings) -> Starlette:
    access_log.tame(SOURCES)
    return make_app(settings, receiver_redis(settings), spans=open_spans("receiver"))


def _spare_the_collector() -> None:
    """Keep what lives as long as the process out of the garbage collector's way.

    A request's objects go by reference count; searching all modules for cycles among them, every
    700 objects, is time that requests wait.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def __getattr__(name: str) -> Starlette:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    global app
    app = build()
    return app
