"""What the mail senders share: from a sender's fields to one event, by rules that hold for all of them.

A sender's file says which of its words is which event and where each field stands; everything after
that happens here, so that no sender is read more leniently than another:

- a Send once per message and recipient, from "accepted" or from "delivered" (`SEND_FROM`); a sender that has
  one word for a Send only tells it whatever SEND_FROM says (iterable, klaviyo, sfmc), but for mailjet, mailtrap
  and postmark: theirs says that the other server took it, so with SEND_FROM=accepted they have none;
- a bounce by the sender's own verdict, only without one by its status;
- a deferral is no event unless `DEFERRAL_AS` says so; what was never sent is neither Send nor bounce;
- the time of the event, never of the call; ids as text, never invented; addresses without the name before them;
- address and program of the machine only on what the person did: Open, Click, Unsubscribe;
- an Open is a machine's where the sender says so (`is_true`), or where its agent is the one of Apple's proxy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Required, TypedDict

from pipeline import mail_events
from pipeline.addresses import is_address
from pipeline.outcomes import EventType, Ignored, Invalid, MailEvent, Outcome, Stage, Unaddressed
from pipeline.sources import Rules
from pipeline.sources.json_body import as_json
from pipeline.sources.user_agents import read_user_agent

#: an event, or the word why there is none (see `pipeline.outcomes`)
Verdict = EventType | str

#: words of `Ignored`
SUPPRESSED = "suppressed"
DEFERRED = "deferred"
NOT_THE_SEND = "not_the_send"
NOT_A_MAIL_EVENT = "not_a_mail_event"
REPEATED = "repeated"  # it says again what another event of the same message says
SEVERAL_RECIPIENTS = "several_recipients"  # it is about one of them, and nobody says which
NO_ADDRESS = "no_address"  # it names its recipient by a number only
UNMAPPED = "unmapped"

# by names of their own: Python 3.11 takes longer to find a member in its enum than to compare it
_OPEN, _SEND = EventType.OPEN, EventType.SEND
_BY_THE_PERSON = frozenset((EventType.OPEN, EventType.CLICK, EventType.UNSUBSCRIBE))
# Apple's proxy sends exactly this agent; Gmail's and Yahoo's name themselves and are people's opens
_APPLES_PROXY = "Mozilla/5.0"
_NOTHING: Mapping[str, object] = MappingProxyType({})
# stands for the address of an event that has none while everything else of it is looked at
_NOBODY = "nobody@example.invalid"
# an SMTP reply or an enhanced status in what a server said, not a part of a longer number or of an IP address
_STATUS = re.compile(r"(?<![\w.])[45](?:\d\d|\.\d{1,3}\.\d{1,3})(?!\w|\.\d)", re.ASCII)


class Wrong(Exception):
    """An event is not what its sender sends; the message says why and quotes nothing of it."""


class Told(TypedDict, total=False):
    """One event as its sender tells it, field by field, of whatever type each is; what is not told may be left out.

    *time* in any form that `mail_events.utc_second` reads; *ip*, *user_agent* and what was read from it are
    the person's; *machine_open* only where the sender says so itself. *recipient* is the sender's own id of the
    person: beside an address it teaches whose it is, without one it stands for it.
    """

    # a dictionary: one is made for every event, and an object costs more than twice as much
    type: Required[EventType]
    email: Required[object]
    time: Required[object]
    send_id: Required[object]
    provider_id: object
    ip: object
    user_agent: object
    client: object
    browser: object
    os: object
    device: object
    machine_open: bool
    recipient: str | None


def event_of(told: Told, item: object, now: float) -> Outcome:
    """Return the event, or what is wrong with it; *item* is kept then, *now* is Unix time in seconds.

    One that names its recipient by a number only is `Unaddressed`, once everything else of it is right.
    """
    kind, written, recipient = told["type"], told["email"], told.get("recipient")
    # nothing of an address is left out by `bare_address`
    has_address = isinstance(written, str) and is_address(written)
    email = str(written) if has_address else bare_address(written)
    if recipient and not email:
        return _unaddressed(told, item, now)
    occurred_at_utc = mail_events.utc_second(told["time"])
    send_id = bare_id(told["send_id"])
    event = MailEvent(email, kind, occurred_at_utc or "", send_id)
    event.provider_id = text(told.get("provider_id")) or None
    event.recipient = recipient
    if kind in _BY_THE_PERSON:
        _add_person(event, told)
    error: str | None
    if occurred_at_utc is None:
        error = "the time of the event is missing or cannot be read"
    elif not send_id:
        error = "the id of the message is missing, or neither text nor a whole number"
    else:
        error = mail_events.problem_of_sender(event, now, has_address=has_address)
    return Invalid(Stage.FORWARD, error, as_json(item)) if error else event


def _unaddressed(told: Told, item: object, now: float) -> Outcome:
    addressed = told.copy()
    addressed["email"] = _NOBODY
    event = event_of(addressed, item, now)
    if isinstance(event, MailEvent):
        event.email = ""
        return Unaddressed(Stage.FORWARD, NO_ADDRESS, event)
    return event


def ignored(why: str) -> Ignored:
    """Return that there is no event, and why."""
    return Ignored(Stage.FORWARD, why)


def invalid(error: str, item: object) -> Invalid:
    """Return that *item* is no event that can be read; *error* quotes nothing of it."""
    return Invalid(Stage.FORWARD, error, as_json(item))


def word(item: Mapping[str, object], field: str) -> str:
    """Return the sender's word for what *item* is, which stands in *field*; raise `Wrong` without one."""
    found = item.get(field)
    if isinstance(found, str):
        return found
    raise Wrong(f"{field} is missing or not a string")


