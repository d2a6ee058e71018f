"""What mail senders post: the same facts in the words of each, in calls as large as it makes them.

Of twenty events eleven are Sends, six Opens, two Clicks and one a bounce; they are told in the word that is a
Send by default, so that every one of them leaves. Opens and Clicks follow the Send to the same person. The
fields are those of the senders' own documentation, their sizes those of its samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from urllib.parse import urlencode

import orjson

from bench import agents
from bench.agents import Agent
from pipeline.deliveries import Delivery, new_delivery_id

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
#: events in a call of a sender that collects them
BATCH = 30

_KINDS = ("send",) * 11 + ("open",) * 6 + ("click",) * 2 + ("bounce",)
_SENDS = _KINDS.count("send")
_BEGIN = 1_768_478_400  # 2026-01-15, in the past for every clock
STORED_AT_MS = _BEGIN * 1000
_LINK = "https://shop.example.com/winter/lamps/?utm_source=newsletter&utm_campaign=winter"
_REFUSAL = "550 5.1.1 The email account that you tried to reach does not exist"

Event = dict[str, object]
Words = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that happened to one mail."""

    number: int
    kind: str
    message: int
    agent: Agent | None

    @property
    def email(self) -> str:
        """The address of who got the mail."""
        return f"reader.{self.message}@example.com"

    @property
    def unix(self) -> int:
        """When it happened, another second for each event."""
        return _BEGIN + self.number

    @property
    def iso(self) -> str:
        """The same as text: `2026-01-15T12:00:00`."""
        return datetime.fromtimestamp(self.unix, UTC).isoformat()[:19]

    @property
    def ip(self) -> str:
        """The person's, or the proxy's."""
        return f"198.51.{self.message // 250 % 250}.{self.message % 250}"

    @property
    def uuid(self) -> str:
        """An id of the event."""
        return f"5f1b2f0e-7c3d-4000-8000-{self.number:012x}"

    @property
    def message_id(self) -> str:
        """An id of the mail."""
        return f"6a2c3f1d-7c3d-4000-8000-{self.message:012x}"


def facts(first: int, count: int) -> Iterator[Fact]:
    """Yield *count* facts from number *first* on; the same number is always the same fact."""
    for number in range(first, first + count):
        turn, place = divmod(number, len(_KINDS))
        kind, random = _KINDS[place], Random(number)
        agent = None
        if kind == "open":
            agent = agents.of_an_open(random)
        elif kind == "click":
            agent = agents.of_a_person(random)
        yield Fact(number, kind, turn * _SENDS + place % _SENDS, agent)


@dataclass(frozen=True, slots=True)
class Caller:
    """One sender: how it tells of a fact, and what it puts around the events of a call."""

    name: str
    event: Callable[[Fact], Event]
    around: Callable[[Sequence[Event]], object] | None = None
    """None: one event a call."""
    form: str | None = None
    """The field of a form in which the JSON stands; empty where the event itself is the form."""

    @property
    def events_per_call(self) -> int:
        """How many events it posts at once."""
        return BATCH if self.around else 1

    def deliveries(self, first: int, count: int) -> Iterator[Delivery]:
        """Yield the calls that tell of *count* facts from number *first* on, as a receiver stores them."""
        step = self.events_per_call
        for start in range(first, first + count, step):
            size = min(step, first + count - start)
            yield self.delivery(facts(start, size))

    def delivery(self, told: Iterable[Fact]) -> Delivery:
        """Return the call that tells of some facts."""
        events = [self.event(fact) for fact in told]
        value = self.around(events) if self.around else events[0]
        if self.form is None:
            body, content_type = orjson.dumps(value), JSON
        else:
            fields = {self.form: orjson.dumps(value).decode()} if self.form else events[0]
            body, content_type = urlencode(fields).encode(), FORM
        return Delivery(new_delivery_id(), self.name, body, STORED_AT_MS, content_type)


