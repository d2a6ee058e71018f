"""The vendors' stand-ins under a real HTTP server, for tests that send over real connections.

The server runs in a thread of this process, on a free port, so that a test can look straight into
`memory` and switch `faults` while the code under test talks to it over TCP.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from starlette.applications import Starlette

from sandbox.app import create
from sandbox.faults import Faults
from sandbox.memory import Memory
from sandbox.settings import Settings
from tests.served import served

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
    with served(app) as url:
        yield Sandbox(url, app.state.memory, app.state.faults, app.state.settings)


@asynccontextmanager
async def running_sandbox(*, keeps_bodies: bool = True) -> AsyncIterator[Sandbox]:
    """Do the same for async tests: `async with running_sandbox() as sandbox`."""
    with sandbox_in_thread(keeps_bodies=keeps_bodies) as sandbox:
        yield sandbox
