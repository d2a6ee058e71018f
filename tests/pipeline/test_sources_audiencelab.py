"""AudienceLab's three sources: every envelope, every spelling, and which sighting is the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from hashlib import sha256
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.outcomes import (
    Ignored,
    Invalid,
    Outcome,
    Person,
    Probe,
    Reason,
    Stage,
    Unreadable,
    VisitorEvent,
)
from pipeline.sources import Malformed, Rules, Source
from pipeline.sources.audiencelab import AUDIENCE, PIXEL, WORKFLOW
from pipeline.sources.audiencelab_columns import COLUMNS, tells_of_events
from pipeline.sources.audiencelab_envelopes import ENVELOPES, TEST_JOB, TEST_PERSONA
from pipeline.sources.audiencelab_values import instant, spell, text
from sandbox.invented import v3_event, visit
from tests.pipeline.sample_outcomes import NOW, delivery, samples

SOURCES: dict[str, Source] = {source.name: source for source in (PIXEL, AUDIENCE, WORKFLOW)}


def parse(body: object, source: Source = PIXEL) -> list[Outcome]:
    """Take *body* apart, as `unpack` does."""
    return source.parse(delivery(source.name, body), Rules(), NOW)


def visitors(body: object) -> list[VisitorEvent]:
    """Return the visitor events of a body that holds nothing else."""
    found = parse(body)
    events = [outcome for outcome in found if isinstance(outcome, VisitorEvent)]
    assert len(events) == len(found)
    return events


def person(columns: dict[str, object]) -> Person:
    """Return the one person whom *columns* resolve to."""
    (event,) = visitors({"events": [action(resolution={"UUID": "u-1", **columns})]})
    return event.person


def action(**changes: object) -> dict[str, object]:
    """Return one pixel event of somebody, with *changes*."""
    event: dict[str, object] = {
        "pixel_id": "0f0f0f0f-1111-4222-8333-444455556666",
        "hem_sha256": hashed("ines@example.com"),
        "event_timestamp": "2026-03-04T05:06:07Z",
        "event_type": "click",
        "event_data": {"timestamp": "2026-03-04T05:06:07.089Z", "url": "https://example.com/a?b=c"},
        "resolution": {"UUID": "7b0c6f3e-0000-5000-8000-000000000001", "FIRST_NAME": "Ines"},
    }
    return {**event, **changes}


def listing(**changes: object) -> dict[str, object]:
    """Return one row of an audience, with *changes*."""
    row: dict[str, object] = {
        "UUID": "u-7",
        "FIRST_NAME": "Otto",
        "BUSINESS_EMAIL": "o@example.com",
    }
    return {**row, **changes}


def hashed(address: str) -> str:
    """Return the SHA-256 of an address that is lower-case already."""
    return sha256(address.encode()).hexdigest()


def fingerprint(body: object) -> str:
    """Return the fingerprint of the body's only event."""
    (event,) = visitors(body)
    return event.fingerprint


def shown(outcome: Outcome) -> dict[str, Any]:
    """Return *outcome* as the samples expect it: what is set, without the fingerprint."""
    if isinstance(outcome, Ignored):
        return {"ignored": outcome.why}
    if isinstance(outcome, Invalid):
        return {"invalid": outcome.error}
    assert isinstance(outcome, VisitorEvent)
    return {**_set(replace(outcome, fingerprint="")), "person": _set(outcome.person)}


def _set(value: VisitorEvent | Person) -> dict[str, Any]:
    return {f.name: got for f in fields(value) if (got := getattr(value, f.name))}


def verdict(body: object, source: Source) -> object:
    """Return the outcomes of *body*, or the word for its end as a whole."""
    try:
        return [shown(outcome) for outcome in parse(body, source)]
    except Probe:
        return "probe"
    except Unreadable as unreadable:
        return unreadable.reason.value


@pytest.mark.parametrize("sent_to", SOURCES)
@pytest.mark.parametrize("sample", [*samples("pixel"), *samples("audience"), *samples("workflow")])
def test_a_sample_gives_what_it_expects_in_each_of_the_three_hooks(
    sample: dict[str, Any], sent_to: str
) -> None:
    """Every sample gives exactly what stands beside it, wherever its URL was pasted."""
    assert verdict(sample["body"], SOURCES[sent_to]) == sample["expect"]


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_a_source_answers_202_and_takes_everything_that_is_json(source: Source) -> None:
    """There is no signature: JSON has the form, an empty body is a probe, the rest is malformed."""
    assert (source.success, source.keeps_headers) == (202, frozenset())
    source.verify({"x-audiencelab-signature": "sha256=00"}, b"{}", {}, NOW)
    for body in (b"", b" \n", b"{}", b"[1]", b'"x"'):
        source.check(body, "text/plain")
    with pytest.raises(Malformed):
        source.check(b"event=page_view", "application/x-www-form-urlencoded")


