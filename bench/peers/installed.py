"""Installing what the peers on Node are made of, into a folder that no other part of the project looks at."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from bench.processes import ROOT

HERE = Path(__file__).parent
FOLDER = ROOT / ".peers"
MANIFESTS = ("package.json", "package-lock.json")
#: what Node needs to find the packages
SETTINGS = {"NODE_PATH": str(FOLDER / "node_modules"), "NODE_ENV": "production"}
NPM_CI = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")


class NoNode(Exception):
    """The peers on Node cannot be installed here. The message says why."""


def are_installed() -> bool:
    """Tell whether what is installed is what the lock says."""
    wanted = (HERE / "package-lock.json").read_bytes()
    return _stamp().is_file() and _stamp().read_bytes() == wanted and bool(shutil.which("node"))


def install() -> None:
    """Install exactly what the lock says, from the registry npm is set to use; raises `NoNode`."""
    if are_installed():
        return
    if not (shutil.which("node") and shutil.which("npm")):
        raise NoNode("the peers need Node 20 or newer, and npm, on PATH")
    FOLDER.mkdir(exist_ok=True)
    for name in MANIFESTS:
        shutil.copyfile(HERE / name, FOLDER / name)
    done = subprocess.run(NPM_CI, cwd=FOLDER, capture_output=True, text=True)
    if done.returncode:
        raise NoNode(f"npm ci failed:\n{done.stderr[-2000:]}")
    shutil.copyfile(HERE / "package-lock.json", _stamp())


def node(script: str) -> list[str]:
    """Return how *script* of this folder is started."""
    return [shutil.which("node") or "node", str(HERE / script)]


def _stamp() -> Path:
    return FOLDER / "node_modules" / ".installed"
