"""Receivers that wait for Redis: a machine that stands still for a moment breaks no rule that is not about time.

The receiver answers within 250 ms, whatever Redis does. Where that is not the rule in question it has 20 seconds;
tests of time take `make_app` and `receiver_redis` as they are.
"""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import Redis
from starlette.applications import Starlette

import pipeline.inbox
from pipeline.connections import receiver_redis
from pipeline.settings import Settings
from receiver import health, metrics, webhooks
from receiver.app import make_app
from receiver.limits import Limits

PATIENCE_S = 20.0
_OF_TIME = {
    health: "_ASK_WITHIN_S",
    metrics: "_BOOKS_WITHIN_S",
    webhooks: "_BURY_WITHIN_S",
}


def patient_redis(settings: Settings) -> Redis:
    """Return the receiver's client, which waits for connections and answers."""
    client = receiver_redis(settings)
    client.connection_pool.connection_kwargs |= {
        "socket_connect_timeout": PATIENCE_S,
        "socket_timeout": PATIENCE_S,
    }
    return client


def patient_receiver(settings: Settings, **options: Any) -> Starlette:
    """Return a receiver that waits; *options* are those of `make_app`."""
    limits = Limits(answer_within_s=PATIENCE_S)
    return make_app(settings, patient_redis(settings), **{"limits": limits} | options)


def be_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the pages and the promises of durability wait too."""
    for module, name in _OF_TIME.items():
        monkeypatch.setattr(module, name, PATIENCE_S)
    monkeypatch.setattr(pipeline.inbox, "WAIT_MS", round(PATIENCE_S * 1000))
