"""docs/clients.md tells the truth: its examples run, in order, against the stand-ins, and print what they say.

What a `print` shows stands behind its `#`; when it is in a loop, in the comments behind the loop.
"""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from fnmatch import fnmatchcase
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from tests.vendors import KEY, Sandbox, sandbox_in_thread
from workers.clients import audiencelab, audiencepoint

pytestmark = pytest.mark.anyio

PAGE = (Path(__file__).parents[2] / "docs" / "clients.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
_SHOWN = re.compile(r"^ *print\(.*\)  # (.*)$|^# (.*)$", re.MULTILINE)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """Run both vendors' stand-ins."""
    with sandbox_in_thread() as running:
        yield running


def told(example: str) -> list[str]:
    """Return the lines that *example* says it prints, as patterns."""
    found = [first or second for first, second in _SHOWN.findall(example)]
    return [re.sub(r"([\[\]?*])", r"[\1]", line).replace("…", "*") for line in found]


async def printed(example: str, names: dict[str, Any]) -> list[str]:
    """Run *example* as `python -m asyncio` does, and return the lines that it prints."""
    code = compile(example, "docs/clients.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    out = StringIO()
    with redirect_stdout(out):
        result = eval(code, names)  # noqa: S307 - it is our own page
        if inspect.isawaitable(result):
            await result
    return out.getvalue().splitlines()


async def test_every_example_runs_and_prints_what_it_says(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who types in the page from top to bottom gets what it shows."""
    for name, url in (
        ("AUDIENCEPOINT", sandbox.audiencepoint_url),
        ("AUDIENCELAB", sandbox.audiencelab_url),
    ):
        monkeypatch.setenv(f"{name}_BASE_URL", url)
        monkeypatch.setenv(f"{name}_API_KEY", KEY)
    names: dict[str, Any] = {}
    try:
        for example in EXAMPLES:
            lines, said = await printed(example, names), told(example)
            assert len(lines) == len(said), (example, lines)
            for line, pattern in zip(lines, said, strict=True):
                assert fnmatchcase(line, pattern), (line, pattern)
    finally:
        if "connections" in names:
            await names["connections"].aclose()


@pytest.mark.parametrize(
    "client", [audiencepoint.AudiencePoint, audiencelab.AudienceLab], ids=["point", "lab"]
)
def test_every_call_is_on_the_page(client: type) -> None:
    """No public method of a client is missing from its section."""
    section = PAGE.partition(f"## {client.__name__}\n")[2].partition("\n## ")[0]
    public = {name: each for name, each in vars(client).items() if not name.startswith("_")}
    calls = [f"`{name}(" for name, each in public.items() if callable(each)]
    facts = [f"`{name}`" for name, each in public.items() if not callable(each)]
    assert [name for name in calls if name not in section] == []
    page = PAGE.replace("`client.", "`").replace("`lab.", "`")
    assert [name for name in facts if name not in page] == []


def test_the_page_has_examples() -> None:
    """The page's form is the one that the tests read."""
    assert len(EXAMPLES) > 10
    assert sum(len(told(example)) for example in EXAMPLES) > 15


def test_the_clients_need_nothing_of_the_relay() -> None:
    """Whoever wants only the clients loads no Redis, no settings and no web server with them."""
    code = (
        "import sys, workers.clients.audiencepoint, workers.clients.audiencelab;"
        "import workers.clients.http;"
        "heavy = {'redis', 'arq', 'pydantic', 'starlette', 'typer'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