def _array(events: Sequence[Event]) -> object:
    return list(events)


def _under_events(events: Sequence[Event]) -> object:
    return {"events": list(events)}


def _put(event: Event, agent: Agent | None, more: Callable[[Agent], Event]) -> Event:
    """Add what is told only of what a person did."""
    return event | more(agent) if agent else event


def _sendgrid(fact: Fact) -> Event:
    words = {"send": "processed", "open": "open", "click": "click", "bounce": "bounce"}
    event: Event = {
        "email": fact.email,
        "timestamp": fact.unix,
        "event": words[fact.kind],
        "smtp-id": f"<{fact.message_id}@mailer.example.com>",
        "sg_event_id": f"c2FtcGxlLWV2ZW50L{fact.number:08}",
        "sg_message_id": f"{fact.message:014}.filter0001p1las1.4242.65A1B2C3.0",
        "category": ["newsletter"],
        "campaign": "winter",
    }
    if fact.kind == "bounce":
        event |= {"type": "bounce", "status": "5.1.1", "reason": _REFUSAL, "tls": 1}
    if fact.kind == "click":
        event |= {"url": _LINK, "url_offset": {"index": 0, "type": "html"}}
    return _put(event, fact.agent, lambda one: {"ip": fact.ip, "useragent": one.text})


def _mailgun(fact: Fact) -> Event:
    words = {"send": "delivered", "open": "opened", "click": "clicked", "bounce": "failed"}
    event: Event = {
        "id": f"sample{fact.number:016}",
        "event": words[fact.kind],
        "timestamp": fact.unix + 0.372891,
        "log-level": "info",
        "message": {"headers": {"message-id": f"{fact.message_id}@mailer.example.com"}},
        "campaigns": [],
        "recipient": fact.email,
        "recipient-domain": "example.com",
        "tags": ["newsletter"],
        "user-variables": {"campaign": "winter"},
    }
    if fact.kind == "bounce":
        event |= {"severity": "permanent", "delivery-status": {"code": 550, "message": _REFUSAL}}
    if fact.agent:
        event |= {"ip": fact.ip, "geolocation": {"country": "US", "region": "OK", "city": "Tulsa"}}
        event["client-info"] = {
            "client-name": fact.agent.program,
            "client-os": fact.agent.os,
            "client-type": "browser" if fact.agent.is_browser else "email client",
            "device-type": "mobile" if fact.agent.is_mobile else "desktop",
            "user-agent": fact.agent.text,
            "bot": "apple" if fact.agent == agents.APPLES_PROXY else None,
        }
    proof = {"token": f"{fact.number:050x}", "timestamp": str(fact.unix), "signature": "5c" * 32}
    return {"signature": proof, "event-data": event}


def _postmark(fact: Fact) -> Event:
    words = {"send": "Delivery", "open": "Open", "click": "Click", "bounce": "Bounce"}
    times = {"send": "DeliveredAt", "bounce": "BouncedAt"}
    event: Event = {
        "RecordType": words[fact.kind],
        "MessageStream": "outbound",
        "Metadata": {"campaign": "winter"},
        "MessageID": fact.message_id,
        "Tag": "newsletter",
        times.get(fact.kind, "ReceivedAt"): fact.iso + "Z",
        "Email" if fact.kind == "bounce" else "Recipient": fact.email,
    }
    if fact.kind == "bounce":
        event |= {"ID": fact.number, "Type": "HardBounce", "TypeCode": 1, "Details": _REFUSAL}
    return _put(
        event,
        fact.agent,
        lambda one: {
            "Platform": "Mobile" if one.is_mobile else "Desktop",
            "UserAgent": one.text,
            "OS": {"Name": one.os, "Company": "", "Family": one.os},
            "Client": {"Name": one.program, "Company": "", "Family": one.program},
            "Geo": {"IP": fact.ip, "City": "", "Country": "United States", "Coords": ""},
        },
    )


