"""Every column name of AudienceLab that means something to us, and the one name each fact has here.

V3 webhooks, V4 pages, segment rows, workflow templates and hand-written CRM objects name the same
facts differently. This table is the only place that knows: left the name we keep, right the other
spellings, best first. Upper and lower case are the same. A name that is not here is ignored, none
is required. What may go wrong: two names for one fact, and the older of two values survives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from operator import attrgetter
from typing import Any

from pipeline.sources.audiencelab_values import (
    aligned_texts,
    as_hash,
    json_inside,
    text,
    texts,
)


class Kind(Enum):
    """How a column's value is read."""

    EVENT = auto()  # says what happened, not who it was: one text
    HASH = auto()  # the same, but 64 hex digits or nothing
    OBJECT = auto()  # an object or list, or the JSON text of one
    TEXT = auto()  # one text; never split, commas belong to it
    LIST = auto()  # comma-separated
    ALIGNED = auto()  # comma-separated, and read side by side with another column
    ADDRESSES = auto()  # comma-separated; several spellings in one row add up


@dataclass(frozen=True, slots=True)
class Columns:
    """The known values of one JSON object by our names."""

    event: dict[str, str]
    person: dict[str, str | list[str]]
    objects: dict[str, object]


@dataclass(frozen=True, slots=True)
class Column:
    """What one spelling stands for. *rank* 0 is the name itself, a higher one is worse.

    *read* gives a value's meaning, nothing (None or empty) when it is unknown; *place* says where
    in `Columns` it belongs.
    """

    name: str
    kind: Kind
    rank: int
    read: Callable[[object], Any]
    place: Callable[[Columns], dict[str, Any]]

    @property
    def says_who(self) -> bool:
        """Whether it is about the person, and not only about what happened."""
        what = self.kind in (Kind.EVENT, Kind.OBJECT)
        return not what or self.name == "EMAIL_RAW"


def _one_text(value: object) -> str | None:
    return None if isinstance(value, dict | list) else text(value)


