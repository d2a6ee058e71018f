"""`relay doctor` at the vendors and in RELAY_HOME: name, TLS, key, disk; nobody's data leaves, nobody is waited for."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from console import findings_of_disk, findings_of_vendors
from console.findings import Finding, State
from console.findings_of_vendors import NOBODY, of_vendors
from pipeline.settings import Settings
from sandbox.faults import Fault
from tests.certificates import certificate
from tests.vendors import KEY, Sandbox

pytestmark = pytest.mark.anyio

MakeSettings = Callable[..., Settings]


@pytest.fixture
def settings(box: Sandbox, tmp_path: Path) -> MakeSettings:
    """Return a maker of settings that lead to the stand-ins."""

    def make(**changed: object) -> Settings:
        values: dict[str, object] = {
            "redis_url": "redis://127.0.0.1:1/0",
            "relay_home": tmp_path,
            "audiencepoint_api_key": KEY,
            "audiencepoint_base_url": box.audiencepoint_url,
            "audiencelab_api_key": KEY,
            "audiencelab_base_url": box.audiencelab_url,
        }
        return Settings.model_validate(values | changed)

    return make


async def found(settings: Settings) -> dict[str, Finding]:
    """Return the findings by what was looked at."""
    findings = await of_vendors(settings)
    assert len({each.check for each in findings}) == len(findings)
    assert all(each.do for each in findings if each.state is not State.OK)
    return {each.check: each for each in findings}


async def test_right_keys_are_taken_and_nobody_is_named(
    settings: MakeSettings, box: Sandbox
) -> None:
    """One call each that reads; AudiencePoint hears of the hash of an address that nobody can have."""
    findings = await found(settings())
    assert {each.state for each in findings.values()} == {State.OK}
    assert {"AudienceLab name", "AudienceLab key", "AudiencePoint key"} <= set(findings)
    assert dict(box.memory.calls) == {("pixels", 200): 1, ("scores", 200): 1}
    [asked] = box.memory.score_requests
    assert len(asked["emailAddresses"][0]) == 64
    assert not box.memory.events
    assert not box.memory.subscribed
    assert NOBODY.endswith(".invalid")


async def test_a_wrong_key_is_told_without_it(settings: MakeSettings) -> None:
    """Each vendor's setting is named, the key itself is not."""
    wrong = "wrong-key-0123456789"
    findings = await found(settings(audiencelab_api_key=wrong, audiencepoint_api_key=wrong))
    for vendor in ("AudienceLab", "AudiencePoint"):
        finding = findings[f"{vendor} key"]
        assert finding.state is State.BAD
        assert f"check {vendor.upper()}_API_KEY" in finding.found
        assert wrong not in finding.found + finding.do


async def test_a_wrong_path_is_not_taken_for_a_wrong_key(settings: MakeSettings) -> None:
    """AudiencePoint answers 403 to both; the path that is wrong is named."""
    findings = await found(settings(audiencepoint_scores_path="/nonsense"))
    assert findings["AudiencePoint key"].state is State.BAD
    assert "AUDIENCEPOINT_SCORES_PATH" in findings["AudiencePoint key"].found


@pytest.mark.parametrize(
    ("status", "body", "state", "said"),
    [
        (400, {"message": "Invalid request body"}, State.OK, "taken"),
        (429, {"message": "Limit Exceeded"}, State.WARN, "quota"),
        (503, {"message": "Service Unavailable"}, State.BAD, "no usable answer"),
    ],
)
async def test_what_the_vendor_says_instead(
    status: int,
    body: dict[str, str],
    state: State,
    said: str,
    settings: MakeSettings,
    box: Sandbox,
) -> None:
    """Who refuses the question has taken the key; a used-up quota is a warning; an outage is bad."""
    box.faults.add(Fault(endpoint="scores", status=status, body=body))
    finding = (await found(settings()))["AudiencePoint key"]
    assert (finding.state, said in finding.found) == (state, True), finding


