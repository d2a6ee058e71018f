"""The contract of the hooks, row by row, on the whole app with a real Redis."""

from __future__ import annotations

import gzip
import hmac
import threading
import time
import zlib
from base64 import b64encode
from urllib.parse import urlencode

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from httpx import AsyncClient, Response
from redis.asyncio import Redis

from pipeline import keys
from pipeline.deliveries import SIGNED, Delivery
from pipeline.outcomes import Stage
from pipeline.queues import Queues
from pipeline.sources import Source
from pipeline.sources.json_pieces import LARGE
from pipeline.sources.registry import SECRETS, SOURCES
from receiver import webhooks
from receiver.problems import Refused
from tests.receiver.conftest import TOKEN, MakeClient
from tests.receiver.desk import until

pytestmark = pytest.mark.anyio

PIXEL = f"/hooks/pixel/{TOKEN}"
SET_UP = b'{"callbackId":"c","verificationKey":"k"}'
BODY = b'{"event_type":"page_view","url":"https://shop.example.com/"}'


async def stored(redis: Redis) -> list[Delivery]:
    """Return the deliveries that wait for `unpack`, in the order of their storing."""
    taken = await Queues(redis, "test").take("unpack", Stage.UNPACK, most=1_000)
    return [Delivery.unpack(raw) for entry in taken.entries for raw in entry.payloads]


async def dead(redis: Redis) -> list[dict[bytes, bytes]]:
    """Return the dead letters."""
    letters = await redis.zrange(keys.DEAD, 0, -1)
    return [
        await redis.hgetall(keys.letter(letter.decode().rpartition("/")[2])) for letter in letters
    ]


