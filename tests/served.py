"""Apps under a real HTTP server on loopback, all of a process in one thread and its event loop.

Each app has a port of its own, so a call that a test left behind never reaches the next test's app.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from functools import cache
from threading import Thread
from typing import Any

import uvicorn
import uvloop
from starlette.applications import Starlette

from sandbox.__main__ import listen, server, url_of


@contextmanager
def served(app: Starlette) -> Iterator[str]:
    """Serve *app* until the block ends; give its address, without a path.

    It can be reached at once, and by nobody afterwards. uvicorn looks only every 0.1 s whether it is to
    end; nobody waits for that.
    """
    listener = listen()
    running = server(app)
    asyncio.run_coroutine_threadsafe(running.serve(sockets=[listener]), _loop())
    try:
        yield url_of(listener)
    finally:
        _wait_for(_close(running))


@contextmanager
def served_for_life(app: Starlette) -> Iterator[str]:
    """Serve *app* as `served` does, with its lifespan around."""
    life = app.router.lifespan_context(app)
    _wait_for(life.__aenter__())
    try:
        with served(app) as url:
            yield url
    finally:
        _wait_for(life.__aexit__(None, None, None))


def _wait_for(work: Coroutine[Any, Any, Any]) -> None:
    asyncio.run_coroutine_threadsafe(work, _loop()).result()


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """Return the loop of the thread that serves, as long as the process lives."""
    loop = uvloop.new_event_loop()
    Thread(target=loop.run_forever, name="served", daemon=True).start()
    return loop


async def _close(running: uvicorn.Server) -> None:
    """Take no more connections and hang up; what is being answered is answered to its end."""
    async with asyncio.timeout(30):
        while not running.started:  # noqa: ASYNC110 - uvicorn tells in no other way
            await asyncio.sleep(0.001)
    running.should_exit = True
    for each in running.servers:
        each.close()
    for connection in list(running.server_state.connections):
        connection.shutdown()