def _ses(fact: Fact) -> Event:
    kind = fact.kind.capitalize()
    mail = {
        "timestamp": fact.iso + ".000Z",
        "source": "news@example.com",
        "sendingAccountId": "123456789012",
        "messageId": f"0100019b{fact.message:08}-000000",
        "destination": [fact.email],
        "commonHeaders": {"from": ["news@example.com"], "to": [fact.email], "subject": "Winter"},
        "tags": {"ses:configuration-set": ["winter"]},
    }
    about: Event = {"timestamp": fact.iso + ".000Z"}
    if fact.kind == "bounce":
        people = [{"emailAddress": fact.email, "status": "5.1.1", "diagnosticCode": _REFUSAL}]
        about |= {"bounceType": "Permanent", "bouncedRecipients": people}
    about = _put(about, fact.agent, lambda one: {"ipAddress": fact.ip, "userAgent": one.text})
    message = {"eventType": kind, "mail": mail, fact.kind: about}
    return {
        "Type": "Notification",
        "MessageId": fact.uuid,
        "TopicArn": "arn:aws:sns:us-east-1:123456789012:ses-events",
        "Subject": "Amazon SES Email Event Notification",
        "Message": orjson.dumps(message).decode(),
        "Timestamp": fact.iso + ".000Z",
        "SignatureVersion": "1",
        "Signature": "EXAMPLE" * 49,
        "SigningCertURL": "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0.pem",
    }


def _sparkpost(fact: Fact) -> Event:
    words = {"send": "injection", "open": "open", "click": "click", "bounce": "bounce"}
    event: Event = {
        "type": words[fact.kind],
        "event_id": f"{fact.number:018}",
        "timestamp": str(fact.unix),
        "rcpt_to": fact.email,
        "raw_rcpt_to": fact.email,
        "message_id": f"000{fact.message:017x}",
        "transmission_id": "65832150921904138",
        "campaign_id": "winter",
        "subject": "New lamps",
        "friendly_from": "shop@example.com",
        "rcpt_meta": {"customKey": "customValue"},
        "rcpt_tags": ["newsletter"],
    }
    if fact.kind == "bounce":
        event |= {"bounce_class": "10", "error_code": "550", "raw_reason": _REFUSAL}
    if fact.agent:
        event |= {"ip_address": fact.ip, "user_agent": fact.agent.text, "target_link_url": _LINK}
        event["user_agent_parsed"] = {
            "agent_family": fact.agent.program,
            "os_family": fact.agent.os,
            "is_mobile": fact.agent.is_mobile,
            "is_proxy": fact.agent.is_proxy,
            "is_prefetched": fact.agent == agents.APPLES_PROXY,
        }
    return {"msys": {"track_event" if fact.agent else "message_event": event}}


def _mandrill(fact: Fact) -> Event:
    words = {"send": "send", "open": "open", "click": "click", "bounce": "hard_bounce"}
    about: Event = {
        "ts": fact.unix,
        "_id": f"{fact.message:032x}",
        "state": "sent",
        "subject": "New lamps",
        "email": fact.email,
        "sender": "shop@example.com",
        "tags": ["newsletter"],
        "metadata": {"campaign": "winter"},
        "opens": [],
        "clicks": [],
    }
    if fact.kind == "bounce":
        about |= {"bounce_description": "bad_mailbox", "diag": _REFUSAL}
    event: Event = {"event": words[fact.kind], "_id": about["_id"], "msg": about, "ts": fact.unix}
    return _put(
        event,
        fact.agent,
        lambda one: {
            "ip": fact.ip,
            "user_agent": one.text,
            "user_agent_parsed": {
                "type": "Browser" if one.is_browser else "Email Client",
                "ua_family": one.program,
                "ua_name": one.program,
                "os_family": one.os,
                "os_name": one.os,
                "mobile": one.is_mobile,
            },
            "location": {"country_short": "US", "region": "Oklahoma", "timezone": "-05:00"},
        },
    )


