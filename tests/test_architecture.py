"""The packages depend on each other in one direction only.

A forbidden import works until the day it makes a circle, drags a web server into a worker, or lets
a store call a vendor. This reads every import statement, also those inside functions, without
running anything.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("receiver", "pipeline", "workers", "console", "sandbox")

# Folder or file -> what it never imports.
FORBIDDEN = {
    "receiver": {"workers", "console", "sandbox", "httpx"},
    "pipeline": {"receiver", "workers", "console", "sandbox", "starlette", "httpx", "arq"},
    "pipeline/sources": {"redis"},
    "workers": {"receiver", "console", "sandbox"},
    "workers/clients": {"redis", "arq"},
    # It plays the vendors: sharing the relay's code, it would share its mistakes.
    "sandbox": {"receiver", "pipeline", "workers", "console", "redis"},
}
# The bell that wakes a worker is an arq job.
ALLOWED = {("pipeline/wake.py", "arq")}


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_a_package_imports_nothing_it_must_not_know(folder: str) -> None:
    """Each package stays within the directions that the architecture draws."""
    wrong = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in (ROOT / folder).rglob("*.py")
        for name in _imports(path)
        if name in FORBIDDEN[folder]
    }
    assert wrong - ALLOWED == set()


def test_only_absolute_imports_cross_packages() -> None:
    """No relative import climbs out of its package, where the check above would not see it."""
    climbing = [
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level > len(path.relative_to(ROOT).parts) - 1
    ]
    assert climbing == []
