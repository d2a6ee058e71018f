"""What the mail senders share: from a sender's fields to one event, by rules that hold for all of them.

A sender's file says which of its words is which event and where each field stands; everything after
that happens here, so that no sender is read more leniently than another:

- a Send once per message and recipient, from "accepted" or from "delivered" (`SEND_FROM`);
- a bounce by the sender's own verdict, only without one by its status;
- a deferral is no event unless `DEFERRAL_AS` says so; what was never sent is neither Send nor bounce;
- the time of the event, never of the call; ids as text, never invented;
- address and program of the machine only on what the person did: Open, Click, Unsubscribe.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import mail_events
from pipeline.addresses import clean
from pipeline.outcomes import EventType, Ignored, Invalid, MailEvent, Stage
from pipeline.sources import Rules
from pipeline.sources.json_body import as_json
from pipeline.sources.user_agents import Agent, read_user_agent

#: an event, or the word why there is none (see `pipeline.outcomes`)
Verdict = EventType | str

#: words of `Ignored`
SUPPRESSED = "suppressed"
DEFERRED = "deferred"
NOT_THE_SEND = "not_the_send"
NOT_A_MAIL_EVENT = "not_a_mail_event"
UNMAPPED = "unmapped"

_BY_THE_PERSON = frozenset((EventType.OPEN, EventType.CLICK, EventType.UNSUBSCRIBE))
# Apple's proxy sends exactly this agent; Gmail's and Yahoo's name themselves and are people's opens
_APPLES_PROXY = "Mozilla/5.0"


@dataclass(slots=True, kw_only=True)
class Told:
    """One event as its sender tells it, field by field, of whatever type each is.

    *time* in any form that `mail_events.utc_second` reads; *ip*, *user_agent* and what was read from it are
    the person's; *machine_open* only where the sender says so itself.
    """

    type: EventType
    email: object
    time: object
    send_id: object
    provider_id: object = None
    ip: object = None
    user_agent: object = None
    client: object = None
    browser: object = None
    os: object = None
    device: object = None
    machine_open: bool = False


def event_of(told: Told, item: object, now: float) -> MailEvent | Invalid:
    """Return the event, or what is wrong with it; *item* is kept then, *now* is Unix time in seconds."""
    occurred_at_utc = mail_events.utc_second(told.time)
    send_id = bare_id(told.send_id)
    event = MailEvent(
        email=clean(text(told.email)),
        type=told.type,
        occurred_at_utc=occurred_at_utc or "",
        send_id=send_id,
        provider_id=text(told.provider_id) or None,
    )
    if told.type in _BY_THE_PERSON:
        _add_person(event, told)
    if told.type is EventType.OPEN:
        event.machine_open = told.machine_open or text(told.user_agent) == _APPLES_PROXY
    error = None
    if occurred_at_utc is None:
        error = "the time of the event is missing or cannot be read"
    elif not send_id:
        error = "the id of the message is missing"
    else:
        error = mail_events.problem(event, now)
    return Invalid(Stage.FORWARD, error, as_json(item)) if error else event


def ignored(why: str) -> Ignored:
    """Return that there is no event, and why."""
    return Ignored(Stage.FORWARD, why)


def invalid(error: str, item: object) -> Invalid:
    """Return that *item* is no event that can be read; *error* quotes nothing of it."""
    return Invalid(Stage.FORWARD, error, as_json(item))


def send_when(told_by: str, rules: Rules, usual: str = "accepted") -> Verdict:
    """Return Send when *told_by* (`accepted` or `delivered`) is the one that counts.

    *usual* is the sender's own, where `SEND_FROM` says nothing: `delivered` for those that tell of no
    acceptance, or did not use to.
    """
    return EventType.SEND if told_by == (rules.send_from or usual) else NOT_THE_SEND


def deferral(rules: Rules) -> Verdict:
    """Return what a delivery that will be tried again is."""
    return EventType.SOFT_BOUNCE if rules.deferral_as == "SoftBounce" else DEFERRED


def bounce_by_status(status: object) -> EventType:
    """Return the bounce that an SMTP or enhanced status tells: 5 is hard, 4 and unknown are soft."""
    return EventType.HARD_BOUNCE if text(status).startswith("5") else EventType.SOFT_BOUNCE


def text(value: object) -> str:
    """Return a string or a whole number as text, trimmed; everything else is nothing."""
    if isinstance(value, str):
        return value.strip()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def bare_id(value: object) -> str:
    """Return an id as text, without white space and one pair of `<>`."""
    found = text(value)
    if found.startswith("<") and found.endswith(">"):
        return found[1:-1].strip()
    return found


def part(value: object, *path: str) -> object:
    """Return what stands in *value* under the keys of *path*, None where there is nothing."""
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def _add_person(event: MailEvent, told: Told) -> None:
    user_agent = text(told.user_agent)
    event.ip_address = mail_events.valid_ip(text(told.ip))
    event.user_agent = user_agent or None
    # what the sender read is not mixed with what we read: the two name things differently
    said = Agent(*(_known(one) for one in (told.client, told.browser, told.os, told.device)))
    agent = read_user_agent(user_agent) if user_agent and said == Agent() else said
    event.client, event.browser = agent.client, agent.browser
    event.os, event.device = agent.os, agent.device


def _known(value: object) -> str | None:
    found = text(value)
    return None if found.lower() in ("", "unknown", "other", "null") else found