@pytest.mark.parametrize(
    "body", [b"", b"\r\n", {}, [], {"test": True}, {"ping": True}, {"test": True, "ping": 1}]
)
def test_a_reachability_probe_is_a_probe(body: object) -> None:
    """Bodies that only ask whether somebody is there carry no event and are no error."""
    with pytest.raises(Probe):
        parse(body)


@pytest.mark.parametrize(
    "body",
    [
        {"events": [action(resolution={"UUID": TEST_PERSONA, "FIRST_NAME": "Jane"})]},
        {"job_id": TEST_JOB, "result": [listing(), listing(UUID="u-8")]},
        {"payload": {"job_id": TEST_JOB, "result": [listing()]}},
        {"events": [{"event_type": "test", "test": True, "pixel_id": "p"}]},
        [{"UUID": TEST_PERSONA}, {"event": "test"}],
    ],
)
def test_a_test_button_is_a_probe(body: object) -> None:
    """The test persona, the test job or the type `test` in every row: the vendor's own test."""
    with pytest.raises(Probe):
        parse(body)


def test_a_test_persona_among_visitors_is_ignored_alone() -> None:
    """Real events beside a test row are kept."""
    found = parse([action(), action(resolution={"UUID": TEST_PERSONA}), action()])
    assert [type(one) for one in found] == [VisitorEvent, Ignored, VisitorEvent]
    assert found[1] == Ignored(Stage.ENRICH, "test")


def test_the_samples_pixel_id_and_time_alone_are_no_test() -> None:
    """Documentation and other people's examples use them with other persons."""
    sample = {"pixel_id": "003daacb-d261-421c-9781-311df9c381d8"}
    (event,) = visitors(action(**sample, event_timestamp="2025-05-29T23:52:53Z"))
    assert event.seen_at == "2025-05-29T23:52:53Z"


@pytest.mark.parametrize("key", ["events", "result", "visitors", "data"])
@pytest.mark.parametrize("empty", [[], None])
def test_an_envelope_with_nothing_in_it_is_taken_apart_into_nothing(
    key: str, empty: object
) -> None:
    """An empty window is no error; a sender written in Go spells it null."""
    assert parse({"job_id": "j", "pixel_id": "p", key: empty}) == []


@pytest.mark.parametrize(
    "body",
    [
        1,
        "text",
        None,
        True,
        {"uid": "u_1", "hem": "0" * 32, "cookie_ids": ["c"], "maids": ["m"]},
        {"data": [{"id": "1", "name": "Job", "status": "COMPLETED", "csv_url": "gs://b/f"}]},
        {"jobId": "1", "status": "IN_QUEUE"},
        {"events": "none"},
        {"payload": {"data": [{"plan": "pro"}]}},
        {"timestamp": "2026-01-01T00:00:00Z", "url": "https://example.com"},
    ],
)
def test_a_body_without_any_event_is_of_unknown_shape(body: object) -> None:
    """Readable, but nothing in it is an event or a person: one dead letter for the whole."""
    with pytest.raises(Unreadable) as caught:
        parse(body)
    assert caught.value.reason is Reason.UNKNOWN_SHAPE


@pytest.mark.parametrize(
    ("body", "payloads"),
    [
        ([1, "two", None], [b"1", b'"two"', b"null"]),
        ([{}], [b"{}"]),
        ([[{"UUID": "u"}]], [b'[{"UUID":"u"}]']),
        ({"events": [5]}, [b"5"]),
        ({"events": [{"plan": 1}, {"plan": 2}]}, [b'{"plan":1}', b'{"plan":2}']),
        ({"payload": {"job_id": "j", "result": [{"plan": 1}]}}, [b'{"plan":1}']),
        ({"client_key": "c", "visitors": [[]]}, [b"[]"]),
    ],
)
def test_wrong_events_are_wrong_one_by_one_also_without_a_right_one(
    body: object, payloads: list[bytes]
) -> None:
    """An array, or a list that is named for events, is readable: what is wrong in it is wrong in `enrich`."""
    found = parse(body)
    assert [one.payload for one in found if isinstance(one, Invalid)] == payloads
    assert {one.stage for one in found if isinstance(one, Invalid)} == {Stage.ENRICH}
    assert len(found) == len(payloads)


