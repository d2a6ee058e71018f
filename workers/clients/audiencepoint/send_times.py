"""Send-time optimisation (STO): when, between two times, to write to up to thirty addresses a call.

Documented, but for the path and for what stands in the answer's `emailAddresses`: those objects are
kept as they come. What may go wrong: the answer is an object or an array of one; its
`defaultSendTIme` is written so, or properly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from workers.clients.audiencepoint.addresses import body_of
from workers.clients.audiencepoint.answers import refused
from workers.clients.messages import Answer, Request

SEND_TIMES_PATH = "/sto"
_SETTING = "AUDIENCEPOINT_STO_PATH"

#: What the vendor's default send time is later than the end, when none is asked for (documented).
DEFAULT_AFTER_END = timedelta(minutes=20)


@dataclass(frozen=True, slots=True)
class Campaign:
    """When a campaign may be sent, and the time for those nothing is known of, if it is given.

    Times with a zone are converted to UTC, those without one are UTC; fractions of a second are cut.
    Raises `ValueError` when it ends before it begins.
    """

    start: datetime
    end: datetime
    default: datetime | None = None

    def __post_init__(self) -> None:
        """Refuse an end before the start."""
        if _text(self.end) < _text(self.start):
            raise ValueError("a campaign does not end before it begins")

    def members(self) -> dict[str, str]:
        """Return the times as the request carries them: `YYYY-MM-DDThh:mm:ss`, UTC, no zone."""
        told = {"startTimeUtc": _text(self.start), "endTimeUtc": _text(self.end)}
        return told if self.default is None else {**told, "defaultSendTime": _text(self.default)}


@dataclass(frozen=True, slots=True)
class SendTimes:
    """Send times of a campaign; times are `YYYY-MM-DDThh:mm:ss`, UTC, as the vendor tells them."""

    start: str
    end: str
    default: str
    #: one of each address, as it came: its fields are not documented
    entries: tuple[object, ...]

    def __add__(self, other: SendTimes) -> SendTimes:
        """Return the entries of both calls, under the times of the first."""
        return SendTimes(self.start, self.end, self.default, self.entries + other.entries)


def send_times_request(
    addresses: Sequence[str], campaign: Campaign, path: str = SEND_TIMES_PATH
) -> Request:
    """Return the request for the send times of 1 to 30 different *addresses*, plain or hashed."""
    return Request("POST", path, body_of(addresses, **campaign.members()))


def read_send_times(answer: Answer, campaign: Campaign, path: str = SEND_TIMES_PATH) -> SendTimes:
    """Return the send times, or raise the `CallFailed` that *answer* means.

    A time that is not told is the one of *campaign*; a default, twenty minutes after its end.
    """
    body = answer.decoded()
    parts = [_folded(part) for part in (body if isinstance(body, list) else [body])]
    entries = _entries(body, parts)
    if not answer.is_success or entries is None:
        raise refused(answer, path, _SETTING)
    told = {name: value for part in parts for name, value in part.items() if value}
    asked = {name.lower(): value for name, value in campaign.members().items()}
    after_end = _text(campaign.end + DEFAULT_AFTER_END)
    start, end, default = (
        _time(told.get(name)) or asked.get(name, after_end)
        for name in ("starttimeutc", "endtimeutc", "defaultsendtime")
    )
    return SendTimes(start, end, default, tuple(entries))


def _entries(body: object, parts: list[dict[str, object]]) -> list[object] | None:
    """Return the entries of the answer's one object, or of an array of nothing but entries."""
    lists = [each for part in parts if isinstance(each := part.get("emailaddresses"), list)]
    if lists:
        return [entry for each in lists for entry in each]
    are_entries = parts and all(
        ("email" in part or "emailaddress" in part) and not {"message", "error"} & set(part)
        for part in parts
    )
    return list(body) if isinstance(body, list) and are_entries else None


def _folded(part: object) -> dict[str, object]:
    """Return the members of an object by their names in lower case; of anything else none."""
    return {name.lower(): value for name, value in part.items()} if isinstance(part, dict) else {}


def _time(value: object) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


def _text(moment: datetime) -> str:
    utc = moment.astimezone(UTC) if moment.tzinfo else moment
    return utc.replace(tzinfo=None).isoformat(timespec="seconds")
