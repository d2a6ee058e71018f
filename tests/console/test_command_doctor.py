"""`relay doctor`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, OutOfMemoryError, ResponseError

from console import findings, findings_of_redis, findings_of_relay
from console.findings import Finding, State
from console.redis_server import EmbeddedRedis
from pipeline import dialects, heartbeats, keys, pauses
from pipeline.hook_tokens import HookToken
from pipeline.outcomes import Stage
from pipeline.settings import Settings
from tests.console.conftest import HOOK_TOKEN, Answer, Relay
from tests.pipeline.work import add, put
from tests.vendors import Sandbox

pytestmark = pytest.mark.anyio


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the doctor answered, by what was looked at."""

    answer: Answer

    def state(self, check: str) -> str:
        """Return the worst state of *check*."""
        states = [each["state"] for each in self.of(check)]
        return max(states, key=["ok", "warn", "bad"].index)

    def of(self, check: str) -> list[dict[str, str]]:
        """Return the findings of *check*."""
        found = [each for each in self.answer.json["findings"] if each["check"] == check]
        assert found, check
        return found

    def text(self, check: str) -> str:
        """Return what was found, and what to do."""
        return " | ".join(f"{each['found']}; {each['do']}" for each in self.of(check))


async def diagnose(relay: Relay, *words: str) -> Diagnosis:
    """Run the doctor; its status agrees with its findings, and stderr is empty."""
    answer = await relay("doctor", "--json", *(words or ["--no-event"]))
    assert answer.err == ""
    has_bad = any(each["state"] == "bad" for each in answer.json["findings"])
    assert (answer.status, answer.json["ok"]) == (int(has_bad), not has_bad)
    return Diagnosis(answer)


async def test_a_relay_that_is_well(relay_at_vendors: Relay, redis: Redis) -> None:
    """With a living worker nothing is bad; the table says the same, and no secret is shown."""
    await heartbeats.beat(redis, "one")
    await redis.hset(keys.SENDERS, mapping={"pixel:last": 1_767_225_600_000})
    found = await diagnose(relay_at_vendors)
    assert found.answer.status == 0
    for check in ("settings", "setting PUBLIC_URL", "hook tokens", "workers", "stages", "clock"):
        assert found.state(check) == "ok", check
    for check in ("Redis version", "Redis eviction", "books", "books, recounted", "ACK_POLICY"):
        assert found.state(check) == "ok", check
    shown = await relay_at_vendors("doctor", "--no-event")
    assert shown.status == 0
    assert "books, recounted" in shown.out
    assert "Do: set `appendfsync always`" in shown.out
    assert shown.out.rstrip().endswith("0 bad")
    assert HOOK_TOKEN not in shown.out + found.answer.out


async def test_offline_the_vendors_are_asked_nothing(
    relay_at_vendors: Relay, redis: Redis, box: Sandbox
) -> None:
    """It looks at what is here and sends nothing out, and changes nothing in Redis."""
    await heartbeats.beat(redis, "one")
    before = sorted(await redis.keys("*"))
    await diagnose(relay_at_vendors, "--offline", "--no-event")
    assert sorted(await redis.keys("*")) == before
    assert not any(n for n in box.memory.counters().values() if isinstance(n, int))


async def test_an_event_is_sent_unless_told_otherwise(
    relay_at_vendors: Relay, redis: Redis
) -> None:
    """Where a worker is alive it is posted to the receiver; that none is there is a warning, and nothing is bad."""
    await heartbeats.beat(redis, "one")
    found = await diagnose(relay_at_vendors, "--offline", "--url", "http://127.0.0.1:1")
    assert found.state("one event, the whole way") == "warn"
    assert "no receiver answers at http://127.0.0.1:1" in found.text("one event, the whole way")


# settings -----------------------------------------------------------------------------------------------


async def test_a_misspelt_name_in_the_env_file_is_found(relay: Relay, tmp_path: Path) -> None:
    """It is said which name was meant; names that are like none of ours are other programs'."""
    text = "SENDGRID_PUBLIC_KEYS=abc\nPROT=18100\nDATABASE_URL=x\nPORT=18200\n"
    (tmp_path / ".env").write_text(text)
    told = (await diagnose(relay, "--offline", "--no-event")).text("settings")
    assert "SENDGRID_PUBLIC_KEYS, which is no setting" in told
    assert "write SENDGRID_PUBLIC_KEY" in told
    assert "PROT, which is no setting" in told
    assert "DATABASE_URL" not in told