def test_a_list_that_an_event_has_is_no_envelope() -> None:
    """Texts under `events` beside a person are a column that nobody knows, and the person is kept."""
    (event,) = visitors({"UUID": "u-1", "events": ["opened", "clicked"]})
    assert event.person.uuid == "u-1"


def test_what_is_not_an_event_is_buried_alone_with_its_own_json() -> None:
    """One wrong item does not take the good ones with it."""
    found = parse({"events": [action(), 5, action(), {"plan": ["pro"]}]})
    assert [type(one) for one in found] == [VisitorEvent, Invalid, VisitorEvent, Invalid]
    assert found[1] == Invalid(Stage.ENRICH, "not an object", b"5")
    assert isinstance(found[3], Invalid)
    assert orjson.loads(found[3].payload) == {"plan": ["pro"]}


ENVELOPE_MAKERS: dict[str, Callable[[list[Any]], object]] = {
    "events": lambda rows: {"events": rows},
    "several deliveries": lambda rows: [{"events": [row]} for row in rows],
    "bare array": lambda rows: rows,
    "result": lambda rows: {"result": rows},
    "payload": lambda rows: {"payload": {"result": rows}},
    "segment page": lambda rows: {"segment_id": "s", "total_records": 2, "data": rows},
    "visitors": lambda rows: {"client_key": "c", "visitors": rows},
    "mixed": lambda rows: [{"visitor": rows[0]}, {"event": {"data": rows[1]}}],
}


@pytest.mark.parametrize("envelope", ENVELOPE_MAKERS)
def test_an_envelope_makes_no_difference(envelope: str) -> None:
    """The same rows in any envelope are the same sightings, fingerprints included."""
    rows = [action(), action(resolution={"UUID": "u-2"}, event_type="page_view")]
    assert parse(ENVELOPE_MAKERS[envelope](rows)) == parse({"events": rows})


def test_an_envelope_tells_its_rows_what_they_share() -> None:
    """Pixel and job beside a list are every row's; what the row says itself wins."""
    rows = [{"EDID": "e-1", "event_type": "click"}, {"EDID": "e-2", "pixel_id": "own"}]
    first, second = visitors({"pixel_id": "outer", "url": "https://example.com", "visitors": rows})
    assert (first.pixel_id, first.url, second.pixel_id) == ("outer", None, "own")


def test_two_lists_side_by_side_are_both_read() -> None:
    """Whoever sends `events` and `visitors` in one body gets all of them, in the lists' usual order."""
    later = action(event_type="page_view")
    first, wrong, second = parse({"visitors": [later], "events": [action(), "wrong"]})
    assert isinstance(wrong, Invalid)
    assert [first, second] == [*parse([action()]), *parse([later])]


def test_an_address_beside_a_visitor_is_not_the_visitors() -> None:
    """What stands around one person speaks of the event, never of the person."""
    (event,) = visitors(
        {"email": "agency@example.com", "event_type": "seen", "visitor": {"EMAIL": "v@example.com"}}
    )
    assert event.person.personal_emails == ["v@example.com"]
    assert event.event_type == "seen"


def test_an_event_with_a_key_that_names_an_envelope_stays_an_event() -> None:
    """Unknown `data` in a person is ignored, not mistaken for the event."""
    (event,) = visitors({"email": "a@example.com", "data": {"plan": "pro"}, "result": []})
    assert event.person.personal_emails == ["a@example.com"]
    assert len(visitors({"hem_sha256": hashed("a@example.com"), "data": None})) == 1


def test_a_resolution_of_several_people_is_several_sightings() -> None:
    """An array as resolution lists people of one action, objects or their JSON text."""
    people = [{"UUID": "u-1"}, '{"UUID": "u-2"}', 5]
    first, second = visitors(action(resolution=people))
    assert (first.person.uuid, second.person.uuid) == ("u-1", "u-2")
    assert first.fingerprint != second.fingerprint


