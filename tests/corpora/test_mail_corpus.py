"""Recorded bodies of mail senders, from `mail-events.jsonl` under RELAY_CORPORA.

Each line holds a body, the events expected of it and, where a setting changes them, `expect_if`.
Expected fields must be there; more optional ones may be.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from pipeline.deliveries import Delivery
from pipeline.outcomes import MailEvent, Probe
from pipeline.sources import Rules, Unauthentic
from pipeline.sources.form_body import URLENCODED
from pipeline.sources.registry import SOURCES

_SECRETS = {
    "sendgrid-ecdsa": "SENDGRID_PUBLIC_KEY",
    "mailgun-hmac-sha256": "MAILGUN_SIGNING_KEY",
    "mandrill-hmac-sha1": "MANDRILL_WEBHOOK_KEY",
    "mailersend-hmac-sha256": "MAILERSEND_SIGNING_SECRET",
    "svix": "RESEND_SIGNING_SECRET",
}
# its signature covers a time and a word of its own, and nothing of the event
_COVERS_NO_BODY = "mailgun-hmac-sha256"
# Mandrill signs its set-up's batch with it before the real key is known; it is accepted beside any key
_KEY_OF_TESTS = "test-webhook"


def _lines() -> list[dict[str, Any]]:
    path = Path(os.environ["RELAY_CORPORA"]) / "mail-events.jsonl"
    return [orjson.loads(line) for line in path.read_bytes().splitlines() if line.strip()]


def _delivery(line: dict[str, Any]) -> Delivery:
    raw = line.get("body_raw")
    body = raw.encode() if isinstance(raw, str) else orjson.dumps(line["body"])
    headers = {name.lower(): value for name, value in line["headers"].items()}
    usual = URLENCODED if line["body_encoding"] == "form" else "application/json"
    content_type = headers.get("content-type", usual)
    source = SOURCES[line["provider"]]
    kept = {name: headers[name] for name in source.keeps_headers if name in headers}
    return Delivery(line["id"], source.name, body, 0, content_type, headers=kept)


def _cases() -> list[object]:
    cases: list[object] = []
    for line in _lines():
        cases.append(pytest.param(line, Rules(), line["expect"], id=line["id"]))
        for switch, expect in line.get("expect_if", {}).items():
            name, _, value = switch.partition("=")
            rules = Rules(**{name: value})
            cases.append(pytest.param(line, rules, expect, id=f"{line['id']}-{switch}"))
    return cases


@pytest.mark.parametrize(("line", "rules", "expect"), _cases())
def test_a_recorded_body_gives_the_expected_events(
    line: dict[str, Any], rules: Rules, expect: list[dict[str, object]]
) -> None:
    """Every recorded body gives its expected events, in order, with the fields that are named."""
    delivery = _delivery(line)
    source = SOURCES[delivery.source]
    source.check(delivery.body, delivery.content_type)
    try:
        found = source.parse(delivery, rules, now=1_900_000_000.0)
    except Probe:
        found = []
    events = [event for event in found if isinstance(event, MailEvent)]
    shown = [
        {name: getattr(event, name) for name in wanted}
        for event, wanted in zip(events, expect, strict=True)
    ]
    assert shown == expect


@pytest.mark.parametrize("line", [line for line in _lines() if "verify" in line])
def test_a_recorded_signature_is_true_and_covers_the_body(line: dict[str, Any]) -> None:
    """A recorded signature verifies with its published key, and no longer with one byte more."""
    delivery = _delivery(line)
    source = SOURCES[delivery.source]
    headers = {name.lower(): value for name, value in line["headers"].items()}
    scheme, key = line["verify"]["scheme"], line["verify"]["key"]
    secrets = {_SECRETS[scheme]: key, "MANDRILL_WEBHOOK_URL": line["verify"].get("url", "")}
    now = _signed_at(line, headers)
    source.verify(headers, delivery.body, secrets, now)
    if key != _KEY_OF_TESTS:
        middle = len(key) // 2
        other = key[:middle] + ("A" if key[middle] != "A" else "B") + key[middle + 1 :]
        with pytest.raises(Unauthentic):
            source.verify(headers, delivery.body, secrets | {_SECRETS[scheme]: other}, now)
    if scheme != _COVERS_NO_BODY:
        with pytest.raises(Unauthentic):
            source.verify(headers, delivery.body + b" ", secrets, now)


def _signed_at(line: dict[str, Any], headers: dict[str, str]) -> float:
    if "svix-timestamp" in headers:
        return float(headers["svix-timestamp"])
    body = line["body"]
    if isinstance(body, dict) and isinstance(body.get("signature"), dict):
        return float(body["signature"]["timestamp"])
    return float(body["timestamp"]) if line["verify"]["scheme"] == _COVERS_NO_BODY else 1.6e9
