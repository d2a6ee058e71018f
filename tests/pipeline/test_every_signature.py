"""Signatures of every sender that signs: the true one is believed, whatever else a call holds is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sources import Unauthentic
from pipeline.sources.form_body import MULTIPART, URLENCODED
from pipeline.sources.registry import SECRETS, SOURCES
from tests.pipeline.mangled import ANY_JSON, mangled
from tests.pipeline.sample_outcomes import NOW
from tests.pipeline.sender_facts import IN_PARTS, JSON
from tests.pipeline.signers import KEY, SIGNERS, verify

_UNSIGNED = [name for name in SOURCES if name not in SECRETS]
_EVERY_SECRET = {name: "x" for names in SECRETS.values() for name in names}
_HEADERS = [(source, name) for source, it in SIGNERS.items() for name in it.sign(KEY).signed]
_SIGNED_BODIES = [source for source, signer in SIGNERS.items() if signer.signs_body]
_HEX = [source for source, signer in SIGNERS.items() if signer.is_hex]
_DAY_S = 86_400

_TAMPERED: dict[str, Callable[[str], str]] = {
    "empty": lambda good: "",
    "blank": lambda good: "  ",
    "neither hex nor base64": lambda good: "%%%",
    "not hex": lambda good: "zz" + good[2:],
    "not ASCII": lambda good: good[:-1] + "é\u0130",
    "no text": lambda good: "\udcff",
    "no ASCII at all": lambda good: "é" * len(good),
    "cut by one": lambda good: good[:-1],
    "cut by four": lambda good: good[:-4],
    "longer": lambda good: good + "0",
    "prefixed": lambda good: "sha256=" + good,
    "turned": lambda good: good[::-1],
    "endless": lambda good: good * 200,
    "another, endless": lambda good: "A" * 9000,
}
_ALTERED: dict[str, Callable[[bytes], bytes]] = {
    "flipped": lambda good: good.replace(b"e", b"E", 1),
    "last byte lost": lambda good: good[:-1],
    "line break lost": lambda good: good.rstrip(b"\r\n") or b"?",
    "longer": lambda good: good + b"+",
    "empty": lambda good: b"",
    "no text": lambda good: b"\xff",
}


def test_every_sender_that_signs_is_held_to_it() -> None:
    """A sender with a secret that is new in the registry has to say here how it signs."""
    assert set(SIGNERS) == set(SECRETS) - {"ses"}
    for source, signer in SIGNERS.items():
        assert {signer.setting, *signer.beside} == set(SECRETS[source])


@pytest.mark.parametrize("source", SECRETS)
def test_without_a_secret_everything_is_accepted(source: str) -> None:
    """A sender whose secret is not set, or set to nothing, is believed by its token alone."""
    nothing = dict.fromkeys(SECRETS[source], "")
    for body in (b"{}", b"anything", b""):
        for headers in ({}, {"signature": "false", "mailtrap-signature": "false"}):
            SOURCES[source].verify(headers, body, {}, NOW)
            SOURCES[source].verify(headers, body, nothing, NOW)


@pytest.mark.parametrize("source", _UNSIGNED)
@settings(max_examples=20, deadline=None)
@given(headers=st.dictionaries(st.text(), st.text()), body=st.binary(max_size=20))
def test_who_does_not_sign_is_believed_by_the_token_alone(
    source: str, headers: dict[str, str], body: bytes
) -> None:
    """Whatever headers and body hold, and whatever secrets of others are set: the door has judged the token."""
    for secrets in ({}, _EVERY_SECRET):
        SOURCES[source].verify({**headers, "authorization": "\udcff"}, body, secrets, NOW)


@pytest.mark.parametrize("source", SIGNERS)
def test_a_true_signature_is_accepted(source: str) -> None:
    """Also where the setting was pasted with white space, and when it comes a second time."""
    signer = SIGNERS[source]
    call = signer.sign(KEY)
    for setting in (None, f" {signer.secret(KEY)}\n", None):
        verify(source, {**call.signed, **call.others}, call.body, setting)


@pytest.mark.parametrize("source", _HEX)
def test_a_hexadecimal_signature_may_be_written_in_either_case(source: str) -> None:
    """Capital letters are the same digits, and white space around them is none."""
    call = SIGNERS[source].sign(KEY)
    (name, good) = next(iter(call.signed.items()))
    for written in (good.upper(), f"  {good} "):
        verify(source, {**call.signed, **call.others, name: written}, call.body)


@pytest.mark.parametrize("source", SIGNERS)
def test_a_signature_counts_as_long_as_its_sender_repeats_it(source: str) -> None:
    """Where an age is judged it is to the second, into the past and the future; elsewhere none is too old."""
    lasts_s = SIGNERS[source].lasts_s
    call = SIGNERS[source].sign(KEY)
    headers = {**call.signed, **call.others}
    for age_s in (0, lasts_s, -lasts_s) if lasts_s else (0, 3_600, 6 * 365 * _DAY_S, -_DAY_S):
        verify(source, headers, call.body, now=NOW + age_s)
    for age_s in (lasts_s + 1, -lasts_s - 1, 2 * lasts_s) if lasts_s else ():
        with pytest.raises(Unauthentic):
            verify(source, headers, call.body, now=NOW + age_s)


@pytest.mark.parametrize("source", SIGNERS)
def test_while_the_key_is_changed_either_is_believed(source: str) -> None:
    """Several keys may be set, with commas and white space between; a call that none of them signed is refused."""
    signer = SIGNERS[source]
    new, old = signer.secret("new"), signer.secret("old")
    for setting in (f"{old},{new}", f" {new} , {old}\n"):
        for key in ("new", "old"):
            call = signer.sign(key)
            verify(source, {**call.signed, **call.others}, call.body, setting)
        call = signer.sign("last")
        with pytest.raises(Unauthentic):
            verify(source, {**call.signed, **call.others}, call.body, setting)


@pytest.mark.parametrize("source", SIGNERS)
@pytest.mark.parametrize("setting", [",", " , ", "é", "\udcff", "another"])
def test_with_a_wrong_setting_nothing_is_believed(source: str, setting: str) -> None:
    """A setting without any key in it, or with another's, refuses instead of accepting all or failing."""
    for key in (KEY, "", ","):
        call = SIGNERS[source].sign(key)
        with pytest.raises(Unauthentic):
            verify(source, {**call.signed, **call.others}, call.body, setting)