def assert_problem(answer: Response, status: int, name: str) -> None:
    """Hold *answer* against RFC 9457 and the receiver's own rules."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == f"urn:audience-relay:problem:{name}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert TOKEN not in answer.text


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("pixel", 202),
        ("audience", 202),
        ("workflow", 202),
        ("scores", 202),
        ("events", 202),
        ("sendgrid", 200),
    ],
)
async def test_a_stored_delivery_is_answered_with_its_id(
    client: AsyncClient, redis: Redis, source: str, status: int
) -> None:
    """202 for our own sources, 200 for mail senders, the id, and how safely it lies."""
    answer = await client.post(
        f"/hooks/{source}/{TOKEN}", content=BODY, headers={"content-type": "application/json"}
    )
    assert answer.status_code == status
    assert answer.headers["relay-ack"] == "stored"
    assert answer.headers["content-type"] == "application/json"
    [delivery] = await stored(redis)
    assert answer.json() == {"id": delivery.id}
    assert delivery.source == source
    assert delivery.body == BODY
    assert delivery.content_type == "application/json"
    assert delivery.tag is None


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_probes_with_a_valid_token_are_answered(client: AsyncClient, method: str) -> None:
    """GET and HEAD are how senders try a URL."""
    assert (await client.request(method, PIXEL)).status_code == 200
    refused = await client.request(method, "/hooks/pixel/wrong-token-0123456")
    assert refused.status_code == 401


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"authorization": f"Bearer {TOKEN}"}, ""),
        ({"x-webhook-token": TOKEN}, ""),
        ({"x-audiencelab-secret": TOKEN}, ""),
        ({"authorization": "Basic " + b64encode(f"relay:{TOKEN}".encode()).decode()}, ""),
        ({}, f"?token={TOKEN}"),
    ],
)
@pytest.mark.parametrize("path", ["/hooks/pixel", "/hooks/pixel/"])
async def test_the_token_may_stand_elsewhere(
    client: AsyncClient, headers: dict[str, str], query: str, path: str
) -> None:
    """Without a token in the path, four headers and the query can carry it."""
    answer = await client.post(path + query, content=BODY, headers=headers)
    assert answer.status_code == 202


async def test_tokens_rotate_and_can_be_bound_to_a_source(make_client: MakeClient) -> None:
    """Every token of HOOK_TOKENS is valid, one with a source for that source only."""
    tokens = "old-token-0123456789,new-token-0123456789,events:events-token-0123456"
    async with make_client(hook_tokens=tokens) as client:
        for path, status in {
            "/hooks/pixel/old-token-0123456789": 202,
            "/hooks/pixel/new-token-0123456789": 202,
            "/hooks/events/events-token-0123456": 202,
            "/hooks/pixel/events-token-0123456": 401,
        }.items():
            assert (await client.post(path, content=BODY)).status_code == status


@pytest.mark.parametrize(
    ("method", "path", "status", "name"),
    [
        ("POST", "/hooks/nobody/wrong", 404, "unknown-source"),
        ("PUT", "/hooks/nobody", 404, "unknown-source"),
        ("POST", f"/hooks/Pixel/{TOKEN}", 404, "unknown-source"),
        ("POST", "/hooks", 404, "not-found"),
        ("POST", "/", 404, "not-found"),
        ("GET", f"/hook/pixel/{TOKEN}", 404, "not-found"),
        ("PUT", "/hooks/pixel/wrong", 405, "method-not-allowed"),
        ("DELETE", PIXEL, 405, "method-not-allowed"),
        ("OPTIONS", PIXEL, 405, "method-not-allowed"),
        ("POST", "/hooks/pixel/wrong", 401, "wrong-token"),
        ("POST", f"/hooks/pixel/{TOKEN}/more", 401, "wrong-token"),
        ("POST", "/hooks/pixel", 401, "wrong-token"),
        ("POST", "/hooks/pixel?token=", 401, "wrong-token"),
        ("POST", f"/hooks/pixel/wrong?token={TOKEN}", 401, "wrong-token"),
    ],
)
async def test_refusals_before_the_body_keep_their_order(
    make_client: MakeClient, redis: Redis, method: str, path: str, status: int, name: str
) -> None:
    """404 beats 405 beats 401 beats 413, and nothing is stored."""
    async with make_client(max_body_bytes=1024) as client:
        answer = await client.request(method, path, content=b"x" * 2000)
    assert_problem(answer, status, name)
    assert await stored(redis) == []
    assert await dead(redis) == []


async def test_405_names_the_methods_and_401_challenges(client: AsyncClient) -> None:
    """`Allow` and `WWW-Authenticate: Basic` are what their statuses owe."""
    assert (await client.put(PIXEL)).headers["allow"] == "GET, HEAD, POST"
    challenge = (await client.post("/hooks/pixel")).headers["www-authenticate"]
    assert challenge.startswith("Basic ")


@pytest.mark.parametrize("packed", [False, True])
async def test_a_body_over_the_limit_is_refused_packed_or_not(
    make_client: MakeClient, redis: Redis, packed: bool
) -> None:
    """413 counts unpacked bytes too, comes before 401 and 400, and leaves only a count."""
    body = b"x" * 1025
    headers = {"content-encoding": "gzip"} if packed else {}
    async with make_client(max_body_bytes=1024) as client:
        answer = await client.post(
            f"/hooks/events/{TOKEN}",
            content=gzip.compress(body) if packed else body,
            headers=headers,
        )
    assert_problem(answer, 413, "too-large")
    assert "1024" in answer.json()["detail"]
    assert await dead(redis) == []
    assert await redis.hget(keys.REFUSED, "too_large") == b"1"


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [("gzip", gzip.compress(BODY, mtime=0)), ("deflate", zlib.compress(BODY))],
)
async def test_a_packed_body_is_stored_unpacked(
    client: AsyncClient, redis: Redis, encoding: str, packed: bytes
) -> None:
    """gzip and deflate are undone before the body is stored."""
    answer = await client.post(PIXEL, content=packed, headers={"content-encoding": encoding})
    assert answer.status_code == 202
    [delivery] = await stored(redis)
    assert delivery.body == BODY


@pytest.mark.parametrize(
    ("headers", "body", "status", "name"),
    [
        ({}, b"not json", 400, "malformed"),
        ({}, b"", 400, "malformed"),
        ({}, b'{"a":', 400, "malformed"),
        ({}, b'{"a":"\xff"}', 400, "malformed"),
        ({"content-encoding": "gzip"}, b"not packed at all", 400, "malformed"),
        ({"content-encoding": "br"}, b"packed otherwise", 415, "unknown-encoding"),
    ],
)
async def test_what_is_not_the_senders_form_is_kept_as_a_dead_letter(
    client: AsyncClient, redis: Redis, headers: dict[str, str], body: bytes, status: int, name: str
) -> None:
    """The sender is told 400, the bytes are a dead letter; again, only its count grows."""
    first = await client.post(f"/hooks/events/{TOKEN}", content=body, headers=headers)
    again = await client.post(f"/hooks/events/{TOKEN}", content=body, headers=headers)
    assert_problem(first, status, name)
    assert first.json()["id"] == again.json()["id"]
    [letter] = await dead(redis)
    kept = Delivery.unpack(letter[b"payload"])
    assert kept.body == body
    assert kept.headers == headers
    assert letter[b"count"] == b"2"
    assert await stored(redis) == []


@pytest.mark.parametrize("tag", ["autumn-list", "a", "A_b.9", "x" * 64])
async def test_a_tag_is_kept_with_the_delivery(client: AsyncClient, redis: Redis, tag: str) -> None:
    """`?tag=` says which audience an audience webhook is about."""
    assert (await client.post(PIXEL, content=BODY, params={"tag": tag})).status_code == 202
    [delivery] = await stored(redis)
    assert delivery.tag == tag


@pytest.mark.parametrize("tag", ["", "x" * 65, "zwei wörter", "a/b", "<b>", "a\n"])
async def test_a_wrong_tag_costs_no_data(client: AsyncClient, redis: Redis, tag: str) -> None:
    """A delivery whose tag is no tag is stored without it."""
    assert (await client.post(PIXEL, content=BODY, params={"tag": tag})).status_code == 202
    [delivery] = await stored(redis)
    assert delivery.tag is None
    assert 'relay_bad_tags_total{source="pixel"} 1.0' in (await client.get("/metrics")).text


@pytest.mark.parametrize(
    ("given", "echoed"),
    [("req-1234.abc", True), ("x" * 129, False), ("two words", False), ("", False)],
)
@pytest.mark.parametrize("path", [PIXEL, "/hooks/pixel/wrong"])
async def test_a_sane_request_id_comes_back(
    client: AsyncClient, given: str, echoed: bool, path: str
) -> None:
    """`X-Request-Id` is echoed, on refusals too, unless it is not an id at all."""
    answer = await client.post(path, content=BODY, headers={"x-request-id": given})
    assert answer.headers.get("x-request-id") == (given if echoed else None)


async def test_the_trace_goes_with_the_delivery(client: AsyncClient, redis: Redis) -> None:
    """A well-formed `traceparent` is kept, any other is not."""
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    await client.post(PIXEL, content=BODY, headers={"traceparent": trace})
    await client.post(PIXEL, content=BODY, headers={"traceparent": "nonsense"})
    first, second = await stored(redis)
    assert first.headers == {"traceparent": trace}
    assert second.headers == {}


async def test_a_sender_that_signs_must_sign(make_client: MakeClient, redis: Redis) -> None:
    """With SendGrid's key set, the token alone is not enough, and 401 comes before 400."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    name = "x-twilio-email-event-webhook"
    url = f"/hooks/sendgrid/{TOKEN}"
    body = b'[{"event":"open"}]'
    signature = b64encode(key.sign(b"1700000000" + body, ec.ECDSA(SHA256()))).decode()
    signed = {f"{name}-timestamp": "1700000000", f"{name}-signature": signature}
    async with make_client(sendgrid_public_key=b64encode(public).decode()) as client:
        assert (await client.post(url, content=body, headers=signed)).status_code == 200
        packed = signed | {"content-encoding": "gzip"}
        answer = await client.post(url, content=gzip.compress(body), headers=packed)
        assert answer.status_code == 200
        for wrong in ({}, signed | {f"{name}-signature": "!"}):
            answer = await client.post(url, content=body, headers=wrong)
            assert_problem(answer, 401, "bad-signature")
        answer = await client.post(url, content=b"not json", headers=signed)
        assert_problem(answer, 401, "bad-signature")
        assert (await client.post(PIXEL, content=BODY)).status_code == 202
    assert await dead(redis) == []
    assert await redis.hget(keys.REFUSED, "signature") == b"3"


