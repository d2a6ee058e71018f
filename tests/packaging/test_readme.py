"""The README tells the truth, as far as a program can check it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import orjson
import pytest
from typer.main import get_command

from console.main import main, relay
from pipeline.deliveries import Delivery
from pipeline.outcomes import MailEvent
from pipeline.settings import render_table
from pipeline.sources import Rules
from pipeline.sources.registry import SOURCES
from receiver import problems
from receiver.problems import Problem

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
PROBLEMS = [each for each in vars(problems).values() if isinstance(each, Problem)]
# the answer of a page that senders never ask for
PROBLEMS.remove(problems.NOT_READY)


def shell_lines() -> list[str]:
    """Return the `relay …` lines of the README's shell blocks."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL))
    lines = [line.split("#")[0].strip() for line in blocks.splitlines()]
    return [
        part.strip()
        for line in lines
        for part in line.split(";")
        if part.strip().startswith("relay ")
    ]


def test_the_table_of_settings_is_the_settings() -> None:
    """The README's table is what the settings themselves print."""
    table = README.split("-->", 2)[1].split("<!-- /settings", 1)[0].strip()
    assert render_table().strip() == table


@pytest.mark.parametrize("line", shell_lines())
def test_every_command_shown_exists(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each `relay` line names a command, and options that its help knows."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")
    words = shlex.split(line)[1:]
    command, inside = list[str](), getattr(get_command(relay), "commands", {})
    for word in words:
        if not inside or (command and word.startswith("-")):
            break
        command.append(word)
        inside = getattr(inside[word], "commands", {})
    assert main([*command, "--help"]) == 0
    shown = capsys.readouterr().out
    for option in (word for word in words if word.startswith("--")):
        assert option in shown


def test_the_curl_example_is_a_good_event() -> None:
    """What the README asks a newcomer to post is an event that leaves."""
    match = re.search(r"-d '(\{\"email\".*?\})'", README)
    assert match is not None
    delivery = Delivery("readme", "events", match[1].encode(), 0)
    outcomes = SOURCES["events"].parse(delivery, Rules(), 1_800_000_000.0)
    assert [MailEvent] == [type(outcome) for outcome in outcomes]
    assert orjson.loads(match[1])["email"].endswith("@example.com")


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_every_source_is_named(source: str) -> None:
    """The README names each word that may stand in a hook's URL."""
    assert f"`{source}`" in README


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_every_refusal_is_explained(problem: Problem) -> None:
    """The README names each status, and the operator's table says what it asks of the sender."""
    rows = [line for line in OPERATIONS.splitlines() if line.startswith(f"| `{problem.status}`")]
    assert len(rows) == 1
    assert f"`{problem.name}`" in rows[0]
    assert f"`{problem.status}`" in README


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([\w/.-]+)[#)]", README))))
def test_links_lead_somewhere(path: str) -> None:
    """Each relative link of the README is a file or folder of the repository."""
    assert (ROOT / path).exists()


def test_every_decision_is_listed() -> None:
    """docs/decisions/README.md names each decision by its own title, in order."""
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"\| \[(\d+)\]\((.+?)\) \| (.+) \|", index)
    heads = {
        path.name: path.read_text(encoding="utf-8").partition("\n")[0]
        for path in sorted(folder.glob("0*.md"))
    }
    assert heads == {name: f"# {number} {title}" for number, name, title in listed}


def test_every_picture_is_there() -> None:
    """What the README shows lies in the repository, small enough to be loaded with the page."""
    named = re.findall(r'(?:src|srcset)="([^"]+)"|!\[[^\]]*\]\(([^)]+)\)', README)
    pictures = [ROOT / (first or second) for first, second in named]
    assert {one.name for one in pictures} >= {"flow-light.png", "dead-letters-light.png"}
    for picture in pictures:
        assert 0 < picture.stat().st_size < 200_000, picture.name
