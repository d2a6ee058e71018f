"""A drill of one source: its sample is posted to the receiver, and a worker tells what it read; nothing goes on.

The receiver is the one that senders reach (PUBLIC_URL), else this machine's. A sample carries no signature: nobody but
the sender can make one.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from console.commands import Failed
from console.findings_of_drill import receiver_here, why_not
from console.send import Target, post, samples
from pipeline import books, drills
from pipeline.home import HomeError
from pipeline.hook_tokens import token_for
from pipeline.outcomes import Stage
from pipeline.settings import SettingsError
from pipeline.sources.registry import SECRETS

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from pipeline.settings import Settings

#: an idle relay takes a fraction of a second; somebody waits for the page
WITHIN_S = 10.0
_LOOK_AGAIN_S = 0.05


async def drill(redis: Redis, settings: Settings, source: str) -> str:
    """Post a sample of *source*, and return in sentences how far it came; raises `Failed` where it went nowhere."""
    if why := why_not(await books.snapshot(redis), [Stage.UNPACK], "read"):
        raise Failed(f"Not sent: {why}.")
    try:
        token = token_for(settings.tokens(), source)
        target = Target((settings.public_url or receiver_here(settings)).rstrip("/"), token or "")
    except (SettingsError, HomeError) as error:
        raise Failed(f"Not sent: {error}") from None
    if not token:
        raise Failed(f"Not sent: no token of HOOK_TOKENS is valid for {source}: add one.")
    number, began = secrets.token_hex(8), monotonic()
    answer = await asyncio.to_thread(post, target, samples(source)[0], tag=drills.tag(number))
    if not 200 <= answer["status"] < 300:
        raise Failed(_refused(source, answer, settings.sender_secrets()))
    while monotonic() - began < WITHIN_S:
        if (told := await drills.read_as(redis, number)) is not None:
            return f"Answered {answer['status']}, and {_read_as(told)}. Nothing of it goes on."
        await asyncio.sleep(_LOOK_AGAIN_S)
    raise Failed(
        f"Answered {answer['status']}, and not read after {WITHIN_S:g} s: other deliveries wait before it, or receiver"
        " and workers do not use the same Redis. `relay doctor` says more."
    )


def _refused(source: str, answer: Mapping[str, Any], secrets_set: Mapping[str, str]) -> str:
    told = f"The receiver refuses it: {answer['status']}, {answer['detail'] or 'no reason given'}"
    if answer["status"] == 401 and any(name in secrets_set for name in SECRETS.get(source, ())):
        # the token is ours, so it is the signature
        return (
            f"{told.rstrip('.')}. So it should: {source}'s signature is asked for, and a sample has none. Try it by"
            " the sender's own test."
        )
    return told


def _read_as(told: Mapping[str, Any]) -> str:
    """Return what a worker read, in words (`drills.note`)."""
    if told["error"]:
        return f"a worker could not read it: {told['error']}"
    parts = [_in_words(word, count) for word, count in told["outcomes"].items()]
    return f"a worker read: {', '.join(parts) or 'a probe without events'}"


def _in_words(word: str, count: int) -> str:
    kind, _, what = word.partition(":")
    return f"{what or kind}{f' ({kind})' if kind == 'ignored' else ''} {count}"
