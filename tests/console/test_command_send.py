"""`relay send`: files go to the receiver, samples only to a trial."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import orjson
import pytest

from pipeline.home import Address, Home
from tests.console.conftest import Relay

pytestmark = pytest.mark.anyio

TOKEN = "a-token-of-the-tests"
Posted = list[tuple[str, str, str, bytes]]


class Receiver(BaseHTTPRequestHandler):
    """Answers as the receiver does, and notes what was posted."""

    posted: ClassVar[Posted] = []

    def do_POST(self) -> None:
        """Note path, token, content type and body."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        authorization = self.headers["Authorization"].removeprefix("Bearer ")
        self.posted.append((self.path, authorization, self.headers["Content-Type"], body))
        is_right = authorization == TOKEN
        answer = {"id": "0123"} if is_right else {"title": "Unauthorized", "detail": "wrong token"}
        text = orjson.dumps(answer)
        self.send_response(202 if is_right else 401)
        self.send_header("Content-Length", str(len(text)))
        if is_right:
            self.send_header("Relay-Ack", "stored")
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[tuple[str, Posted]]:
    """Run a small receiver; give its URL and what was posted."""
    Receiver.posted = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", Receiver.posted
        server.shutdown()
        thread.join()


def say_what_runs(home: Path, receiver_url: str, *, trial: bool) -> None:
    """Write the address file of a running `relay up`, and its tokens."""
    own = Home(home).trial() if trial else Home(home)
    own.make()
    own.tokens_file.write_text(TOKEN)
    Home(home).write_address(Address("unix:///nowhere", own.path, trial, receiver_url))


async def test_a_file_is_posted(
    relay: Relay,
    receiver: tuple[str, Posted],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With our own token, to our own port; the answer is its status and the delivery's id."""
    url, posted = receiver
    monkeypatch.setenv("PORT", url.rpartition(":")[2])
    monkeypatch.setenv("HOOK_TOKENS", f"pixel:another-token-of-tests,{TOKEN}")
    (tmp_path / "body.json").write_bytes(b"[]")
    answer = await relay("send", "sendgrid", "body.json", "--json")
    assert answer.status == 0
    [sent] = answer.json["sent"]
    assert (sent["status"], sent["id"], sent["ack"]) == (202, "0123", "stored")
    assert posted == [("/hooks/sendgrid", TOKEN, "application/json", b"[]")]
    people = await relay("send", "mailgun", "body.json", "--content-type", "text/plain")
    assert people.out == "202 stored 0123 (body.json)\n"
    assert posted[1][2] == "text/plain"


async def test_a_file_goes_to_the_receiver_that_runs_here(
    relay: Relay,
    receiver: tuple[str, Posted],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On whatever port: it is the one whose token is taken."""
    url, posted = receiver
    home = tmp_path / "running"
    say_what_runs(home, url, trial=True)
    monkeypatch.setenv("RELAY_HOME", str(home))
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.setenv("PORT", "1")
    (tmp_path / "body.json").write_bytes(b"[]")
    answer = await relay("send", "sendgrid", "body.json")
    assert (answer.status, posted[0][:2]) == (0, ("/hooks/sendgrid", TOKEN))


async def test_a_refusal_is_a_failure(
    relay: Relay, receiver: tuple[str, Posted], tmp_path: Path
) -> None:
    """The receiver's own words are told, the token is not."""
    (tmp_path / "body.json").write_bytes(b"[]")
    words = ["send", "pixel", "body.json", "--url", receiver[0], "--token", "a-wrong-token-here"]
    answer = await relay(*words, "--json")
    assert answer.status == 1
    assert "401 wrong token" in answer.json["error"]
    assert "a-wrong-token-here" not in answer.out


async def test_nobody_answers(relay: Relay, tmp_path: Path) -> None:
    """A receiver that is not there is a failure, a URL that is none is bad usage."""
    (tmp_path / "body.json").write_bytes(b"[]")
    words = ["send", "pixel", "body.json", "--token", TOKEN, "--url"]
    nobody = await relay(*words, "http://127.0.0.1:1")
    assert nobody.status == 1
    assert "is a receiver running there?" in nobody.err
    assert (await relay(*words, "nowhere")).status == 2


@pytest.mark.parametrize("token", ["t\N{LATIN SMALL LETTER O WITH DIAERESIS}ken", "to\nken"])
async def test_a_token_that_fits_no_header_is_bad_usage(
    relay: Relay, receiver: tuple[str, Posted], tmp_path: Path, token: str
) -> None:
    """What no HTTP header can hold is told in words, and nothing is sent."""
    (tmp_path / "body.json").write_bytes(b"[]")
    answer = await relay("send", "pixel", "body.json", "--url", receiver[0], "--token", token)
    assert answer.status == 2
    assert "--token" in answer.err
    assert token not in answer.err
    assert receiver[1] == []


async def test_without_a_token_nothing_is_sent(
    relay: Relay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing tokens, and tokens of other sources only, are a matter of settings."""
    (tmp_path / "body.json").write_bytes(b"[]")
    missing = await relay("send", "pixel", "body.json", "--json")
    assert missing.status == 2
    assert "HOOK_TOKENS" in missing.json["problems"][0]
    monkeypatch.setenv("HOOK_TOKENS", f"scores:{TOKEN}")
    assert (await relay("send", "pixel", "body.json")).status == 2


async def test_samples_go_to_a_trial(
    relay: Relay, receiver: tuple[str, Posted], tmp_path: Path
) -> None:
    """All samples of the source are posted to the trial's receiver with the trial's token."""
    url, posted = receiver
    say_what_runs(tmp_path / "home", url, trial=True)
    answer = await relay("send", "pixel", "--json")
    assert answer.status == 0
    assert len(answer.json["sent"]) == len(posted) == 4
    assert {(path, token) for path, token, _, _ in posted} == {("/hooks/pixel", TOKEN)}


async def test_samples_never_reach_a_real_vendor(
    relay: Relay, receiver: tuple[str, Posted], tmp_path: Path
) -> None:
    """Without a trial nothing is sent, and a trial's samples go nowhere else."""
    url, posted = receiver
    home = tmp_path / "home"
    nothing_runs = await relay("send", "pixel", "--url", url, "--token", TOKEN, "--json")
    say_what_runs(home, url, trial=False)
    no_trial = await relay("send", "pixel", "--json")
    say_what_runs(home, "http://127.0.0.1:1", trial=True)
    elsewhere = await relay("send", "pixel", "--url", url, "--json")
    other_token = await relay("send", "pixel", "--token", TOKEN, "--json")
    for refused in (nothing_runs, no_trial, elsewhere, other_token):
        assert refused.status == 1
        assert refused.json["error"]
    assert posted == []
    (home / "address").write_text("{")
    assert (await relay("send", "pixel")).status == 1