@pytest.mark.parametrize(
    "nobody",
    [
        {},
        {"FIRST_NAME": "Ann"},
        {"UUID": "", "EDID": "null", "PERSONAL_EMAILS": "{{PERSONAL_EMAILS}}"},
        {"PERSONAL_EMAILS": "n/a, @example.com"},
        {"COMPANY_PHONE": "+12025550100", "PERSONAL_PHONE": "n/a"},
        {"SHA256_PERSONAL_EMAIL": "xyz789"},
        {"hem": "d41d8cd98f00b204e9800998ecf8427e", "uuid": "an importer's row"},
    ],
)
def test_an_event_that_identifies_nobody_is_ignored(nobody: dict[str, object]) -> None:
    """Neither an id nor a hash, address or phone of a person: counted, nothing else."""
    event = action(hem_sha256="abc123", resolution=nobody)
    assert parse(event) == [Ignored(Stage.ENRICH, "anonymous")]


@pytest.mark.parametrize(
    "somebody",
    [
        {"UUID": "opaque"},
        {"edid": "e-1"},
        {"HEM_SHA256": hashed("a@example.com").upper()},
        {"SHA256_BUSINESS_EMAIL": hashed("a@example.com")},
        {"DEEP_VERIFIED_EMAILS": "a@example.com"},
        {"ALL_MOBILES": "+12025550100"},
        {"email_raw": "A@example.com "},
    ],
)
def test_any_one_identity_is_enough(somebody: dict[str, object]) -> None:
    """Each of these alone makes a visitor."""
    assert len(visitors({"event_type": "click", **somebody})) == 1


@pytest.mark.parametrize("unknown", ["", " ", "null", None, "{{ANY}}", "{{ event.data.x }}"])
def test_an_unknown_value_is_absent(unknown: object) -> None:
    """The four spellings of unknown never become a fact."""
    names = [name for name, column in COLUMNS.items() if column.says_who and name != "UUID"]
    assert person(dict.fromkeys(names, unknown)) == replace(
        person({}), fields={}, personal_emails=[]
    )


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (0, "0"),
        (11.5, "11.5"),
        (True, "true"),
        (["a", 1], '["a",1]'),
        ({"b": 1, "a": 2}, '{"a":2,"b":1}'),
        ([], None),
    ],
)
def test_a_value_that_is_no_string_becomes_one(value: object, kept: str | None) -> None:
    """The wire is text; what is not is told as text, the same for equal values."""
    assert text(value) == kept


MULTI_VALUE = [
    "BUSINESS_EMAIL",
    "PERSONAL_EMAILS",
    "PERSONAL_VERIFIED_EMAILS",
    "BUSINESS_VERIFIED_EMAILS",
    "DEEP_VERIFIED_EMAILS",
    "SHA256_PERSONAL_EMAIL",
    "SHA256_BUSINESS_EMAIL",
    "DIRECT_NUMBER",
    "MOBILE_PHONE",
    "PERSONAL_PHONE",
    "COMPANY_PHONE",
    "VALID_PHONES",
    "COMPANY_SIC",
    "COMPANY_NAICS",
    "SKILLS",
    "DIRECT_NUMBER_DNC",
    "MOBILE_PHONE_DNC",
    "PERSONAL_PHONE_DNC",
    "SKIPTRACE_DNC",
    "ALL_LANDLINES",
    "LANDLINE_DNC",
]


@pytest.mark.parametrize("column", MULTI_VALUE)
@pytest.mark.parametrize("value", ["x, y", "x,y", "x,  y", ["x", "y"]])
def test_a_multi_value_column_is_split_at_its_commas(column: str, value: object) -> None:
    """Exactly these columns hold several values in one string."""
    assert person({column: value}).fields[column] == ["x", "y"]


def test_no_other_column_is_ever_split() -> None:
    """A comma belongs to a company's name, an income range, a headline, and all the others."""
    whole = "Acme, Inc., $75,000 to $99,999"
    kept = person(dict.fromkeys(COLUMNS, whole)).fields
    assert {value for value in kept.values() if isinstance(value, str)} == {whole}
    split = {name for name, value in kept.items() if isinstance(value, list)}
    assert split == set(MULTI_VALUE)


def test_phones_and_their_do_not_call_flags_stay_side_by_side() -> None:
    """A gap in one of the two lists must not move a number to its neighbour's permission."""
    found = person({"MOBILE_PHONE": "+12025550101, , +12025550103", "MOBILE_PHONE_DNC": "Y,null,N"})
    assert found.fields["MOBILE_PHONE"] == ["+12025550101", "", "+12025550103"]
    assert found.fields["MOBILE_PHONE_DNC"] == ["Y", "", "N"]
    assert found.phones == ["+12025550101", "+12025550103"]


