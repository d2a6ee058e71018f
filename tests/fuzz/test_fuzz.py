"""`scripts/fuzz` finds what is planted, says how to see it again, and passes what is well."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.sources.registry import SOURCES
from receiver import answers
from tests.fuzz import __main__ as fuzz
from tests.fuzz import receiver

ONE_ROUND = ("--minutes", "0", "--seed", "1", "--examples", "15")


@pytest.fixture(autouse=True)
def linger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put back what the fuzz of the receiver shortens."""
    monkeypatch.setattr(answers, "LINGER_S", answers.LINGER_S)


@pytest.mark.parametrize("name", ["receiver", "answers of AudiencePoint", "source events"])
def test_what_is_well_passes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A short round ends with 0 and says what it ran."""
    assert fuzz.main([*ONE_ROUND, "--only", name]) == 0
    told = capsys.readouterr().out
    assert told.startswith("seed 1, 0 minutes\n")
    assert f"15 {name}\n" in told


def test_a_planted_fault_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends with 1, the failing example, and the command that runs it again."""

    class Broken:
        """A source that stumbles over every event."""

        def __getattr__(self, name: str) -> Any:
            return getattr(events, name)

        def parse(self, *_: object) -> None:
            raise KeyError("planted")

    events = SOURCES["events"]
    monkeypatch.setitem(SOURCES, "events", Broken())
    assert fuzz.main([*ONE_ROUND, "--only", "source events"]) == 1
    told = capsys.readouterr()
    assert "KeyError: 'planted'" in told.err
    assert "'body': b'" in told.err
    assert "again: scripts/fuzz --seed 1 --examples 15 --only 'source events'" in told.err
    assert told.out.endswith("failed\n")


def test_an_answer_beside_the_contract_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A status that the contract does not have is a fault."""
    monkeypatch.setattr(receiver, "STATUSES", frozenset({200}))
    assert fuzz.main([*ONE_ROUND, "--only", "receiver"]) == 1


def test_a_word_that_names_nothing_is_bad_usage() -> None:
    """Nothing that was asked for would be run."""
    assert fuzz.main([*ONE_ROUND, "--only", "no-such-target"]) == 2
