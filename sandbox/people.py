"""Invented people: whom AudienceLab's stand-in can find, and of whom the samples speak.

Nobody here exists: addresses under example.com, .net and .org, numbers 555-01xx. Rows carry the
columns of a pixel event's `resolution` (V3), hashes computed from the addresses, in their order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from uuid import NAMESPACE_URL, uuid5

from sandbox.addresses import hash_of

Row = dict[str, str]

# The columns of a real pixel row (V3, January 2026), in its own order.
_COLUMN_NAMES = """
    AGE_RANGE BUSINESS_EMAIL BUSINESS_VERIFIED_EMAILS CHILDREN COMPANY_ADDRESS COMPANY_CITY
    COMPANY_DESCRIPTION COMPANY_DOMAIN COMPANY_EMPLOYEE_COUNT COMPANY_INDUSTRY COMPANY_LINKEDIN_URL
    COMPANY_NAICS COMPANY_NAME COMPANY_NAME_HISTORY COMPANY_PHONE COMPANY_REVENUE COMPANY_SIC
    COMPANY_STATE COMPANY_ZIP DEPARTMENT DIRECT_NUMBER DIRECT_NUMBER_DNC EDUCATION_HISTORY
    FACEBOOK_URL FIRST_NAME GENDER HEADLINE HOMEOWNER INCOME_RANGE INFERRED_YEARS_EXPERIENCE
    INTERESTS JOB_TITLE JOB_TITLE_HISTORY LAST_NAME LINKEDIN_URL MARRIED MOBILE_PHONE
    MOBILE_PHONE_DNC NET_WORTH PERSONAL_ADDRESS PERSONAL_CITY PERSONAL_EMAILS PERSONAL_PHONE
    PERSONAL_PHONE_DNC PERSONAL_STATE PERSONAL_VERIFIED_EMAILS PERSONAL_ZIP PERSONAL_ZIP4
    SENIORITY_LEVEL SHA256_BUSINESS_EMAIL SHA256_PERSONAL_EMAIL SKILLS SKIPTRACE_ADDRESS
    SKIPTRACE_B2B_ADDRESS SKIPTRACE_B2B_PHONE SKIPTRACE_B2B_SOURCE SKIPTRACE_B2B_WEBSITE
    SKIPTRACE_CITY SKIPTRACE_CREDIT_RATING SKIPTRACE_DNC SKIPTRACE_ETHNIC_CODE SKIPTRACE_EXACT_AGE
    SKIPTRACE_IP SKIPTRACE_LANDLINE_NUMBERS SKIPTRACE_LANGUAGE_CODE SKIPTRACE_MATCH_SCORE
    SKIPTRACE_NAME SKIPTRACE_STATE SKIPTRACE_WIRELESS_NUMBERS SKIPTRACE_ZIP SOCIAL_CONNECTIONS
    TWITTER_URL UUID VALID_PHONES
