"""What the stand-ins obey can be set from Python and over HTTP, and a mistake is told at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette

from sandbox.app import create
from sandbox.memory import Memory
from sandbox.settings import Settings

pytestmark = pytest.mark.anyio


@pytest.fixture
async def outside(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    """A client without any key."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as client:
        yield client


async def test_settings_are_read_changed_and_reset(
    outside: httpx.AsyncClient, settings: Settings
) -> None:
    """Some can be changed and the others stay; deleting returns all to what they were at first."""
    first = (await outside.get("/settings")).json()
    assert first == Settings().listed()
    change = {"dialect": "documented", "polls": 0, "scores": {"a@example.com": {"score": "5"}}}
    assert (await outside.post("/settings", json=change)).json() == first | change
    assert settings.listed()["dialect"] == "documented"
    assert (await outside.delete("/settings")).json() == first
    settings.scores["b@example.com"] = None
    assert (await outside.delete("/settings")).json() == first


async def test_a_sandbox_returns_to_the_dialect_it_was_started_in() -> None:
    """The first setting is that of `create`, not the default."""
    settings: Settings = create(dialect="documented").state.settings
    settings.dialect = "observed"
    settings.reset()
    assert settings.listed()["dialect"] == "documented"


@pytest.mark.parametrize(
    "wrong",
    [
        b"{",
        b"7",
        b'{"luck": 1}',
        b'{"_first": {}}',
        b'{"dialect": "spoken"}',
        b'{"pages": null}',
        b'{"polls": "3"}',
        b'{"polls": true}',
        b'{"polls": -1}',
        b'{"drift": null}',
        b'{"drift_times": -1}',
        b'{"result_rows": 1.5}',
        b'{"job_end": 5}',
        b'{"scores_typed": 1}',
        b'{"scores": []}',
        b'{"scores": {"a@example.com": {"score": 5}}}',
        b'{"polls": 1, "drift": "a"}',
    ],
)
async def test_a_setting_that_makes_no_sense_is_refused(
    outside: httpx.AsyncClient, settings: Settings, wrong: bytes
) -> None:
    """A mistake changes nothing, not even what was right beside it."""
    answer = await outside.post("/settings", content=wrong)
    assert answer.status_code == 400
    assert answer.json()["message"]
    assert settings == Settings()


async def test_a_drift_that_is_set_starts_anew(
    outside: httpx.AsyncClient, lab: httpx.AsyncClient
) -> None:
    """However far a segment has drifted, it has the size of its name again."""
    totals = []
    for _ in range(2):
        await outside.post("/settings", json={"drift": -10, "drift_times": None})
        for _ in range(2):
            totals.append((await lab.get("/segments/segment-100")).json()["total_records"])
    assert totals == [100, 90, 100, 90]


async def test_forgetting_restores_the_account(
    outside: httpx.AsyncClient, lab: httpx.AsyncClient, memory: Memory
) -> None:
    """What was made is gone, and what was there at first is back under its first ids."""
    before = (await lab.get("/pixels")).json()
    memory.account.clear()
    assert (await lab.get("/pixels")).json()["data"] == []
    assert (await outside.delete("/seen")).json()["calls"] == 0
    assert (await lab.get("/pixels")).json() == before


def test_the_process_speaks_the_dialect_it_is_told() -> None:
    """`python -m sandbox --dialect documented` starts in that dialect; counts have a word each."""
    command = [sys.executable, "-m", "sandbox", "--dialect", "documented"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().removeprefix("sandbox: listening on ").strip()
        key = {"X-API-Key": "sandbox"}
        pixels = httpx.get(f"{url}/audiencelab/pixels", headers=key).json()
        httpx.get(f"{url}/audiencelab/segments/segment-7", headers=key)
        process.terminate()
        lines = process.stdout.read().splitlines()
    assert set(pixels) == {"data", "total"}
    assert lines == ["sandbox: pixels 200 2 things", "sandbox: segment 200 7 rows"]
