"""docs/score-changes.md tells the truth: its message is one of ours, and its check knows ours from others."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from pipeline.setting_values import parse_webhook_keys
from pipeline.visitors import Visitor
from workers.clients.crm import request
from workers.notify import message

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "score-changes.md").read_text(encoding="utf-8")
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


def block(language: str) -> str:
    """Return the one example in *language*."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture
def is_from_the_relay() -> Callable[[Mapping[str, str], bytes, str], bool]:
    """Return the function that the page shows."""
    names: dict[str, Any] = {}
    exec(compile(block("python"), "docs/score-changes.md", "exec"), names)  # noqa: S102 - our own page
    found: Callable[[Mapping[str, str], bytes, str], bool] = names["is_from_the_relay"]
    return found


def test_the_message_is_one_that_we_send() -> None:
    """The example is what the relay would have made of its own facts, down to the order of the names."""
    shown = orjson.loads(block("json"))
    data = shown["data"]
    visitor = Visitor(data["visitor"], scores=data["scores"], scores_changed_at=shown["timestamp"])
    known = {name: value for name, value in data["before"].items() if value is not None}
    earlier = {**data["scores"], **known}
    for name in data["before"].keys() - known.keys():
        del earlier[name]
    made = orjson.loads(message(visitor, data["emailAddress"], earlier, "sha256"))
    assert len(made["id"]) == len(shown["id"])
    assert orjson.dumps({**made, "id": shown["id"]}) == orjson.dumps(shown)


def test_the_check_takes_what_we_send(
    is_from_the_relay: Callable[[Mapping[str, str], bytes, str], bool],
) -> None:
    """A message that was signed now is ours, with either secret while it is changed."""
    body, now = block("json").encode(), int(time.time())
    made = request("/", "msg_1", body, now, parse_webhook_keys(f"{OTHER},{SECRET}"))
    assert is_from_the_relay(made.headers, body, SECRET)
    assert is_from_the_relay(made.headers, body, OTHER)


@pytest.mark.parametrize("wrong", ["body", "secret", "age", "id"])
def test_the_check_refuses_what_is_not_ours(
    is_from_the_relay: Callable[[Mapping[str, str], bytes, str], bool], wrong: str
) -> None:
    """Another body, secret or id is not ours, nor a message of ten minutes ago that somebody kept."""
    sent_at = int(time.time()) - 600 * (wrong == "age")
    made = request("/", "msg_1", b"{}", sent_at, parse_webhook_keys(SECRET))
    headers = {**made.headers, **({"webhook-id": "msg_2"} if wrong == "id" else {})}
    secret = OTHER if wrong == "secret" else SECRET
    assert not is_from_the_relay(headers, b"{ }" if wrong == "body" else b"{}", secret)


def test_the_check_has_ten_lines() -> None:
    """It stays short enough to be read and copied."""
    assert len([line for line in block("python").splitlines() if line]) <= 10
