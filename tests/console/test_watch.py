"""`relay status --watch`: the flow on a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from rich.console import Console

from console.watch import picture
from console.web.gauges import Gauges
from pipeline import pauses
from pipeline.outcomes import Stage
from pipeline.settings import Settings
from tests.console.conftest import Relay
from tests.pipeline.burials import bury
from tests.pipeline.work import put

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


async def test_the_picture_has_every_stage_and_what_is_wrong(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    """Each stage is a line with what waits and is dead; sentences below say what is wrong, markup as it stands."""
    await put(redis)
    await bury(redis, payloads=[b"1", b"2"])
    await pauses.pause(redis, Stage.FORWARD, "[red]lunch[/red] \x1b[31m")
    settings = Settings(redis_url=SecretStr(redis_url), relay_home=tmp_path)
    console = Console(width=200)
    with console.capture() as captured:
        console.print(picture(await Gauges(settings, redis).read()))
    text = captured.get()
    lines: dict[str, list[str]] = {}
    for words in map(str.split, text.splitlines()):
        lines.setdefault("".join(words[:1]), words)
    assert lines["unpack"][1] == "1"
    assert lines["forward"][1] == "(paused)"
    assert lines["forward"][-1] == "2"
    assert "No worker is alive" in text
    assert "[red]lunch[/red]" in text
    assert "\x1b" not in text


async def test_it_wants_a_terminal(relay: Relay) -> None:
    """For a pipe or as JSON there is nothing to watch: a sentence says what to leave out."""
    answer = await relay("status", "--watch")
    assert answer.status == 2
    assert "--watch draws on a terminal" in answer.err
    assert (await relay("status", "--watch", "--json")).status == 2


async def test_it_goes_on_until_ctrl_c(redis: Redis, redis_url: str, tmp_path: Path) -> None:
    """On a terminal it draws, changes with the books, and ends with 0."""
    leader, follower = pty.openpty()
    environment = {
        **os.environ,
        "REDIS_URL": redis_url,
        "RELAY_HOME": str(tmp_path),
        "TERM": "xterm",
    }
    command = [sys.executable, "-m", "console.main", "status", "--watch"]
    with subprocess.Popen(  # noqa: ASYNC220 - starting it takes no time
        command, cwd=ROOT, env=environment, stdout=follower, stderr=follower, stdin=follower
    ) as process:
        os.close(follower)
        try:
            _until(leader, "No worker is alive")
            await put(redis)
            _until(leader, r"unpack +1 ")
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        finally:
            process.kill()
            os.close(leader)


def _until(leader: int, wanted: str) -> None:
    """Read the terminal until the expression *wanted* matches what stands on it."""
    text, deadline = "", time.monotonic() + 60
    while not re.search(wanted, text):
        assert time.monotonic() < deadline, text
        if select.select([leader], [], [], 1)[0]:
            text += os.read(leader, 65_536).decode(errors="replace")
