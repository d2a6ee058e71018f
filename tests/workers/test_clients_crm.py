"""The outgoing webhook: how it is signed, what each answer means, and what it is over a real connection."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pipeline.setting_values import parse_webhook_keys
from pipeline.sources import Unauthentic, signatures
from sandbox import crm as stand_in
from sandbox.faults import Fault, broken, reset
from tests.vendors import Sandbox, running_sandbox
from workers.clients.crm import VENDOR, Crm, check, place, request
from workers.clients.errors import CallFailed, Misconfigured, Rejected, Unavailable
from workers.clients.http import MOST_ANSWER_BYTES, VendorHttp, new_client
from workers.clients.messages import Answer

pytestmark = pytest.mark.anyio

# the example of https://docs.svix.com/receiving/verifying-payloads/how-manual
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID, TIMESTAMP, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_signature_is_the_one_of_the_published_example() -> None:
    """Id, time, body and key of the standard's own example give its signature, and the body leaves as it is."""
    made = request("/hook?a=b", ID, BODY, TIMESTAMP, parse_webhook_keys(SECRET))
    assert (made.method, made.path, made.body) == ("POST", "/hook?a=b", BODY)
    assert made.headers == {
        "webhook-id": ID,
        "webhook-timestamp": str(TIMESTAMP),
        "webhook-signature": SIGNATURE,
    }


@pytest.mark.parametrize("changed", ["body", "id", "timestamp", "key"])
def test_nothing_that_is_signed_can_be_changed(changed: str) -> None:
    """Another body, id, time or key does not fit the signature; either of two keys in use does."""
    other = "whsec_" + b64encode(b"another key for the same CRM").decode()
    made = request("/", ID, BODY, TIMESTAMP, parse_webhook_keys(f"{SECRET}, {other}"))
    for secret in (SECRET, other):
        signatures.check_svix(made.headers, BODY, secret, TIMESTAMP + 9, "webhook")

    headers = dict(made.headers)
    if changed in ("id", "timestamp"):
        headers[f"webhook-{changed}"] += "1"
    body = BODY + b" " if changed == "body" else BODY
    secret = "whsec_" + b64encode(bytes(24)).decode() if changed == "key" else SECRET
    now = int(headers["webhook-timestamp"])
    with pytest.raises(Unauthentic):
        signatures.check_svix(headers, body, secret, now, "webhook")


def test_a_url_falls_into_its_base_and_the_rest() -> None:
    """Path and query are kept to the letter; one without a path has the path /."""
    assert place("https://a.example:8443/b/c?d=e%20f&g") == (
        "https://a.example:8443",
        "/b/c?d=e%20f&g",
    )
    assert place("http://a.example") == ("http://a.example", "/")


@pytest.mark.parametrize(
    ("status", "kind", "setting"),
    [
        *((status, Misconfigured, "SCORES_WEBHOOK_SECRET") for status in (401, 402, 403)),
        *((status, Misconfigured, "SCORES_WEBHOOK_URL") for status in (404, 405, 410, 415)),
        *((status, Misconfigured, "SCORES_WEBHOOK_URL") for status in (301, 302, 307, 308)),
        *((status, Unavailable, "") for status in (407, 408, 421, 425, 429)),
        *((status, Unavailable, "") for status in (500, 502, 503, 504, 199, 600)),
        *((status, Rejected, "") for status in (400, 406, 409, 413, 418, 422, 451)),
    ],
)
def test_each_status_is_one_kind_of_failure(
    status: int, kind: type[CallFailed], setting: str
) -> None:
    """What is about address or key names the setting; the CRM's words are quoted, addresses masked."""
    body = b'{"message": "not for ada@example.com"}'
    with pytest.raises(CallFailed) as caught:
        check(Answer(status, {"retry-after": "7"}, body))
    failure = caught.value
    assert type(failure) is kind
    assert setting in failure.sentence
    assert failure.sentence.startswith(f"{VENDOR} ")
    assert f'{status}: "not for [address]"' in failure.sentence
    assert (failure.status, failure.retry_after_s) == (status, 7.0)
    assert failure.maybe_stored == (status == 504)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
