"""The description of /api as OpenAPI 3.1: paths from the routes, summaries from their docstrings, shapes from here."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from starlette.routing import Route

from console.findings import State
from pipeline.calls import PERCENTILES, Outcome
from pipeline.endpoints import OWN_PAUSE, Endpoint
from pipeline.keys import COUNTERS
from pipeline.outcomes import Reason, Stage
from pipeline.sources.registry import SOURCES

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_TIME: Schema = {"type": "string", "format": "date-time"}
_RATE: Schema = {"type": ["number", "null"], "minimum": 0}
_STAGE: Schema = {"type": "string", "enum": [str(stage) for stage in Stage]}
_REASON: Schema = {"type": "string", "enum": [str(reason) for reason in Reason]}


def _object(properties: dict[str, Schema], *, others: bool = False) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": others,
    }


def _of_each_stage(schema: Schema) -> Schema:
    return _object({str(stage): schema for stage in Stage})


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


_PAUSE = _object(
    {
        "by": {"enum": ["operator", "relay"]},
        "reason": _TEXT,
        "since": _TIME,
        "until": _or_null(_TIME),
    }
)
_FLOW = _object(
    {
        "batches": _COUNT,
        "in_hands": _COUNT,
        "oldest_s": _RATE,
        "in_per_minute": _RATE,
        "done_per_minute": _RATE,
        "out_per_minute": _RATE,
        "calls_per_minute": _RATE,
        "drains_in_s": _RATE,
    }
)
_STATUS = _object(
    {
        "stages": _of_each_stage(_object(dict.fromkeys(COUNTERS, _COUNT))),
        "balanced": {"type": "boolean"},
        "paused": _of_each_stage(_or_null(_PAUSE)),
        "maybe_duplicate": _COUNT,
        "refused": _object(dict.fromkeys(("token", "signature", "too_large"), _COUNT)),
        "workers": _COUNT,
        "oldest_waiting_s": {"type": "number", "minimum": 0},
        "flow": _of_each_stage(_FLOW),
        "tasks": _object({str(name): _or_null(_PAUSE) for name in OWN_PAUSE}),
        "rates": {"type": "object"},
        "calls": {"type": "object"},
        "retried": {"type": "object"},
    },
    others=True,
)
_LETTER = _object(
    {
        "id": _TEXT,
        "stage": _STAGE,
        "source": _TEXT,
        "reason": _REASON,
        "error": _TEXT,
        "attempts": _COUNT,
        "count": _COUNT,
        "buried_at": _TIME,
        "first_seen_at": _TIME,
    }
)
_DELIVERY = _object(
    {
        "id": _or_null(_TEXT),
        "source": _TEXT,
        "deliveries": _COUNT,
        "size": _COUNT,
        "received_at": _TIME,
        "answer": {"enum": [200, 202, 400, None]},
        "fate": {"enum": ["done", "ignored", "dead", "waiting"]},
        "events": _object(dict.fromkeys(("taken", "ignored", "invalid"), _COUNT)),
        "tag": _or_null(_TEXT),
    }
)
_RUN = _object(
    {
        "filter": {"type": "object", "additionalProperties": _TEXT},
        "started_at": _TIME,
        "meant": _COUNT,
        "done": _COUNT,
        "skipped": _COUNT,
        "goes_on": {"type": "boolean"},
        "is_stopping": {"type": "boolean"},
    }
)
_MOMENT = _object({"at": _TIME, "books": {"type": "object", "additionalProperties": _COUNT}})
_STRETCH = _object(
    {
        "outcomes": _object({str(outcome): _COUNT for outcome in Outcome}),
        "seconds": _object({f"p{percent}": _RATE for percent in PERCENTILES}),
    }
)
_FAILURE = _object(
    {
        "at": _TIME,
        "outcome": {"enum": [str(outcome) for outcome in Outcome]},
        "status": {"type": ["integer", "null"]},
        "words": _TEXT,
    }
)
_DESTINATION = _object(
    {
        "stage": _or_null(_STAGE),
        "endpoint": _or_null(_TEXT),
        "key": _or_null(_object({"name": _TEXT, "is_set": {"type": "boolean"}})),
        "state": {"enum": ["flows", "rests", "backs_off", "paused", "no_key", "switched_off"]},
        "pause": _or_null(_PAUSE),
        "next_try": _or_null(_TIME),
        "waiting": _or_null(_COUNT),
        "rate": _or_null(
            _object(
                {
                    "configured": _RATE,
                    "now": _RATE,
                    "why": _or_null(_TEXT),
                    "slowed_at": _or_null(_TIME),
                }
            )
        ),
        "calls": _or_null(_object({"now": _COUNT, "most": _COUNT, "why": _or_null(_TEXT)})),
        "hour": _STRETCH,
        "day": _STRETCH,
        "failures": {"type": "array", "items": _FAILURE},
    }
)
_KIND = _object({"stage": _STAGE, "source": _TEXT, "reason": _REASON, "count": _COUNT})
_SET_UP = {"type": "object"}
_SENDER = _object(
    {
        "source": _TEXT,
        "last_delivery_at": _or_null(_TIME),
        "deliveries": {"type": "object", "additionalProperties": _COUNT},
        "events": _object(
            {
                "taken": {"type": "object", "additionalProperties": _COUNT},
                "ignored": {"type": "object", "additionalProperties": _COUNT},
                "invalid": _COUNT,
            }
        ),
        "set_up": _or_null(_SET_UP),
        "earlier_set_ups": {"type": "array", "items": _SET_UP},
        "signature": _object(
            {
                "check": _TEXT,
                "settings": {"type": "object", "additionalProperties": {"type": "boolean"}},
            },
            others=True,
        ),
    }
)
_SETTING = _object(
    {
        "name": _TEXT,
        "is_set": {"type": "boolean"},
        "value": _TEXT,
        "default": _TEXT,
        "meaning": _TEXT,
    }
)
_FINDING = _object(
    {
        "check": _TEXT,
        "state": {"enum": [str(state) for state in State]},
        "found": _TEXT,
        "do": _TEXT,
    }
)
_PROBLEM = _object({"title": _TEXT, "status": {"type": "integer"}, "detail": _TEXT})

_ANSWERS: dict[str, Schema] = {
    "/api/status": _STATUS,
    "/api/history": {"type": "array", "items": _MOMENT},
    "/api/deliveries": _object(
        {
            **{name: {"type": "array", "items": _DELIVERY} for name in ("waiting", "deliveries")},
            "next": _or_null(_TEXT),
        }
    ),
    "/api/dead": _object({"letters": {"type": "array", "items": _LETTER}, "next": _or_null(_TEXT)}),
    "/api/dead/kinds": {"type": "array", "items": _KIND},
    "/api/dead/replay": _or_null(_RUN),
    "/api/dead/{id}": _LETTER,
    "/api/destinations": _object({str(endpoint): _DESTINATION for endpoint in Endpoint}),
    "/api/senders": {"type": "array", "items": _SENDER},
    "/api/settings": _object(
        {
            "settings": {"type": "array", "items": _SETTING},
            "findings": {"type": "array", "items": _FINDING},
            "is_whole": {"type": "boolean"},
        }
    ),
    "/api/openapi.json": {"type": "object"},
    "/api/live": _TEXT,
}
_QUERIES: dict[str, dict[str, tuple[str, Schema]]] = {
    "/api/history": {
        "range": ("how far back", {"enum": ["hour", "day", "week"], "default": "hour"})
    },
    "/api/deliveries": {
        "source": ("only deliveries of this source", {"enum": list(SOURCES)}),
        "from": (
            "where to look on: `next` of the answer before",
            {"type": "string", "pattern": r"^\d+-\d+-\d+$"},
        ),
    },
    "/api/dead": {
        "stage": ("only letters of this stage", _STAGE),
        "source": ("only letters of this source", _TEXT),
        "reason": ("only letters with this reason", _REASON),
        "since": ("only letters buried since then: 90s, 15m, 2h, 3d, or an ISO-8601 time", _TEXT),
        "from": (
            "where to look on: `next` of the answer before",
            {"type": "string", "pattern": r"^\d+-\d+$"},
        ),
    },
}


#: what is no JSON
_TYPES = {"/api/live": "text/event-stream"}


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """Return the description of *routes*; raises `KeyError` for one whose answer is not described here."""
    try:
        ours = version("audience-relay")
    except PackageNotFoundError:  # run from a folder
        ours = "0"
    return {
        "openapi": "3.1.0",
        "info": {"title": "Audience Relay", "version": ours},
        "components": {
            "securitySchemes": {"console": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Problem": _PROBLEM},
        },
        "security": [{"console": []}],
        "paths": {route.path: {"get": _operation(route)} for route in routes},
    }


def _operation(route: Route) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": _TEXT}
        for name in sorted(route.param_convertors)
    ]
    parameters += [
        {"name": name, "in": "query", "description": means, "schema": schema}
        for name, (means, schema) in _QUERIES.get(route.path, {}).items()
    ]
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        "operationId": route.name,
        "summary": (route.endpoint.__doc__ or "").strip(),
        "parameters": parameters,
        "responses": {
            "200": {
                "description": "what was asked for",
                "content": {
                    _TYPES.get(route.path, "application/json"): {"schema": _ANSWERS[route.path]}
                },
            },
            "default": {"description": "what is wrong, and what to do", "content": problem},
        },
    }
