"""Siblings: processes of one machine that answer on one port. Whichever Prometheus reaches tells what each has counted.

    metrics/receiver-HOST-8000-4711     in RELAY_HOME: where the process 4711 tells its own numbers (a Unix socket)

Each keeps its numbers where it counts them, as plain additions; they travel only while somebody asks. One that was
killed leaves a socket on which nobody answers; whoever finds it takes it away. Each process's numbers stay apart, by
the label `process`: a sum would fall when one ends, which Prometheus takes for counters that began again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import orjson
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from pipeline.home import Home, HomeError
from pipeline.metrics import page

log = logging.getLogger(__name__)

#: Prometheus's own time-out is 10 s; who is busy for longer than this is left out once
ASK_WITHIN_S = 0.5


class Siblings:
    """One process among those of its *kind* (`receiver`, `worker`); *own* tells its numbers."""

    def __init__(self, home: Home, kind: str, own: Collector) -> None:
        self._home, self._kind, self._own = home, kind, own
        self._known = asyncio.Event()
        self.port: int | None = None

    def answer_on(self, port: int) -> None:
        """Say which port this process answers on; nobody is told of it before."""
        self.port = port
        self._known.set()

    async def run(self) -> None:
        """Tell the siblings, as soon as the port is known, until cancelled; a folder that fails is one warning."""
        await self._known.wait()
        with ExitStack() as stack:
            try:
                listener = stack.enter_context(_listener(self._folder(), self.name_of(os.getpid())))
                server = await asyncio.start_unix_server(self._tell, sock=listener)
            except (OSError, HomeError) as error:
                why = str(error) if isinstance(error, HomeError) else type(error).__name__
                log.warning("metrics of this process are told by itself alone error=%s", why)
                return
            async with server:
                await server.serve_forever()

    async def page(self) -> bytes:
        """Return the text that Prometheus reads: of this process, or of each one where there are siblings."""
        told = await self._ask_all()
        if not told:
            return page(self._own)
        return page(Together({str(os.getpid()): packed(self._own), **told}))

    async def are_there(self) -> bool:
        """Tell whether another process of this kind answers on the port."""
        return bool(await self._ask_all())

    async def _tell(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            writer.write(packed(self._own))
            await writer.drain()
        writer.close()

    async def _ask_all(self) -> dict[str, bytes]:
        """Return what the siblings told, by process; empty for one that lives and did not answer in time."""
        if self.port is None:
            return {}
        own = self.name_of(os.getpid())
        try:
            with _short(self._folder()) as folder:
                names = [path.name for path in folder.glob(f"{self.name_of('')}*")]
                names = [name for name in names if name != own]
                answers = await asyncio.gather(*(_ask(folder / name) for name in names))
        except (OSError, HomeError):
            return {}  # said when this process began
        told = zip(names, answers, strict=True)
        return {name.rpartition("-")[2]: text for name, text in told if text is not None}

    def _folder(self) -> Path:
        self._home.make()
        self._home.metrics_dir.mkdir(mode=0o700, exist_ok=True)
        return self._home.metrics_dir

    def name_of(self, process: object) -> str:
        """Return how the socket of *process* is called, where it is a sibling."""
        # containers that share a volume have the same ports and numbers of processes
        host = quote(socket.gethostname(), safe="").replace("-", "_")[:48]
        return f"{self._kind}-{host}-{self.port}-{process}"


class Together(Collector):
    """What several processes told, by process (`packed`)."""

    def __init__(self, told: Mapping[str, bytes]) -> None:
        self._told = told

    def collect(self) -> Iterator[Metric]:
        """Return every process's samples, family by family."""
        found: dict[str, Metric] = {}
        for process, text in self._told.items():
            for name, meaning, kind, samples in orjson.loads(text or b"[]"):
                family = found.setdefault(name, Metric(name, meaning, kind))
                for sample, labels, value in samples:
                    family.add_sample(sample, {**labels, "process": process}, value)
        yield from found.values()


def packed(own: Collector) -> bytes:
    """Return *own*'s families as JSON: name, meaning, type and samples (name, labels, value) of each."""
    return orjson.dumps(
        [
            (each.name, each.documentation, each.type, [sample[:3] for sample in each.samples])
            for each in own.collect()
        ]
    )


async def _ask(path: Path) -> bytes | None:
    """Return what the process at *path* tells, nothing when it takes too long, None when there is none."""
    try:
        async with asyncio.timeout(ASK_WITHIN_S):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                return await reader.read()
            finally:
                writer.close()
    except TimeoutError:
        return b""
    except ConnectionRefusedError:
        _take_away(path)
    except OSError:
        pass  # ended meanwhile
    return None


@contextmanager
def _listener(folder: Path, name: str) -> Iterator[socket.socket]:
    """Give a Unix socket that listens at *name*; it has its name only once it does, and loses it at the end."""
    with _short(folder) as short, socket.socket(socket.AF_UNIX) as listener:
        draft, path = short / f".{name}", short / name
        draft.unlink(missing_ok=True)
        listener.bind(str(draft))
        listener.listen()
        draft.rename(path)
        try:
            yield listener
        finally:
            _take_away(path)


def _take_away(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


@contextmanager
def _short(folder: Path) -> Iterator[Path]:
    """Give *folder* by a short name, where the system has one: a socket's may have 107 bytes."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        short = Path(f"/proc/self/fd/{handle}")
        yield short if short.is_dir() else folder
    finally:
        os.close(handle)