"""
COLUMNS: tuple[str, ...] = tuple(_COLUMN_NAMES.split())


def _row(**known: str) -> Row:
    """Return a full row: what is *known*, its id and hashes, and "" for all else."""
    row = dict.fromkeys(COLUMNS, "") | known
    row["SHA256_PERSONAL_EMAIL"] = _hashes(row["PERSONAL_EMAILS"])
    row["SHA256_BUSINESS_EMAIL"] = _hashes(row["BUSINESS_EMAIL"])
    first = _split(row["PERSONAL_EMAILS"] or row["BUSINESS_EMAIL"])[0]
    row["UUID"] = str(uuid5(NAMESPACE_URL, f"mailto:{first}"))
    return row


def _split(value: str) -> list[str]:
    return [each for each in value.split(", ") if each]


def _hashes(value: str) -> str:
    return ", ".join(hash_of(each) for each in _split(value))


PEOPLE: tuple[Row, ...] = (
    _row(
        FIRST_NAME="Mara",
        LAST_NAME="Quill",
        GENDER="F",
        AGE_RANGE="35-44",
        HOMEOWNER="Y",
        MARRIED="Y",
        PERSONAL_CITY="Duluth",
        PERSONAL_STATE="MN",
        PERSONAL_ZIP="55802",
        PERSONAL_EMAILS="mara.quill@example.com, mquill81@example.net",
        PERSONAL_VERIFIED_EMAILS="mara.quill@example.com",
        BUSINESS_EMAIL="m.quill@harbour.example.org",
        BUSINESS_VERIFIED_EMAILS="m.quill@harbour.example.org",
        COMPANY_NAME="Harbour Lamps, LLC",
        COMPANY_DOMAIN="harbour.example.org",
        COMPANY_DESCRIPTION="Harbour Lamps makes lamps, shades, and switches for boats.",
        COMPANY_PHONE="+12185550110",
        JOB_TITLE="Head of Marketing",
        DEPARTMENT="Marketing",
        MOBILE_PHONE="+12185550101, +12185550102",
        MOBILE_PHONE_DNC="Y, N",
        DIRECT_NUMBER="+12185550101",
        DIRECT_NUMBER_DNC="Y",
        INCOME_RANGE="$75,000 to $99,999",
        SKILLS="copywriting, b2b sales",
    ),
    _row(
        FIRST_NAME="Tobias",
        LAST_NAME="Fenn",
        GENDER="M",
        AGE_RANGE="45-54",
        PERSONAL_CITY="Duluth",
        PERSONAL_STATE="MN",
        PERSONAL_ZIP="55802",
        PERSONAL_EMAILS="tobias.fenn@example.com",
        PERSONAL_VERIFIED_EMAILS="tobias.fenn@example.com",
        PERSONAL_PHONE="+12185550103",
        PERSONAL_PHONE_DNC="N",
        NET_WORTH="-$2,499 to $2,499",
    ),
    _row(
        FIRST_NAME="Ines",
        LAST_NAME="Okoro",
        GENDER="F",
        AGE_RANGE="25-34",
        PERSONAL_CITY="Tacoma",
        PERSONAL_STATE="WA",
        PERSONAL_EMAILS="ines.okoro@example.net, i.okoro@example.com",
        PERSONAL_VERIFIED_EMAILS="i.okoro@example.com",
        MOBILE_PHONE="+12535550104",
        MOBILE_PHONE_DNC="N",
        JOB_TITLE="Buyer",
        COMPANY_NAME="Pine & Salt, Inc.",
        COMPANY_DOMAIN="pine.example.com",
    ),
    # Known to the enrichment only: the pixel sample has nothing of her but a hash.
    _row(
        FIRST_NAME="Leonie",
        LAST_NAME="Marsh",
        GENDER="F",
        AGE_RANGE="55-64",
        PERSONAL_CITY="Bangor",
        PERSONAL_STATE="ME",
        PERSONAL_ZIP="4401",
        PERSONAL_EMAILS="leonie.marsh@example.org",
        PERSONAL_VERIFIED_EMAILS="leonie.marsh@example.org",
        PERSONAL_PHONE="+12075550105",
        PERSONAL_PHONE_DNC="N",
    ),
    # The audience sample gives him no verified address and no name; the enrichment does.
    _row(
        FIRST_NAME="Ravi",
        LAST_NAME="Holm",
        GENDER="M",
        PERSONAL_EMAILS="ravi.holm@example.com",
        PERSONAL_VERIFIED_EMAILS="ravi.holm@example.com",
        BUSINESS_EMAIL="ravi@solar.example.net",
        BUSINESS_VERIFIED_EMAILS="ravi@solar.example.net",
        DIRECT_NUMBER="+16025550106",
        DIRECT_NUMBER_DNC="N",
        COMPANY_NAME="Solar Roofs",
        COMPANY_DOMAIN="solar.example.net",
        JOB_TITLE="Founder",
    ),
    _row(
        FIRST_NAME="Greta",
        LAST_NAME="Lindqvist",
        GENDER="F",
        BUSINESS_EMAIL="greta@apparel.example.org",
        BUSINESS_VERIFIED_EMAILS="greta@apparel.example.org",
        COMPANY_NAME="Northern Apparel",
        COMPANY_DOMAIN="apparel.example.org",
        COMPANY_PHONE="+15035550107",
        JOB_TITLE="Founder",
    ),
)

_MAIL = ("PERSONAL_EMAILS", "BUSINESS_EMAIL")
_HASHED = ("SHA256_PERSONAL_EMAIL", "SHA256_BUSINESS_EMAIL")
_PHONES = ("MOBILE_PHONE", "PERSONAL_PHONE", "DIRECT_NUMBER", "VALID_PHONES")


def _digits(value: str) -> str:
    # With or without +1, with or without brackets: the last ten digits are the number.
    return re.sub(r"[^0-9]", "", value)[-10:]


def _lower(value: str) -> str:
    return value.strip().lower()


# Filter name -> the columns it looks into, and how both sides are brought to one form.
FILTERS: Mapping[str, tuple[tuple[str, ...], Callable[[str], str]]] = {
    "email": (_MAIL, _lower),
    "personal_email": (("PERSONAL_EMAILS",), _lower),
    "business_email": (("BUSINESS_EMAIL",), _lower),
    "sha256_personal_email": (("SHA256_PERSONAL_EMAIL",), _lower),
    "phone": (_PHONES, _digits),
    "first_name": (("FIRST_NAME",), _lower),
    "last_name": (("LAST_NAME",), _lower),
    "personal_city": (("PERSONAL_CITY",), _lower),
    "personal_state": (("PERSONAL_STATE",), _lower),
    "personal_zip": (("PERSONAL_ZIP",), _lower),
    "company_domain": (("COMPANY_DOMAIN",), _lower),
    "linkedin_url": (("LINKEDIN_URL",), _lower),
}


def is_known(address: str) -> bool:
    """Tell whether *address*, plain or hashed, is one of somebody in the table."""
    wanted = hash_of(address)
    return any(wanted in _split(row[column]) for row in PEOPLE for column in _HASHED)


def people_known_by(name: str, value: str) -> list[Row]:
    """Return the people whom the filter *name* finds by *value*."""
    columns, form = FILTERS[name]
    wanted = form(value)
    return [
        row
        for row in PEOPLE
        if any(form(each) == wanted for column in columns for each in _split(row[column]))
    ]


def people_matching(chosen: Mapping[str, str], *, any_will_do: bool) -> list[Row]:
    """Return the people who meet any, or all, of the filters *chosen*, in the table's order."""
    found = [
        {row["UUID"] for row in people_known_by(name, value)} for name, value in chosen.items()
    ]
    ids = set.union(*found) if any_will_do else set.intersection(*found)
    return [row for row in PEOPLE if row["UUID"] in ids]