_HOW: Mapping[Kind, tuple[Callable[[object], Any], Callable[[Columns], dict[str, Any]]]] = {
    Kind.EVENT: (_one_text, attrgetter("event")),
    Kind.HASH: (as_hash, attrgetter("event")),
    Kind.OBJECT: (json_inside, attrgetter("objects")),
    Kind.TEXT: (text, attrgetter("person")),
    Kind.LIST: (texts, attrgetter("person")),
    Kind.ALIGNED: (aligned_texts, attrgetter("person")),
    Kind.ADDRESSES: (texts, attrgetter("person")),
}
_EVENT: Mapping[str, str] = {
    "PIXEL_ID": "",
    "JOB_ID": "",
    "EVENT_TYPE": "EVENT",
    "EVENT_TIMESTAMP": "TIMESTAMP",
    "EMAIL_RAW": "",
    "IP_ADDRESS": "IP",
    "ACTIVITY_START_DATE": "",
    "ACTIVITY_END_DATE": "",
    "URL": "FULL_URL PAGE_URL VISITED_URL LANDING_URL",
    "PAGE_TITLE": "",
    "REFERRER": "",
    "REFERRER_URL": "",
    "COOKIE_ID": "",
}
_ADDRESSES: Mapping[str, str] = {
    "PERSONAL_EMAILS": "PERSONAL_EMAIL EMAIL EMAIL_ADDRESS ADDITIONAL_PERSONAL_EMAILS",
    "BUSINESS_EMAIL": "BUSINESS_EMAILS PROGRAMMATIC_BUSINESS_EMAILS",
    "PERSONAL_VERIFIED_EMAILS": "",
    "BUSINESS_VERIFIED_EMAILS": "",
    "DEEP_VERIFIED_EMAILS": "",
}
# ALL_LANDLINES has no V3 name: V3's three phone columns mix landlines and mobiles
_ALIGNED: Mapping[str, str] = {
    "DIRECT_NUMBER": "",
    "DIRECT_NUMBER_DNC": "",
    "MOBILE_PHONE": "ALL_MOBILES PERSONAL_MOBILE MOBILE",
    "MOBILE_PHONE_DNC": "MOBILE_DNC",
    "PERSONAL_PHONE": "PHONE PHONE_NUMBER",
    "PERSONAL_PHONE_DNC": "",
    "ALL_LANDLINES": "PERSONAL_LANDLINE",
    "LANDLINE_DNC": "",
    "VALID_PHONES": "",
    "COMPANY_PHONE": "",
    "SKIPTRACE_DNC": "",
}
_LIST: Mapping[str, str] = {
    "SHA256_PERSONAL_EMAIL": "SHA256_PERSONAL_EMAILS",
    "SHA256_BUSINESS_EMAIL": "SHA256_BUSINESS_EMAILS",
    "COMPANY_SIC": "COMPANY_SIC_CODE",
    "COMPANY_NAICS": "COMPANY_NAICS_CODE",
    "SKILLS": "",
}
_TEXT: dict[str, str] = {
    "UUID": "",
    "EDID": "",
    "FIRST_NAME": "FIRSTNAME",
    "MIDDLE_NAME": "",
    "LAST_NAME": "LASTNAME",
    "FULL_NAME": "",
    "PERSONAL_ADDRESS": "ADDRESS",
    "PERSONAL_CITY": "CITY",
    "PERSONAL_STATE": "STATE",
    "PERSONAL_ZIP": "ZIP",
    "COMPANY_NAME": "COMPANY",
    "LINKEDIN_URL": "INDIVIDUAL_LINKEDIN_URL",
    "TWITTER_URL": "INDIVIDUAL_TWITTER_URL",
    "FACEBOOK_URL": "INDIVIDUAL_FACEBOOK_URL",
}
_TEXT_WITH_ONE_NAME = """
    PERSONAL_ZIP4 AGE AGE_RANGE CHILDREN GENDER HOMEOWNER MARRIED NET_WORTH INCOME_RANGE DNC UP_ID
    JOB_TITLE HEADLINE DEPARTMENT SENIORITY_LEVEL INFERRED_YEARS_EXPERIENCE
    COMPANY_NAME_HISTORY JOB_TITLE_HISTORY EDUCATION_HISTORY JOB_TITLE_LAST_UPDATED
    COMPANY_ADDRESS COMPANY_CITY COMPANY_STATE COMPANY_ZIP COMPANY_COUNTRY COMPANY_DESCRIPTION
    COMPANY_DOMAIN COMPANY_WEBSITE COMPANY_EMPLOYEE_COUNT COMPANY_INDUSTRY COMPANY_LINKEDIN_URL
    COMPANY_REVENUE COMPANY_LAST_UPDATED SOCIAL_CONNECTIONS INTERESTS
    PROFESSIONAL_ADDRESS PROFESSIONAL_CITY PROFESSIONAL_STATE PROFESSIONAL_ZIP
    PERSONAL_EMAIL_VALIDATION_STATUS BUSINESS_EMAIL_VALIDATION_STATUS
    PERSONAL_EMAIL_LAST_SEEN BUSINESS_EMAIL_LAST_SEEN
    PERSONAL_EMAIL_LAST_SEEN_BY_ESP_DATE BUSINESS_EMAIL_LAST_SEEN_BY_ESP_DATE
    SKIPTRACE_MATCH_SCORE SKIPTRACE_MATCH_BY SKIPTRACE_NAME SKIPTRACE_ADDRESS SKIPTRACE_CITY
    SKIPTRACE_STATE SKIPTRACE_ZIP SKIPTRACE_LANDLINE_NUMBERS SKIPTRACE_WIRELESS_NUMBERS
    SKIPTRACE_CREDIT_RATING SKIPTRACE_EXACT_AGE SKIPTRACE_ETHNIC_CODE SKIPTRACE_LANGUAGE_CODE
    SKIPTRACE_IP SKIPTRACE_B2B_ADDRESS SKIPTRACE_B2B_PHONE SKIPTRACE_B2B_SOURCE
    SKIPTRACE_B2B_WEBSITE SKIPTRACE_B2B_MATCH_SCORE SKIPTRACE_B2B_MATCH_BY SKIPTRACE_B2B_WIRELESS
    SKIPTRACE_B2B_LANDLINE SKIPTRACE_B2B_COMPANY_NAME
"""


