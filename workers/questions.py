"""Questions: what a worker asks at Amazon, beside its work and never in its way.

One worker asks; a mark in Redis keeps all others from asking the same for a while, and the answer stands there for
all of them. Whoever wants an answer that is not there yet waits for a moment at most: then the work goes on with
something else (`Later`), and the delivery is looked at again by a later drain. So neither an Amazon that cannot be
reached nor messages that name one address after the other hold anybody up: few questions are on their way at a time,
and a host gets one every so often.

An answer that cannot change ends the matter at once. Any other refusal does not, because firewalls and proxies
refuse, too; but an address that is refused for an hour is refused. A network that fails ends nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from time import monotonic
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipeline import keys
from pipeline.clock import DAY_MS
from pipeline.endpoints import Endpoint
from pipeline.scripts import script
from pipeline.sources import Unauthentic
from workers.asking import Later
from workers.clients.errors import CallFailed, Rejected, Unavailable
from workers.clients.http import VendorHttp, calls_noted, new_client
from workers.clients.messages import Answer, Request
from workers.stopping import Stopped, unless_stopped

if TYPE_CHECKING:
    from workers.context import Context

logger = logging.getLogger(__name__)

#: seconds for a whole call
DEADLINE_S = 5.0
#: an hour at the usual pace (`Timing.backoff_cap_s`); a proxy that was set up wrongly is noticed by then
MOST_REFUSALS = 240
#: what was refused can be retried from the dead letters after a minute; whoever repeats it meanwhile costs no call
REFUSED_KEEP_MS = 60_000
#: seconds in which a process asks Redis once, however many deliveries wait for the same answer
_LOOKS_AGAIN_S = 1.0

# kept while somebody asks, and until it may be asked again
_ASKED = b""
# how a sentence begins that is kept in the place of an answer; no certificate begins so
_REFUSED = b"!"
# The answers that asking again cannot change. A 403 is not among them: firewalls give it too.
_FINAL = frozenset((400, 404, 410))
# Amazon has no time; with every 5xx
_BUSY = frozenset((408, 425, 429))


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked where, and for how long the answer holds.

    *kind* is its word in Redis; *read* returns what to keep of a good answer's body, or raises `Unauthentic`.
    """

    kind: str
    url: str
    keep_ms: int
    read: Callable[[bytes], bytes]

    @property
    def name(self) -> str:
        """Return its name in Redis."""
        return f"{self.kind}:{digest(self.url.encode())}"

    @property
    def host(self) -> str:
        """Return the beginning of its address."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"


async def answer_to(context: Context, question: Question) -> bytes:
    """Return the answer to *question*; raise `Later` when there is none yet, `Unauthentic` when there will be none."""
    asking, name = context.asking, question.name
    asking.check(name)
    if asking.may_ask(question.host):
        known = await keep(context, name, _ASKED, _wait_ms(context), replaces=False)
        if known is None:
            rest_s = context.timing.backoff_base_s
            await asking.ask(name, question.host, rest_s, _find_out(context, question))
            asking.check(name)
            known = await _kept(context, name)
    else:
        known = await _kept(context, name)
    if not known:  # asked by somebody, or not yet by anybody
        asking.look_again(name, min(_LOOKS_AGAIN_S, _wait_ms(context) / 1000))
        raise Later("Amazon has not answered yet")
    if known.startswith(_REFUSED):
        raise Unauthentic(known.removeprefix(_REFUSED).decode())
    return known


async def _find_out(context: Context, question: Question) -> None:
    """Ask, unless the worker stops meanwhile: another one asks again then."""
    with suppress(Stopped):
        await unless_stopped(context.stopping, _ask(context, question))


async def _ask(context: Context, question: Question) -> None:
    """Ask, and keep what is answered, when it is an answer.

    A host that cannot be reached is left alone for a while, whatever is to be asked there.
    """
    unreachable = f"unreachable:{digest(question.host.encode())}"
    if await _kept(context, unreachable):
        return
    try:
        answer = await _get(context, question)
    except (CallFailed, OSError) as failure:
        await keep(context, unreachable, b"1", _wait_ms(context))
        error = str(failure) or type(failure).__name__
        logger.warning("proof put off host=%s error=%s", question.host, error)
        return
    try:
        kept = await _judge(context, question, answer)
    except Unauthentic as refusal:
        sentence = _REFUSED + str(refusal).encode()
        await keep(context, question.name, sentence, REFUSED_KEEP_MS)
    else:
        if kept is not None:
            await keep(context, question.name, kept, question.keep_ms)


async def _get(context: Context, question: Question) -> Answer:
    """Return the answer, whatever its status, and count the call; redirects are not followed."""
    tally, began = context.tally, monotonic()
    async with new_client(most_connections=1) as client:
        http = VendorHttp("Amazon", question.host, {}, client, deadline_s=DEADLINE_S)
        with calls_noted() as calls:
            try:
                answer = await http.send(Request("GET", question.url.removeprefix(question.host)))
            except CallFailed as failure:
                tally.failed(Endpoint.PROOFS, calls, failure, monotonic() - began)
                raise
    if answer.status == 200:
        tally.answered(Endpoint.PROOFS, calls)
    else:
        tally.failed(Endpoint.PROOFS, calls, _failure(answer), monotonic() - began)
    return answer


def _failure(answer: Answer) -> CallFailed:
    """Return what an answer without what was asked for is, to be counted; what becomes of it is not decided here."""
    status = answer.status
    kind = Unavailable if status >= 500 or status in _BUSY else Rejected
    return kind(f"{answer.host} answers {status}", status=status)


async def _judge(context: Context, question: Question, answer: Answer) -> bytes | None:
    """Return what to keep, None when it must be asked again later; raise `Unauthentic` when it is in vain."""
    status = answer.status
    if status == 200:
        return question.read(answer.body)
    if status in _FINAL:
        raise Unauthentic(f"Amazon answers {status} at the address in the message")
    times = 0
    if status < 500 and status not in _BUSY:
        times = await _count_refusal(context, question)
    if times >= MOST_REFUSALS:
        raise Unauthentic(f"Amazon keeps answering {status} at the address in the message")
    logger.warning("proof put off host=%s status=%d refusals=%d", question.host, status, times)
    return None


async def _count_refusal(context: Context, question: Question) -> int:
    """Count one more refusal of a day; only one caller at a time asks the same."""
    name = "refusals:" + question.name
    times = int(await _kept(context, name) or 0) + 1
    await keep(context, name, b"%d" % times, DAY_MS)
    return times


# Redis -----------------------------------------------------------------------------------------------


async def keep(
    context: Context, name: str, value: bytes, keep_ms: int, *, replaces: bool = True
) -> bytes | None:
    """Keep *value* under *name*, where nothing is kept or it *replaces* that; return what was kept before."""
    args: list[str | bytes | float] = [name, value, keep_ms, int(replaces)]
    before: bytes | None = await script(context.redis, "proof")(args=args)
    return before


async def _kept(context: Context, name: str) -> bytes | None:
    kept: bytes | None = await context.redis.get(f"{keys.PREFIX}proof:{name}")
    return kept


def digest(value: bytes) -> str:
    """Return the hash that stands for *value* in the name of a key."""
    return blake2b(value, digest_size=16).hexdigest()


def _wait_ms(context: Context) -> int:
    return max(1, int(context.timing.backoff_cap_s * 1000))
