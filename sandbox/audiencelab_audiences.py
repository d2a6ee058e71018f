"""AudienceLab's audiences: made from filters, empty at first, then pages of people.

As observed, `GET /audiences/{id}` is a page of people, `{"status": "no data"}` while there are none
and, with 200, `{"status": "NOT_FOUND"}` for an id that nothing has; as documented it is the
audience itself. Filters are an object as observed and a list as documented; neither may be empty.
"""

from __future__ import annotations

from typing import Any

from sandbox.account import Account, Audience
from sandbox.audiencelab_rules import (
    DELETED,
    LIST_SIZES,
    NO_DATA,
    UNKNOWN_ID,
    UNKNOWN_KEY,
    envelope,
    is_texts,
    message_of,
    optional_text,
    page_asked,
    refusal,
    text_of,
    unknown,
)
from sandbox.desk import Answer, Asked, Handle
from sandbox.invented import SEGMENT_COLUMNS, person
from sandbox.settings import Settings

_KEYS = ("name", "filters", "segment", "days_back")
_DOCUMENTED_KEYS = ("name", "description", "filters", "webhook_url")
_PREVIEW_KEYS = ("days_back", "limit", "segment", "filters", "score", "include_dnc")
_LISTS = ("city", "state", "zip", "gender")
_OBJECTS = ("age", "businessProfile", "profile", "attributes")
_FILTERS = {*_LISTS, *_OBJECTS, "notNulls", "nullOnly"}
_OPERATORS = ("equals", "contains", "greater_than", "less_than", "in", "not_in")
_REFUSED = "audience enqueue failed: <nil>"
# How many people match whatever is asked for.
_MATCHES = 120
_NAMES = {
    "segments": ("Boating", "Home lighting", "Solar power"),
    "industries": ("Retail", "Utilities"),
    "departments": ("Marketing", "Executive"),
    "seniority": ("Cxo", "Director", "Manager"),
    "sic": ("3645", "5063"),
}


def listed(account: Account, settings: Settings) -> Handle:
    """`GET /audiences`."""

    def handle(asked: Asked) -> Answer:
        page = page_asked(asked, len(account.audiences), LIST_SIZES, settings)
        data = page.cut_from([_shown(each) for each in account.audiences.values()])
        return Answer(200, envelope(page, settings, data=data), len(data))

    return handle


def one(account: Account) -> Handle:
    """`GET /audiences/{id}` as documented: the audience itself."""

    def handle(asked: Asked) -> Answer:
        audience = account.audiences.get(asked.piece("id"))
        if audience is None:
            raise unknown("Audience")
        return Answer(200, _shown(audience), 1)

    return handle


def people(account: Account, settings: Settings) -> Handle:
    """`GET /audiences/{id}` as observed: a page of people."""

    def handle(asked: Asked) -> Answer:
        audience = account.audiences.get(asked.piece("id"))
        if audience is None:
            return Answer(200, UNKNOWN_ID)
        page = page_asked(asked, audience.people, LIST_SIZES, settings)
        audience.looks -= 1
        if audience.looks >= 0 or not audience.people:
            return Answer(200, NO_DATA)
        data = [person(position) for position in page.positions]
        return Answer(200, envelope(page, settings, data=data), len(data))

    return handle


def created(account: Account, settings: Settings) -> Handle:
    """`POST /audiences` as observed."""

    def handle(asked: Asked) -> Answer:
        message = message_of(asked, _KEYS)
        name = text_of(message, "name")
        _check_choice(message)
        _within(message, "days_back", 1, None, usual=1)
        audience = Audience(account.new_id("audience"), name, _MATCHES, max(settings.polls - 1, 0))
        account.audiences[audience.id] = audience
        return Answer(200, {"audienceId": audience.id}, 1)

    return handle


def created_as_documented(account: Account) -> Handle:
    """`POST /audiences` as documented: a list of filters, answered with the whole audience."""

    def handle(asked: Asked) -> Answer:
        message = message_of(asked, _DOCUMENTED_KEYS)
        name, webhook_url = text_of(message, "name"), optional_text(message, "webhook_url")
        optional_text(message, "description")
        _check_documented_filters(message.get("filters"))
        new_id = f"aud_{account.new_id('audience')[:8]}"
        account.audiences[new_id] = Audience(new_id, name, _MATCHES, webhook_url=webhook_url)
        return Answer(201, _shown(account.audiences[new_id]), 1)

    return handle


def custom(asked: Asked) -> Answer:
    """`POST /audiences/custom`: made somewhere else, in its own time."""
    message = message_of(asked, ("topic", "description"))
    text_of(message, "topic")
    text_of(message, "description")
    return Answer(200, {"status": "processing"}, 1)


