"""As many invented people and visits as are asked for, the same for the same number at any time.

Row n of a feed is made from n alone, so that a page of a feed of any size costs a page and no
memory, and a feed that grows or shrinks at its newer end keeps its other rows. As in real feeds,
two rows share one action and differ by person, some know nothing of the person but a hash, some
addresses of pages are no valid URL, and people come again.
"""

from __future__ import annotations

from calendar import timegm
from collections.abc import Iterable
from hashlib import sha256
from time import gmtime, strftime
from typing import Any

import orjson

from sandbox.people import COLUMNS, Row

EVENT_COLUMNS = (
    *("ACTIVITY_END_DATE", "ACTIVITY_START_DATE", "EVENT_DATA", "EVENT_TIMESTAMP", "EVENT_TYPE"),
    *("HEM_SHA256", "IP_ADDRESS", "PIXEL_ID", "REFERRER_URL", "URL"),
)
# The 84 columns of a segment of visits, in its own order.
SEGMENT_COLUMNS = tuple(sorted((*COLUMNS, *EVENT_COLUMNS)))

_VERIFIED = ("PERSONAL_VERIFIED_EMAILS", "BUSINESS_VERIFIED_EMAILS")
# The 70 columns of a V3 pixel's `resolution`.
_V3_LACKS = {*_VERIFIED, "COMPANY_LINKEDIN_URL", "TWITTER_URL", "VALID_PHONES"}
V3_COLUMNS = tuple(sorted({*COLUMNS, "DEEP_VERIFIED_EMAILS"} - _V3_LACKS))
# The 51 columns of a V4 pixel's `resolution`: no skiptrace, other names for telephones and links.
_V4_LACKS = {"UUID", "VALID_PHONES", "SOCIAL_CONNECTIONS", "DIRECT_NUMBER", "DIRECT_NUMBER_DNC"}
_V4_NAMES = {
    "PERSONAL_PHONE": "ALL_LANDLINES",
    "PERSONAL_PHONE_DNC": "LANDLINE_DNC",
    "MOBILE_PHONE": "ALL_MOBILES",
    "MOBILE_PHONE_DNC": "MOBILE_DNC",
    "LINKEDIN_URL": "INDIVIDUAL_LINKEDIN_URL",
    "TWITTER_URL": "INDIVIDUAL_TWITTER_URL",
    "FACEBOOK_URL": "INDIVIDUAL_FACEBOOK_URL",
}
V4_COLUMNS = tuple(
    _V4_NAMES.get(name, name)
    for name in COLUMNS
    if name not in _V4_LACKS and not name.startswith("SKIPTRACE_")
)

