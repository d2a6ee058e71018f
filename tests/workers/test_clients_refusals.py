"""What every answer of a vendor that is not a success means, and what is kept of its words."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.clients.errors import (
    LONGEST_SENTENCE,
    CallFailed,
    Misconfigured,
    QuotaExceeded,
    Rejected,
    Throttled,
    Unavailable,
    UnknownField,
)
from workers.clients.messages import Answer, RateLimit
from workers.clients.refusals import (
    LONGEST_RETRY_AFTER_S,
    failure,
    reset_s,
    retry_after_s,
    words,
)

NOW = 1_700_000_000.0
HASH = "3f" * 32


def answer(status: int, body: str | bytes = b"", **headers: str) -> Answer:
    """Return an answer; `retry_after=…` becomes the header `retry-after`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, named, body.encode() if isinstance(body, str) else body)


def judge(given_answer: Answer, vendor: str = "AudiencePoint") -> CallFailed:
    """Return what the answer means for a call to `/events`."""
    return failure(
        given_answer,
        vendor,
        "/events",
        path_setting="AUDIENCEPOINT_EVENTS_PATH",
        now=lambda: NOW,
    )


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, '{"__type":"ProvisionedThroughputExceededException","message":"slow"}', Unavailable),
        (200, '{"errorMessage":"Task timed out after 29.00 seconds"}', Unavailable),
        (200, "<html><body>Sign in to the hotel network</body></html>", Unavailable),
        (200, "", Unavailable),
        (202, "{}", Unavailable),
        (204, "", Unavailable),
        (400, '{"__type":"ProvisionedThroughputExceededException","message":"slow"}', Throttled),
        (400, '{"__type":"com.amazon.coral#ThrottlingException"}', Throttled),
        (400, '{"__type":"SerializationException"}', Rejected),
        (400, '{"__type":["ThrottlingException"]}', Rejected),
        (301, "", Misconfigured),
        (307, '{"message":"elsewhere"}', Misconfigured),
        (400, '{"message":"Invalid request body"}', Rejected),
        (400, '{"error":{"code":"VALIDATION_ERROR","message":"no"}}', Rejected),
        (401, '{"message":"Unauthorized"}', Misconfigured),
        (402, '{"error":"no credits left"}', QuotaExceeded),
        (403, '{"message":"Forbidden"}', Misconfigured),
        (403, '{"message":"Missing Authentication Token"}', Misconfigured),
        (403, "<html>Request blocked.</html>", Misconfigured),
        (404, '{"message":"Not Found"}', Misconfigured),
        (405, '{"message":"Method Not Allowed"}', Misconfigured),
        (407, "", Unavailable),
        (408, "", Unavailable),
        (409, "", Rejected),
        (410, "", Misconfigured),
        (413, '{"message":"Request Too Long"}', Rejected),
        (415, '{"message":"Unsupported Media Type"}', Misconfigured),
        (422, '{"error":"bad filter","status":422}', Rejected),
        (425, "", Unavailable),
        (429, '{"message":"Too Many Requests"}', Throttled),
        (429, '{"message":"Limit Exceeded"}', QuotaExceeded),
        (429, '{"error":"Rate limit exceeded"}', Throttled),
        (429, "", Throttled),
        (500, '{"message":"Internal server error"}', Unavailable),
        (502, '{"message":"Internal server error"}', Unavailable),
        (503, '{"message":null}', Unavailable),
        (504, '{"message":"Endpoint request timed out"}', Unavailable),
        (520, "<html>cloud</html>", Unavailable),
    ],
)
def test_each_status_has_one_meaning(status: int, body: str, kind: type[CallFailed]) -> None:
    """The fate of work is decided by the kind of failure, so every known answer has exactly one."""
    found = judge(answer(status, body))
    assert type(found) is kind
    assert found.status == status


@pytest.mark.parametrize(
    ("status", "maybe"), [(200, True), (204, True), (504, True), (500, False), (400, False)]
)
def test_only_a_late_or_an_odd_success_may_have_been_stored(status: int, maybe: bool) -> None:
    """504 and a 200 without the keys may stand for stored work; a refusal does not."""
    assert judge(answer(status, "{}")).maybe_stored is maybe


@pytest.mark.parametrize(
    ("status", "maybe"),
    [
        *((200, True), (302, False), (400, False), (401, False), (404, False), (422, False)),
        *((429, False), (500, True), (502, True), (503, True), (504, True), (520, True)),
    ],
)
def test_a_change_that_ends_in_a_5xx_may_have_been_made(status: int, maybe: bool) -> None:
    """A 5xx may come after the thing was made or deleted: nobody is told that it was not."""
    found = failure(answer(status, "{}"), "AudienceLab", "/x", path_setting="X", changes=True)
    assert found.maybe_stored is maybe


