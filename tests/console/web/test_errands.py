"""Errands: one at a time, its end is told whatever it was, and the process's end waits for none for long."""

from __future__ import annotations

import asyncio
import logging

import pytest
from redis.exceptions import ConnectionError as RedisAway

from console.web.errands import Errand, Errands

pytestmark = pytest.mark.anyio

SECRET = "ada@example.com"


async def over(errands: Errands[Errand]) -> Errand:
    """Return the last one once it does not go on."""
    async with asyncio.timeout(60):
        while True:
            if errands.last is not None and not errands.going_on:
                return errands.last
            await asyncio.sleep(0)


@pytest.mark.parametrize(("is_whole", "state"), [(True, "finished"), (False, "stopped")])
async def test_its_end_is_told(is_whole: bool, state: str) -> None:
    """It goes on until its work answers whether it came to the end."""

    async def work() -> bool:
        return is_whole

    errands: Errands[Errand] = Errands()
    assert errands.going_on is None
    begun = errands.start(Errand(), work())
    assert errands.going_on is begun
    assert (await over(errands)).state == state


@pytest.mark.parametrize("error", [RedisAway(SECRET), OSError(SECRET), ValueError(SECRET)])
async def test_a_failure_is_told_without_its_words(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """Also a fault of ours ends it, and the log names its kind only."""

    async def work() -> bool:
        raise error

    errands: Errands[Errand] = Errands()
    with caplog.at_level(logging.WARNING):
        errands.start(Errand(), work())
        assert (await over(errands)).state == "failed"
    assert type(error).__name__ in caplog.text
    assert SECRET not in caplog.text


async def test_the_end_asks_it_to_stop_and_waits() -> None:
    """At the process's end an errand that can be stopped comes to a stop of its own."""
    errand = Errand()

    async def work() -> bool:
        await errand.stopping.wait()
        return False

    errands: Errands[Errand] = Errands()
    errands.start(errand, work())
    await errands.close()
    assert errand.state == "stopped"


async def test_the_end_cuts_off_what_does_not_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cannot be stopped is cut off, so that the process ends."""
    monkeypatch.setattr("console.web.errands.END_WITHIN_S", 0.01)

    async def work() -> bool:
        await asyncio.Event().wait()
        return True

    errands: Errands[Errand] = Errands()
    errand = errands.start(Errand(), work())
    await asyncio.wait_for(errands.close(), 60)
    assert errand.state == "stopped"
    await Errands[Errand]().close()