@pytest.mark.parametrize("body", [b"", b"<html>", b'{"status": "error"}'])
def test_any_2xx_is_enough(status: int, body: bytes) -> None:
    """Whatever the CRM says with it, 2xx means that it took the message."""
    check(Answer(status, {}, body))


def test_a_long_answer_is_cut() -> None:
    """A page of HTML does not become an error longer than a dead letter may have, nor one without words."""
    for body in (b"x" * 100_000, b""):
        with pytest.raises(Rejected) as caught:
            check(Answer(400, {}, body))
        assert 0 < len(caught.value.sentence) <= 500


# over a real connection ------------------------------------------------------------------------------


@asynccontextmanager
async def speaking_to(url: str, secret: str = stand_in.KEY) -> AsyncIterator[Crm]:
    """Give a client of the receiver at *url*."""
    base, path = place(url)
    async with new_client() as client:
        yield Crm(VendorHttp(VENDOR, base, {}, client), path, parse_webhook_keys(secret))


@pytest.fixture
async def box() -> AsyncIterator[Sandbox]:
    """Run the stand-ins."""
    async with running_sandbox() as sandbox:
        yield sandbox


async def test_a_receiver_that_checks_everything_takes_it(box: Sandbox) -> None:
    """The stand-in verifies headers, signature and time, and gets the body as it was given."""
    async with speaking_to(f"{box.url}/crm?from=relay") as crm:
        await crm.tell(ID, BODY)
    (told,) = box.memory.told
    assert (told["id"], told["body"]) == (ID, BODY.decode())


async def test_another_secret_is_refused(box: Sandbox) -> None:
    """Two sides with different secrets: the failure says which settings to look at."""
    async with speaking_to(f"{box.url}/crm", SECRET) as crm:
        with pytest.raises(Misconfigured, match="SCORES_WEBHOOK_SECRET and SCORES_WEBHOOK_URL"):
            await crm.tell(ID, BODY)
    assert not box.memory.told


async def test_a_redirect_is_not_followed(box: Sandbox) -> None:
    """Not even to a place that would take it: the address that an operator wrote down is the only one."""
    headers = {"Location": f"{box.url}/crm"}
    box.faults.add(Fault(endpoint="crm", status=307, headers=headers, times=1))
    async with speaking_to(f"{box.url}/crm") as crm:
        with pytest.raises(Misconfigured, match="redirect"):
            await crm.tell(ID, BODY)
    assert box.memory.calls_to("crm") == 1


async def test_a_2xx_with_an_endless_answer_is_a_2xx(box: Sandbox) -> None:
    """What was taken is taken, also when its answer is too long to be read; a 5xx as long is none."""
    endless = "x" * (MOST_ANSWER_BYTES + 1)
    for status in (200, 500):
        box.faults.add(Fault(endpoint="crm", status=status, body=endless, times=1))
    async with speaking_to(f"{box.url}/crm") as crm:
        await crm.tell(ID, BODY)
        with pytest.raises(Unavailable, match="more than"):
            await crm.tell(ID, BODY)


@pytest.mark.parametrize(
    ("fault", "maybe_stored"),
    [
        (broken("crm"), False),
        (reset("crm", "after"), True),
    ],
)
async def test_no_whole_answer_is_the_destinations_fault(
    box: Sandbox, fault: Fault, *, maybe_stored: bool
) -> None:
    """A server error or a torn connection: it may be sent again, and what may have arrived is said."""
    box.faults.add(fault)
    async with speaking_to(f"{box.url}/crm") as crm:
        with pytest.raises(Unavailable) as caught:
            await crm.tell(ID, BODY)
    assert caught.value.maybe_stored == maybe_stored


async def test_an_address_that_no_client_understands_names_its_setting() -> None:
    """What passes the settings and still is no address is told by the right name, and not shown."""
    async with speaking_to("https://xn--hunter2\u00e9/hook") as crm:
        with pytest.raises(Misconfigured, match="SCORES_WEBHOOK_URL") as caught:
            await crm.tell(ID, BODY)
    assert "hunter2" not in caught.value.sentence