@pytest.mark.parametrize("source", SIGNERS)
def test_the_signature_of_another_key_is_refused(source: str) -> None:
    """Whoever signs with a key that is not set is not the sender."""
    for key in ("another", "", KEY + "s"):
        call = SIGNERS[source].sign(key)
        with pytest.raises(Unauthentic):
            verify(source, {**call.signed, **call.others}, call.body)


@pytest.mark.parametrize(("source", "name"), _HEADERS)
def test_a_call_without_a_header_of_its_signature_is_refused(source: str, name: str) -> None:
    """One of them missing, or all: what is left proves nothing."""
    call = SIGNERS[source].sign(KEY)
    left = {other: value for other, value in call.signed.items() if other != name}
    for headers in ({**left, **call.others}, call.others, {}):
        with pytest.raises(Unauthentic):
            verify(source, headers, call.body)


@pytest.mark.parametrize(("source", "name"), _HEADERS)
def test_a_header_that_was_tampered_with_is_refused(source: str, name: str) -> None:
    """Malformed, cut or another's: always `Unauthentic`, never another exception."""
    call = SIGNERS[source].sign(KEY)
    true, good = {**call.signed, **call.others}, call.signed[name]
    changed = {how: {**true, name: change(good)} for how, change in _TAMPERED.items()}
    assert [how for how, headers in changed.items() if _passes(source, headers, call.body)] == []


@pytest.mark.parametrize("source", _SIGNED_BODIES)
def test_a_body_that_was_altered_is_refused(source: str) -> None:
    """Every byte is signed, the line break at its end too."""
    call = SIGNERS[source].sign(KEY)
    altered = {how: change(call.body) for how, change in _ALTERED.items()}
    true = {**call.signed, **call.others}
    passed = [how for how, body in altered.items() if _passes(source, true, body)]
    assert [how for how in passed if altered[how] != call.body] == []


def _passes(source: str, headers: Mapping[str, str], body: bytes) -> bool:
    try:
        verify(source, headers, body)
    except Unauthentic:
        return False
    return True


@pytest.mark.parametrize("source", SIGNERS)
@settings(max_examples=40, deadline=None)
@given(
    data=st.data(),
    texts=st.lists(st.text(max_size=120), min_size=3, max_size=3),
    content_type=st.sampled_from([JSON, URLENCODED, MULTIPART, IN_PARTS, ""]) | st.text(),
)
def test_any_call_is_refused_and_never_crashes(
    source: str, data: st.DataObject, texts: list[str], content_type: str
) -> None:
    """Whatever headers and body hold, only a true signature passes and nothing else is raised."""
    call = SIGNERS[source].sign(KEY)
    as_json = (ANY_JSON | mangled(source)).map(orjson.dumps)
    body = data.draw(st.binary(max_size=200) | as_json)
    true, forged = {**call.signed, **call.others}, dict(zip(call.signed, texts, strict=False))
    typed = {"content-type": content_type}
    for headers in (forged, true, {**true, **typed}, {**forged, **typed}):
        with pytest.raises(Unauthentic):
            verify(source, headers, body)
    if call.signed:
        with pytest.raises(Unauthentic):
            verify(source, {**true, **forged}, call.body)