@pytest.mark.parametrize(
    ("vendor", "setting"),
    [("AudiencePoint", "AUDIENCEPOINT_API_KEY"), ("AudienceLab", "AUDIENCELAB_API_KEY")],
)
@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_names_the_setting_of_that_key(vendor: str, setting: str, status: int) -> None:
    """Who reads that the key is refused also reads which setting holds it."""
    found = judge(answer(status, '{"message":"Forbidden"}'), vendor)
    assert setting in found.sentence
    assert "PATH" not in found.sentence


@pytest.mark.parametrize(
    "given_answer",
    [
        answer(403, '{"message":"Missing Authentication Token"}'),
        answer(403, "", x_amzn_errortype="MissingAuthenticationTokenException"),
        answer(404, '{"message":"Not Found"}'),
        answer(405),
    ],
)
def test_an_unknown_path_names_the_setting_of_the_path(given_answer: Answer) -> None:
    """API Gateway's "Missing Authentication Token" is about the path: the key is not blamed."""
    found = judge(given_answer)
    assert "AUDIENCEPOINT_EVENTS_PATH" in found.sentence
    assert "/events" in found.sentence
    assert "API_KEY" not in found.sentence


def test_a_quota_is_known_by_its_error_type_too() -> None:
    """A gateway with a template of its own still tells the quota from the rate by a header."""
    found = judge(answer(429, "later", x_amzn_errortype="LimitExceededException"))
    assert isinstance(found, QuotaExceeded)


def test_an_unknown_field_is_told_as_an_unknown_form() -> None:
    """AudienceLab's riddle about an unknown field is put in words that point at the request."""
    body = '{"error":"Malformed JSON/Unknown Field detected: <nil>"}'
    found = judge(answer(400, body), "AudienceLab")
    assert type(found) is UnknownField
    assert isinstance(found, Rejected)
    assert "does not know this form of request" in found.sentence
    assert "Unknown Field detected: <nil>" in found.sentence


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ('{"error":{"code":"NOT_FOUND","message":"gone","details":{}}}', "NOT_FOUND: gone"),
        ('{"error":{"message":"gone"}}', "gone"),
        ('{"error":"invalid filter field: COMPANY","status":400}', "invalid filter field: COMPANY"),
        ('{"message":"Invalid request body"}', "Invalid request body"),
        ('{"Message":"no"}', "no"),
        ('{"errorMessage":"no"}', "no"),
        ('{"status":"NOT_FOUND"}', "NOT_FOUND"),
        ('{"error":"' + "no " * 300 + '"}', ("no " * 300)[:500]),
        ('{"message":null}', '{"message":null}'),
        ('["no"]', '["no"]'),
        ("no\r\n\tand\x00 no", "no and no"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        ("", ""),
    ],
)
def test_the_vendors_own_words_are_found_in_every_shape(body: str | bytes, told: str) -> None:
    """Whatever shape the error has, its words are kept, on one line."""
    assert words(answer(400, body)) == told


@pytest.mark.parametrize(
    "secret",
    [
        "ana.lima@example.com",
        HASH,
        "+15555550142",
        "5555550142",
        "sk_live_0123456789abcdef",
        "349:" + "Ab3" * 13 + "x",
    ],
)
def test_what_a_vendor_echoes_of_people_and_keys_is_masked(secret: str) -> None:
    """A refusal that repeats an address, a hash, a number or a key does not bring it into logs."""
    for body in (f'{{"message":"bad value {secret} in it"}}', f"bad value {secret} in it"):
        said = judge(answer(400, body)).sentence
        assert secret not in said
        assert "bad value" in said


def test_a_sentence_is_cut_to_the_allowed_length() -> None:
    """Our words around the vendor's longest ones still fit into a dead letter."""
    assert len(judge(answer(400, "no " * 300)).sentence) == LONGEST_SENTENCE


def test_times_survive_masking() -> None:
    """The vendor's words about a time stay readable."""
    assert words(answer(400, '{"message":"bad 2026-01-31T10:11:12"}')) == "bad 2026-01-31T10:11:12"


def test_an_odd_success_is_not_quoted() -> None:
    """A 200 that is no error message may be about people: nothing of it is repeated."""
    found = judge(answer(200, '{"FIRST_NAME":"Ana","LAST_NAME":"Lima"}'), "AudienceLab")
    assert "Ana" not in found.sentence


