"""Audiences: lists of people who fit filters. Also the attributes to filter by, and previews.

Observed filters are an object (`{"city": […], "businessProfile": {"jobTitle": […]}}`); documented
ones an array of `{field, operator, value}`. What may go wrong: the array is refused by the live
service with 400 "audience enqueue failed", empty filters too; `GET /audiences/{id}` answers the
audience's records (observed) or the audience itself (documented); the webhook of an audience can be
set on the dashboard only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from workers.clients.audiencelab.answers import (
    folded,
    has_nothing,
    is_failure,
    number,
    others,
    piece,
    refused,
    text,
    upper_case,
)
from workers.clients.audiencelab.listed import Listed
from workers.clients.audiencelab.pages import Page
from workers.clients.messages import Answer, Request, json_bytes

AUDIENCES_PATH = "/audiences"
ATTRIBUTES_PATH = f"{AUDIENCES_PATH}/attributes"
PREVIEW_PATH = f"{AUDIENCES_PATH}/preview"
CUSTOM_PATH = f"{AUDIENCES_PATH}/custom"

#: What attributes there are lists of; observed in live answers.
KINDS = ("segments", "industries", "departments", "seniority", "sic")

SAID_IN_NO_FORM = (
    "segments and days_back go with filters that are an object, "
    "and with neither description nor webhook_url"
)
SAID_ON_THE_DASHBOARD = (
    "AudienceLab takes neither description nor webhook_url with a new audience: "
    "leave them out, and set them on its dashboard"
)

#: The observed filters that can be said in the documented form, and the field each is there.
_FIELDS = {
    "city": "PERSONAL_CITY",
    "state": "PERSONAL_STATE",
    "zip": "PERSONAL_ZIP",
    "gender": "GENDER",
}
_BUSINESS_FIELDS = {
    "jobTitle": "JOB_TITLE",
    "seniority": "SENIORITY_LEVEL",
    "industry": "COMPANY_INDUSTRY",
    "department": "DEPARTMENT",
    "companyName": "COMPANY_NAME",
    "companyDomain": "COMPANY_DOMAIN",
}
_PROFILE_FIELDS = {
    "incomeRange": "INCOME_RANGE",
    "homeowner": "HOMEOWNER",
    "married": "MARRIED",
    "netWorth": "NET_WORTH",
    "children": "CHILDREN",
}


@dataclass(frozen=True, slots=True)
class Audience:
    """An audience as the list shows it.

    *refresh_interval* counts days (observed; the older reference says seconds); it may come as a
    text, and is None when it is neither. *next_scheduled_refresh* is ISO-8601. *other* holds what
    the answer tells beside these, under the names it came with.
    """

    id: str
    name: str | None
    next_scheduled_refresh: str | None = None
    refresh_interval: int | None = None
    scheduled_refresh: bool = False
    webhook_url: str | None = None
    other: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Attribute:
    """Something to filter audiences by: *kind* is the list or the category that it is in."""

    name: str
    kind: str | None
    id: str | None = None
    other: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Preview:
    """A sample of an audience: *count* people in all, *rows* with UPPER_CASE columns."""

    job_id: str | None
    count: int | None
    rows: list[dict[str, object]]
    field_coverage: Mapping[str, object]


def _audience(members: Mapping[str, object]) -> Audience | None:
    """Return an audience; None for an object that is none."""
    told = folded(members)
    own_id = text(told.get("id"))
    if own_id is None:
        return None
    names = ("name", "nextscheduledrefresh", "refreshinterval", "scheduledrefresh", "webhookurl")
    name, next_refresh, interval, is_scheduled, webhook_url = (told.get(each) for each in names)
    return Audience(
        own_id,
        text(name),
        text(next_refresh),
        number(interval),
        is_scheduled is True,
        text(webhook_url),
        others(members, "id", *names),
    )


#: the account's audiences, the people in one, its end
AUDIENCES = Listed(AUDIENCES_PATH, "audience", "people", _audience)


def read_records(answer: Answer, page: int, page_size: int) -> Page[dict[str, object]]:
    """Return a page of people with UPPER_CASE columns; one that is still being made is empty.

    Raises what `Listed.read_contents` does.
    """
    return AUDIENCES.read_contents(answer, page, page_size, "data").of(upper_case)


def create_request(
    name: str,
    filters: Mapping[str, object],
    segment: Sequence[str] | None = None,
    days_back: int | None = None,
) -> Request:
    """Return the observed request for a new audience; what is None is not sent."""
    if not filters and not segment:
        raise ValueError("an audience needs filters or segments: AudienceLab refuses one without")
    form: dict[str, object] = {"name": name, "filters": dict(filters)}
    if segment is not None:
        form["segment"] = list(segment)
    if days_back is not None:
        form["days_back"] = days_back
    return Request("POST", AUDIENCES_PATH, json_bytes(form))


def documented_create_request(
    name: str,
    filters: Sequence[Mapping[str, object]],
    description: str | None = None,
    webhook_url: str | None = None,
) -> Request:
    """Return the documented request: *filters* are `{field, operator, value}` each.

    Operators: equals, contains, greater_than, less_than, in, not_in.
    """
    if not filters:
        raise ValueError("an audience needs at least one filter: AudienceLab refuses one without")
    form: dict[str, object] = {"name": name, "filters": [dict(each) for each in filters]}
    for key, value in (("description", description), ("webhook_url", webhook_url)):
        if value is not None:
            form[key] = value
    return Request("POST", AUDIENCES_PATH, json_bytes(form))


def in_documented_form(
    filters: Mapping[str, object] | Sequence[Mapping[str, object]],
) -> Sequence[Mapping[str, object]] | None:
    """Return *filters* of either form in the documented one; None if they cannot be said there."""
    return documented_filters(filters) if isinstance(filters, Mapping) else list(filters)


def documented_filters(filters: Mapping[str, object]) -> list[dict[str, object]] | None:
    """Return the observed *filters* in the documented form; None if one cannot be said there."""
    said: list[dict[str, object]] = []
    for name, value in filters.items():
        if name == "age" and isinstance(value, Mapping):
            found = _ages(value)
        elif name in ("businessProfile", "profile") and isinstance(value, Mapping):
            fields = _BUSINESS_FIELDS if name == "businessProfile" else _PROFILE_FIELDS
            found = _among(fields, value)
        else:
            found = _among(_FIELDS, {name: value})
        if found is None:
            return None
        said += found
    return said or None


def _among(
    fields: Mapping[str, str], chosen: Mapping[str, object]
) -> list[dict[str, object]] | None:
    """Return one filter for each of *chosen*; None if a name is not among *fields*."""
    if not set(chosen) <= set(fields):
        return None
    return [
        {
            "field": fields[name],
            "operator": "in" if isinstance(value, list | tuple) else "equals",
            "value": list(value) if isinstance(value, list | tuple) else value,
        }
        for name, value in chosen.items()
    ]


def _ages(bounds: Mapping[str, object]) -> list[dict[str, object]] | None:
    """Return the filters for an age, whose bounds are included here and excluded there."""
    said: list[dict[str, object]] = []
    for name, value in bounds.items():
        if name not in ("minAge", "maxAge") or not isinstance(value, int):
            return None
        is_least = name == "minAge"
        operator = "greater_than" if is_least else "less_than"
        said.append(
            {"field": "AGE", "operator": operator, "value": value - 1 if is_least else value + 1}
        )
    return said


def read_created(answer: Answer) -> str:
    """Return the new audience's id: `{audienceId}` (observed) or the whole audience (documented)."""
    members = answer.members()
    told = folded(members)
    new_id = text(told.get("audienceid")) or text(told.get("id"))
    if not answer.is_success or new_id is None or is_failure(members):
        raise refused(answer, AUDIENCES_PATH, changes=True)
    return new_id


