"""The vendors' stand-ins under a real HTTP server, for tests that send over real connections.

The server runs in a thread of this process, on a free port, so that a test can look straight into
`memory` and switch `faults` while the code under test talks to it over TCP.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from threading import Thread

from starlette.applications import Starlette

from sandbox.__main__ import listen, server, url_of
from sandbox.app import create
from sandbox.faults import Faults
from sandbox.memory import Memory
from sandbox.settings import Settings

KEY = "sandbox"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A running sandbox. Both vendors take the key `KEY`."""

    url: str
    memory: Memory
    faults: Faults
    settings: Settings = field(default_factory=Settings)

    @property
    def audiencepoint_url(self) -> str:
        """The base address for AudiencePoint, version included."""
        return f"{self.url}/audiencepoint/v1"

    @property
    def audiencelab_url(self) -> str:
        """The base address for AudienceLab."""
        return f"{self.url}/audiencelab"


@contextmanager
def sandbox_in_thread(*, keeps_bodies: bool = True) -> Iterator[Sandbox]:
    """Run the sandbox in a thread until the block ends; it can be reached at once."""
    app: Starlette = create(Memory(keeps_bodies=keeps_bodies), key=KEY)
    listener = listen()
    stand_in = server(app)
    thread = Thread(target=stand_in.run, kwargs={"sockets": [listener]}, name="sandbox")
    thread.start()
    try:
        yield Sandbox(url_of(listener), app.state.memory, app.state.faults, app.state.settings)
    finally:
        stand_in.should_exit = True
        thread.join()
        listener.close()


@asynccontextmanager
async def running_sandbox(*, keeps_bodies: bool = True) -> AsyncIterator[Sandbox]:
    """Do the same for async tests: `async with running_sandbox() as sandbox`."""
    with sandbox_in_thread(keeps_bodies=keeps_bodies) as sandbox:
        yield sandbox
