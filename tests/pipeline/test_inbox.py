"""The inbox: nothing is stored that was not promised, and nothing promised that was not stored."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from console.redis_server import EmbeddedRedis
from pipeline import books, dead_letters, keys
from pipeline.deliveries import Delivery
from pipeline.inbox import AckPolicy, Inbox, NoAnswer, NotPossible, NotStored
from pipeline.moves import Move
from pipeline.outcomes import Reason, Stage
from pipeline.spill import Piece
from tests.patience import PATIENCE_S, be_patient
from tests.pipeline.work import apply, check_books, delivery, numbers, take

pytestmark = pytest.mark.anyio

#: 6.2 wraps what a command in a script says
READ_ONLY = r"ReadOnlyError|ResponseError"


OpenInbox = Callable[..., Inbox]


@pytest.fixture
def open_inbox() -> OpenInbox:
    """Give a way to make inboxes."""

    def make(redis: Redis, ack_policy: AckPolicy = "stored") -> Inbox:
        return Inbox(redis, ack_policy)

    return make


async def test_a_flush_is_one_entry(redis: Redis, open_inbox: OpenInbox) -> None:
    """Deliveries that arrive together lie together, byte for byte, and the books know each of them."""
    inbox = open_inbox(redis)
    await inbox.start()
    sent = [delivery(b'{"n":%d}' % n) for n in range(3)]
    assert await inbox.put(sent) == 0
    await redis.hset(keys.BELLS, "unpack", 4)
    assert await inbox.put([delivery()]) == 4
    entries = await take(redis, most=9)
    assert [Delivery.unpack(payload) for payload in entries[0].payloads] == sent
    assert await numbers(redis, Stage.UNPACK) == {"in": 4, "waiting": 4}
    await check_books(redis)


# what is promised ---------------------------------------------------------------------------------


async def test_fsynced_with_always(redis: Redis, open_inbox: OpenInbox) -> None:
    """With `appendfsync always` the answer itself comes after the fsync, so nothing more is waited for."""
    await redis.config_set("appendfsync", "always")
    try:
        inbox = open_inbox(redis, "fsynced")
        await inbox.start()
        assert await inbox.put([delivery()]) == 0
    finally:
        await redis.config_set("appendfsync", "no")


async def test_fsynced_must_not_pause_while_rewriting(redis: Redis, open_inbox: OpenInbox) -> None:
    """`no-appendfsync-on-rewrite` suspends even `always`, so the promise would not hold."""
    await redis.config_set("appendfsync", "always")
    await redis.config_set("no-appendfsync-on-rewrite", "yes")
    try:
        with pytest.raises(NotPossible, match="on-rewrite"):
            await open_inbox(OlderRedis(redis), "fsynced").start()
    finally:
        await redis.config_set("no-appendfsync-on-rewrite", "no")
        await redis.config_set("appendfsync", "no")


async def test_fsynced_without_an_append_only_file(redis: Redis, open_inbox: OpenInbox) -> None:
    """The receiver refuses to start where nothing is written to a disk."""
    await redis.config_set("appendonly", "no")
    try:
        with pytest.raises(NotPossible, match="append-only"):
            await open_inbox(redis, "fsynced").start()
    finally:
        await redis.config_set("appendonly", "yes")


async def test_fsynced_where_nothing_tells_of_it(
    redis: Redis, redis_url: str, open_inbox: OpenInbox
) -> None:
    """Without `always`, and without a way to wait for the disk, it refuses; also where CONFIG is forbidden."""
    await redis.execute_command("ACL", "SETUSER", "limited", "on", ">pw", "~*", "+@all", "-config")
    limited = Redis.from_url(redis_url, username="limited", password="pw")
    try:
        for client in (redis, limited):
            inbox = open_inbox(OlderRedis(client), "fsynced")
            with pytest.raises(NotPossible, match=r"appendfsync always.*7\.2"):
                await inbox.start()
    finally:
        await limited.aclose()
        await redis.execute_command("ACL", "DELUSER", "limited")


class OlderRedis:
    """A server whose answer to WAITAOF is known, whatever its version."""

    def __init__(self, redis: Redis, knows_waitaof: bool = False) -> None:
        self._redis = redis
        self._knows_waitaof = knows_waitaof

    def __getattr__(self, name: str) -> Any:
        """Do everything else as the real one."""
        return getattr(self._redis, name)

    async def execute_command(self, *args: Any) -> Any:
        """Answer WAITAOF as a server that knows it, or that does not."""
        if args[0] == "WAITAOF" and self._knows_waitaof:
            return [0, 0]
        return await self._redis.execute_command("NOT-" + args[0])


@pytest.mark.parametrize(("reached", "is_stored"), [(1, True), (0, False)])
async def test_fsynced_with_waitaof(
    redis: Redis, reached: int, is_stored: bool, open_inbox: OpenInbox
) -> None:
    """Where the server can wait for the disk, a delivery counts only when its own disk was reached."""
    inbox = open_inbox(OlderRedis(redis, knows_waitaof=True), "fsynced")
    await inbox.start()
    assert inbox._wait == ("WAITAOF", 1, 0, 150)
    inbox._wait = ("EVAL", f"return {{{reached}, 0}}", 0, 150)  # the same answer on any version
    if is_stored:
        assert await inbox.put([delivery()]) == 0
    else:
        with pytest.raises(NotStored, match="not fsynced"):
            await inbox.put([delivery()])
    await check_books(redis)


@pytest.fixture
async def hasty(redis: Redis, redis_url: str) -> AsyncIterator[Redis]:
    """Give a client whose user may do everything but wait."""
    await redis.execute_command("ACL", "SETUSER", "hasty", "on", ">pw", "~*", "+@all", "-wait")
    client = Redis.from_url(redis_url, username="hasty", password="pw")
    yield client
    await client.aclose()
    await redis.execute_command("ACL", "DELUSER", "hasty")


async def test_a_wait_that_is_refused_is_no_promise_kept(
    hasty: Redis, redis: Redis, open_inbox: OpenInbox
) -> None:
    """What is stored is not acknowledged when the wait is answered by an error, nor is a piece of a spill.

    So answers a server that may not wait, and one that becomes a replica meanwhile and forgets what it has.
    """
    inbox = open_inbox(hasty, "replicated")
    inbox._wait = ("WAIT", 1, 100)
    for _ in range(2):  # by the script's text, and by its digest
        with pytest.raises(
            NotStored, match=r"not confirm that it is replicated: NoPermissionError"
        ):
            await inbox.put([delivery()])
        with pytest.raises(NotStored, match="not confirm that it is replicated"):
            await inbox.put_spilled("file", [Piece(0, 9, [delivery().pack()])], 5)
    assert (await numbers(redis, Stage.UNPACK))["in"] == 3


async def test_replicated_without_a_replica(redis: Redis, open_inbox: OpenInbox) -> None:
    """The receiver refuses to start, and says what to do."""
    with pytest.raises(NotPossible, match="replica"):
        await open_inbox(redis, "replicated").start()


def server(folder: Path) -> EmbeddedRedis:
    """Return a server on TCP: the path of its socket would be too long."""
    binary = os.environ.get("TEST_REDIS_SERVER")
    home = folder / ("long-" * 20)
    home.mkdir(parents=True)
    return EmbeddedRedis(home, Path(binary) if binary else None, appendfsync="no")


@pytest.fixture
def pair() -> Iterator[tuple[EmbeddedRedis, EmbeddedRedis]]:
    """Run two servers."""
    folder = Path(tempfile.mkdtemp(prefix="relay-"))
    try:
        with server(folder / "master") as master, server(folder / "replica") as replica:
            yield master, replica
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def replicated(
    pair: tuple[EmbeddedRedis, EmbeddedRedis],
) -> AsyncIterator[tuple[Redis, Redis]]:
    """Give a master, and its replica that has caught up."""
    master, replica = (Redis.from_url(one.url) for one in pair)
    login = master.connection_pool.connection_kwargs
    await master.config_set("repl-diskless-sync-delay", 0)
    # a server that writes the first file after a full copy does not stop when told to
    await replica.config_set("appendonly", "no")
    await replica.config_set("masterauth", login["password"])
    await replica.replicaof("127.0.0.1", login["port"])
    await master.set("first", 1)
    assert await master.wait(1, 20_000) == 1
    yield master, replica
    await master.aclose()
    await replica.aclose()


async def test_replicated_with_a_replica(
    replicated: tuple[Redis, Redis], open_inbox: OpenInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A delivery counts once a replica has it; without one it is refused, and a replica takes none itself."""
    master, replica = replicated
    be_patient(monkeypatch)
    monkeypatch.setattr("pipeline.inbox.WITHIN_S", PATIENCE_S)
    inbox = open_inbox(master, "replicated")
    await inbox.start()
    assert await inbox.put([delivery()]) == 0
    assert await replica.xlen(keys.queue("unpack")) == 1
    await master.script_flush()  # after a fail-over the new master does not know the scripts
    await inbox.put([delivery()])
    with pytest.raises(NotStored, match=READ_ONLY):
        await open_inbox(replica).put([delivery()])
    with pytest.raises(NotStored, match=READ_ONLY):
        await open_inbox(replica).bury(delivery(), Reason.MALFORMED, "not JSON")
    await replica.replicaof("NO", "ONE")
    inbox._wait = ("WAIT", 1, 100)
    with pytest.raises(NotStored, match="not replicated"):
        await inbox.put([delivery()])


