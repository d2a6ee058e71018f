"""The whole way of every mail sender: posted to the receiver, taken apart, forwarded, and what comes again known."""

from __future__ import annotations

import hmac
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from httpx import ASGITransport, AsyncClient
from pydantic import SecretStr

from pipeline.outcomes import Stage
from pipeline.sources.form_body import MULTIPART
from sandbox.samples import SAMPLES, Sample, fresh
from sandbox.samples.mail import MAIL_SENDERS, mail_sample
from tests.flow.test_flow import post_one
from tests.patience import patient_receiver
from tests.workbench import Workbench

pytestmark = pytest.mark.anyio

KEY = "key-0123456789abcdef"
#: what a sender puts beside its call that tells its events apart
BESIDE = {"resend": {"svix-id": "msg_1"}}


def sample(source: str) -> Sample:
    """Return the sample of *source*, as if it had happened an hour ago."""
    now = time.time() - 3_600
    return fresh(SAMPLES["sendgrid"][0], now) if source == "sendgrid" else mail_sample(source, now)


@asynccontextmanager
async def receiver(bench: Workbench, **changed: object) -> AsyncIterator[AsyncClient]:
    """Run a receiver, whose settings may be others than the workers'."""
    settings = bench.settings.model_copy(update=changed)
    app = patient_receiver(settings)
    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=ASGITransport(app), base_url="http://relay.test") as client,
    ):
        yield client


@pytest.mark.parametrize("source", ["sendgrid", *MAIL_SENDERS])
async def test_what_a_sender_posts_twice_arrives_once(bench: Workbench, source: str) -> None:
    """Each event of its sample is forwarded by the first call and a duplicate in the second."""
    one = replace(sample(source), headers=BESIDE.get(source, {}))
    rows = []
    async with receiver(bench) as client:
        for _ in range(2):
            assert await post_one(client, one) == 200
            await bench.work_until(bench.is_idle)
            rows.append(await bench.row(Stage.FORWARD))
    first, second = rows
    told = first.pop("ignored", 0)
    forwarded = len(bench.arrived)
    assert forwarded > 0
    assert first == {"in": forwarded + told, "done": forwarded}
    assert second.pop("ignored", 0) == 2 * told
    expected = {"in": 2 * (forwarded + told), "done": forwarded, "duplicate": forwarded}
    assert second == expected
    await bench.assert_balanced()


def of_several(source: str, recipients: list[str]) -> Sample:
    """Return the call of *source* about one message to *recipients*."""
    one = sample(source)
    body = orjson.loads(one.body)
    if source == "resend":
        body["data"]["to"] = recipients
    else:
        event = orjson.loads(body["Message"])
        event["bounce"]["bouncedRecipients"] = [{"emailAddress": name} for name in recipients]
        body["Message"] = orjson.dumps(event).decode()
    return replace(one, body=orjson.dumps(body), headers=BESIDE.get(source, {}))


@pytest.mark.parametrize("source", ["ses", "resend"])
async def test_each_recipient_of_one_message_has_an_event(bench: Workbench, source: str) -> None:
    """One SNS message, or one svix-id, about several people: an event for each of them, once."""
    names = [f"person{n}@example.com" for n in range(5)]
    call = of_several(source, names)
    async with receiver(bench) as client:
        for _ in range(2):
            assert await post_one(client, call) == 200
    await bench.work_until(bench.is_idle)
    assert sorted(bench.arrived) == names
    assert await bench.row(Stage.FORWARD) == {"in": 10, "done": 5, "duplicate": 5}
    await bench.assert_balanced()


def proof(token: str) -> dict[str, str]:
    """Return what Mailgun signs a call with now."""
    stamp = str(int(time.time()))
    signature = hmac.digest(KEY.encode(), (stamp + token).encode(), "sha256").hex()
    return {"timestamp": stamp, "token": token, "signature": signature}


async def test_a_post_of_old_with_an_attachment_is_an_event(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Mailgun's form with a file of 3 MB is verified, stored and forwarded; nothing of it goes through a file."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no-such-directory"))
    fields = {"event": "bounced", "recipient": "ada@example.com", "code": "550"}
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in {**fields, "Message-Id": "<m-1>", **proof("t")}.items()
    ]
    file = (
        b'--b\r\nContent-Disposition: form-data; name="attachment-1"; filename="mail.eml"\r\n\r\n'
    )
    parts.insert(3, file + b"attached " * 350_000 + b"\r\n")
    one = Sample("old", "mailgun", b"".join(parts) + b"--b--\r\n", f"{MULTIPART}; boundary=b")
    async with receiver(bench, mailgun_signing_key=SecretStr(KEY)) as client:
        assert await post_one(client, one) == 200
        await bench.work_until(bench.is_idle)
    assert bench.arrived == ["ada@example.com"]
    assert await bench.row(Stage.UNPACK) == {"in": 1, "done": 1}


async def test_a_replay_is_found_where_only_receivers_know_the_key(bench: Workbench) -> None:
    """Mailgun signs no event: a true token that comes with another one is buried, whatever the workers know."""
    assert bench.settings.mailgun_signing_key is None
    one = sample("mailgun")
    body = orjson.loads(one.body) | {"signature": proof("t")}
    other = orjson.loads(one.body) | {"signature": proof("t")}
    other["event-data"] |= {"recipient": "eve@example.com", "id": "another"}
    async with receiver(bench, mailgun_signing_key=SecretStr(KEY)) as client:
        for call in (body, body, other):
            assert await post_one(client, replace(one, body=orjson.dumps(call))) == 200
            await bench.work_until(bench.is_idle)
    assert bench.arrived == [body["event-data"]["recipient"]]
    (letter,) = await bench.dead()
    assert (letter.stage, letter.reason) == ("unpack", "signature")
    await bench.assert_balanced()
