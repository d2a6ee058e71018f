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
from pipeline.outcomes import MailEvent
from pipeline.sources import Rules, Unauthentic
from pipeline.sources.sendgrid import SENDGRID

_SOURCES = {"sendgrid": SENDGRID}
_SECRETS = {"sendgrid-ecdsa": "SENDGRID_PUBLIC_KEY"}


def _lines() -> list[dict[str, Any]]:
    path = Path(os.environ["RELAY_CORPORA"]) / "mail-events.jsonl"
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
    return [line for line in lines if line["provider"] in _SOURCES]


def _body(line: dict[str, Any]) -> bytes:
    raw = line.get("body_raw")
    return raw.encode() if isinstance(raw, str) else orjson.dumps(line["body"])


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
    source = _SOURCES[line["provider"]]
    delivery = Delivery(line["id"], source.name, _body(line), 0)
    source.check(delivery.body, line["headers"].get("Content-Type", ""))
    found = source.parse(delivery, rules, now=1_900_000_000.0)
    events = [event for event in found if isinstance(event, MailEvent)]
    shown = [
        {name: getattr(event, name) for name in wanted}
        for event, wanted in zip(events, expect, strict=True)
    ]
    assert shown == expect


@pytest.mark.parametrize("line", [line for line in _lines() if "verify" in line])
def test_a_recorded_signature_is_true_and_covers_the_body(line: dict[str, Any]) -> None:
    """A published signature verifies with its published key, and no longer with one byte more."""
    source = _SOURCES[line["provider"]]
    headers = {name.lower(): value for name, value in line["headers"].items()}
    secrets = {_SECRETS[line["verify"]["scheme"]]: line["verify"]["key"]}
    now = 1_600_112_502.0
    source.verify(headers, _body(line), secrets, now)
    with pytest.raises(Unauthentic):
        source.verify(headers, _body(line) + b" ", secrets, now)
