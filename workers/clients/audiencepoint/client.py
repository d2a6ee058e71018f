"""The calls, carried over one `VendorHttp`. Lists longer than a call may be are split and joined again.

The sections that methods name are those of the vendor's page "AudiencePoint APIs (1.5)" (docs.audiencepoint.com).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import add

from pipeline.scores import Score
from workers.clients.audiencepoint import addresses as to_ask
from workers.clients.audiencepoint import events, scores, send_times, subscription, verification
from workers.clients.audiencepoint.events import Event, Receipt
from workers.clients.audiencepoint.scores import Found
from workers.clients.audiencepoint.send_times import Campaign, SendTimes
from workers.clients.audiencepoint.subscription import Subscription
from workers.clients.audiencepoint.verification import Verification
from workers.clients.errors import CallFailed
from workers.clients.http import VendorHttp
from workers.clients.messages import RateLimit

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Paths:
    """Where the calls live below the base URL. Only the verification's is documented."""

    events: str = events.EVENTS_PATH
    subscription: str = subscription.SUBSCRIPTION_PATH
    scores: str = scores.SCORES_PATH
    verification: str = verification.VERIFICATION_PATH
    send_times: str = send_times.SEND_TIMES_PATH


class AudiencePoint:
    """The calls, over one `VendorHttp`. Nothing is retried and no pace is kept: that is the caller's.

    Addresses are plain or hashed (`digest`); with `hashed=True` plain ones leave as their hashes and
    are answered under the names that were asked for. A list of any length is asked for in thirties,
    one call after the other, each address once, plain ones and hashes apart; when one call fails,
    its failure is raised. All calls but those that post events are safe to repeat.

    Every call may raise `Unavailable` (try again), `QuotaExceeded` (wait for the next day), `Misconfigured`
    (key, address or path) and `Rejected` (do not send the same again), and `ValueError`, before anything
    is sent, for an empty address, or for a text that is no Unicode.
    """

    def __init__(self, http: VendorHttp, paths: Paths | None = None) -> None:
        self._http = http
        self._paths = paths or Paths()

    @property
    def rate_limit(self) -> RateLimit | None:
        """What the last answer that tells of a limit has told of it; None while none has."""
        return self._http.rate_limit

    async def post_events(self, body: bytes) -> Receipt:
        """Post one sealed batch of at most thirty events, `{"events": […]}`, byte for byte.

        An event has `email`, `type`, `occurred_at_utc` (`YYYY-MM-DDThh:mm:ss`, UTC) and `send_id`, all texts; what is
        in *body* is not looked at. The receipt says that the batch is queued as a whole. A failure with
        `maybe_stored` may have queued it: sent again, it may count twice. Source: The Event Ingestion Model;
        Event Ingestion, Send event data.
        """
        path = self._paths.events
        return events.read_events(await self._http.send(events.events_request(body, path)), path)

    async def post_all_events(self, listed: Sequence[Event]) -> list[Receipt]:
        """Post any number of events in thirties, in their order, plain and hashed addresses apart.

        Return one receipt for each call. Events are objects as `post_events` takes them; one without an address is
        a `ValueError` before anything is sent. The first failure ends it: its `taken` are the positions in
        *listed* of the events that are queued, its `unclear` of those that may be (else empty); no other
        has left. So send again what is in neither, and decide about the unclear. Source: as `post_events`.
        """
        sealed = [
            (each, events.body_of([listed[n] for n in each])) for each in events.calls(listed)
        ]
        receipts: list[Receipt] = []
        taken: tuple[int, ...] = ()
        for call, body in sealed:
            try:
                receipts.append(await self.post_events(body))
            except CallFailed as failed:
                failed.taken, failed.unclear = taken, call if failed.maybe_stored else ()
                failed.add(f"{len(taken)} of {len(listed)} events were taken before")
                raise
            taken += call
        return receipts

    async def subscribe(self, addresses: Sequence[str]) -> Subscription:
        """Subscribe to score changes of 1 to 30 different *addresses*; return the counts, which name nobody.

        `ValueError` for any other number, for repeated ones, and for plain ones beside hashes. There is no call to
        unsubscribe. Source: The List Subscription Model; List Subscription, Subscribe to email addresses (no
        limit is stated there; thirty is that of the other calls).
        """
        path = self._paths.subscription
        answer = await self._http.send(subscription.subscription_request(addresses, path))
        counts = subscription.read_subscription(answer, path)
        if counts.total != len(addresses):
            sent, told = len(addresses), counts.total
            _log.warning("subscription counts do not add up: sent=%d told=%d", sent, told)
        return counts

    async def subscribe_all(
        self, addresses: Sequence[str], *, hashed: bool = False
    ) -> Subscription:
        """Subscribe to score changes of any number of *addresses*; return the counts of all calls.

        Source: as `subscribe`.
        """
        counts = Subscription(0, 0, 0)
        for call in to_ask.calls(addresses, hashed=hashed):
            counts += await self.subscribe(call)
        return counts

    async def scores(
        self,
        addresses: Sequence[str],
        selection: Sequence[str] | None = None,
        *,
        hashed: bool = False,
    ) -> list[Score]:
        """Return one `Score` for each of *addresses*, in their order; *selection* of `SCORE_NAMES`.

        `matched` is "yes", "no", "invalid" or "err", the last also for an address that the answer leaves out.
        `score` is 0 to 5, `send_time` an hour of the week, 0 to 167, times are ISO-8601 in UTC; what is not told is
        None. An unknown name in *selection* is a `ValueError`. Source: The Scores Model; Scores, Retrieve scores.
        """
        path = self._paths.scores
        found: Found = {}
        for call in to_ask.calls(addresses, hashed=hashed):
            answer = await self._http.send(scores.scores_request(call, selection, path))
            found |= scores.read_scores(answer, path)
        return scores.scores_in_order(addresses, found)

    async def verify(self, email: str, by_get: bool = False) -> Verification:
        """Return whether the plain address *email* exists: one of `RESULTS`, and perhaps a suggestion.

        `ValueError` for a hash. *by_get* is a way that the vendor advises against: the address stands in the URL.
        Source: The Email Verification Model; Email Verification, Verify with POST request (with GET request).
        """
        path = self._paths.verification
        request = verification.verification_request(email, path, by_get=by_get)
        return verification.read_verification(await self._http.send(request), email, path)

    async def send_times(
        self,
        addresses: Sequence[str],
        start: datetime,
        end: datetime,
        default: datetime | None = None,
        *,
        hashed: bool = False,
    ) -> SendTimes:
        """Return when, from *start* to *end*, to write to *addresses*.

        *default* is the time for those the vendor knows nothing of; without it, it takes twenty
        minutes after *end*. Times with a zone are converted to UTC, those without one are UTC, fractions
        of a second are cut. Raises `ValueError` for no address, and for an end before the start. Source: The
        STO Model; STO, Retrieve send times between two dates (which does not say what the entries hold).
        """
        campaign, path = Campaign(start, end, default), self._paths.send_times
        parts = []
        for call in to_ask.calls(addresses, hashed=hashed):
            request = send_times.send_times_request(call, campaign, path)
            parts.append(send_times.read_send_times(await self._http.send(request), campaign, path))
        if not parts:
            raise ValueError("give at least one address")
        return reduce(add, parts)