async def test_a_vendor_that_hangs_is_not_waited_for(
    settings: MakeSettings, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time is bounded, and the other vendor is looked at meanwhile."""
    monkeypatch.setattr(findings_of_vendors, "WITHIN_S", 0.5)
    box.faults.add(Fault(endpoint="pixels", latency_s=5))
    findings = await found(settings())
    assert "no answer in 0.5 s" in findings["AudienceLab key"].found
    assert findings["AudiencePoint key"].state is State.OK


async def test_without_a_key_nobody_is_asked(settings: MakeSettings, box: Sandbox) -> None:
    """A vendor whose key is not set is left out."""
    findings = await found(settings(audiencelab_api_key=None))
    assert not any(name.startswith("AudienceLab") for name in findings)
    assert box.memory.calls_to("pixels") == 0


async def test_a_name_that_is_not_found(settings: MakeSettings) -> None:
    """The name is told, the setting with it, and nothing more is tried."""
    findings = await found(settings(audiencelab_base_url="https://relay.invalid"))
    assert findings["AudienceLab name"].state is State.BAD
    assert "AUDIENCELAB_BASE_URL" in findings["AudienceLab name"].do
    assert "AudienceLab key" not in findings


async def test_behind_a_proxy_the_name_is_its_business(
    settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What this machine cannot resolve may be known to the proxy."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    findings = await found(settings(audiencelab_base_url="https://relay.invalid"))
    assert findings["AudienceLab name"].state is State.OK
    assert "cannot be reached" in findings["AudienceLab key"].found


async def test_keys_never_travel_in_the_clear(settings: MakeSettings) -> None:
    """A base address without TLS, other than loopback's, is bad before the key is sent there."""
    findings = await found(settings(audiencelab_base_url="http://[::ffff:127.0.0.1]:1"))
    assert "in the clear" in findings["AudienceLab TLS"].found
    assert "AudienceLab key" not in findings


# TLS ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def served_by_tls(context: ssl.SSLContext) -> AsyncIterator[str]:
    """Serve nothing but handshakes; give the address."""

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(("days", "state"), [(90, State.OK), (5, State.WARN)])
async def test_a_certificate_and_how_long_it_lasts(
    days: int,
    state: State,
    settings: MakeSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that is believed is told with its end; one that ends within two weeks is a warning."""
    context = certificate(tmp_path, days)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    async with served_by_tls(context) as url:
        finding = (await found(settings(audiencelab_base_url=url)))["AudienceLab TLS"]
    assert finding.state is state, finding
    assert "TLSv1.3" in finding.found


async def test_a_certificate_that_is_not_believed(settings: MakeSettings, tmp_path: Path) -> None:
    """It is bad, says why, and no key is sent after it."""
    async with served_by_tls(certificate(tmp_path, 90)) as url:
        findings = await found(settings(audiencelab_base_url=url))
    assert findings["AudienceLab TLS"].state is State.BAD
    assert "not believed" in findings["AudienceLab TLS"].found
    assert "AudienceLab key" not in findings


# the disk -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("free_mb", "data_mb", "state"),
    [
        (100, 0, State.BAD),
        (1000, 0, State.WARN),
        (3000, 10, State.OK),
        (3000, 4000, State.WARN),
    ],
)
def test_room_on_the_disk(
    free_mb: int, data_mb: int, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Little room is a warning, hardly any is bad; Redis needs as much again as its data."""

    class Usage:
        free = free_mb * 2**20

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage)
    assert findings_of_disk._room(tmp_path / "not-there-yet", data_mb * 2**20).state is state


def test_a_home_that_others_may_read(settings: MakeSettings, tmp_path: Path) -> None:
    """Tokens and people's data lie in it: anybody else's right to it is a warning."""
    tmp_path.chmod(0o755)
    home = {each.check: each for each in findings_of_disk.of_disk(settings())}["RELAY_HOME"]
    assert (home.state, "chmod 700" in home.do) == (State.WARN, True)
    tmp_path.chmod(0o700)
    home = {each.check: each for each in findings_of_disk.of_disk(settings())}["RELAY_HOME"]
    assert home.state is State.OK
