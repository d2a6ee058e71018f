"""Sample deliveries in the vendors' own shapes, with invented people: for trial and `relay send`.

The bodies are the JSON files of this folder. They tell of one fixed morning; `fresh` moves it to
now and renews the ids, so that what is sent a second time is not merely seen as a repetition.
Samples made fresh with the same *now* still belong together: a window sent again stays one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any

import orjson

# The morning of the samples: nothing in them but the end of a minute's activity is later.
_MORNING = datetime(2026, 1, 12, 9, 0, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Sample:
    """One delivery as its sender would post it to `/hooks/{source}`."""

    name: str
    source: str
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def _sample(source: str, name: str) -> Sample:
    body = files(__name__).joinpath(f"{source}-{name}.json").read_bytes()
    return Sample(name, source, body)


SAMPLES: dict[str, list[Sample]] = {
    "pixel": [
        _sample("pixel", "two-people"),
        _sample("pixel", "unresolved"),
        _sample("pixel", "window"),
        # The window again, one event longer and with other bytes: three of four are repetitions.
        _sample("pixel", "window-again"),
    ],
    "audience": [_sample("audience", "three-people")],
    "workflow": [_sample("workflow", "visitor")],
    "events": [_sample("events", "forty-five")],
    "scores": [_sample("scores", "change")],
    "sendgrid": [_sample("sendgrid", "every-kind")],
}
"""The samples of each source, in the order in which they make sense."""


def fresh(sample: Sample, now: float) -> Sample:
    """Return *sample* as if it had just happened at *now* (Unix seconds), with ids of its own.

    The same *now* gives the same bytes; another second gives other times and ids.
    """
    message = orjson.loads(sample.body)
    moved = _moved(message, round(now * 1000))
    return replace(sample, body=orjson.dumps(moved))


def _moved(message: Any, now_ms: int, name: str = "") -> Any:
    """Return *message* with its times moved to end at *now_ms* and its ids marked with it."""
    if isinstance(message, dict):
        return {key: _moved(value, now_ms, key) for key, value in message.items()}
    if isinstance(message, list):
        return [_moved(each, now_ms, name) for each in message]
    change = _CHANGES.get(name)
    return message if change is None else change(message, now_ms)


def _change_time(value: Any, now_ms: int) -> Any:
    """Move a time, whatever form it has; something that is none stays as it is."""
    by = timedelta(milliseconds=now_ms) - (_MORNING - datetime(1970, 1, 1, tzinfo=UTC))
    if isinstance(value, int):
        return value + by // timedelta(seconds=1)
    for form, pattern in _FORMS:
        if isinstance(value, str) and pattern.fullmatch(value):
            return _written(datetime.strptime(value, form).replace(tzinfo=UTC) + by, form)
    return value


# The four ways a time is written: pixel, its event_data, AudiencePoint's events, its scores.
_FORMS = (
    ("%Y-%m-%dT%H:%M:%SZ", re.compile(r"[0-9-]{10}T[0-9:]{8}Z")),
    ("%Y-%m-%dT%H:%M:%S.%fZ", re.compile(r"[0-9-]{10}T[0-9:]{8}\.[0-9]{3}Z")),
    ("%Y-%m-%dT%H:%M:%S", re.compile(r"[0-9-]{10}T[0-9:]{8}")),
    ("%Y-%m-%d %I:%M:%S %p", re.compile(r"[0-9-]{10} [0-9:]{8} [AP]M")),
)


def _written(moment: datetime, form: str) -> str:
    text = moment.strftime(form)
    # strftime knows microseconds only, the vendor writes milliseconds.
    return f"{text[:-4]}Z" if "%f" in form else text


def _change_id(value: Any, now_ms: int) -> Any:
    """Mark an id; ids that were equal stay equal, and `<…@…>` keeps its form."""
    mark = format(now_ms, "x")
    return value.replace(".", f"-{mark}.", 1) if "." in value else f"{value}-{mark}"


def _change_message_id(value: Any, now_ms: int) -> Any:
    return value.replace("@", f"-{now_ms:x}@", 1)


_CHANGES: dict[str, Callable[[Any, int], Any]] = {
    **dict.fromkeys(
        [
            *("event_timestamp", "activity_start_date", "activity_end_date", "timestamp"),
            *("occurred_at_utc", "EVENT_TIMESTAMP"),
            *("last_touch", "last_send_no_bounce", "last_seen"),
        ],
        _change_time,
    ),
    **dict.fromkeys(["job_id", "send_id", "sg_event_id", "sg_message_id"], _change_id),
    "smtp-id": _change_message_id,
}
