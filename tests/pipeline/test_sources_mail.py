"""What the mail senders share: one event from a sender's fields, by rules that hold for all of them."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.outcomes import EventType, Invalid, MailEvent, Unaddressed
from pipeline.sources import Rules, mail
from tests.pipeline.sample_outcomes import NOW

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0"
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)
FIELDS = [name for name in mail.Told.__annotations__ if name not in ("type", "recipient")]


def told(**changes: Any) -> mail.Told:
    """Return an event as some sender tells it, with *changes*."""
    fields: dict[str, Any] = {
        "type": EventType.OPEN,
        "email": "Ada@example.com ",
        "time": 1_685_620_800,
        "send_id": "<m-1@mail.example.com>",
    }
    return cast(mail.Told, fields | changes)


def event(**changes: Any) -> MailEvent:
    """Return the event, which has to be right."""
    found = mail.event_of(told(**changes), {}, NOW)
    assert isinstance(found, MailEvent)
    return found


def test_an_event_has_its_address_time_and_id_bare() -> None:
    """White space and one pair of <> are not part of an id, nor white space of an address."""
    found = event()
    assert (found.email, found.send_id) == ("Ada@example.com", "m-1@mail.example.com")
    assert found.occurred_at_utc == "2023-06-01T12:00:00"


@pytest.mark.parametrize(
    ("missing", "error"),
    [
        ({"time": None}, "time of the event"),
        ({"time": "soon"}, "time of the event"),
        ({"send_id": ""}, "id of the message"),
        ({"send_id": " <> "}, "id of the message"),
        ({"email": None}, "email"),
        ({"email": "nobody"}, "email"),
    ],
)
def test_nothing_is_invented(missing: dict[str, object], error: str) -> None:
    """An event without address, time or id is invalid, says what is missing, and is kept as it came."""
    found = mail.event_of(told(**missing), {"a": 1}, NOW)
    assert isinstance(found, Invalid)
    assert error in found.error
    assert found.payload == b'{"a":1}'


@pytest.mark.parametrize(
    "written",
    [
        *("ada@example.com", " ada@example.com\n", "<ada@example.com>", "Ada <ada@example.com>"),
        *('"Lovelace, <A>" <ada@example.com>', "< ada@example.com >"),
    ],
)
def test_an_address_is_bare(written: str) -> None:
    """A name before it, brackets and white space are not part of it, whoever sends them."""
    assert event(email=written).email == "ada@example.com"


@pytest.mark.parametrize(("written", "bare"), [("<a>", "a"), ("<<a>>", "<a>"), (" < a >", "a")])
def test_one_pair_of_brackets_is_no_part_of_an_id(written: str, bare: str) -> None:
    """One, also where the id was chosen among several."""
    assert event(send_id=written).send_id == bare
    assert event(send_id=mail.first_id(("", written))).send_id == bare


@pytest.mark.parametrize("nothing", ["", " ", "<>", 0, "0", None, True, 1.5, []], ids=repr)
def test_the_first_id_that_there_is(nothing: object) -> None:
    """What is empty, 0 or no text is no id, and the next one is taken."""
    assert mail.first_id((nothing, "m-1")) == "m-1"
    assert mail.first_id((nothing,)) == ""


@pytest.mark.parametrize("said", [True, 1, "1", "true", " TRUE", "yes"], ids=repr)
def test_what_senders_call_true(said: object) -> None:
    """A flag may come as a boolean, a number or a text."""
    assert mail.is_true(said)


@pytest.mark.parametrize(
    "said", [False, 0, "0", "false", "no", "", None, 2, 1.0, "Apple", [True]], ids=repr
)
def test_everything_else_is_not_true(said: object) -> None:
    """What is no clear yes is no yes."""
    assert not mail.is_true(said)


@pytest.mark.parametrize("kind", [EventType.OPEN, EventType.CLICK])
def test_an_event_of_a_number_waits_for_its_address(kind: EventType) -> None:
    """It is ignored unless somebody knows whose number it is, and has everything else that it needs."""
    found = mail.event_of(told(type=kind, email=None, recipient="1:7"), {}, NOW)
    assert isinstance(found, Unaddressed)
    assert (found.why, found.event.email, found.event.recipient) == ("no_address", "", "1:7")
    wrong = mail.event_of(told(type=kind, email=None, recipient="1:7", time=None), {}, NOW)
    assert isinstance(wrong, Invalid)
    assert "time of the event" in wrong.error


def test_an_event_that_names_both_teaches_whose_number_it_is() -> None:
    """The address is the event's, and the number stands beside it."""
    found = event(recipient="1:7")
    assert (found.email, found.recipient) == ("Ada@example.com", "1:7")