def send_when(told_by: str, rules: Rules, usual: str = "accepted") -> Verdict:
    """Return Send when *told_by* (`accepted` or `delivered`) is the one that counts.

    *usual* is the sender's own, where `SEND_FROM` says nothing: `delivered` for those that tell of no
    acceptance, or did not use to.
    """
    return _SEND if told_by == (rules.send_from or usual) else NOT_THE_SEND


def deferral(rules: Rules) -> Verdict:
    """Return what a delivery that will be tried again is."""
    return EventType.SOFT_BOUNCE if rules.deferral_as == "SoftBounce" else DEFERRED


def bounce_by_status(*said: object) -> EventType:
    """Return the bounce that the first SMTP or enhanced status in *said* tells: 5 is hard, 4 and none are soft.

    Each of *said* may be the status itself or a sentence of the other server's with one in it.
    """
    for one in said:
        words = text(one)
        if words.startswith(("4", "5")) and " " not in words:
            return EventType.HARD_BOUNCE if words[0] == "5" else EventType.SOFT_BOUNCE
        if found := _STATUS.search(words):
            return EventType.HARD_BOUNCE if found[0][0] == "5" else EventType.SOFT_BOUNCE
    return EventType.SOFT_BOUNCE


def text(value: object) -> str:
    """Return a string or a whole number as text, trimmed; everything else is nothing."""
    if isinstance(value, str):
        return value.strip()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def is_true(value: object) -> bool:
    """Tell whether a sender says yes: true, 1, or one of these as text."""
    return value is True or (bool(value) and text(value).lower() in ("true", "1", "yes"))


def bare_id(value: object) -> str:
    """Return an id as text, without white space and one pair of `<>`."""
    found = value.strip() if isinstance(value, str) else text(value)
    if found[:1] == "<" and found[-1] == ">":
        return found[1:-1].strip()
    return found


def send_id(rules: Rules, *, campaign: Iterable[object], message: Iterable[object]) -> str:
    """Return the first id there is: the message's, or with `SEND_ID=campaign` the campaign's before it."""
    if rules.send_id == "campaign" and (found := first_id(campaign)):
        return found
    return first_id(message)


def first_id(values: Iterable[object]) -> str:
    """Return the first of *values* that is an id, as it is written; 0 stands for none."""
    for value in values:
        found = value.strip() if isinstance(value, str) else text(value)
        # most have no brackets, in which there might be nothing
        if found and found != "0" and (found[0] != "<" or bare_id(found)):
            return found
    return ""


def bare_address(written: object) -> str:
    """Return the address of `Ada <ada@example.com>`, or what stands there without a name."""
    found = written.strip() if isinstance(written, str) else text(written)
    if found[-1:] == ">" and "<" in found:
        return found[:-1].rpartition("<")[2].strip()
    return found


def client_or_browser(program: object, *, is_browser: bool) -> tuple[object, object]:
    """Return `client` and `browser` where the sender names one program and tells of which kind it is."""
    return (None, program) if is_browser else (program, None)


def mobile_or_desktop(is_mobile: object) -> str | None:
    """Return the device, where the sender says no more than whether it is a mobile one."""
    if is_true(is_mobile):
        return "Mobile"
    is_said = is_mobile is False or text(is_mobile).lower() in ("false", "0", "no")
    return "Desktop" if is_said else None


def part(value: object, *path: str) -> object:
    """Return what stands in *value* under the keys of *path*, None where there is nothing."""
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def section(item: Mapping[str, object], name: str) -> Mapping[str, object]:
    """Return the object that stands in *item* under *name*; one without anything where there is none."""
    found = item.get(name)
    return found if isinstance(found, dict) else _NOTHING


def _add_person(event: MailEvent, told: Told) -> None:
    if ip := text(told.get("ip")):
        event.ip_address = mail_events.valid_ip(ip)
    if program := told.get("client"):
        event.client = _known(program)
    if program := told.get("browser"):
        event.browser = _known(program)
    if system := told.get("os"):
        event.os = _known(system)
    if device := told.get("device"):
        event.device = _known(device)
    if user_agent := text(told.get("user_agent")):
        event.user_agent = user_agent
        # what the sender read is not mixed with what we read: the two name things differently
        if not (event.client or event.browser or event.os or event.device):
            agent = read_user_agent(user_agent)
            event.client, event.browser = agent.client, agent.browser
            event.os, event.device = agent.os, agent.device
    if event.type is _OPEN:
        event.machine_open = told.get("machine_open", False) or user_agent == _APPLES_PROXY


def _known(value: object) -> str | None:
    # senders write "unknown", and their readers of user agents "Other", where they know nothing; Mailgun's "other" says
    # that it is none of the usual ones
    found = text(value)
    return None if found == "Other" or found.lower() in ("", "unknown", "null") else found
