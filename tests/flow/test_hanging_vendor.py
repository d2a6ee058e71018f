"""A vendor that takes calls and never answers holds up nobody who does not need it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from pipeline.outcomes import Person, Stage
from tests.workbench import QUICK, Workbench, mail_events
from tests.workers.test_enrich import everybody, named, see
from workers.width import WIDTH

pytestmark = pytest.mark.anyio

MakeBench = Callable[..., Workbench]
#: more than a worker asks about at a time
STRANGERS = WIDTH + 2


@dataclass
class Silence:
    """A server that accepts, reads and never answers."""

    url: str = ""
    calls: int = 0
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one call."""
        self._writers.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        self.calls += 1

    def hang_up(self) -> None:
        """Close every connection."""
        for writer in self._writers:
            writer.close()


@asynccontextmanager
async def silence() -> AsyncIterator[Silence]:
    """Run such a server until the block ends."""
    silent = Silence()
    server = await asyncio.start_server(silent.hear, "127.0.0.1", 0)
    silent.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield silent
    finally:
        silent.hang_up()
        server.close()
        await server.wait_closed()


async def test_an_audiencelab_that_hangs_delays_nobody_else(make_bench: MakeBench) -> None:
    """While every call to it hangs, other visitors are merged and subscribed, and mail events leave."""
    async with silence() as silent:
        bench = make_bench(audiencelab_base_url=silent.url, email_format="plain")
        # the calls that hang are given up at the end, as at a stop that takes too long
        bench.timing = replace(QUICK, stop_s=0.1)
        strangers = [Person(uuid=f"S-{n}", phones=[f"+1218555{n:04}"]) for n in range(STRANGERS)]
        await see(bench, *strangers)
        async with bench.at_work():
            await bench.until(lambda: silent.calls == WIDTH)
            await see(bench, *(named(f"p{n}@example.com", f"U-{n}") for n in range(5)))
            await bench.put("events", mail_events(45))
            await bench.until(lambda: len(bench.arrived) == 45)
            await bench.until(lambda: len(bench.box.memory.subscribed) == 5)

            assert len(await everybody(bench)) == STRANGERS + 5
            waiting = {"in": STRANGERS + 5, "waiting": STRANGERS, "done": 5}
            assert await bench.row(Stage.ENRICH) == waiting
            assert silent.calls == WIDTH
            assert await bench.pause(Stage.ENRICH) is None
    await bench.assert_balanced()
