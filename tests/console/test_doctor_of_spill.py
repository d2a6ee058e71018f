"""What `relay doctor` says about the spill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from console import findings_of_spill
from console.findings import Finding, State
from console.findings_of_spill import kind_of, of_spill
from pipeline.home import Home
from pipeline.settings import Settings
from pipeline.spill import Spill, files_in
from tests.console.conftest import Relay

MOUNTS = (
    "/dev/sda / ext4 rw 0 0\ntmpfs /run tmpfs rw 0 0\n/dev/sdb /run/my\\040data xfs rw 0 0\nodd\n"
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Give a home on a disk like any other, whatever the tests' is."""
    mounts = tmp_path / "mounts"
    mounts.write_text("/dev/sda / ext4 rw 0 0\n")
    monkeypatch.setattr(findings_of_spill, "MOUNTS", mounts)
    return Home(tmp_path / "home")


@pytest.fixture
def spill(home: Home) -> Iterator[Spill]:
    """Give the spill of a receiver that runs there."""
    spill = Spill(home, 1 << 20)
    yield spill
    spill.close()


def look(home: Home, **changed: object) -> list[Finding]:
    """Return the findings."""
    values = {"redis_url": "redis://127.0.0.1:1/0", "relay_home": home.path}
    return list(of_spill(Settings.model_validate(values | changed)))


def states(found: list[Finding]) -> list[State]:
    """Return how they are."""
    return [each.state for each in found]


def test_an_empty_spill_is_well(home: Home) -> None:
    """Where nothing lies and something could, all is well; also where it is off. Nothing is made."""
    assert states(look(home)) == [State.OK]
    assert not home.path.exists()
    (off,) = look(home, spill_max_bytes=0)
    assert (off.state, "503" in off.found) == (State.OK, True)


def test_what_waits_is_told(home: Home, spill: Spill) -> None:
    """How much, of how much, since when; bad once receivers may soon refuse."""
    spill.append([b"x" * 100] * 3)
    (found,) = look(home, spill_max_bytes=1000)
    assert found.state is State.WARN
    assert "3 deliveries" in found.found
    (found,) = look(home, spill_max_bytes=400)
    assert (found.state, "503" in found.found) == (State.BAD, True)


def test_damage_is_bad(home: Home, spill: Spill) -> None:
    """A file kept aside has lost something that was acknowledged."""
    spill.append([b"first", b"second"])
    (path,) = files_in(home.spill_dir)
    path.write_bytes(path.read_bytes().replace(b"first", b"fir5t"))
    segment = spill.next()
    assert segment is not None
    spill.finish(segment)
    found = look(home)
    assert states(found) == [State.BAD, State.OK]
    assert "1 damaged" in found[0].found


def test_what_is_kept_aside_may_fill_it(home: Home, spill: Spill) -> None:
    """Damaged files count for SPILL_MAX_BYTES: when they reach it nothing can be spilled, though nothing waits."""
    spill.append([b"1"])
    (path,) = files_in(home.spill_dir)
    spill.close()
    path.rename(path.with_suffix(".damaged"))
    found = look(home, spill_max_bytes=25)
    assert states(found) == [State.BAD, State.BAD]
    assert "503" in found[1].found


def test_a_folder_that_cannot_be_written_is_a_warning(home: Home) -> None:
    """Without Redis receivers could only refuse."""
    home.path.write_text("no folder")
    (found,) = look(home)
    assert (found.state, "cannot be written" in found.found) == (State.WARN, True)


def test_a_place_that_passes_is_a_warning(home: Home) -> None:
    """What lies in memory, or in a container's own layer, does not outlive a restart."""
    findings_of_spill.MOUNTS.write_text("tmpfs / tmpfs rw 0 0\n")
    (found,) = look(home)
    assert (found.state, "memory" in found.found) == (State.WARN, True)
    findings_of_spill.MOUNTS.unlink()
    assert states(look(home)) == [State.OK]


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/home/a", "ext4"), ("/run/b", "tmpfs"), ("/run/my data/c", "xfs"), ("/runner", "ext4")],
)
def test_the_nearest_mount_says_the_kind(path: str, kind: str) -> None:
    """The longest mount point that a path lies under."""
    assert kind_of(Path(path), MOUNTS) == kind


@pytest.mark.anyio
async def test_the_doctor_tells_it_without_redis(
    relay: Relay, spill: Spill, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When Redis is away this is what somebody wants to know."""
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    spill.append([b"1"])
    found = (await relay("doctor", "--json")).json["findings"]
    (told,) = [each for each in found if each["check"] == "spill"]
    assert "1 deliveries" in told["found"]