def test_addresses_are_lowered_once_each_and_only_plausible() -> None:
    """The vendor's order is kept; what is no address stays a field and nothing else."""
    found = person({"PERSONAL_EMAILS": "B@Example.com, n/a, a@example.com ,b@example.com"})
    assert found.personal_emails == ["b@example.com", "a@example.com"]
    assert found.fields["PERSONAL_EMAILS"] == [
        "B@Example.com",
        "n/a",
        "a@example.com",
        "b@example.com",
    ]


def test_hashes_are_those_of_addresses_not_told() -> None:
    """The hash of a known address says nothing new; the others, the HEM included, do."""
    told, untold, hem = (hashed(f"{name}@example.com") for name in ("told", "untold", "hem"))
    columns = {
        "BUSINESS_VERIFIED_EMAILS": "told@example.com",
        "SHA256_PERSONAL_EMAIL": f"{told}, {untold.upper()}, xyz789",
        "PERSONAL_EMAILS": told,
    }
    (event,) = visitors(action(hem_sha256=hem, resolution=columns))
    assert event.person.hashes == [untold, hem]
    assert event.person.verified_emails == ["told@example.com"]


def test_a_fact_has_one_name_whatever_its_spelling() -> None:
    """Old, new, singular, plural and lower-case names end under the same name."""
    found = person(
        {
            "first_name": "Ida",
            "STATE": "TX",
            "Zip": "01234",
            "INDIVIDUAL_LINKEDIN_URL": "https://example.com/ida",
            "ALL_MOBILES": "+12025550101",
            "company": "Acme, LLC",
            "unheard_of": "x",
        }
    )
    assert found.fields == {
        "FIRST_NAME": "Ida",
        "PERSONAL_STATE": "TX",
        "PERSONAL_ZIP": "01234",
        "LINKEDIN_URL": "https://example.com/ida",
        "MOBILE_PHONE": ["+12025550101"],
        "COMPANY_NAME": "Acme, LLC",
    }


def test_of_two_spellings_the_better_wins_and_addresses_add_up() -> None:
    """Which key comes first in the body makes no difference."""
    columns: dict[str, object] = {
        "email": "c@example.com",
        "PERSONAL_EMAIL": "b@example.com",
        "PERSONAL_EMAILS": "a@example.com, b@example.com",
        "STATE": "NJ",
        "PERSONAL_STATE": "TX",
    }
    found = person(columns)
    assert found.personal_emails == ["a@example.com", "b@example.com", "c@example.com"]
    assert found.fields["PERSONAL_STATE"] == "TX"
    assert person(dict(reversed(columns.items()))) == found


def test_what_happened_is_cut_and_cleaned() -> None:
    """A direct visit has no referrer; long texts end at 2 048 characters."""
    (event,) = visitors(
        action(event_data={"url": "u" * 3000, "title": "t" * 3000, "referrer": "$direct"})
    )
    assert (len(event.url or ""), len(event.title or ""), event.referrer) == (2048, 2048, None)


@pytest.mark.parametrize("data", [{"url": "https://example.com/a"}, {}, None])
def test_the_referrer_url_of_v3_is_the_sites_own_address(data: object) -> None:
    """It names a type and a UUID, and `event_data` may be null."""
    found = visitors(action(referrer_url="https://example.com/", event_data=data))[0]
    assert found.referrer is None


def test_the_referrer_url_of_v4_is_the_referrer() -> None:
    """It has neither `event_data` nor a type, and an EDID in place of the UUID."""
    event = action(
        referrer_url="https://example.net/", edid="e-1", resolution={"FIRST_NAME": "Ines"}
    )
    del event["event_data"], event["event_type"]
    assert visitors(event)[0].referrer == "https://example.net/"


@pytest.mark.parametrize(
    "event",
    [
        {"event_type": "segment_enter", "event_timestamp": "2026-03-04T05:06:07Z"},
        {"data": {"url": "https://example.com/a", "pixel_id": "p"}, "timestamp": "2026-03-04"},
    ],
)
def test_who_stands_beside_what_happened_is_who_it_happened_to(event: dict[str, object]) -> None:
    """A workflow's template may put the event into an object of its own and the person around it."""
    found = visitors({"event": event, "email": "ines@example.com", "first_name": "Ines"})[0]
    assert found.person.personal_emails == ["ines@example.com"]
    assert found.person.fields["FIRST_NAME"] == "Ines"


