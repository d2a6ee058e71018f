"""The wheel holds everything that runs: also the files that are not Python.

A missing Lua script or sample is not noticed in a checkout, where the files lie beside the code,
but by the first person who installs the wheel.
"""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("receiver", "pipeline", "workers", "console", "sandbox")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of this checkout, built by the locked backend without going to an index."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def _files(pattern: str) -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob(pattern)
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_every_file_of_the_packages(wheel: zipfile.ZipFile) -> None:
    """Whatever lies in the five packages is in the wheel, and nothing else but its metadata."""
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert inside == _files("*")


@pytest.mark.parametrize("pattern", ["pipeline/lua/*.lua", "sandbox/samples/*"])
def test_the_wheel_holds_scripts_and_samples(wheel: zipfile.ZipFile, pattern: str) -> None:
    """The Lua scripts and the sample deliveries are there, and there are some."""
    expected = {path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern) if path.is_file()}
    assert expected
    assert expected <= set(wheel.namelist())


def test_the_wheel_brings_the_command_and_the_licence(wheel: zipfile.ZipFile) -> None:
    """`relay` is an entry point, and the licence travels with the code."""
    names = {
        name.split(".dist-info/")[1]: name for name in wheel.namelist() if ".dist-info/" in name
    }
    assert "relay = console.main:main" in wheel.read(names["entry_points.txt"]).decode()
    assert "licenses/LICENSE" in names