@pytest.mark.parametrize("kind", list(EventType))
def test_machine_and_place_only_of_what_the_person_did(kind: EventType) -> None:
    """On Open, Click and Unsubscribe they are the person's; on everything else a server's."""
    found = event(type=kind, ip="192.0.2.7", user_agent=FIREFOX)
    is_the_persons = kind in (EventType.OPEN, EventType.CLICK, EventType.UNSUBSCRIBE)
    assert (found.ip_address == "192.0.2.7") is is_the_persons
    assert (found.user_agent == FIREFOX) is is_the_persons
    assert (found.browser == "Firefox") is is_the_persons


@pytest.mark.parametrize("ip", ["", "unknown", "192.0.2.300", 7, None, ["192.0.2.7"]])
def test_what_is_no_address_of_a_machine_is_dropped(ip: object) -> None:
    """Only an IPv4 or IPv6 address leaves."""
    assert event(ip=ip).ip_address is None


def test_what_the_sender_read_is_preferred() -> None:
    """What the sender read from the user agent is taken whole; ours comes in only where it read nothing."""
    found = event(user_agent=FIREFOX, client="Postbox", os=" unknown ")
    assert (found.client, found.browser, found.os, found.device) == ("Postbox", None, None, None)
    found = event(user_agent=FIREFOX, client="unknown")
    assert (found.client, found.browser, found.os) == (None, "Firefox", "Linux")
    assert found.device == "Desktop"


@pytest.mark.parametrize(
    ("user_agent", "said", "is_machine"),
    [
        ("Mozilla/5.0", False, True),  # Apple's proxy, which says no more
        ("Mozilla/5.0 (via ggpht.com GoogleImageProxy)", False, False),
        (FIREFOX, True, True),
        (None, False, False),
    ],
)
def test_opens_by_machines_are_marked(user_agent: str, said: bool, is_machine: bool) -> None:
    """An Open is a machine's where the sender says so, or where the agent is Apple's proxy."""
    assert event(user_agent=user_agent, machine_open=said).machine_open is is_machine


def test_only_an_open_can_be_a_machines() -> None:
    """`machine_open` exists on Open and nowhere else."""
    assert event(type=EventType.CLICK, machine_open=True).machine_open is None


def test_one_send_a_message() -> None:
    """Of "accepted" and "delivered" the one that SEND_FROM names is the Send."""
    for send_from, other in (("accepted", "delivered"), ("delivered", "accepted")):
        rules = Rules(send_from=send_from)  # type: ignore[arg-type]
        assert mail.send_when(send_from, rules) is EventType.SEND
        assert mail.send_when(other, rules) == mail.NOT_THE_SEND


def test_a_deferral_is_nothing_unless_told_otherwise() -> None:
    """It may be delivered yet; DEFERRAL_AS makes it a soft bounce."""
    assert mail.deferral(Rules()) == mail.DEFERRED
    assert mail.deferral(Rules(deferral_as="SoftBounce")) is EventType.SOFT_BOUNCE


@pytest.mark.parametrize(
    ("status", "kind"),
    [("5.1.1", "HardBounce"), (550, "HardBounce"), ("4.2.2", "SoftBounce"), (None, "SoftBounce")],
)
def test_a_bounce_without_a_verdict_goes_by_its_status(status: object, kind: str) -> None:
    """5 is hard, 4 is soft, unknown is soft."""
    assert mail.bounce_by_status(status) == kind


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (("", "550 5.1.1 no such user"), "HardBounce"),
        (("smtp;550-5.1.1 no",), "HardBounce"),
        (("5.1.1 (bad destination mailbox address)",), "HardBounce"),
        (("host said: 452 4.2.2 full", "5.1.1"), "SoftBounce"),
        (("4.4.7", "550"), "SoftBounce"),
        (("not here", "failed (#5.1.1)"), "HardBounce"),
        (("refused by 5.9.10.11", "[192.0.2.5.5]", "5000 more", "v5.1.1"), "SoftBounce"),
        ((None, 7, ["5.1.1"]), "SoftBounce"),
    ],
)
def test_the_first_status_counts_wherever_it_stands(said: tuple[object, ...], kind: str) -> None:
    """A status may be a number, a text or a part of what the other server said; an IP address is none."""
    assert mail.bounce_by_status(*said) == kind


@given(
    fields=st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, ANYTHING)),
    kind=st.sampled_from(list(EventType)),
)
def test_any_fields_at_all_give_an_event_or_say_what_is_wrong(
    fields: dict[str, object], kind: EventType
) -> None:
    """Whatever type a sender's field has, nothing is raised."""
    found = mail.event_of(told(**fields | {"type": kind}), {}, NOW)
    assert isinstance(found, MailEvent | Invalid | Unaddressed)