def test_who_stands_beside_a_visitor_is_somebody_else() -> None:
    """The `email` next to the object of a visitor is the agency's."""
    told = {"visitor": {"UUID": "u-1", "FIRST_NAME": "Ines"}, "email": "agency@example.com"}
    assert visitors(told)[0].person.personal_emails == []


@pytest.mark.parametrize(
    ("value", "seen_at"),
    [
        ("2026-03-04T05:06:07Z", "2026-03-04T05:06:07Z"),
        ("2026-03-04T05:06:07.000Z", "2026-03-04T05:06:07Z"),
        ("2026-03-04T07:06:07+02:00", "2026-03-04T05:06:07Z"),
        ("2026-03-04 05:06:07", "2026-03-04T05:06:07Z"),
        ("1754640000", "2025-08-08T08:00:00Z"),
        (1754640000123, "2025-08-08T08:00:00.123000Z"),
        ("0001-01-01T00:00:00+14:00", None),
        ("yesterday", None),
        ("20260304", None),
        (True, None),
        ({}, None),
    ],
)
def test_a_time_has_one_spelling(value: object, seen_at: str | None) -> None:
    """ISO-8601 and Unix times, numbers or text, are told in UTC; anything else is no time."""
    time = instant(value)
    assert (spell(time) if time else None) == seen_at


REPEATS: dict[str, Callable[[dict[str, Any]], dict[str, object]]] = {
    "keys in another order": lambda event: dict(reversed(event.items())),
    "event_data as text": lambda event: {**event, "event_data": orjson.dumps(event["event_data"])},
    "resolution as text": lambda event: {**event, "resolution": orjson.dumps(event["resolution"])},
    "an importer's fields": lambda event: {**event, "uuid": "r-1", "import_hash": "ff"},
    "another spelling of the time": lambda event: {
        **event,
        "event_timestamp": "2026-03-04 05:06:07",
    },
    "a richer resolution": lambda event: {
        **event,
        "resolution": {
            **event["resolution"],
            "LAST_NAME": "New",
            "PERSONAL_EMAILS": "n@example.com",
        },
    },
    "a segment row": lambda event: {
        "PIXEL_ID": event["pixel_id"],
        "HEM_SHA256": event["hem_sha256"].upper(),
        "EVENT_TIMESTAMP": event["event_timestamp"],
        "EVENT_TYPE": event["event_type"],
        "EVENT_DATA": orjson.dumps(event["event_data"]).decode(),
        "URL": event["event_data"]["url"],
        **event["resolution"],
    },
    "the same instant at another offset": lambda event: {
        **event,
        "event_data": {**event["event_data"], "timestamp": "2026-03-04T06:06:07.089000+01:00"},
    },
}


@pytest.mark.parametrize("repeat", REPEATS)
def test_an_action_sent_again_in_other_bytes_is_recognised(repeat: str) -> None:
    """A window that is sent again is never byte-identical."""
    again = REPEATS[repeat](action())
    texts = {key: v.decode() if isinstance(v, bytes) else v for key, v in again.items()}
    assert fingerprint(texts) == fingerprint(action())


@pytest.mark.parametrize(
    "change",
    [
        {"resolution": {"UUID": "somebody else of the same click"}},
        {"hem_sha256": hashed("other@example.com")},
        {"pixel_id": "another"},
        {"event_type": "page_view"},
        {
            "event_data": {
                "timestamp": "2026-03-04T05:06:07.090Z",
                "url": "https://example.com/a?b=c",
            }
        },
        {"event_data": {"timestamp": "2026-03-04T05:06:07.089Z", "url": "https://example.com/"}},
    ],
)
def test_another_action_or_another_person_is_told_apart(change: dict[str, object]) -> None:
    """Pixel, type, millisecond, page, HEM and person: each of the six counts."""
    assert fingerprint(action(**change)) != fingerprint(action())


def test_people_without_any_id_are_told_apart_by_their_address() -> None:
    """An authentication event names its person by nothing but the address."""
    nameless = action(hem_sha256="", resolution=None)
    first, second = (
        fingerprint({**nameless, "email_raw": f"{name}@example.com"}) for name in ("a", "b")
    )
    assert first != second