@pytest.mark.parametrize("key", [None, "key-0123456789abcdef"])
async def test_a_checked_signature_is_noted_with_the_delivery(
    make_client: MakeClient, redis: Redis, key: str | None
) -> None:
    """For who asks for it (Mailgun), when its secret is set; a header of that name in a request says nothing."""
    stamp = str(int(time.time()))
    signature = hmac.digest((key or "any").encode(), f"{stamp}t".encode(), "sha256").hex()
    proof = {"timestamp": stamp, "token": "t", "signature": signature}
    body = orjson.dumps({"signature": proof, "event-data": {"event": "opened"}})
    async with make_client(mailgun_signing_key=key, klaviyo_signing_key="k" * 16) as client:
        for headers in ({}, {SIGNED: "yes"}):
            url = f"/hooks/mailgun/{TOKEN}"
            assert (await client.post(url, content=body, headers=headers)).status_code == 200
        assert (await client.post(PIXEL, content=BODY, headers={SIGNED: "yes"})).status_code == 202
    noted = {SIGNED: "yes"} if key else {}
    assert [delivery.headers for delivery in await stored(redis)] == [noted, noted, {}]


async def test_refusals_without_a_trace_are_counted(make_client: MakeClient, redis: Redis) -> None:
    """A wrong token leaves its count in Redis, where `relay status` reads it."""
    async with make_client() as client:
        for _ in range(3):
            await client.post("/hooks/pixel/wrong", content=BODY)
    assert await redis.hget(keys.REFUSED, "token") == b"3"