def preview(account: Account) -> Handle:
    """`POST /audiences/preview`: a sample of the people, 0 to 500."""

    def handle(asked: Asked) -> Answer:
        message = message_of(asked, _PREVIEW_KEYS)
        _check_choice(message)
        _within(message, "days_back", 1, 10, usual=1)
        limit = _within(message, "limit", 0, 500, usual=100)
        if not isinstance(message.get("include_dnc", False), bool):
            raise refusal("include_dnc is a boolean")
        rows = [person(n) for n in range(min(limit, _MATCHES))]
        coverage = {
            name: sum(1 for row in rows if row[name]) / len(rows) for name in (rows or [{}])[0]
        }
        told = {"job_id": account.new_id("preview"), "count": _MATCHES, "result": rows}
        return Answer(200, {**told, "field_coverage": coverage}, len(rows))

    return handle


def deleted(account: Account, settings: Settings) -> Handle:
    """`DELETE /audiences/{id}`: `{"success": true}` as documented; 204 is taken from its sibling."""

    def handle(asked: Asked) -> Answer:
        is_observed = settings.dialect == "observed"
        if account.audiences.pop(asked.piece("id"), None) is not None:
            return Answer(204, None, 1) if is_observed else Answer(200, DELETED, 1)
        if is_observed:
            return Answer(200, UNKNOWN_ID)
        raise unknown("Audience")

    return handle


def attributes(asked: Asked) -> Answer:
    """`GET /audiences/attributes`: every kind."""
    return Answer(200, {"attributes": {kind: _attributes(kind) for kind in _NAMES}}, len(_NAMES))


def attributes_of_kind(asked: Asked) -> Answer:
    """`GET /audiences/attributes/{kind}`."""
    kind = asked.piece("kind")
    if kind not in _NAMES:
        raise unknown("Attribute")
    return Answer(200, {"attributes": {kind: _attributes(kind)}}, len(_NAMES[kind]))


def documented_attributes(asked: Asked) -> Answer:
    """`GET /audiences/attributes` as documented: the columns."""
    columns = [
        {
            "name": name,
            "label": name.replace("_", " ").title(),
            "type": "string",
            "category": "company" if name.startswith("COMPANY_") else "personal",
        }
        for name in SEGMENT_COLUMNS
    ]
    return Answer(200, {"attributes": columns}, len(columns))


def _attributes(kind: str) -> dict[str, Any]:
    names = _NAMES[kind]
    b2b = kind != "segments"
    data = [{"id": f"{kind}-{n}", "name": name, "b2b": b2b} for n, name in enumerate(names, 1)]
    return {"count": len(names), "data": data}


def _check_choice(message: dict[str, Any]) -> None:
    """Hold filters and segments against the observed rules: something must be chosen."""
    filters, segment = message.get("filters", {}), message.get("segment", [])
    if not isinstance(filters, dict):
        raise refusal(_REFUSED)
    if not is_texts(segment):
        raise refusal("segment is an array of strings")
    if not filters and not segment:
        raise refusal(_REFUSED)
    if set(filters) - _FILTERS:
        raise refusal(UNKNOWN_KEY)
    for name, value in filters.items():
        if name in _LISTS and not is_texts(value):
            raise refusal(f"{name} is an array of strings")
        if name in _OBJECTS and not isinstance(value, dict):
            raise refusal(f"{name} is an object")
    if set(filters.get("age", {})) - {"minAge", "maxAge"}:
        raise refusal(UNKNOWN_KEY)


def _check_documented_filters(filters: object) -> None:
    if not isinstance(filters, list) or not filters:
        raise refusal("filters is required: an array of filters")
    for each in filters:
        if not isinstance(each, dict) or set(each) != {"field", "operator", "value"}:
            raise refusal("a filter has field, operator and value")
        if each["operator"] not in _OPERATORS:
            raise refusal(f"operator is one of {', '.join(_OPERATORS)}")
        value = each["value"]
        if not isinstance(each["field"], str) or not (
            isinstance(value, str | int | float) or is_texts(value)
        ):
            raise refusal("a filter has a field's name, and a text, number or list of texts")


def _within(message: dict[str, Any], name: str, least: int, most: int | None, *, usual: int) -> int:
    value = message.get(name, usual)
    if type(value) is not int or value < least or (most is not None and value > most):
        raise refusal(f"{name} is a number from {least} to {most or 'any'}")
    return int(value)


def _shown(audience: Audience) -> dict[str, Any]:
    return {
        "id": audience.id,
        "name": audience.name,
        "next_scheduled_refresh": audience.next_scheduled_refresh,
        "refresh_interval": audience.refresh_interval,
        "scheduled_refresh": audience.scheduled_refresh,
        "webhook_url": audience.webhook_url,
    }
