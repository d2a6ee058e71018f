"""scripts/setup tells a newcomer what is missing, in one sentence, before it has changed anything.

It is the first thing that anybody runs. A full installation is CI's own first step; here are its
refusals.
"""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
TOOLS = ("bash", "dirname", "cat", "mkdir", "find", "rm", "env")


def _setup(**environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "VENV")}
    return subprocess.run(
        [str(ROOT / "scripts" / "setup")],
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def _path_with(folder: Path, **programs: str) -> str:
    """A PATH with the shell's own tools and these small programs, so with no real Python."""
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (folder / tool).symlink_to(found)
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        (folder / name).chmod(0o755)
    return str(folder)


def test_no_python_is_one_sentence(tmp_path: Path) -> None:
    """Without a Python that is new enough set-up fails, says so, and leaves nothing behind."""
    path = _path_with(tmp_path / "bin", python3="exit 1")
    result = _setup(PATH=path, VENV=str(tmp_path / "venv"))
    assert result.returncode == 1
    assert result.stderr.startswith("scripts/setup: no Python 3.11 or newer found")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "venv").exists()


def test_the_python_that_was_asked_for_is_not_replaced(tmp_path: Path) -> None:
    """A PYTHON that is too old is refused, although a good one is on PATH."""
    result = _setup(PYTHON="/bin/false", VENV=str(tmp_path / "venv"))
    assert result.returncode == 1
    assert result.stderr == "scripts/setup: PYTHON=/bin/false is not a Python 3.11 or newer\n"


def test_a_python_without_venv_is_one_sentence(tmp_path: Path) -> None:
    """Debian splits venv off: the sentence says what to install."""
    script = 'case "$2" in *ensurepip*) exit 1;; esac; exit 0'
    path = _path_with(tmp_path / "bin", python3=script)
    result = _setup(PATH=path, VENV=str(tmp_path / "venv"))
    assert result.returncode == 1
    assert "python3-venv" in result.stderr.splitlines()[-1]


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    """A VENV that is no virtual environment is refused: nothing in it is deleted."""
    precious = tmp_path / "precious.txt"
    precious.write_text("mine", encoding="utf-8")
    result = _setup(VENV=str(tmp_path))
    assert result.returncode == 1
    assert "holds something that is no virtual environment" in result.stderr
    assert precious.read_text(encoding="utf-8") == "mine"