# Fewer people than rows of a large feed, and no multiple of two: people come again, never twice
# for one action.
_PEOPLE = 9973
_FIRST_NAMES = ("Alva", "Bo", "Cleo", "Dario", "Edda", "Finn", "Gro", "Hal", "Iva", "Jon", "Kit")
_LAST_NAMES = ("Aster", "Birch", "Cedar", "Dahl", "Elm", "Fir", "Gorse", "Hazel", "Ivy", "Juniper")
_CITIES = (("Duluth", "MN", "55802"), ("Tacoma", "WA", "98402"), ("Bangor", "ME", "4401"))
_AGES = ("25-34", "35-44", "45-54", "55-64", "65 and older")
# What is known of a person. A row is a text filled in, ten times faster than a table made and read.
_PERSON = {
    "UUID": "%(uuid)s",
    "FIRST_NAME": "%(first_name)s",
    "LAST_NAME": "%(last_name)s",
    "GENDER": "%(gender)s",
    "AGE_RANGE": "%(age)s",
    "HOMEOWNER": "%(yes_no)s",
    "INCOME_RANGE": "$75,000 to $99,999",
    "PERSONAL_CITY": "%(city)s",
    "PERSONAL_STATE": "%(state)s",
    "PERSONAL_ZIP": "%(postcode)s",
    "PERSONAL_EMAILS": "person%(who)d@example.com, p%(who)d@example.net",
    "PERSONAL_VERIFIED_EMAILS": "person%(who)d@example.com",
    "SHA256_PERSONAL_EMAIL": "%(hash)s, %(second_hash)s",
    "MOBILE_PHONE": "+1218555%(phone)04d",
    "MOBILE_PHONE_DNC": "%(yes_no)s",
    "SKIPTRACE_MATCH_SCORE": "6",
}
_EMPLOYEE = _PERSON | {
    "BUSINESS_EMAIL": "person%(who)d@harbour.example.org",
    "BUSINESS_VERIFIED_EMAILS": "person%(who)d@harbour.example.org",
    "SHA256_BUSINESS_EMAIL": "%(work_hash)s",
    "COMPANY_NAME": "Harbour Lamps, LLC",
    "COMPANY_DESCRIPTION": "Harbour Lamps makes lamps, shades, and switches for boats.",
    "COMPANY_DOMAIN": "harbour.example.org",
    "COMPANY_EMPLOYEE_COUNT": "11 to 25",
    "COMPANY_PHONE": "+12185550110",
    "COMPANY_SIC": "3645,  5063",
    "JOB_TITLE": "Head of Marketing",
    "EDUCATION_HISTORY": '[{"degree":["BA"],"institution_name":"Harbour College"}]',
}
_VISIT = {
    "ACTIVITY_START_DATE": "%(at)sZ",
    "ACTIVITY_END_DATE": "%(end)sZ",
    "EVENT_TIMESTAMP": "%(at)sZ",
    "HEM_SHA256": "%(hash)s",
    "IP_ADDRESS": "192.0.2.%(host)d",
    "PIXEL_ID": "%(pixel)s",
    "REFERRER_URL": "https://example.com/",
    "URL": "https://example.com/lamps/%(page)d%(query)s",
}
_DONE = '"timestamp":"%(at)s.%(ms)03dZ"'
# Inside the JSON text of EVENT_DATA an ampersand is escaped.
_WHERE = '"url":"https://example.com/lamps/%(page)d%(escaped_query)s"'
_ELEMENT = '{"attributes":{"href":"/lamps"},"classes":null,"id":null,"tag":"A","text":"Lamps"}'
_EVENT_DATA = {
    "page_view": f'{{"referrer":"https://example.net/",{_DONE},"title":"Lamps",{_WHERE}}}',
    "click": f'{{"element":{_ELEMENT},{_DONE},{_WHERE}}}',
    "exit_intent": f"{{{_DONE},{_WHERE}}}",
    "user_idle": f"{{{_DONE},{_WHERE}}}",
}
_TYPES = tuple(_EVENT_DATA)


def _texts(columns: tuple[str, ...], more: Row) -> tuple[str, str, str]:
    """Return the JSON to fill in for a hash, a person and an employee."""
    empty = dict.fromkeys(columns, "")
    hash_only, known, employed = (
        orjson.dumps(empty | each | more).decode() for each in ({}, _PERSON, _EMPLOYEE)
    )
    return hash_only, known, employed


_PERSON_TEXTS = _texts(COLUMNS, {})
_VISIT_TEXTS = tuple(
    _texts(SEGMENT_COLUMNS, _VISIT | {"EVENT_TYPE": kind, "EVENT_DATA": told})
    for kind, told in _EVENT_DATA.items()
)
# What sites' own scripts glue to their addresses need not be a query.
_QUERIES = ("?utm_source=letter", "&piwik_visitor_id=913c7cc5f39ae949")
_ESCAPED_QUERIES = (_QUERIES[0], _QUERIES[1].replace("&", r"\\u0026"))
# The first action of every feed, in whole seconds.
_FIRST = timegm((2026, 1, 7, 7, 7, 35))
_MOMENT = "%Y-%m-%dT%H:%M:%S"


def person(n: int) -> Row:
    """Return person *n* in the 74 columns; all values are texts, "" where nothing is known."""
    row: Row = orjson.loads(_PERSON_TEXTS[_kind_of(n)] % _known_of(n))
    return row


