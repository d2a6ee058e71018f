"""Several processes on one port: whichever is asked for metrics tells what each of them has counted."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.home import Home
from pipeline.siblings import Siblings
from tests.flow.processes import stopped, two_receivers, worker
from tests.test_metrics import free_port
from tests.workbench import TOKEN, Workbench, mail_events
from workers.metrics import Metrics

pytestmark = pytest.mark.anyio


def counted(text: str, sample: str) -> dict[str, float]:
    """Return what each process counted of *sample*; its labels but `process` are added up."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for each in family.samples:
            if each.name == sample:
                process = each.labels.get("process", "")
                found[process] = found.get(process, 0) + each.value
    return found


async def told_by(port: int) -> str:
    """Ask by a new connection, so that any process may answer; empty when nobody does."""
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    except httpx.TransportError:
        return ""


async def test_any_receiver_tells_for_all(bench: Workbench, tmp_path: Path) -> None:
    """Two share a port: the sum of what is told is what was answered; one that was killed is told no more."""
    port, posted = free_port(), 0
    url = f"http://127.0.0.1:{port}"

    async def both_have_answered() -> bool:
        nonlocal posted
        try:
            async with httpx.AsyncClient(trust_env=False) as client:
                await client.post(f"{url}/hooks/events/{TOKEN}", content=mail_events(1))
        except httpx.ConnectError:  # nobody listens yet
            return False
        posted += 1
        return len(counted(await told_by(port), "relay_deliveries_total")) == 2

    with two_receivers(bench, port, RELAY_HOME=str(tmp_path)):
        await bench.until(both_have_answered)

        async def all_are_told() -> bool:
            text = await told_by(port)
            return sum(counted(text, "relay_deliveries_total").values()) == posted

        for _ in range(8):  # whoever answers; one that is busy for too long is left out once
            await bench.until(all_are_told)

        killed, _ = counted(await told_by(port), "relay_deliveries_total")
        os.kill(int(killed), signal.SIGKILL)

        async def is_told_no_more() -> bool:
            found = counted(await told_by(port), "relay_deliveries_total")
            return bool(found) and killed not in found

        await bench.until(is_told_no_more)
        assert not [each for each in Home(tmp_path).metrics_dir.iterdir() if killed in each.name]


async def test_any_worker_tells_for_all(bench: Workbench, tmp_path: Path) -> None:
    """The second worker's numbers are told on the first one's port, which it takes over when the first has gone."""
    port = free_port()
    more = {"WORKER_METRICS_PORT": str(port), "RELAY_HOME": str(tmp_path)}

    async def processes() -> set[str]:
        return set(counted(await told_by(port), "relay_unpack_seconds_count"))

    async def both_tell() -> bool:
        return len(await processes()) == 2

    with ExitStack() as stack:
        first = stack.enter_context(worker(bench, **more))
        stack.enter_context(worker(bench, **more))
        await bench.until(both_tell)
        for n in range(3):
            await bench.put("events", mail_events(2, first=2 * n))
            await bench.until(bench.is_idle)

        async def all_are_told() -> bool:
            text = await told_by(port)
            return sum(counted(text, "relay_unpack_seconds_count").values()) == 3

        await bench.until(all_are_told)
        first.send_signal(signal.SIGTERM)
        assert await stopped(bench, first) == 0

        async def only_one_tells() -> bool:
            return await processes() == {""}  # alone, it needs no label

        await bench.until(only_one_tells)


async def test_a_folder_that_cannot_be_used_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Then a process tells its own numbers, and nothing fails."""
    (tmp_path / "file").touch()
    siblings = Siblings(Home(tmp_path / "file"), "worker", Metrics())
    siblings.answer_on(1)
    await siblings.run()
    assert [each.levelname for each in caplog.records] == ["WARNING"]
    assert b"relay_unpack_seconds_count" in await siblings.page()


async def test_a_sibling_that_hangs_is_left_out_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who does not answer in time has no numbers told; those of who does keep their label."""
    monkeypatch.setattr("pipeline.siblings.ASK_WITHIN_S", 0.1)
    siblings = Siblings(Home(tmp_path), "worker", Metrics())
    siblings.answer_on(9100)
    folder = Home(tmp_path).metrics_dir
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as hanging:
        hanging.bind(str(folder / siblings.name_of(1)))
        hanging.listen()
        text = (await siblings.page()).decode()
    assert set(counted(text, "relay_unpack_seconds_count")) == {str(os.getpid())}