@given(st.integers(100, 599), st.binary(max_size=2000) | st.text("é@.a ", max_size=2000))
def test_any_answer_becomes_a_short_sentence(status: int, body: str | bytes) -> None:
    """No answer, however odd, breaks the reading of it or makes a longer error than allowed."""
    found = judge(answer(status, body))
    assert 0 < len(found.sentence) <= LONGEST_SENTENCE


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 1.5 ", 1.5),
        ("0", 0.0),
        ("-5", 0.0),
        ("999999999", LONGEST_RETRY_AFTER_S),
        ("9" * 400, LONGEST_RETRY_AFTER_S),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW - 90, usegmt=True), 0.0),
        ("Fri, 31 Dec 2999 23:59:59 GMT", LONGEST_RETRY_AFTER_S),
        ("Tuesday, 14-Nov-23 22:14:20 GMT", 60.0),
        ("Tue, 14 Nov 2023 22:14:20 -0000", 60.0),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("1e3", None),
        ("\u0661\u0662", None),
        ("", None),
    ],
)
def test_retry_after_is_read_in_both_forms_and_kept_within_a_day(
    value: str, seconds: float | None
) -> None:
    """Seconds and dates are honoured; nonsense is no wish at all, and no wish stops us for days."""
    assert retry_after_s({"retry-after": value}, lambda: NOW) == seconds
    assert judge(answer(503, retry_after=value)).retry_after_s == seconds


def test_a_retry_date_is_read_against_the_answers_own_clock() -> None:
    """Where the vendor tells its time, a wrong clock on either side does not change the wait."""
    its_time = NOW + 7200
    said = {
        "retry-after": formatdate(its_time + 30, usegmt=True),
        "date": formatdate(its_time, usegmt=True),
    }
    assert retry_after_s(said, lambda: NOW) == 30.0


@given(st.text(max_size=40) | st.from_regex(r"\w{3}, \d+ Jan \d+ \d+:\d+:\d+ [+-]\d+"))
def test_no_retry_after_breaks_its_reading(value: str) -> None:
    """Any text at all gives either nothing or a number of seconds within a day."""
    seconds = retry_after_s({"retry-after": value}, lambda: NOW)
    assert seconds is None or 0.0 <= seconds <= LONGEST_RETRY_AFTER_S


@pytest.mark.parametrize(
    ("said", "limit"),
    [
        ({}, None),
        ({"x_ratelimit_limit": "soon"}, None),
        ({"x_ratelimit_limit": "-1", "x_ratelimit_reset": "nan"}, None),
        ({"x_ratelimit_limit": "60"}, RateLimit(60, None, None)),
        (
            {"x_ratelimit_limit": "60", "x_ratelimit_remaining": " 0 ", "x_ratelimit_reset": "1.5"},
            RateLimit(60, 0, 1.5),
        ),
    ],
)
def test_the_vendors_limits_are_read(said: dict[str, str], limit: RateLimit | None) -> None:
    """What it tells of its limits is there for who wants it; nonsense is as if not said."""
    assert answer(200, "{}", **said).rate_limit == limit


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("30", 30.0),
        ("0", 0.0),
        ("86400", 86400.0),
        (f"{NOW + 90:.0f}", 90.0),
        (f"{(NOW + 90) * 1000:.0f}", 90.0),
        (f"{NOW - 90:.0f}", 0.0),
        (f"{NOW - 7200:.0f}", None),
        (f"{NOW + 200_000:.0f}", None),
        ("200000", None),
        ("9" * 16, None),
        ("9" * 17, None),
        ("tomorrow", None),
    ],
)
def test_too_many_requests_wait_for_the_reset(reset: str, seconds: float | None) -> None:
    """Without `Retry-After` the reset tells when to go on, as seconds or as a time, if plausible."""
    slow = answer(429, "{}", x_ratelimit_reset=reset)
    assert reset_s(slow, lambda: NOW) == seconds
    assert judge(slow).retry_after_s == seconds


def test_the_reset_is_for_too_many_requests_only() -> None:
    """`Retry-After` is stronger, and services send the reset with every answer."""
    assert judge(answer(503, "{}", x_ratelimit_reset="30")).retry_after_s is None
    assert judge(answer(429, x_ratelimit_reset="30", retry_after="7")).retry_after_s == 7.0


def test_a_reset_is_read_against_the_answers_own_clock() -> None:
    """A wrong clock on either side does not change the wait."""
    its_time = NOW + 7200
    said = answer(
        429, date=formatdate(its_time, usegmt=True), x_ratelimit_reset=f"{its_time + 30:.0f}"
    )
    assert reset_s(said, lambda: NOW) == 30.0


def test_a_redirect_names_the_setting_of_the_address() -> None:
    """It is not followed, with our key in hand: the operator is told where to look."""
    found = failure(Answer(301, {}, b""), "AudienceLab", "/enrich", path_setting="X_PATH")
    assert "redirect" in found.sentence
    assert "AUDIENCELAB_BASE_URL" in found.sentence