def test_values_cannot_forge_a_boundary() -> None:
    """Moving text from one part of the key to the next makes another key."""
    assert fingerprint(action(pixel_id="a", event_type="b,c")) != fingerprint(
        action(pixel_id="a,b", event_type="c")
    )


def test_a_listing_is_seen_again_only_with_the_same_job_and_facts() -> None:
    """A chunk sent twice is a repetition; a refresh, or any changed fact, is news."""
    chunk = fingerprint({"job_id": "j-1", "result": [listing()]})
    reordered = dict(reversed(listing(SKIPTRACE_MATCH_SCORE="0", HEADLINE="").items()))
    scored = fingerprint({"job_id": "j-1", "result": [listing(SKIPTRACE_MATCH_SCORE=0)]})
    assert fingerprint({"result": [listing()], "job_id": "j-1"}) == chunk
    assert fingerprint({"job_id": "j-1", "result": [reordered]}) == scored
    assert fingerprint({"job_id": "j-2", "result": [listing()]}) != chunk
    assert fingerprint({"job_id": "j-1", "result": [listing(JOB_TITLE="Owner")]}) != chunk


def test_a_listing_without_a_job_is_known_by_its_facts() -> None:
    """A workflow row with unchanged facts is a repetition, with a changed one it is not."""
    assert fingerprint({"visitor": listing()}) == fingerprint([listing()])
    assert fingerprint(listing(PERSONAL_CITY="Ulm")) != fingerprint(listing())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(width=64) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
VALUES = JSON | st.sampled_from(
    [
        "a@example.com",
        "u-1, u-2",
        "{}",
        "[[]]",
        '{"UUID":"x"}',
        "9" * 13,
        "9999-12-31T23:59:59-14:00",
    ]
)
KEYS = st.sampled_from([*ENVELOPES, *COLUMNS, *(name.lower() for name in COLUMNS), "test", "other"])
BODIES = st.recursive(
    st.dictionaries(KEYS, VALUES, max_size=8) | VALUES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=10,
)


@given(BODIES)
def test_any_json_gives_outcomes_a_probe_or_unreadable(body: object) -> None:
    """Whatever the body holds: known outcomes, the same ones each time, or one of the two ends."""
    raw = orjson.dumps(body)
    first, second = (verdict(raw, PIXEL) for _ in range(2))
    assert first == second


@given(st.binary(max_size=60))
def test_any_bytes_are_malformed_in_both_places_or_in_neither(raw: bytes) -> None:
    """What `check` lets in, `parse` can read."""
    try:
        PIXEL.check(raw, "")
    except Malformed:
        with pytest.raises(Unreadable) as caught:
            parse(raw)
        assert caught.value.reason is Reason.MALFORMED
    else:
        assert verdict(raw, PIXEL) != Reason.MALFORMED.value


@pytest.mark.parametrize("key", ["payload", "resolution", "event_data", "FIRST_NAME", "event"])
def test_nesting_without_end_is_survived(key: str) -> None:
    """A thousand levels exhaust neither the stack nor the JSON writer."""
    opening = b'{"email":"a@example.com","' + key.encode() + b'":'
    assert verdict(opening + b"[" * 900 + b"]" * 900 + b"}", PIXEL)
    assert verdict(opening * 900 + b"1" + b"}" * 900, PIXEL)


def test_whole_answers_of_the_api_read_as_webhooks_do() -> None:
    """A segment's answer and a pixel's page, envelope and all, give the sightings of the same events by webhook."""
    events = [v3_event(n, "p") for n in range(30)]
    by_webhook = visitors({"events": events})
    about = {"total_records": 30, "page_size": 30, "page": 1, "total_pages": 1}
    assert visitors({**about, "events": events}) == by_webhook
    rows = [visit(n, "p") for n in range(30)]
    named = {"segment_id": "s", "segment_name": "All", "has_more": False}
    by_segment = visitors({**named, **about, "data": rows})
    assert [one.fingerprint for one in by_segment] == [one.fingerprint for one in by_webhook]
    assert [(one.seen_at, one.url) for one in by_segment] == [
        (o.seen_at, o.url) for o in by_webhook
    ]


def test_rows_tell_whether_something_happened() -> None:
    """A segment's columns may be there and empty: then its rows are people, not visits."""
    assert tells_of_events([{"UUID": "u"}, visit(0, "p")])
    assert not tells_of_events([{"UUID": "u", "EVENT_TYPE": "", "EVENT_DATA": None, "URL": "/a"}])
    assert not tells_of_events([])
