"""`/hooks/{source}/{token}`: where the senders' requests come in.

Senders rely on the order of the checks, and each status is the sender's next move:

    404 source · 405 method · 401 token · 413 size · 401 signature    do not send this again
    429         so many 404 and 401 for a token that it is not said any more (`strangers`)
    400 415   not the sender's form; its bytes are a dead letter      do not send this again
    408 503   not stored                                              send it again
    202 200   stored; the header Relay-Ack says how safely, or that   done
              it is spilled: on this machine's disk until Redis is back

A sender that would not send it again after 408 or 503 is told so by the status that it needs
(`next_moves`). A sender's own probe that only its signature tells apart (`verify` raises `Probe`)
gets the status of a stored delivery and the body of an answer to GET; nothing of it is stored.

Only what is unauthentic or too large leaves no trace but a count. A tag that is not a tag is left
out and counted, and the delivery is stored without it: a slip in a URL must not cost data.

Speed is a feature here: a bare ASGI callable, one dict of headers, answers' headers
made beforehand, no object per request but the delivery and what holds its bytes. One line per
delivery in the log would cost more than storing it, so at INFO there is a line for each refusal
and, every ten seconds, one with the counts (`summary`); at DEBUG each flush tells the ids it
stored.

A request comes by one of two ways. `take` takes what has come whole and needs nothing but its flush (`short_way`), and
does nothing before it knows that. Everything else, and whatever is refused, goes by `__call__`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.types import Receive, Scope, Send

from pipeline.deliveries import SIGNED, Delivery, new_delivery_id
from pipeline.inbox import Inbox, NotStored
from pipeline.outcomes import Probe, Reason
from pipeline.sources import Malformed, Source, Unauthentic
from pipeline.sources.json_pieces import LARGE
from pipeline.sources.registry import SECRETS
from receiver import next_moves, problems
from receiver.answers import Prepared, answer, answer_early, head
from receiver.bodies import Bodies, Gone, Held, Memory, Undecodable, UnknownEncoding
from receiver.group_commit import GroupCommit
from receiver.metrics import Metrics
from receiver.opening import Opening
from receiver.problems import Headers, Refused, render
from receiver.refusals import Refusals
from receiver.room import RoomWatch
from receiver.spilling import Spilling
from receiver.strangers import Strangers
from receiver.tokens import Tokens, parameters, presented

if TYPE_CHECKING:
    from receiver.short_way import Whole

log = logging.getLogger(__name__)

_TAG = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.:+/=-]{1,128}")
_TRACE_PARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_ENCODING = re.compile(rb"[A-Za-z0-9, .;=*-]{1,64}")
_ALLOW = b"GET, HEAD, POST"
# headers of a request that needs more than storing it
_UNUSUAL = frozenset((b"content-encoding", b"x-request-id"))
PREFIX = "/hooks/"
_NO_PARAMETERS: Mapping[str, str] = {}
_PROBE = b'{"ready":true}'
_PROBE_HEADERS: Headers = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(_PROBE)).encode()),
]
# A request this small has been read by the server already: its connection can be used again.
_SMALL = 1 << 16
# Burying is one Redis call; every answer is due within 250 ms (docs/operations.md).
_BURY_WITHIN_S = 0.2

# Which refusals are counted in Redis, and under which word of `relay status`.
_COUNTED = {
    problems.WRONG_TOKEN.name: "token",
    problems.TOO_MANY_REFUSED.name: "token",
    problems.BAD_SIGNATURE.name: "signature",
    problems.TOO_LARGE.name: "too_large",
}


@dataclass(frozen=True, slots=True)
class Door:
    """One source, and what is needed to answer its senders."""

    source: Source
    stored: Prepared
    spilled: Prepared
    meter: tuple[str, int]

    @classmethod
    def of(cls, source: Source, ack_policy: str) -> Door:
        """Make the door of *source*."""
        length = len(_stored_body(new_delivery_id()))
        common = [
            (b"content-type", b"application/json"),
            (b"content-length", str(length).encode()),
        ]
        stored = Prepared(source.success, [*common, (b"relay-ack", ack_policy.encode())])
        spilled = Prepared(source.success, [*common, (b"relay-ack", b"spilled")])
        return cls(source, stored, spilled, (source.name, source.success))


class Webhooks:
    """The endpoint, a plain ASGI callable under `/hooks/{source}` and `/hooks/{source}/{token}`."""

    def __init__(
        self,
        *,
        sources: Mapping[str, Source],
        ack_policy: str,
        tokens: Tokens,
        secrets: Mapping[str, str],
        bodies: Bodies,
        memory: Memory,
        commit: GroupCommit,
        inbox: Inbox,
        opening: Opening,
        room: RoomWatch,
        spilling: Spilling,
        refusals: Refusals,
        strangers: Strangers,
        metrics: Metrics,
    ) -> None:
        self._doors = {name: Door.of(source, ack_policy) for name, source in sources.items()}
        self._tokens = tokens
        self._secrets = secrets
        self._verified = {name for name, needed in SECRETS.items() if all(map(secrets.get, needed))}
        self._bodies = bodies
        self._memory = memory
        self._commit = commit
        self._inbox = inbox
        self._opening = opening
        self._room = room
        self._spilling = spilling
        self._refusals = refusals
        self._strangers = strangers
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        held = Held(self._memory)
        try:
            door, query = self._admit(scope, headers)
            if scope["method"] != "POST":
                await answer(send, 200, _echoed(_PROBE_HEADERS, headers), _PROBE)
                return
            delivery = await self._read(door.source, headers, query, receive, held)
            if self._opening.problem is not None or self._room.is_full:
                self._check_spill()
            spilled = await self._commit.put(delivery)
        except NotStored:  # the flush has said why, once for all who waited for it
            await self._refuse(_not_stored(), scope, headers, receive, send, held)
            return
        except Refused as refused:
            await self._refuse(refused, scope, headers, receive, send, held)
            return
        except Probe:
            log.info("probe source=%s", door.source.name)
            await answer(send, door.source.success, _echoed(_PROBE_HEADERS, headers), _PROBE)
            return
        except Gone:
            return
        except Exception as error:
            # A fault of ours must not lose the delivery: the sender keeps it and tries again.
            log.error("failed on a request", exc_info=_without_values(error))  # noqa: TRY400
            failed = Refused(problems.INTERNAL, "The relay failed; send it again later.")
            await self._refuse(failed, scope, headers, receive, send, held)
            return
        finally:
            held.release()
        self.note(door, delivery, spilled=spilled)
        kept = door.spilled if spilled else door.stored
        body = _stored_body(delivery.id)
        await answer(send, kept.status, _echoed(kept.headers, headers), body)

    def take(self, whole: Whole) -> bool:
        """Take a request that has come whole, unless anything about it is unusual: see `short_way.Taker`."""
        path, _, query_string = whole.url.partition(b"?")
        headers: dict[bytes, bytes] = dict(whole.headers)
        is_plain = b"%" not in path and b"#" not in whole.url and _UNUSUAL.isdisjoint(headers)
        if whole.method != b"POST" or not is_plain:
            return False
        if self._opening.problem is not None or self._room.is_full:
            return False
        name, query, shown = _credentials(path.decode("latin-1"), query_string, headers)
        door = self._doors.get(name)
        if door is None or not self._tokens.admit(name, shown):
            return False
        body = whole.body
        held = Held(self._memory)
        content_type = headers.get(b"content-type", b"").decode("latin-1")
        try:
            if self._secrets:
                self._verify(door.source, headers, body)
            if len(body) > LARGE or _form_problem(door.source, body, content_type) is not None:
                return False
            self._bodies.take(body, held)
        except (Refused, Probe):
            return False
        delivery = self._delivery(door.source, headers, query, body, content_type)
        self._commit.leave(delivery, Taken(self, whole, door, delivery, held))
        return True

    def _admit(
        self, scope: Scope, headers: Mapping[bytes, bytes]
    ) -> tuple[Door, Mapping[str, str]]:
        """Return the door that the request found open, and its query; raises `Refused`."""
        path, query_string = route_path(scope), scope["query_string"]
        name, query, shown = _credentials(path, query_string, headers)
        door = self._doors.get(name)
        if door is None:
            why = "The path names no source that this relay knows."
            raise self._stranger(scope, (), Refused(problems.UNKNOWN_SOURCE, why), limited=True)
        if scope["method"] not in ("POST", "GET", "HEAD"):
            raise Refused(
                problems.METHOD_NOT_ALLOWED, "Send with POST.", headers=[(b"allow", _ALLOW)]
            )
        if not self._tokens.admit(name, shown):
            why = "Put one of HOOK_TOKENS at the end of the path, or in a header or password."
            refused = Refused(problems.WRONG_TOKEN, why)
            # who shows none may be asking to be asked for it
            raise self._stranger(scope, shown, refused, limited=bool(shown))
        return door, query

    def _stranger(
        self, scope: Scope, shown: Sequence[bytes], refused: Refused, *, limited: bool
    ) -> Refused:
        """Return how to refuse who shows no valid token: by the reason, or, where it is *limited*, by 429."""
        peer = scope.get("client")
        wait_s = self._strangers.wait_s(peer[0] if peer else "", shown)
        if wait_s and limited:
            detail = "Too many requests from this address or with this token were refused; check the sender's token."
            headers = [(b"retry-after", b"%d" % wait_s)]
            refused = Refused(problems.TOO_MANY_REFUSED, detail, headers=headers)
        refused.quietly = bool(wait_s)
        return refused

    def note(self, door: Door, delivery: Delivery, *, spilled: bool) -> None:
        """Count a delivery that is kept."""
        size = len(delivery.body)
        if not spilled:
            self._room.stored(size)
        self._metrics.answered[door.meter] += 1
        self._metrics.received_bytes[door.source.name] += size

    async def _read(
        self,
        source: Source,
        headers: dict[bytes, bytes],
        query: Mapping[str, str],
        receive: Receive,
        held: Held,
    ) -> Delivery:
        """Return the delivery that the request brings; raises `Refused`, also for what is kept as a dead letter."""
        body = await self._bodies.read(receive, headers, held)
        packed = body
        wrong: Refused | None = None
        encoding = headers.get(b"content-encoding")
        if encoding is not None:
            body, wrong = await self._unpacked(packed, encoding, held)
        if self._secrets:  # without its own secret a source says nothing: see `Source.verify`
            self._verify(source, headers, body)
        content_type = headers.get(b"content-type", b"").decode("latin-1")
        if wrong is None:
            if len(body) <= LARGE:
                wrong = _form_problem(source, body, content_type)
            else:  # in a thread, piece by piece, so that others are answered meanwhile
                wrong = await asyncio.to_thread(_form_problem, source, body, content_type)
        still_packed = encoding is not None and body is packed
        delivery = self._delivery(source, headers, query, body, content_type, still_packed)
        if wrong is not None:
            await self._bury(delivery, wrong)
        return delivery

    def _delivery(
        self,
        source: Source,
        headers: Mapping[bytes, bytes],
        query: Mapping[str, str],
        body: bytes,
        content_type: str,
        still_packed: bool = False,
    ) -> Delivery:
        name = source.name
        kept = _kept(source, headers, signed=name in self._verified, still_packed=still_packed)
        tag = self._tag(name, query) if query else None
        now_ms = time.time_ns() // 1_000_000
        return Delivery(new_delivery_id(), name, body, now_ms, content_type, tag, kept)

    async def _unpacked(
        self, packed: bytes, encoding: bytes, held: Held
    ) -> tuple[bytes, Refused | None]:
        """Return the body as it was before it was packed, or as it came and what is wrong with it."""
        try:
            return await self._bodies.decode(packed, encoding, held), None
        except UnknownEncoding:
            return packed, Refused(problems.UNKNOWN_ENCODING, "Send it uncompressed or with gzip.")
        except Undecodable as error:
            return packed, Refused(problems.MALFORMED, str(error))

    def _verify(self, source: Source, headers: Mapping[bytes, bytes], body: bytes) -> None:
        names = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in headers.items()
        }
        try:
            source.verify(names, body, self._secrets, time.time())
        except Unauthentic as error:
            raise Refused(problems.BAD_SIGNATURE, str(error)) from None

    def _tag(self, source: str, query: Mapping[str, str]) -> str | None:
        tag = query.get("tag")
        if tag is None or _TAG.fullmatch(tag):
            return tag
        self._metrics.bad_tags[source] += 1
        log.info("tag left out: not valid source=%s", source)
        return None

    async def _bury(self, delivery: Delivery, wrong: Refused) -> None:
        """Keep what is authentic and not understood, and refuse it; with 503 if it is not kept."""
        self._check_open()
        try:
            async with asyncio.timeout(_BURY_WITHIN_S):
                wrong.id = await self._inbox.bury(delivery, Reason.MALFORMED, wrong.detail)
        except (NotStored, TimeoutError) as error:
            log.warning("not buried: %s", str(error) or "Redis did not answer in time")
            raise _not_stored() from None
        self._room.stored(len(delivery.body))
        raise wrong

    def _check_spill(self) -> None:
        """Refuse what nobody takes: Redis does not, as it is known, and neither does the disk."""
        if not self._spilling.takes:
            self._check_open()

    def _check_open(self) -> None:
        if self._opening.problem is not None:
            raise _not_stored()
        if self._room.is_full:
            raise Refused(
                problems.STORAGE_FULL,
                "The relay's storage is nearly full; send it again later.",
            )

    async def _refuse(
        self,
        refused: Refused,
        scope: Scope,
        headers: Mapping[bytes, bytes],
        receive: Receive,
        send: Send,
        held: Held,
    ) -> None:
        name = route_path(scope)[len(PREFIX) :].partition("/")[0]
        source = name if name in self._doors else "unknown"
        status, answer_headers, body = self.refusal(refused, source)
        answer_headers = _echoed(answer_headers, headers)
        if _is_unread(headers, held, refused):
            await answer_early(receive, send, status, answer_headers, body)
        else:
            await answer(send, status, answer_headers, body)

    def refusal(self, refused: Refused, source: str) -> tuple[int, Headers, bytes]:
        """Count and tell a refusal; return its status, headers and body."""
        problem = next_moves.said_to(source, refused.problem)
        self._metrics.answered[source, problem.status] += 1
        self._metrics.refused[source, problem.name] += 1
        if (word := _COUNTED.get(problem.name)) is not None and source != "unknown":
            self._refusals.add(word)
        level = logging.DEBUG if refused.quietly else logging.INFO
        log.log(level, "refused source=%s status=%d cause=%s", source, problem.status, problem.name)
        return render(refused, problem)


class Taken:
    """A request that was taken whole, and waits for its flush: it is answered as soon as that has ended."""

    __slots__ = ("_delivery", "_door", "_held", "_webhooks", "_whole")

    def __init__(
        self, webhooks: Webhooks, whole: Whole, door: Door, delivery: Delivery, held: Held
    ) -> None:
        self._webhooks = webhooks
        self._whole = whole
        self._door = door
        self._delivery = delivery
        self._held = held

    def done(self) -> bool:
        """Tell that its answer is waited for: nothing takes a request back."""
        return False

    def set_result(self, result: bool, /) -> None:
        """Answer that it is kept; *result* tells whether it was spilled."""
        self._held.release()
        self._webhooks.note(self._door, self._delivery, spilled=result)
        prepared = self._door.spilled if result else self._door.stored
        head = prepared.head(self._whole.default_headers)
        self._whole.answer(head, _stored_body(self._delivery.id))

    def set_exception(self, exception: NotStored, /) -> None:
        """Answer that it is not; the flush has said why."""
        self._held.release()
        status, headers, body = self._webhooks.refusal(_not_stored(), self._door.source.name)
        self._whole.answer(head(status, [*self._whole.default_headers, *headers]), body)


def _credentials(
    path: str, query_string: bytes, headers: Mapping[bytes, bytes]
) -> tuple[str, Mapping[str, str], Sequence[bytes]]:
    """Return the source that the request names, its query, and the tokens that it shows."""
    name, _, token = path[len(PREFIX) :].partition("/")
    query = parameters(query_string) if query_string else _NO_PARAMETERS
    return name, query, presented(token.rstrip("/"), headers, query)


def route_path(scope: Scope) -> str:
    """Return the path without the prefix that a proxy in front of the receiver takes away."""
    path: str = scope["path"]
    return path.removeprefix(scope["root_path"]) if scope.get("root_path") else path


def _form_problem(source: Source, body: bytes, content_type: str) -> Refused | None:
    try:
        source.check(body, content_type)
    except Malformed as error:
        return Refused(problems.MALFORMED, str(error))
    except Exception as error:
        # A fault of a source must not lose the delivery: it is stored, and `unpack`
        # buries it as a bug.
        log.error("check failed source=%s", source.name, exc_info=_without_values(error))  # noqa: TRY400
    return None


def _kept(
    source: Source, headers: Mapping[bytes, bytes], *, signed: bool, still_packed: bool
) -> dict[str, str]:
    """Return the headers to keep: what is needed later, the trace, how a body is still packed."""
    kept: dict[str, str] = {}
    for name in source.keeps_headers:
        if name == SIGNED:  # ours to say, whatever the request says
            if signed:
                kept[name] = "yes"
            continue
        value = headers.get(name.encode())
        if value is not None:
            kept[name] = value.decode("latin-1")
    if (trace := headers.get(b"traceparent")) is not None and _TRACE_PARENT.fullmatch(trace):
        kept["traceparent"] = trace.decode()
    if still_packed and _ENCODING.fullmatch(encoding := headers[b"content-encoding"]):
        kept["content-encoding"] = encoding.decode()
    return kept


def _is_unread(headers: Mapping[bytes, bytes], held: Held, refused: Refused) -> bool:
    """Whether more of the body may still come than the server has buffered."""
    if held.was_read or refused.problem is problems.STALLED:
        return False
    if refused.problem in (problems.TOO_LARGE, problems.TOO_BUSY):
        return True
    length = headers.get(b"content-length", b"0")
    return b"transfer-encoding" in headers or not length.isdigit() or int(length[:20]) > _SMALL


def _not_stored() -> Refused:
    return Refused(problems.NOT_STORED, "It could not be stored; send it again later.")


def _stored_body(delivery_id: str) -> bytes:
    return b'{"id":"%b"}' % delivery_id.encode()


def _echoed(answer_headers: Headers, headers: Mapping[bytes, bytes]) -> Headers:
    """Return *answer_headers* with the request's id, where it is sane."""
    value = headers.get(b"x-request-id", b"")
    if not _REQUEST_ID.fullmatch(value):
        return answer_headers
    return [*answer_headers, (b"x-request-id", value)]


def _without_values(error: Exception) -> Exception:
    """Return the error's kind and traceback without its text, which may quote a body."""
    return RuntimeError(type(error).__name__).with_traceback(error.__traceback__)
