"""The files that a newcomer or a platform runs say what they should.

They are read, not run: a Dockerfile or a compose file is used far from this test, where a wrong
path or a lost setting shows itself too late. Running them is left to CI and to the platform.
"""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent.parent
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
SCRIPTS = sorted([*(ROOT / "scripts").iterdir(), ROOT / ".ci" / "run"])
# Folders of tools and of the relay's own data; what is in them is not part of the project.
NOT_OURS = re.compile(
    r"^(\.(?!ci|dockerignore|editorconfig|env\.example|gitignore|pre-commit)|__|dist$|build$)"
)


def _project() -> dict[str, Any]:
    loaded: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return loaded


def _compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(
        (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    )
    return loaded


def _project_files(folder: Path = ROOT) -> list[Path]:
    found = []
    for path in sorted(folder.iterdir()):
        if NOT_OURS.match(path.name) or path.name.endswith(".egg-info"):
            continue
        found += _project_files(path) if path.is_dir() else [path]
    return found


def _module_file(reference: str) -> Path:
    module = re.split(r"[:.](?=[A-Za-z]+$)", reference)[0]
    return ROOT / (module.replace(".", "/") + ".py")


def test_the_version_is_the_newest_in_the_changelog() -> None:
    """pyproject.toml and CHANGELOG.md name the same version."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(\d[^\]]*)\]", changelog, re.MULTILINE)
    assert newest is not None
    assert newest[1] == _project()["project"]["version"]


def test_every_dependency_says_why_it_is_there() -> None:
    """Above each runtime dependency stands a comment."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = text.split("\ndependencies = [\n")[1].split("\n]")[0].splitlines()
    bare = [
        line
        for above, line in zip(["", *block], block, strict=False)
        if line.strip().startswith('"') and not above.strip().startswith("#")
    ]
    assert bare == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_locked_package_is_pinned_with_hashes(lock: Path) -> None:
    """Each requirement has one exact version and at least one hash, and the file names no place."""
    text = lock.read_text(encoding="utf-8")
    requirements = [part for part in re.split(r"\n(?=\S)", text) if part.strip()]
    assert requirements
    for requirement in requirements:
        assert re.match(r"[a-z0-9-]+==[\w.]+ ", requirement), requirement.splitlines()[0]
        assert "--hash=sha256:" in requirement
    assert "/" not in text
    assert "-url" not in text
    assert "--find" not in text


def test_what_is_tested_is_what_is_deployed() -> None:
    """dev.txt and build.txt hold a package at the version of runtime.txt, if they hold it; otel.txt is both."""
    versions = [
        dict(re.findall(r"^([a-z0-9-]+)==([\w.]+)", path.read_text(encoding="utf-8"), re.MULTILINE))
        for path in (
            ROOT / "requirements" / f"{name}.txt" for name in ("runtime", "dev", "build", "otel")
        )
    ]
    runtime, dev, build, otel = versions
    assert runtime.items() < otel.items() < dev.items()
    assert {name: dev.get(name, version) for name, version in build.items()} == build


@pytest.mark.parametrize("name", ["runtime", "dev", "otel"])
def test_the_lock_holds_what_the_project_asks_for(name: str) -> None:
    """Each dependency of pyproject.toml is locked at a version it allows; else run scripts/lock."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    locked = dict(re.findall(r"^([a-z0-9-]+)==([\w.]+)", text, re.MULTILINE))
    asked = list(_project()["project"]["dependencies"])
    if name != "runtime":
        asked += _project()["project"]["optional-dependencies"]["otel"]
    if name == "dev":
        asked += _project()["dependency-groups"]["dev"]
    for requirement in map(Requirement, asked):
        assert requirement.specifier.contains(locked[requirement.name]), requirement


def test_the_lock_serves_the_oldest_python() -> None:
    """redis-py needs async-timeout before 3.11.3, which is what Debian 12 ships."""
    text = (ROOT / "requirements" / "runtime.txt").read_text(encoding="utf-8")
    assert re.search(r"^async-timeout==.*python_full_version < '3\.11\.3'", text, re.MULTILINE)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_can_be_started_from_anywhere(script: Path) -> None:
    """Each script is executable, valid bash, stops at an error and goes to its project."""
    text = script.read_text(encoding="utf-8")
    assert script.stat().st_mode & 0o111
    assert text.startswith("#!/usr/bin/env bash\n")
    assert '\nset -euo pipefail\ncd "$(dirname "${BASH_SOURCE[0]}")/.."\n' in text
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_the_procfile_starts_modules_that_exist() -> None:
    """The Procfile names web, worker and console, each on its port and without an access log."""
    lines = (ROOT / "Procfile").read_text(encoding="utf-8").splitlines()
    commands = dict(line.split(": ", 1) for line in lines)
    assert set(commands) == {"web", "worker", "console"}
    assert "--port ${CONSOLE_PORT:-8001}" in commands["console"]
    assert "--no-access-log" in commands["console"]
    for command in commands.values():
        assert _module_file(command.split()[1]).is_file(), command
    assert "--port ${PORT:-8000}" in commands["web"]
    assert "--no-access-log" in commands["web"]


def test_the_dockerfile_copies_what_exists_and_installs_what_is_locked() -> None:
    """Every COPY source exists, every dependency comes hashed, and nothing runs as root."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
    for command in re.findall(r"pip install (.*)$", text, re.MULTILINE):
        assert "--require-hashes" in command or "--no-deps" in command
    for package in _project()["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        assert f"COPY {package} {package}\n" in text
    assert "\nUSER relay\n" in text


def test_docker_sees_only_what_the_dockerfile_copies() -> None:
    """.dockerignore lets in what the Dockerfile copies: no .env, no data, no .git."""
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in ignore if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {line[1:] for line in rules if line.startswith("!")}
    copied = re.findall(
        r"^COPY (?!--from)(.*) \S+$",
        (ROOT / "Dockerfile").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert let_in == {source.split("/")[0] for line in copied for source in line.split()}


def test_compose_keeps_what_it_acknowledged() -> None:
    """The Redis of docker-compose.yml syncs each write, never evicts and keeps its data."""
    redis = _compose()["services"]["redis"]
    options = dict(zip(redis["command"][1::2], redis["command"][2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "always"
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--maxmemory"]
    assert redis["volumes"]
    assert "ports" not in redis


def test_compose_keeps_what_was_spilled() -> None:
    """RELAY_HOME of the image is a volume, which the image's user may write."""
    compose = _compose()
    image = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "RELAY_HOME=/home/relay/.relay" in image
    assert "install -d -o relay -g relay -m 0700 /home/relay/.relay" in image
    assert "relay-home:/home/relay/.relay" in compose["services"]["web"]["volumes"]
    assert "relay-home" in compose["volumes"]


def test_compose_runs_the_processes_of_the_procfile() -> None:
    """Each service runs its Procfile's command, waits for Redis, and holds no secret."""
    services = _compose()["services"]
    procfile = (ROOT / "Procfile").read_text(encoding="utf-8")
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert f"worker: {' '.join(services['worker']['command'])}\n" in procfile
    web = re.search(r"exec (uvicorn .*?)\"", dockerfile)
    assert web is not None
    assert f"web: {web[1]}\n" in procfile
    assert services["console"]["command"][:2] == ["uvicorn", "console.main:app"]
    # in a container nobody is on loopback: the page itself asks for a token
    assert services["console"]["ports"] == ["127.0.0.1:${CONSOLE_PORT:-8001}:8001"]
    for name in ("web", "worker", "console"):
        assert services[name]["depends_on"] == {"redis": {"condition": "service_healthy"}}
        assert services[name]["environment"]["HOOK_TOKENS"].startswith("${HOOK_TOKENS:?")
    assert "healthcheck" in services["web"]
    assert "healthcheck" in services["redis"]


def test_no_file_names_this_machine_or_a_package_index() -> None:
    """The project can be cloned anywhere: no file holds its path or an index's address."""
    index = re.compile("/".join(["", "simple", ""]) + "|python" + "hosted|pypi" + r"\.org")
    for path in _project_files():
        text = path.read_bytes().decode("utf-8", errors="replace")
        assert not index.search(text), path
        # A short path, as in a container, is no evidence.
        if len(ROOT.parts) > 2:
            assert f"{ROOT}/" not in text, path
