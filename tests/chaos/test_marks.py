"""What a worker marks as sent again is what the books count in `maybe_duplicate`."""

from __future__ import annotations

import os
from pathlib import Path

import orjson
import pytest

from chaos.inside import marking
from chaos.judge import read_marks
from chaos.sender import EVENT, event
from pipeline import books
from sandbox.faults import reset, stored_then_504
from tests.workbench import Workbench
from workers import batches, dispatch

pytestmark = pytest.mark.anyio


async def test_what_is_counted_is_marked_by_its_id(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each event of a call whose answer is not known is marked once it is sent again, and nothing else is."""
    path = tmp_path / "marks"
    marks = os.open(path, os.O_WRONLY | os.O_CREAT)
    monkeypatch.setattr(dispatch, "read_batch", marking(batches.read_batch, marks))
    bench.box.faults.add(stored_then_504("events", times=1), reset("events", "after", times=1))
    for n in range(3):
        await bench.put("events", orjson.dumps([event(10 * n + i, EVENT) for i in range(3)]))
        await bench.work_until(bench.is_idle)
    os.close(marks)
    with path.open("rb") as lines:
        marked = read_marks(lines)
    assert marked == {0: 2, 1: 2, 2: 2}
    assert marked.total() == (await books.snapshot(bench.redis))["maybe_duplicate"]