async def test_nothing_is_stored_in_the_last_part_of_the_memory(
    make_client: MakeClient, redis: Redis
) -> None:
    """At 85 % of `maxmemory`, and with no spill, the answer is 503, also for what would be a dead letter."""
    used = int((await redis.info("memory"))["used_memory"])
    before = (await redis.config_get("maxmemory"))["maxmemory"]
    try:
        await redis.config_set("maxmemory", int(used / 0.86))
        async with make_client(spill_max_bytes=0) as client:
            await client.get("/readyz")  # looks at once, not with the next poll
            for body in (BODY, b"not json"):
                answer = await client.post(PIXEL, content=body)
                assert_problem(answer, 503, "storage-full")
                assert int(answer.headers["retry-after"]) > 0
    finally:
        await redis.config_set("maxmemory", before)
    assert await stored(redis) == []
    assert await dead(redis) == []


async def test_bodies_beyond_the_memory_are_refused(make_client: MakeClient) -> None:
    """At MAX_INFLIGHT_BYTES the answer is 503, and the memory is free again after each answer."""
    async with make_client(max_body_bytes=2048, max_inflight_bytes=2048) as client:
        for _ in range(3):
            assert (await client.post(PIXEL, content=b"1" * 2000)).status_code in (202, 400)
        packed = gzip.compress(b'"' + b"1" * 2040 + b'"')
        answer = await client.post(PIXEL, content=packed, headers={"content-encoding": "gzip"})
        assert_problem(answer, 503, "too-busy")
        assert (await client.post(PIXEL, content=BODY)).status_code == 202


async def test_without_redis_the_answer_is_503(make_client: MakeClient) -> None:
    """Without Redis and spill a receiver starts, refuses with `Retry-After`, and says so in /readyz."""
    async with make_client(redis_url="redis://127.0.0.1:1/0", spill_max_bytes=0) as client:
        for body in (BODY, b"not json"):
            answer = await client.post(PIXEL, content=body)
            assert_problem(answer, 503, "not-stored")
            assert int(answer.headers["retry-after"]) > 0
        assert_problem(await client.get("/readyz"), 503, "not-ready")
        assert (await client.get("/healthz")).status_code == 200


async def test_a_receiver_that_cannot_keep_its_promise_does_not_start(
    make_client: MakeClient,
) -> None:
    """ACK_POLICY=replicated on a Redis without a replica ends the start."""
    from pipeline.inbox import NotPossible

    with pytest.raises(NotPossible, match="replica"):
        async with make_client(ack_policy="replicated"):
            pytest.fail("the receiver started")


async def test_the_answer_names_the_promise(make_client: MakeClient, redis: Redis) -> None:
    """`Relay-Ack` is the word of ACK_POLICY."""
    await redis.config_set("appendfsync", "always")
    try:
        async with make_client(ack_policy="fsynced") as client:
            answer = await client.post(PIXEL, content=BODY)
    finally:
        await redis.config_set("appendfsync", "no")
    assert answer.status_code == 202
    assert answer.headers["relay-ack"] == "fsynced"