def _brevo(fact: Fact) -> Event:
    words = {"send": "request", "open": "opened", "click": "click", "bounce": "hard_bounce"}
    event: Event = {
        "event": words[fact.kind],
        "email": fact.email,
        "id": 814119,
        "date": fact.iso.replace("T", " "),
        "ts": fact.unix,
        "message-id": f"<{fact.message_id}@smtp-relay.example.com>",
        "ts_event": fact.unix,
        "subject": "Winter lamps",
        "sending_ip": "192.0.2.200",
        "ts_epoch": fact.unix * 1000 + 120,
        "tags": ["winter"],
    }
    return _put(event, fact.agent, lambda one: {"user_agent": one.text, "link": _LINK})


def _mailjet(fact: Fact) -> Event:
    words = {"send": "sent", "open": "open", "click": "click", "bounce": "bounce"}
    event: Event = {
        "event": words[fact.kind],
        "time": fact.unix,
        "MessageID": 194_217_778_351_464_901 + fact.message,
        "Message_GUID": fact.message_id,
        "email": fact.email,
        "mj_campaign_id": 7257,
        "mj_contact_id": fact.message,
        "customcampaign": "winter",
        "CustomID": "",
        "Payload": "",
    }
    if fact.kind == "bounce":
        event |= {"hard_bounce": True, "error_related_to": "recipient", "error": "user unknown"}
    return _put(
        event, fact.agent, lambda one: {"ip": fact.ip, "geo": "US", "agent": one.text, "url": _LINK}
    )


def _resend(fact: Fact) -> Event:
    words = {"send": "sent", "open": "opened", "click": "clicked", "bounce": "bounced"}
    data: Event = {
        "created_at": fact.iso + ".512Z",
        "email_id": fact.message_id,
        "broadcast_id": "8b146471-4e88-4e88-9c75-000000000001",
        "from": "Shop <shop@example.com>",
        "subject": "Winter",
        "to": [fact.email],
        "tags": {"category": "newsletter"},
    }
    if fact.kind == "bounce":
        data["bounce"] = {"message": _REFUSAL, "type": "Permanent", "subType": "General"}
    if fact.kind == "click" and fact.agent:
        data["click"] = {"ipAddress": fact.ip, "link": _LINK, "userAgent": fact.agent.text}
    return {"type": f"email.{words[fact.kind]}", "created_at": fact.iso + ".736Z", "data": data}


def _mailersend(fact: Fact) -> Event:
    words = {"send": "sent", "open": "opened", "click": "clicked", "bounce": "hard_bounced"}
    data: Event = {
        "id": f"65a1b2c3{fact.number:016}",
        "domain_id": "dsample01",
        "message_id": f"65a1b2c3{fact.message:016}",
        "email_id": f"65a1b2c4{fact.message:016}",
        "type": "delivered",
        "subject": "Winter",
        "recipient": fact.email,
        "tags": ["newsletter"],
    }
    if fact.agent:
        data["meta"] = {
            "ip": fact.ip,
            "country": "US",
            "user_agent": fact.agent.text,
            "device_type": "mobile" if fact.agent.is_mobile else "desktop",
            "browser": fact.agent.program,
        }
    time = fact.iso + ".000000Z"
    return {"type": f"activity.{words[fact.kind]}", "created_at": time, "data": data}


def _mailtrap(fact: Fact) -> Event:
    words = {"send": "delivery", "open": "open", "click": "click", "bounce": "bounce"}
    event: Event = {
        "event": words[fact.kind],
        "timestamp": fact.unix,
        "sending_stream": "bulk",
        "category": "winter",
        "custom_variables": {"campaign": "winter"},
        "message_id": fact.message_id,
        "email": fact.email,
        "event_id": fact.uuid,
    }
    if fact.kind == "bounce":
        event |= {"response": _REFUSAL, "response_code": 550, "bounce_category": "hard"}
    return _put(event, fact.agent, lambda one: {"ip": fact.ip, "user_agent": one.text})