async def test_who_becomes_a_replica_has_promised_nothing(
    pair: tuple[EmbeddedRedis, EmbeddedRedis],
    replicated: tuple[Redis, Redis],
    open_inbox: OpenInbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that is told to follow another one forgets what that one never had: it is not acknowledged."""
    master, replica = replicated
    monkeypatch.setattr("pipeline.inbox.WITHIN_S", PATIENCE_S)
    inbox = open_inbox(master, "replicated")
    await inbox.start()
    inbox._wait = ("WAIT", 1, int(PATIENCE_S * 1000))
    await inbox.put([delivery()])  # the server knows the script then
    os.kill(pair[1].pid, signal.SIGSTOP)
    try:
        promise = asyncio.create_task(inbox.put([delivery()]))
        async with asyncio.timeout(PATIENCE_S):
            while not (await master.info("clients"))["blocked_clients"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await master.replicaof("127.0.0.1", replica.connection_pool.connection_kwargs["port"])
        with pytest.raises(NotStored, match="UNBLOCKED"):
            await promise
    finally:
        os.kill(pair[1].pid, signal.SIGCONT)


async def test_what_was_spilled_is_held_until_a_replica_has_it(
    replicated: tuple[Redis, Redis], open_inbox: OpenInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second call stores nothing again, and yet waits for the replica to have what the first one stored."""
    master, replica = replicated
    login = master.connection_pool.connection_kwargs
    be_patient(monkeypatch)  # a replica that has just come tells what it has once a second at first
    inbox = open_inbox(master, "replicated")
    await inbox.start()
    first, second = (Piece(0, 9, [delivery().pack()]), Piece(9, 20, [delivery().pack()] * 2))
    assert await inbox.put_spilled("file", [first], PATIENCE_S) == (9, 0)
    await replica.replicaof("NO", "ONE")
    patient, inbox._wait = inbox._wait, ("WAIT", 1, 100)
    for _ in range(2):
        with pytest.raises(NotStored, match="not replicated"):
            await inbox.put_spilled("file", [second], PATIENCE_S)
    inbox._wait = patient
    assert await numbers(master, Stage.UNPACK) == {"in": 3, "waiting": 3}
    await replica.replicaof("127.0.0.1", login["port"])
    await master.set("second", 1)
    assert await master.wait(1, 20_000) == 1
    assert await inbox.put_spilled("file", [first, second], PATIENCE_S) == (20, 0)
    assert await replica.xlen(keys.queue("unpack")) == 2
    await check_books(master)


async def test_pieces_are_stored_in_their_place_only(redis: Redis, open_inbox: OpenInbox) -> None:
    """Of a file the next piece is stored, once, also by a server new to the script; others tell its place."""
    inbox = open_inbox(redis)
    first, second, third = (Piece(n, n + 1, [b"%d" % n]) for n in range(3))
    assert await inbox.put_spilled("file", [second], 5) == (0, 0)
    assert await inbox.put_spilled("file", [first, second], 5) == (2, 0)
    await redis.script_flush()
    assert await inbox.put_spilled("file", [first, second, third], 5) == (3, 0)
    assert await inbox.put_spilled("other", [first], 5) == (1, 0)
    (*entries,) = await take(redis, most=9)
    assert [entry.payloads for entry in entries] == [[b"0"], [b"1"], [b"2"], [b"0"]]


async def test_no_redis_is_not_stored(open_inbox: OpenInbox) -> None:
    """A connection that fails is a refusal like any other."""
    async with Redis.from_url("unix:///nowhere/redis.sock") as nowhere:
        with pytest.raises(NotStored, match="ConnectionError"):
            await open_inbox(nowhere).put([delivery()])


# bodies that were answered 400 ------------------------------------------------------------------------


async def test_a_malformed_body_is_kept_once_a_day(redis: Redis, open_inbox: OpenInbox) -> None:
    """The same body again only raises the count of its letter; another body is another letter."""
    inbox = open_inbox(redis)
    sent = [delivery(b"<a>"), delivery(b"<a>"), delivery(b"<b>")]
    ids = [await inbox.bury(one, Reason.MALFORMED, "not JSON \ud83d") for one in sent]
    assert ids == [sent[0].id, sent[0].id, sent[2].id]
    letter = await dead_letters.fetch(redis, ids[0])
    assert letter is not None
    assert (letter.count, letter.payload, letter.error) == (2, b"<a>", "not JSON ?")
    assert await numbers(redis, Stage.UNPACK) == {"in": 2, "dead": 2}
    markers = await redis.keys(keys.PREFIX + "same-body:*")
    assert len(markers) == 2
    assert 86_000_000 < await redis.pttl(markers[0]) <= 86_400_000
    await check_books(redis)


async def test_a_malformed_body_after_its_letter_is_gone(
    redis: Redis, open_inbox: OpenInbox
) -> None:
    """When the letter was retried or dropped meanwhile, the body is kept anew, and not lost in a count."""
    inbox = open_inbox(redis)
    first = await inbox.bury(delivery(b"<a>"), Reason.MALFORMED, "not JSON")
    assert await dead_letters.retry(redis, first) is Stage.UNPACK
    second = await inbox.bury(delivery(b"<a>"), Reason.MALFORMED, "not JSON")
    assert second != first
    assert await dead_letters.drop(redis, [second]) == 1
    third = await inbox.bury(delivery(b"<a>"), Reason.MALFORMED, "not JSON")
    assert third != second
    assert await numbers(redis, Stage.UNPACK) == {"in": 3, "waiting": 1, "dead": 1, "dropped": 1}
    (entry,) = await take(redis)
    move = Move("unpack", [entry.id])
    move.settle(Stage.UNPACK, "done")
    await apply(redis, move)
    await check_books(redis)


# the rest -----------------------------------------------------------------------------------------


async def test_refused_requests_are_counted(redis: Redis, open_inbox: OpenInbox) -> None:
    """What leaves no trace but a count adds up over processes and restarts."""
    for _ in range(2):
        await open_inbox(redis).count_refused({"token": 2, "too_large": 1})
    snapshot = await books.snapshot(redis)
    assert snapshot["refused"] == {"token": 4, "signature": 0, "too_large": 2}


async def test_room_tells_how_full_redis_is(redis: Redis, open_inbox: OpenInbox) -> None:
    """Used bytes against the limit; a limit of zero is none."""
    room = await open_inbox(redis).room()
    assert 0 < room.used_bytes < room.limit_bytes


async def test_a_refusal_is_told_in_the_servers_words(redis: Redis, open_inbox: OpenInbox) -> None:
    """A full Redis and one that cannot write its file are told apart by what they say."""
    inbox = open_inbox(redis)
    await inbox.start()
    limit = (await redis.config_get("maxmemory"))["maxmemory"]
    await redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(NotStored, match=r"OOM|maxmemory"):
            await inbox.put([delivery()])
    finally:
        await redis.config_set("maxmemory", limit)


async def test_of_a_server_that_falls_silent_the_answers_are_kept() -> None:
    """What was answered before the silence is stored, the rest is `NoAnswer`: it may be stored or not."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            if line == b"EVALSHA\r\n":
                writer.write(b":7\r\n")
                break
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Redis(host="127.0.0.1", port=port, lib_name=None, lib_version=None) as client:
            stored = await Inbox(client).put_entries([[delivery()], [delivery()]], 0.1)
    assert stored[0] == 7
    assert isinstance(stored[1], NoAnswer)


async def test_a_busy_process_hears_the_answer_that_has_come(
    redis: Redis, open_inbox: OpenInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time that this process spent elsewhere is not Redis's: what it has answered by then counts."""
    inbox = open_inbox(redis)
    await inbox.put([delivery()])
    line, is_sent = inbox._line, asyncio.Event()
    connection = line._connection
    assert connection is not None
    send = connection.send_packed_command

    async def note(*args: Any, **options: Any) -> None:
        await send(*args, **options)
        is_sent.set()

    monkeypatch.setattr(connection, "send_packed_command", note)
    putting = asyncio.create_task(inbox.put_entries([[delivery()]], 0.1))
    await is_sent.wait()
    time.sleep(0.3)  # noqa: ASYNC251 - the subject: the loop is not served
    assert await putting == [0]