async def test_a_promise_that_cannot_be_kept_any_more_is_not_given(
    make_client: MakeClient, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who runs sees that Redis writes no file any more: then the own disk keeps what comes, until Redis does."""
    monkeypatch.setattr("receiver.opening._AGAIN_S", 0.05)
    await redis.config_set("appendfsync", "always")
    posted = 0
    async with make_client(ack_policy="fsynced") as client:

        async def is_answered(how: str) -> bool:
            nonlocal posted
            posted += 1
            return (await client.post(PIXEL, content=BODY)).headers["relay-ack"] == how

        async def are_all_stored() -> bool:
            return int(await redis.hget(keys.BOOKS, "unpack:in") or 0) == posted

        try:
            assert await is_answered("fsynced")
            await redis.config_set("appendonly", "no")
            await until(lambda: is_answered("spilled"))
            await redis.config_set("appendonly", "yes")
            await until(lambda: is_answered("fsynced"))
        finally:
            await redis.config_set("appendonly", "yes")
            await redis.config_set("appendfsync", "no")
        await until(are_all_stored)


async def test_a_fault_in_a_sources_check_loses_nothing(
    make_client: MakeClient, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug of ours in `check` stores the body for `unpack`; one in `verify` is 503, not 500."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError("a secret of the body")

    with monkeypatch.context() as patch:
        patch.setattr(type(SOURCES["pixel"]), "check", fail)
        async with make_client() as client:
            assert (await client.post(PIXEL, content=BODY)).status_code == 202
    monkeypatch.setattr(type(SOURCES["pixel"]), "verify", fail)
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    public = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    async with make_client(sendgrid_public_key=b64encode(public).decode()) as client:
        assert_problem(await client.post(PIXEL, content=BODY), 503, "internal")
    assert len(await stored(redis)) == 1


async def test_a_probe_told_by_its_signature_is_not_stored(
    make_client: MakeClient, redis: Redis
) -> None:
    """What `verify` knows for a probe is answered with the sender's status, and nothing of it is kept."""
    url = "https://relay.example.com/hooks/mandrill/x"
    events = '[{"event":"send","msg":{"email":"example.webhook@mandrillapp.com"}}]'
    body = urlencode({"mandrill_events": events})
    signed = hmac.digest(b"test-webhook", f"{url}mandrill_events{events}".encode(), "sha1")
    headers = {
        "content-type": "application/x-www-form-urlencoded",
        "x-mandrill-signature": b64encode(signed).decode(),
        "x-request-id": "r-1",
    }
    key = "key-0123456789abcdef"
    async with make_client(mandrill_webhook_key=key, mandrill_webhook_url=url) as client:
        path = f"/hooks/mandrill/{TOKEN}"
        answer = await client.post(path, content=body, headers=headers)
        assert (answer.status_code, answer.json()) == (200, {"ready": True})
        assert answer.headers["x-request-id"] == "r-1"
        assert (await client.post(path, content=body + "&a=1", headers=headers)).status_code == 401
    assert await stored(redis) == []
    assert await dead(redis) == []


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"mandrill_events=[]", SET_UP, b"\xff"])
def test_a_source_without_its_own_secret_lets_everything_in(name: str, body: bytes) -> None:
    """`verify` is left out while no secret at all is set: so another sender's must make no difference."""
    wanted = {setting for settings in SECRETS.values() for setting in settings}
    others = dict.fromkeys(wanted - set(SECRETS.get(name, ())), "key-0123456789abcdef")
    for secrets in ({}, others):
        SOURCES[name].verify({}, body, secrets, 1_700_000_000.0)


async def test_thousands_at_once_are_all_stored_once(client: AsyncClient, redis: Redis) -> None:
    """Every delivery that was answered 202 lies in the inbox exactly once."""
    import asyncio

    bodies = [orjson.dumps({"n": number}) for number in range(1_000)]
    answers = await asyncio.gather(*(client.post(PIXEL, content=body) for body in bodies))
    deliveries = await stored(redis)
    ids = [delivery.id for delivery in deliveries]
    acknowledged = [answer.json()["id"] for answer in answers if answer.status_code == 202]
    # on a busy machine some may be answered 503 in time, and may be stored all the same
    assert {answer.status_code for answer in answers} <= {202, 503}
    assert len(set(ids)) == len(ids)
    assert acknowledged
    assert set(acknowledged) <= set(ids)
    assert {delivery.body for delivery in deliveries} <= set(bodies)


async def test_only_a_large_body_is_looked_at_beside_the_loop(
    client: AsyncClient, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body of megabytes is checked in another thread, a usual one where it is; both are stored or refused alike."""
    threads: dict[int, int] = {}
    look = webhooks._form_problem

    def noted(source: Source, body: bytes, content_type: str) -> Refused | None:
        threads[len(body)] = threading.get_ident()
        return look(source, body, content_type)

    monkeypatch.setattr(webhooks, "_form_problem", noted)
    large = b"[" + b",".join([BODY] * (2 * LARGE // len(BODY))) + b"]"
    for body in (BODY, large):
        assert (await client.post(PIXEL, content=body)).status_code == 202
    assert [delivery.body for delivery in await stored(redis)] == [BODY, large]
    assert_problem(await client.post(PIXEL, content=large[:-1]), 400, "malformed")
    assert threads[len(BODY)] not in (threads[len(large)], threads[len(large) - 1])