def _mailchimp(fact: Fact) -> Event:
    """Tell that somebody left the list or was taken off it: the list's webhook tells of no mail."""
    is_cleaned = fact.kind == "bounce"
    return {
        "type": "cleaned" if is_cleaned else "unsubscribe",
        "fired_at": fact.iso.replace("T", " "),
        "data[action]": "unsub",
        "data[reason]": "hard" if is_cleaned else "manual",
        "data[id]": f"{fact.message:010x}",
        "data[email]": fact.email,
        "data[email_type]": "html",
        "data[ip_opt]": fact.ip,
        "data[web_id]": str(203_740_265 + fact.message),
        "data[merges][EMAIL]": fact.email,
        "data[merges][FNAME]": "Mara",
        "data[merges][LNAME]": "Quill",
        "data[list_id]": "samplelist",
        "data[campaign_id]": "samplecampaign",
    }


def _klaviyo(fact: Fact) -> Event:
    words = {"send": "received", "open": "opened", "click": "clicked", "bounce": "bounced"}
    topic = f"event:klaviyo.{words[fact.kind]}_email"
    about: Event = {"$event_id": str(fact.unix), "$message": "01SAMPLEWINTER", "Subject": "Winter"}
    if fact.kind == "bounce":
        about["Bounce Type"] = "Hard"
    if fact.agent:
        about["machine_open"] = fact.agent == agents.APPLES_PROXY
        about["Client Name"], about["Client OS Family"] = fact.agent.program, fact.agent.os
        about["Client Type"] = "Browser" if fact.agent.is_browser else "Email Client"
    profile = {"type": "profile", "id": f"P{fact.message}"}
    event = {
        "type": "event",
        "id": f"k{fact.number:010}",
        "attributes": {
            "timestamp": fact.unix,
            "datetime": fact.iso + "+00:00",
            "uuid": fact.uuid,
            "event_properties": about,
        },
        "relationships": {
            "profile": {"data": profile},
            "metric": {"data": {"type": "metric", "id": "SmpM01"}},
        },
    }
    included = [{**profile, "attributes": {"email": fact.email}}]
    payload = {"data": event, "included": included}
    return {"external_id": event["id"], "topic": topic, "payload": payload}


def _under_data(events: Sequence[Event]) -> object:
    meta = {"klaviyo_account_id": "SAMPLE", "klaviyo_webhook_id": "01SAMPLE", "version": "1"}
    return {"meta": meta, "data": list(events)}


def _customerio(fact: Fact) -> Event:
    words = {"send": "sent", "open": "opened", "click": "clicked", "bounce": "bounced"}
    data: Event = {
        "customer_id": str(fact.message),
        "delivery_id": f"RPILAgUBcRhIBqSf{fact.message:08}",
        "recipient": fact.email,
        "subject": "Winter",
        "campaign_id": 7,
        "action_id": 96,
        "identifiers": {"id": str(fact.message), "email": fact.email, "cio_id": "d9c106000001"},
    }
    if fact.kind == "bounce":
        data["failure_message"] = _REFUSAL
    if fact.kind == "click":
        data |= {"href": _LINK, "link_id": 1}
    return {
        "event_id": f"01SAMPLE{fact.number:018}",
        "object_type": "email",
        "metric": words[fact.kind],
        "timestamp": fact.unix,
        "data": data,
    }


