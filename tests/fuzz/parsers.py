"""What every source makes of any body, headers and signature: only what its protocol names is ever raised."""

from __future__ import annotations

import gzip
from contextlib import suppress
from functools import partial

import orjson
from hypothesis import strategies as st

from pipeline import mail_events
from pipeline.deliveries import Delivery
from pipeline.outcomes import Invalid, MailEvent, Outcome, Probe, Unreadable
from pipeline.sources import Malformed, Rules, Unauthentic
from pipeline.sources.form_body import MULTIPART, URLENCODED
from pipeline.sources.registry import SOURCES
from tests.fuzz.target import Target
from tests.pipeline.mangled import ANY_JSON, mangled
from tests.pipeline.sample_outcomes import NOW
from tests.pipeline.signers import KEY, SIGNERS

_TYPES = ("application/json", URLENCODED, MULTIPART, MULTIPART + "; boundary=b", "text/plain", "")
_PART = b'--b\r\nContent-Disposition: form-data; name="event"\r\n\r\n'
CONTENT_TYPES = st.sampled_from(_TYPES) | st.text(max_size=60)
RULES = st.sampled_from(
    [Rules(), Rules(send_from="delivered", deferral_as="SoftBounce", send_id="campaign")]
)


def bodies(source: str) -> st.SearchStrategy[bytes]:
    """Draw a body: nearly the source's own, JSON at large, cut or spliced ones, any bytes."""
    whole = (mangled(source) | ANY_JSON).map(_as_bytes)
    cut = st.tuples(whole, st.integers(0, 4_000)).map(lambda drawn: drawn[0][: drawn[1]])
    spliced = st.tuples(whole, st.integers(0, 4_000), st.binary(max_size=20)).map(
        lambda drawn: drawn[0][: drawn[1]] + drawn[2] + drawn[0][drawn[1] :]
    )
    deep = st.integers(1, 3_000).map(lambda depth: b"[" * depth + b"]" * depth)
    part = st.binary(max_size=200).map(_PART.__add__)
    return whole | cut | spliced | deep | part | st.binary(max_size=400) | whole.map(gzip.compress)


def _as_bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else orjson.dumps(value)


def targets() -> list[Target]:
    """Return one target for each source."""
    return [
        Target(
            f"source {name}",
            st.fixed_dictionaries(
                {
                    "body": bodies(name),
                    "content_type": CONTENT_TYPES,
                    "headers": _headers(name),
                    "rules": RULES,
                }
            ),
            partial(read_and_verify, name),
        )
        for name in SOURCES
    ]


def _headers(name: str) -> st.SearchStrategy[dict[str, str]]:
    """Draw headers: those of a signed call with other values, and any others."""
    signer = SIGNERS.get(name)
    signed = signer.sign(KEY).signed if signer else {}
    value = st.sampled_from(list(signed.values()) or [""]) | st.text(
        st.characters(max_codepoint=255), max_size=120
    )
    own = st.dictionaries(st.sampled_from(sorted(signed)), value) if signed else st.just({})
    others = st.dictionaries(st.sampled_from(("content-type", "user-agent", "svix-id")), value)
    return st.builds(lambda one, other: {**other, **one}, own, others)


def read_and_verify(
    name: str, body: bytes, content_type: str, headers: dict[str, str], rules: Rules
) -> None:
    """Let the source check, verify and parse; what comes out is the same the second time, and fit to leave."""
    source, signer = SOURCES[name], SIGNERS.get(name)
    if signer:
        secrets = {**signer.beside, signer.setting: signer.secret(KEY)}
        with suppress(Unauthentic, Probe):
            source.verify(headers, body, secrets, NOW)
    with suppress(Malformed):
        source.check(body, content_type)
    one = Delivery("0" * 24, name, body, int(NOW * 1000), content_type)
    assert Delivery.unpack(one.pack()) == one
    with suppress(Unreadable, Probe):
        found = source.parse(one, rules, NOW)
        assert source.parse(one, rules, NOW) == found
        for outcome in found:
            _fits(name, outcome)


def _fits(source: str, outcome: Outcome) -> None:
    if isinstance(outcome, MailEvent):
        assert mail_events.problem(outcome, NOW) is None
        assert len(mail_events.fingerprint(source, outcome)) == 32
        orjson.loads(mail_events.wire(outcome, "sha256"))
    elif isinstance(outcome, Invalid):
        assert outcome.error
        assert isinstance(outcome.payload, bytes)