def visit(n: int, pixel_id: str) -> Row:
    """Return row *n* of a segment of visits to one pixel, the oldest being 0, in 84 columns."""
    row: Row = orjson.loads(_visit_text(n, pixel_id))
    return row


def visits(numbers: Iterable[int], pixel_id: str) -> orjson.Fragment:
    """Return the rows of these *numbers* as a JSON array, ready to be part of an answer."""
    texts = (_visit_text(n, pixel_id) for n in numbers)
    return orjson.Fragment(f"[{','.join(texts)}]")


def v3_event(n: int, pixel_id: str) -> dict[str, Any]:
    """Return visit *n* as a V3 pixel tells it."""
    row = visit(n, pixel_id)
    row["DEEP_VERIFIED_EMAILS"] = row["PERSONAL_VERIFIED_EMAILS"]
    return {
        "pixel_id": pixel_id,
        "hem_sha256": row["HEM_SHA256"],
        "event_timestamp": row["EVENT_TIMESTAMP"],
        "event_type": row["EVENT_TYPE"],
        "ip_address": row["IP_ADDRESS"],
        "activity_start_date": row["ACTIVITY_START_DATE"],
        "activity_end_date": row["ACTIVITY_END_DATE"],
        "event_data": orjson.loads(row["EVENT_DATA"]),
        "referrer_url": row["REFERRER_URL"],
        "resolution": {name: row[name] for name in V3_COLUMNS},
    }


def v4_event(n: int, pixel_id: str) -> dict[str, Any]:
    """Return visit *n* as a V4 pixel tells it: no type, no UUID, telephones under other names."""
    row = visit(n, pixel_id)
    for old, new in _V4_NAMES.items():
        row[new] = row[old]
    return {
        "pixel_id": pixel_id,
        "hem_sha256": row["HEM_SHA256"],
        "event_timestamp": row["EVENT_TIMESTAMP"],
        # A visitor who came without a link is told in place of where from.
        "referrer_url": "$direct" if n // 2 % 3 == 0 else row["REFERRER_URL"],
        "full_url": row["URL"],
        "edid": f"edid-{n % _PEOPLE:06}",
        "resolution": {name: row[name] for name in V4_COLUMNS},
    }


def _visit_text(n: int, pixel_id: str) -> str:
    action, who = n // 2, n % _PEOPLE
    is_resolved, is_junk = n % 10 != 9, action % 11 == 0
    seconds = _FIRST + action
    told = _known_of(who) | {
        "at": strftime(_MOMENT, gmtime(seconds)),
        "end": strftime(_MOMENT, gmtime(seconds + 60)),
        "ms": action % 1000,
        "host": action % 254 + 1,
        "pixel": pixel_id,
        "page": action % 40,
        "query": _QUERIES[is_junk],
        "escaped_query": _ESCAPED_QUERIES[is_junk],
    }
    return _VISIT_TEXTS[action % len(_TYPES)][_kind_of(who) if is_resolved else 0] % told


def _kind_of(who: int) -> int:
    return 2 if who % 4 == 0 else 1


def _known_of(who: int) -> dict[str, str | int]:
    """Return what fills the texts about a person; hashes are in the order of the addresses."""
    city, state, postcode = _CITIES[who % 3]
    return {
        "who": who,
        "uuid": f"{who:08x}-742b-5b12-afab-{who:012x}",
        "first_name": _FIRST_NAMES[who % 11],
        "last_name": _LAST_NAMES[who % 10],
        "gender": "FM"[who % 2],
        "age": _AGES[who % 5],
        "yes_no": "YN"[who % 2],
        "city": city,
        "state": state,
        "postcode": postcode,
        "phone": who % 100 + 100,
        "hash": _hash(f"person{who}@example.com"),
        "second_hash": _hash(f"p{who}@example.net"),
        "work_hash": _hash(f"person{who}@harbour.example.org"),
    }


def _hash(address: str) -> str:
    return sha256(address.encode()).hexdigest()