def _iterable(fact: Fact) -> Event:
    words = {"send": "emailSend", "open": "emailOpen", "click": "emailClick"}
    data: Event = {
        "campaignId": 5654,
        "messageId": fact.message_id,
        "templateId": 15120,
        "createdAt": fact.iso.replace("T", " ") + " +00:00",
        "campaignName": "Winter lamps",
        "labels": [],
    }
    if fact.kind == "bounce":
        data["recipientState"] = "HardBounce"
    if fact.agent:
        is_apples = fact.agent == agents.APPLES_PROXY
        data |= {"ip": fact.ip, "userAgent": fact.agent.text, "userAgentDevice": "Other"}
        data["proxySource"] = "Apple" if is_apples else None
    name = words.get(fact.kind, "emailBounce")
    return {"email": fact.email, "eventName": name, "dataFields": data}


def _braze(fact: Fact) -> Event:
    about: Event = {
        "campaign_id": "winter-campaign-00000000-0000-0000",
        "dispatch_id": f"{fact.message:032x}",
        "email_address": fact.email,
    }
    if fact.kind == "bounce":
        about |= {"bounce_reason": _REFUSAL, "sending_ip": "192.0.2.200"}
    if fact.agent:
        is_apples = fact.agent == agents.APPLES_PROXY
        about |= {"user_agent": fact.agent.text, "machine_open": "true" if is_apples else None}
    return {
        "event_type": f"users.messages.email.{fact.kind.capitalize()}",
        "id": fact.uuid,
        "time": fact.unix,
        "user": {"user_id": f"{fact.message:024x}", "timezone": "Europe/London"},
        "properties": about,
    }


def _sfmc(fact: Fact) -> Event:
    words = {
        "send": "TransactionalSendEvents.EmailSent",
        "open": "EngagementEvents.EmailOpen",
        "click": "EngagementEvents.EmailClick",
        "bounce": "TransactionalSendEvents.EmailBounced",
    }
    about: Event = {"to": fact.email, "subscriberKey": f"reader-{fact.message}", "status": "Sent"}
    if fact.kind == "bounce":
        about |= {"bounceCode": "HARD", "bounceMessage": _REFUSAL, "smtpReason": "5.1.1"}
    if fact.agent:  # the only one that names people who open by a number alone
        about = {"ipAddress": fact.ip, "userAgent": fact.agent.text, "contentLink": _LINK}
    job = {"jobId": "2001070", "batchId": "4153", "listId": "44609"}
    return {
        "eventCategoryType": words[fact.kind],
        "timestampUTC": fact.unix * 1000,
        "compositeId": f"2001070.44609.4153.{fact.message + 1}",
        "definitionKey": "winter",
        "mid": 1476456,
        "eid": 1476266,
        "composite": job | {"subscriberId": str(fact.message + 1)},
        "info": about,
    }


CALLERS = (
    Caller("sendgrid", _sendgrid, _array),
    Caller("mailgun", _mailgun),
    Caller("postmark", _postmark),
    Caller("ses", _ses),
    Caller("sparkpost", _sparkpost, _array),
    Caller("mandrill", _mandrill, _array, form="mandrill_events"),
    Caller("brevo", _brevo),
    Caller("mailjet", _mailjet, _array),
    Caller("resend", _resend),
    Caller("mailersend", _mailersend),
    Caller("mailtrap", _mailtrap, _under_events),
    Caller("mailchimp", _mailchimp, form=""),
    Caller("klaviyo", _klaviyo, _under_data),
    Caller("customerio", _customerio),
    Caller("iterable", _iterable),
    Caller("braze", _braze, _under_events),
    Caller("sfmc", _sfmc, _array),
)


def of_every_agent(first: int, most: int) -> Iterator[Delivery]:
    """Yield calls that tell of every user agent, or *most* of them, once, by clicks from number *first* on."""
    (caller,) = (one for one in CALLERS if one.name == "mailjet")  # it does not read them itself
    everyone = agents.every_person()[:most]
    clicks = [Fact(first + n, "click", first + n, agent) for n, agent in enumerate(everyone)]
    for start in range(0, len(clicks), BATCH):
        yield caller.delivery(clicks[start : start + BATCH])