def _table() -> dict[str, Column]:
    kinds = (
        (Kind.EVENT, _EVENT),
        (Kind.HASH, {"HEM_SHA256": ""}),
        (Kind.OBJECT, {"EVENT_DATA": "", "RESOLUTION": ""}),
        (Kind.ADDRESSES, _ADDRESSES),
        (Kind.ALIGNED, _ALIGNED),
        (Kind.LIST, _LIST),
        (Kind.TEXT, _TEXT | dict.fromkeys(_TEXT_WITH_ONE_NAME.split(), "")),
    )
    return {
        spelling: Column(name, kind, rank, *_HOW[kind])
        for kind, names in kinds
        for name, others in names.items()
        for rank, spelling in enumerate([name, *others.split()])
    }


COLUMNS = _table()
#: too common to show, by themselves, that an object is one of this vendor's events
WEAK = frozenset({"JOB_ID", "TIMESTAMP", "IP", "URL", "REFERRER", "STATE", "ADDRESS", "DNC", "AGE"})
#: a customer's own importer adds a `uuid` of its rows; the vendor's person is always `UUID`
NOT_THE_PERSON = "uuid"
# both usual spellings side by side, so that reading a row costs one look-up a column
_AS_SPELT: Mapping[str, Column] = COLUMNS | {
    name.lower(): column for name, column in COLUMNS.items() if name.lower() != NOT_THE_PERSON
}


#: what a segment's row has of an event; people who were only listed have none of it
_HAPPENED = ("EVENT_TIMESTAMP", "EVENT_TYPE", "EVENT_DATA", "PIXEL_ID")


def column_of(key: str) -> Column | None:
    """Return what *key* stands for, however it is spelt; None when it means nothing to us."""
    column = _AS_SPELT.get(key)
    if column is None and key != NOT_THE_PERSON:
        return COLUMNS.get(key.upper())
    return column


def has_known_column(row: Mapping[str, object]) -> bool:
    """Say whether *row* has a column, known or empty, that shows it to be an event or a person."""
    return any(column_of(key) is not None and key.upper() not in WEAK for key in row)


def has_person_column(row: Mapping[str, object]) -> bool:
    """Say whether *row* has a column, known or empty, that says who somebody is."""
    return any(
        (column := column_of(key)) and column.says_who and key.upper() not in WEAK for key in row
    )


def read_columns(row: Mapping[str, object]) -> Columns:
    """Return the known values of *row*. The order of its keys makes no difference."""
    columns = Columns({}, {}, {})
    for key, value in row.items():
        # seventy times an event, and most columns of most rows are empty: look no further
        if value == "" or value is None or not (column := _AS_SPELT.get(key) or column_of(key)):
            continue
        if known := column.read(value):
            place = column.place(columns)
            if column.name in place:
                return _read_best(row)
            place[column.name] = known
    return columns


def _read_best(row: Mapping[str, object]) -> Columns:
    """Return the known values of a *row* that spells a fact twice: the best spelling's."""
    columns = Columns({}, {}, {})
    spelt = ((column, key) for key in row if (column := column_of(key)))
    for column, key in sorted(spelt, key=lambda spelling: (spelling[0].rank, spelling[1])):
        if not (known := column.read(row[key])):
            continue
        place = column.place(columns)
        earlier = place.setdefault(column.name, known)
        if column.kind is Kind.ADDRESSES and earlier is not known:
            place[column.name] = list(dict.fromkeys([*earlier, *known]))
    return columns


def tells_of_events(rows: Iterable[Mapping[str, object]]) -> bool:
    """Say whether any of *rows* (UPPER_CASE columns) has a value that says what happened, not only who it was."""
    return any(row.get(name) for row in rows for name in _HAPPENED)