@pytest.mark.parametrize(
    ("body", "came"),
    [
        ("<html>Sign in to the network of room 12</html>", "HTML, not JSON, from"),
        ("  <!doctype html><p>Sign in", "HTML, not JSON, from"),
        ('{"found":1,"result":[{"FIRST_NA', "JSON that breaks off from"),
        ("[]", "JSON of another shape, a list, from"),
        ("null", "JSON of another shape, null, from"),
        ('"Ana"', "JSON of another shape, a text, from"),
        ("7", "JSON of another shape, a single value, from"),
        ('{"FIRST_NAME":"Ana"}', "JSON without the expected keys from"),
        ("", "an empty body from"),
        ("OK, Ana", "a text, not JSON, from"),
    ],
)
def test_a_success_that_is_none_tells_what_came_from_where(body: str, came: str) -> None:
    """Who reads it learns what it was, who was asked and what to look at; nothing of it is quoted."""
    odd = Answer(200, {}, body.encode(), host="api.vendor.example:8443")
    said = judge(odd, "AudienceLab").sentence
    assert f"AudienceLab gave no usable answer, but {came} api.vendor.example:8443 (200)" in said
    assert "AUDIENCELAB_BASE_URL" in said
    assert "proxy" in said
    assert "Ana" not in said
    assert "room" not in said


def test_a_failure_that_is_passed_through_blames_no_proxy() -> None:
    """Where the service says in words what is wrong, these are told, and no setting is suspected."""
    said = judge(answer(200, '{"errorMessage":"Task timed out"}')).sentence
    assert '(200: "Task timed out")' in said
    assert "proxy" not in said


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("https://login.example.com/start?token=abc", "redirect to https://login.example.com ("),
        ("https://ana:secret@login.example.com:8443/", "to https://login.example.com:8443 ("),
        ("/elsewhere?email=ana@example.com", "redirect (302)"),
        ("https://[bad", "redirect (302)"),
        ("", "redirect (302)"),
    ],
)
def test_a_redirect_tells_to_which_host(location: str, told: str) -> None:
    """The host says whether it is a sign-in page or the service's new home; the rest may be secret."""
    said = judge(answer(302, "null", location=location)).sentence
    assert told in said
    assert "AUDIENCEPOINT_BASE_URL" in said
    assert not any(word in said for word in ("abc", "secret", "ana", "null"))


@pytest.mark.parametrize("status", [407, 511])
def test_a_proxy_that_wants_a_sign_in_is_named(status: int) -> None:
    """Neither status is the vendor's: the operator looks at the proxy, and the work waits."""
    found = judge(answer(status, "<p>sign in"))
    assert isinstance(found, Unavailable)
    assert "check HTTPS_PROXY" in found.sentence


@pytest.mark.parametrize(
    ("status", "body", "wait", "told"),
    [
        (429, '{"message":"Limit Exceeded"}', "120", "quota is used up for 120 s (429"),
        (429, '{"message":"Limit Exceeded"}', "1800", "quota is used up for 30 min (429"),
        (429, '{"message":"Limit Exceeded"}', "80000", "quota is used up for 23 h (429"),
        (429, '{"message":"Limit Exceeded"}', "", "quota is used up (429"),
        (429, "", "1.2", "asks for fewer requests, and to wait 2 s (429)"),
        (503, "", "7", "gave no usable answer, and asks to wait 7 s (503)"),
        (503, "", "", "gave no usable answer (503)"),
    ],
)
def test_the_time_that_is_asked_for_is_told(status: int, body: str, wait: str, told: str) -> None:
    """Who reads why work waits also reads for how long."""
    assert told in judge(answer(status, body, retry_after=wait)).sentence


def test_long_words_do_not_push_out_what_to_do() -> None:
    """A firewall's page is quoted as far as the setting to look at still has room."""
    said = judge(answer(403, "<p>" + "blocked " * 300)).sentence
    assert len(said) == LONGEST_SENTENCE
    assert said.endswith('…"): check AUDIENCEPOINT_API_KEY')


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ('{"message":"bad key my-secret-key-123"}', "bad key [key]"),
        ('{"error":"Authorization=Bearer my-secret-key-123, no"}', "Authorization=[key], no"),
        ("no https://relay.example.com/hooks/pixel/0123abc", "/hooks/pixel/[token]"),
    ],
)
def test_no_sentence_repeats_what_was_sent_as_a_key(body: str, kept: str) -> None:
    """A key of any shape is known by its being in our headers; a hook's address is one, too."""
    secrets = ("my-secret-key-123", "Bearer my-secret-key-123")
    sentence = words(Answer(400, {}, body.encode(), secrets))
    assert kept in sentence
    assert "my-secret" not in sentence
    assert "0123abc" not in sentence
