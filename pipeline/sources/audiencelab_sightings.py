"""From one row's columns to a visitor event: who, what, when, and how it is known when it returns.

What may go wrong is the fingerprint. AudienceLab sends a whole window again after a failure, in
other bytes, and one click arrives as several rows for several people: with too few facts in it
people are lost, with too many everybody is enriched twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

import orjson

from pipeline.addresses import digest
from pipeline.outcomes import Ignored, Person, Stage, VisitorEvent
from pipeline.sources.audiencelab_columns import Columns
from pipeline.sources.audiencelab_values import (
    addresses,
    hashes,
    instant,
    phones,
    spell,
    text,
)

VERIFIED = ("PERSONAL_VERIFIED_EMAILS", "BUSINESS_VERIFIED_EMAILS", "DEEP_VERIFIED_EMAILS")
HASHES = ("SHA256_PERSONAL_EMAIL", "SHA256_BUSINESS_EMAIL")
# COMPANY_PHONE is many people's number: it identifies nobody
PHONES = ("MOBILE_PHONE", "DIRECT_NUMBER", "PERSONAL_PHONE", "ALL_LANDLINES", "VALID_PHONES")
#: kept beside the fields, not among them
IDS = ("UUID", "EDID")
#: the vendor's documentation and its tracking options say one word, its wire another
EVENT_TYPES = {"idle_user": "user_idle", "all_clicks": "click"}
#: the longest URL that browsers agree on; titles and referrers are cut alike
LONGEST = 2048


def sighting(columns: Columns) -> VisitorEvent | Ignored:
    """Return the visitor event in *columns*, or that it shows nobody."""
    person = _person(columns)
    if not _first_identity(person):
        return Ignored(Stage.ENRICH, "anonymous")
    event = columns.event
    data = columns.objects.get("EVENT_DATA")
    details = data if isinstance(data, dict) else {}
    event_type = event.get("EVENT_TYPE")
    seen_at = instant(event.get("EVENT_TIMESTAMP")) or instant(details.get("timestamp"))
    url = text(details.get("url")) or event.get("URL")
    return VisitorEvent(
        person=person,
        fingerprint=_fingerprint(columns, person, _moment(event, details), url),
        seen_at=spell(seen_at) if seen_at else None,
        event_type=EVENT_TYPES.get(event_type, event_type) if event_type else None,
        url=_cut(url),
        title=_cut(text(details.get("title")) or event.get("PAGE_TITLE")),
        referrer=_cut(_referrer(event, details, person)),
        pixel_id=event.get("PIXEL_ID"),
    )


def _referrer(
    event: Mapping[str, str], details: Mapping[str, object], person: Person
) -> str | None:
    found = text(details.get("referrer")) or event.get("REFERRER")
    is_v3 = bool(details) or bool(person.uuid and event.get("EVENT_TYPE"))
    if found is None and not is_v3:
        # V3 writes the site's own address there; V4, which knows neither types nor UUIDs, the referrer
        found = event.get("REFERRER_URL")
    return None if found == "$direct" else found


def _cut(known: str | None) -> str | None:
    return known[:LONGEST] if known else None


def _person(columns: Columns) -> Person:
    found = columns.person
    personal_parts = _parts(found, "PERSONAL_EMAILS")
    if raw := columns.event.get("EMAIL_RAW"):
        personal_parts = [*personal_parts, raw]
    personal, business = addresses(personal_parts), addresses(_parts(found, "BUSINESS_EMAIL"))
    verified = addresses(_parts(found, *VERIFIED))
    hem = columns.event.get("HEM_SHA256")
    return Person(
        uuid=text(found.get("UUID")),
        edid=text(found.get("EDID")),
        hem_sha256=hem,
        personal_emails=personal,
        business_emails=business,
        verified_emails=verified,
        hashes=_unexplained([*personal, *business, *verified], found, personal_parts, hem),
        phones=phones(_parts(found, *PHONES)),
        fields={name: value for name, value in found.items() if name not in IDS},
    )


def _parts(found: Mapping[str, str | list[str]], *names: str) -> list[str]:
    return [part for name in names for part in found.get(name, ())]


def _unexplained(
    known: list[str],
    found: Mapping[str, str | list[str]],
    personal_parts: list[str],
    hem: str | None,
) -> list[str]:
    """Return the hashes of addresses not told to us, also those put where an address belongs."""
    parts = [*_parts(found, *HASHES), *personal_parts, *_parts(found, "BUSINESS_EMAIL", *VERIFIED)]
    all_hashes = hashes([*parts, hem] if hem else parts)
    if not all_hashes:
        return []
    explained = {digest(address) for address in set(known)}
    return [one for one in all_hashes if one not in explained]


def _first_identity(person: Person) -> str | None:
    """Return what tells *person* from others when there is no id, or the id; None for nobody."""
    return (
        person.uuid
        or person.edid
        or person.hem_sha256
        or next((one for known in _weaker(person) for one in known), None)
    )


def _weaker(person: Person) -> tuple[Sequence[str], ...]:
    told = (person.personal_emails, person.business_emails, person.verified_emails)
    return (*told, person.hashes, person.phones)


def _moment(event: Mapping[str, str], details: Mapping[str, object]) -> str | None:
    """Return the moment of the action, milliseconds if given: one spelling per instant."""
    for value in (details.get("timestamp"), event.get("EVENT_TIMESTAMP")):
        if time := instant(value):
            return spell(time)
    return text(details.get("timestamp")) or event.get("EVENT_TIMESTAMP")


def _fingerprint(columns: Columns, person: Person, moment: str | None, url: str | None) -> str:
    """Return what stays the same when the same sighting is sent again, in whatever bytes.

    An *action* (a moment, and a pixel, type or page) is told by these, the HEM and the person's id:
    two people of one click differ, and what a later resolution adds does not make it new.

    A *listing* (an audience or workflow row) has nothing that happened: there the facts about the
    person are the news. With the job id, so that each refresh of an audience counts as seen again;
    without one, a listing with unchanged facts is a repetition for as long as the seen window
    lasts, and any changed fact makes it new.
    """
    event = columns.event
    page = [event.get("PIXEL_ID"), event.get("EVENT_TYPE"), url]
    ids: list[object] = [person.hem_sha256, person.uuid or person.edid]
    if not any(ids):
        ids.append(_first_identity(person))
    if moment and any(page):
        return _digest(["action", moment, page, ids])
    facts = [person.fields, person.personal_emails]
    return _digest(["listing", event.get("JOB_ID"), moment, page, ids, facts])


def _digest(key: list[object]) -> str:
    # JSON keeps the parts apart whatever they hold; 16 bytes never collide by chance
    return blake2b(orjson.dumps(key, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()
