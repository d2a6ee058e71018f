"""`relay send`: post a sample delivery, or a file, to the receiver as its sender would.

Samples tell of invented people, and a real vendor must never hear of them. So a sample is sent only to the
receiver of a running trial, with the trial's own token, which no other receiver knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.commands import AsJson, BadUsage, Failed, load, wrong_settings

if TYPE_CHECKING:
    from pipeline.settings import Settings
    from sandbox.samples import Sample


@dataclass(frozen=True, slots=True)
class Target:
    """Where to post."""

    url: str
    token: str


def send(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Such as pixel or sendgrid.")],
    file: Annotated[
        typer.FileBinaryRead | None,
        typer.Argument(metavar="FILE", help="The body; `-` is stdin. Without it: samples."),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="The receiver; else http://127.0.0.1:PORT.")
    ] = None,
    token: Annotated[
        str | None, typer.Option(help="The hook token; default: one from the settings.")
    ] = None,
    content_type: Annotated[str, typer.Option(help="Of the file's body.")] = "application/json",
    as_json: AsJson = False,
) -> None:
    """Post a file to the receiver, or, while a trial runs, the samples of a source.

    The answer 202 (200 for mail senders) means that the delivery is stored.
    """
    from console.output import progress
    from sandbox.samples import Sample

    settings = load()
    if file is not None:
        deliveries = [Sample(Path(file.name).name, source, file.read(), content_type)]
        target = _real_target(settings, source, url, token)
    else:
        deliveries = samples(source)
        target = _trial_target(settings, source, url, token)
    sent = []
    with progress("sending", len(deliveries), wanted=not as_json) as (advance, _):
        for delivery in deliveries:
            sent.append(post(target, delivery))
            advance(1)
    _tell(sent, as_json=as_json)


def _tell(sent: list[dict[str, Any]], *, as_json: bool) -> None:
    """Print what was answered; raises `Failed` when anything was refused."""
    from console.output import print_json, say

    refused = [each for each in sent if not 200 <= each["status"] < 300]
    if refused:
        words = "; ".join(
            f"{each['name']}: {each['status']} {each['detail'] or '(no reason given)'}"
            for each in refused
        )
        raise Failed(f"The receiver refused {words}", {"sent": sent})
    if as_json:
        print_json({"sent": sent})
        return
    for each in sent:
        say(f"{each['status']} {each['ack'] or ''} {each['id']} ({each['name']})")


def samples(source: str) -> list[Sample]:
    """Return the samples of *source* as of this moment."""
    import time

    from sandbox.samples import SAMPLES, fresh
    from sandbox.samples.mail import MAIL_SENDERS, mail_sample

    now = time.time()
    if source in MAIL_SENDERS:
        return [mail_sample(source, now)]
    if source not in SAMPLES:
        known = ", ".join([*SAMPLES, *MAIL_SENDERS])
        raise BadUsage(f"There are no samples of {source!r}, only of {known}. Give a FILE.")
    return [fresh(sample, now) for sample in SAMPLES[source]]


def _trial_target(settings: Settings, source: str, url: str | None, token: str | None) -> Target:
    from pipeline.home import Home, HomeError
    from pipeline.hook_tokens import parse_tokens, token_for

    try:
        running = Home(settings.relay_home).running()
        trial_tokens = Home(running.home).read_tokens() if running and running.trial else None
    except HomeError as error:
        raise Failed(str(error)) from None
    if running is None or not running.trial or not trial_tokens or running.receiver_url is None:
        raise Failed(
            "Samples are sent only while a trial runs, because a real vendor must never hear of invented"
            " people: start `relay up` without vendor keys, or give a FILE."
        )
    if token is not None or (url is not None and url.rstrip("/") != running.receiver_url):
        raise Failed(
            f"Samples are sent only to the trial's own receiver ({running.receiver_url}), with its own"
            " token: give a FILE, or leave --url and --token out."
        )
    found = token_for(parse_tokens(trial_tokens), source)
    return Target(running.receiver_url, found or "")


def _real_target(settings: Settings, source: str, url: str | None, token: str | None) -> Target:
    from pipeline.hook_tokens import token_for
    from pipeline.settings import SettingsError

    if token is None:
        try:
            token = token_for(settings.tokens(), source)
        except SettingsError as error:
            raise wrong_settings(error.problems) from None
    if token is None:
        raise BadUsage(f"No token of HOOK_TOKENS is valid for {source}: pass --token.")
    return Target((url or _here(settings)).rstrip("/"), token)


def _here(settings: Settings) -> str:
    """Return the receiver of this machine: the one whose token is taken, too, when a trial runs."""
    from pipeline.home import Home, HomeError

    try:
        running = None if settings.redis_url else Home(settings.relay_home).running()
    except HomeError as error:
        raise Failed(str(error)) from None
    if running is not None and running.receiver_url is not None:
        return running.receiver_url
    return f"http://127.0.0.1:{settings.port}"


def post(target: Target, delivery: Sample, tag: str | None = None) -> dict[str, Any]:
    """Post *delivery*, with its *tag*, and return what was answered; raises `Failed` without an answer."""
    import httpx

    headers = {
        **delivery.headers,
        "Content-Type": delivery.content_type,
        # in a header, not in the URL: URLs end up in logs
        "Authorization": f"Bearer {target.token}",
    }
    try:
        answer = httpx.post(
            f"{target.url}/hooks/{delivery.source}",
            content=delivery.body,
            headers=headers,
            params={"tag": tag} if tag else None,
            timeout=30,
            trust_env=False,
        )
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        raise BadUsage("--url is no http or https URL.") from None
    except (UnicodeEncodeError, httpx.LocalProtocolError):
        raise BadUsage(
            "--token or --content-type has a character that is not allowed in an HTTP header."
        ) from None
    except httpx.HTTPError as error:
        raise Failed(
            f"No answer from {target.url} ({type(error).__name__}): is a receiver running there?"
            " `relay up` starts one; --url names another."
        ) from None
    facts = _facts(answer)
    return {
        "name": delivery.name,
        "source": delivery.source,
        "status": answer.status_code,
        "ack": answer.headers.get("Relay-Ack"),
        "id": facts.get("id"),
        "detail": facts.get("detail") or facts.get("title"),
    }


def _facts(answer: Any) -> dict[str, Any]:
    try:
        facts = answer.json()
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}