def custom_request(topic: str, description: str) -> Request:
    """Return the request for an audience about a topic: `POST /audiences/custom` (observed)."""
    return Request("POST", CUSTOM_PATH, json_bytes({"topic": topic, "description": description}))


def read_custom(answer: Answer) -> str:
    """Return the status of the making, in the vendor's word: `processing`."""
    members = answer.members()
    status = text(members.get("status"))
    if not answer.is_success or status is None or is_failure(members):
        raise refused(answer, CUSTOM_PATH, changes=True)
    return status


def attributes_request(kind: str | None) -> Request:
    """Return the request for the attributes of one of `KINDS`; None is all (documented)."""
    if kind is None:
        return Request("GET", ATTRIBUTES_PATH)
    return Request("GET", f"{ATTRIBUTES_PATH}/{piece(kind)}")


def read_attributes(answer: Answer) -> list[Attribute]:
    """Return the attributes, or raise the `CallFailed` that *answer* means.

    Observed: `{attributes: {kind: {count, data: [{id, name, b2b}]}}}`; documented: `{attributes:
    [{name, label, type, category}]}`.
    """
    members = answer.members()
    listed = members.get("attributes") if answer.is_success and not is_failure(members) else None
    found: list[tuple[str | None, object]] | None = None
    if isinstance(listed, list):
        found = [(None, listed)]
    elif isinstance(listed, dict):
        found = [(k, v.get("data") if isinstance(v, dict) else v) for k, v in listed.items()]
    if found is None or not all(rows is None or isinstance(rows, list) for _, rows in found):
        raise refused(answer, ATTRIBUTES_PATH)
    return [
        attribute
        for kind, rows in found
        if isinstance(rows, list)
        for row in rows
        if (attribute := _attribute(kind, row)) is not None
    ]


def _attribute(kind: str | None, row: object) -> Attribute | None:
    if isinstance(row, str):
        return Attribute(row, kind) if row else None
    if not isinstance(row, dict):
        return None
    told = folded(row)
    name = text(told.get("name")) or text(told.get("id"))
    if name is None:
        return None
    kind = kind or text(told.get("category"))
    return Attribute(name, kind, text(told.get("id")), others(row, "id", "name", "category"))


def preview_request(form: Mapping[str, object]) -> Request:
    """Return the request for a sample: `POST /audiences/preview` (observed); None is not sent.

    *form* may have days_back (1 to 10), limit (0 to 500), segment or filters, score, include_dnc.
    """
    for name, least, most in (("days_back", 1, 10), ("limit", 0, 500)):
        value = form.get(name)
        if value is not None and not (isinstance(value, int) and least <= value <= most):
            raise ValueError(f"{name} of a preview is {least} to {most}")
    told = {name: value for name, value in form.items() if value is not None}
    return Request("POST", PREVIEW_PATH, json_bytes(told))


def read_preview(answer: Answer) -> Preview:
    """Return the sample: `{job_id, count, result, field_coverage}` (observed); nobody: no rows."""
    members = answer.members()
    told = folded(members)
    rows = told.get("result")
    if rows is None and ("result" in told or has_nothing(members)):
        rows = []
    is_sample = isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    if not answer.is_success or not is_sample or is_failure(members):
        raise refused(answer, PREVIEW_PATH)
    coverage = told.get("fieldcoverage")
    return Preview(
        text(told.get("jobid")),
        number(told.get("count")),
        [upper_case(row) for row in rows] if isinstance(rows, list) else [],
        coverage if isinstance(coverage, dict) else {},
    )