async def test_wrong_settings_are_findings(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each problem is a bad finding with its setting's name, and never with its value."""
    monkeypatch.setenv("PORT", "0")
    monkeypatch.setenv("PUBLIC_URL", "https://relay.example.com/hooks/pixel/a-secret-token")
    found = await diagnose(relay)
    assert found.answer.status == 1
    assert "PORT" in found.text("settings")
    assert "PUBLIC_URL" in found.text("settings")
    assert "a-secret-token" not in found.answer.out


@pytest.mark.usefixtures("redis")
async def test_what_is_not_set_is_told(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing keys and a missing public address are warnings; that there is no token at all is bad."""
    found = await diagnose(relay)
    for name in ("AUDIENCELAB_API_KEY", "AUDIENCEPOINT_API_KEY", "PUBLIC_URL"):
        assert found.state(f"setting {name}") == "warn"
    assert found.state("hook tokens") == "bad"
    monkeypatch.setenv("PUBLIC_URL", "http://relay.example.com")
    monkeypatch.setenv("HOOK_TOKENS", f"{HOOK_TOKEN},changemechangeme")
    found = await diagnose(relay)
    assert "in the clear" in found.text("setting PUBLIC_URL")
    assert found.state("hook tokens") == "warn"
    assert "number 2" in found.text("hook tokens")
    assert "changeme" not in found.answer.out


@pytest.mark.parametrize(
    ("token", "is_strong"),
    [
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaa", False),
        ("0123456789abcdef0123456789", False),
        ("changemechangeme", False),
        ("password12345678", False),
        ("hYq3-xW0p9_Zc81v", True),
        ("Zk3vS0Jq8mW1xT5rB7nY2cL9", True),
    ],
)
def test_how_hard_a_token_is_to_guess(token: str, *, is_strong: bool) -> None:
    """Repetition and keys in a row count for little."""
    assert (findings.bits(HookToken(None, token)) >= findings.STRONG_BITS) is is_strong


# Redis --------------------------------------------------------------------------------------------------


async def test_a_redis_that_does_not_answer_is_a_finding(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What else can be said is said, without the password of its address."""
    monkeypatch.setenv("REDIS_URL", "redis://:hidden-word@127.0.0.1:1/0")
    found = await diagnose(relay)
    assert found.answer.status == 1
    assert "cannot be reached" in found.text("Redis")
    assert found.state("settings") == "ok"
    assert "hidden-word" not in found.answer.out
    monkeypatch.delenv("REDIS_URL")
    assert "REDIS_URL is not set" in (await diagnose(relay)).text("Redis")


@pytest.mark.parametrize(
    ("spoil", "check", "state", "said"),
    [
        (["maxmemory-policy", "allkeys-lru"], "Redis eviction", "bad", "thrown away"),
        (["maxmemory", "0"], "Redis memory", "warn", "no maxmemory"),
        (["appendonly", "no"], "Redis persistence", "bad", "last snapshot"),
        (["appendfsync", "everysec"], "Redis fsync", "warn", "its last second"),
        (["appendfsync", "no"], "Redis fsync", "warn", "half minute"),
        (["appendfsync", "always"], "Redis fsync", "ok", "survives a power cut"),
    ],
)
async def test_what_redis_is_set_to(
    spoil: list[str],
    check: str,
    state: str,
    said: str,
    relay: Relay,
    own_redis: EmbeddedRedis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Eviction, memory and persistence are told with what a power cut would cost, and what to set."""
    monkeypatch.setenv("REDIS_URL", own_redis.url)
    async with Redis.from_url(own_redis.url) as client:
        await client.config_set(*spoil)
    found = await diagnose(relay)
    assert (found.state(check), said in found.text(check)) == (state, True), found.text(check)


async def test_a_replica_cannot_be_written_to(
    relay: Relay, own_redis: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Redis that follows another is no place for a relay."""
    monkeypatch.setenv("REDIS_URL", own_redis.url)
    async with Redis.from_url(own_redis.url) as client:
        await client.execute_command("REPLICAOF", "127.0.0.1", "1")
    assert (await diagnose(relay)).state("Redis role") == "bad"


@pytest.mark.parametrize(
    ("used", "state"), [(699, State.OK), (700, State.WARN), (849, State.WARN), (850, State.BAD)]
)
def test_a_redis_that_fills(used: int, state: State) -> None:
    """From 70 % on it is a warning; from 85 % on receivers spill or answer 503."""
    mb = 2**20
    found = findings_of_redis._room({"used_memory": used * mb, "maxmemory": 1000 * mb})
    assert (found.state, "503" in found.found) == (state, state is State.BAD)
    assert f"{1000 - used} MB left" in found.found


async def test_a_promise_that_redis_cannot_keep(
    relay: Relay, own_redis: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ACK_POLICY is held against what Redis can give."""
    monkeypatch.setenv("REDIS_URL", own_redis.url)
    monkeypatch.setenv("ACK_POLICY", "replicated")
    found = await diagnose(relay)
    assert found.state("ACK_POLICY") == "bad"
    assert "replica" in found.text("ACK_POLICY")


@pytest.mark.parametrize(
    ("offset_s", "state"), [(0.0, State.OK), (5.0, State.WARN), (-300.0, State.BAD)]
)
async def test_the_clock_is_held_against_redis(
    offset_s: float, state: State, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that is off is told, in either direction."""
    monkeypatch.setattr(findings_of_redis, "time", lambda: time.time() + offset_s)
    found = {each.check: each for each in await findings_of_redis.of_redis(redis, Settings())}
    assert found["clock"].state is state


async def test_what_a_managed_service_does_not_tell(redis: Redis) -> None:
    """Where CONFIG is refused, fsync is not known, and that is said."""
    config: dict[str, str] = {}
    found = findings_of_redis._fsync(config, Settings())
    assert (found.state, "does not tell" in found.found) == (State.WARN, True)


async def test_what_may_not_be_asked_is_a_finding(
    relay: Relay, own_redis: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user who may not ask for INFO still learns what the relay's own data tell."""
    async with Redis.from_url(own_redis.url) as client:
        await client.execute_command("ACL", "SETUSER", "default", "-info", "-config")
    monkeypatch.setenv("REDIS_URL", own_redis.url)
    found = await diagnose(relay)
    assert "refuses to tell" in found.text("Redis")
    assert found.state("books") == "ok"


async def test_a_full_redis_is_looked_at_all_the_same(
    relay: Relay, own_redis: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over its maxmemory Redis still answers what only reads: nothing is missing, and its memory is what is bad."""
    monkeypatch.setenv("REDIS_URL", own_redis.url)
    async with Redis.from_url(own_redis.url) as client:
        await client.config_set("maxmemory", 1)
        found = await diagnose(relay)
        shown = await relay("senders", "--json")
        await client.config_set("maxmemory", 0)
    assert "answer 503" in found.text("Redis memory")
    for check in ("workers", "stages", "books", "books, recounted", "senders", "ACK_POLICY"):
        assert "refuses to tell" not in found.text(check)
    assert found.state("AudienceLab's dialect") == "ok"
    assert shown.status == 0


async def test_what_cannot_be_looked_at_hides_nothing_else(
    relay: Relay, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each thing is looked at by itself: one that Redis refuses to tell is one finding, under its own name."""
    await redis.set(keys.SENDERS, "no hash")
    found = await diagnose(relay)
    assert "refuses to tell" in found.text("senders")
    assert (found.state("books, recounted"), found.state("AudienceLab's dialect")) == ("ok", "ok")


@pytest.mark.parametrize(
    ("error", "told", "do"),
    [
        (OutOfMemoryError("command not allowed"), "Redis is full", "raise its maxmemory"),
        (ResponseError("Error running script: -OOM command not"), "Redis is full", "maxmemory"),
        (NoPermissionError("this user has no permissions"), "refuses", "the user of REDIS_URL"),
        (ResponseError("WRONGTYPE Operation against"), "WRONGTYPE", "what holds this data"),
    ],
)
async def test_why_something_cannot_be_looked_at(error: ResponseError, told: str, do: str) -> None:
    """A full Redis is no matter of rights, and neither is data of another kind."""

    async def refused() -> list[Finding]:
        raise error

    [finding] = await findings.looked("books", refused())
    assert (finding.check, finding.state) == ("books", State.BAD)
    assert (told in finding.found, do in finding.do) == (True, True), finding


# the relay ----------------------------------------------------------------------------------------------


async def test_nobody_at_work_is_bad(relay: Relay, redis: Redis) -> None:
    """Work waits, and nobody takes it."""
    await put(redis)
    assert (await diagnose(relay)).state("workers") == "bad"


async def test_pauses_and_what_lifts_them(relay: Relay, redis: Redis) -> None:
    """The operator's pause and a missing key are warnings, what a vendor refuses is bad."""
    await pauses.pause(redis, Stage.SCORES, "lunch")
    await pauses.pause_without_key(redis, Stage.ENRICH, f"{pauses.NO_KEY}: set AUDIENCELAB_API_KEY")
    found = await diagnose(relay)
    assert [each["state"] for each in found.of("stages")] == ["warn", "warn"]
    assert "relay resume scores" in found.text("stages")
    await pauses.pause(redis, Stage.FORWARD, "wrong key", by="relay")
    assert "wrong key" in (await diagnose(relay)).text("stages")
    assert (await diagnose(relay)).state("stages") == "bad"


async def test_books_that_lie_are_found(relay: Relay, redis: Redis) -> None:
    """What waits is counted from the data; a number without work behind it is a fault, balanced or not."""
    await put(redis)
    await add(redis, Stage.FORWARD, [b"event"] * 3)
    found = await diagnose(relay)
    assert (found.state("books"), found.state("books, recounted")) == ("ok", "ok")
    await redis.hincrby(keys.BOOKS, "forward:in", 1)
    assert "forward" in (await diagnose(relay)).text("books")
    await redis.hincrby(keys.BOOKS, "forward:waiting", 1)
    found = await diagnose(relay)
    assert (found.state("books"), found.state("books, recounted")) == ("ok", "bad")
    assert "forward: waiting 4 in the books, 3 there" in found.text("books, recounted")


@pytest.mark.parametrize(
    ("after", "is_wrong"), [({"in": 5, "waiting": 3}, True), ({"in": 9, "waiting": 6}, False)]
)
def test_work_that_moves_is_no_fault(after: dict[str, int], *, is_wrong: bool) -> None:
    """A count that differs by no more than the books moved meanwhile proves nothing."""
    before = {"in": 5, "waiting": 3, "dead": 0}
    told = findings_of_relay._wrong(
        Stage.FORWARD, before, {"waiting": 5, "dead": 0}, {**before, **after}
    )
    assert bool(told) is is_wrong


async def test_senders_and_their_signatures(
    relay: Relay, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that delivers is told with its signature; half a signature is bad before it delivers."""
    assert (await diagnose(relay)).state("senders") == "warn"
    last = 1_767_225_600_000
    await redis.hset(
        keys.SENDERS, mapping={"pixel:last": last, "mailgun:last": last, "resend:last": last}
    )
    monkeypatch.setenv("RESEND_SIGNING_SECRET", "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ=")
    monkeypatch.setenv("MANDRILL_WEBHOOK_URL", "https://relay.example.com/hooks/mandrill")
    found = await diagnose(relay)
    assert found.state("sender pixel") == "ok"
    assert found.state("sender resend") == "ok"
    assert found.state("sender mailgun") == "warn"
    assert "MAILGUN_SIGNING_KEY" in found.text("sender mailgun")
    assert found.state("sender mandrill") == "bad"
    assert "MANDRILL_WEBHOOK_KEY" in found.text("sender mandrill")


async def test_the_dialect_of_each_call_is_shown(
    relay: Relay, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What worked last is told by call; a fixed dialect that is another one is a warning."""
    await dialects.keep(redis, "enrich", "observed")
    await dialects.keep(redis, "create_pixel", "documented")
    found = await diagnose(relay)
    assert found.state("AudienceLab's dialect") == "ok"
    told = found.text("AudienceLab's dialect")
    assert told.startswith("auto; create_pixel documented, enrich observed")
    monkeypatch.setenv("AUDIENCELAB_DIALECT", "observed")
    assert (await diagnose(relay)).state("AudienceLab's dialect") == "warn"


def test_every_finding_that_is_not_ok_says_what_to_do() -> None:
    """The view has all four members, in words."""
    view: dict[str, Any] = Finding("check", State.WARN, "found", "do").view()
    assert view == {"check": "check", "state": "warn", "found": "found", "do": "do"}
