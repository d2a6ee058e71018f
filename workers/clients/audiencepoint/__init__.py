"""AudiencePoint's API (APIs 1.5): events, list subscription, scores, verification, send times.

Requests are made and answers read by pure functions, a file for each noun; `AudiencePoint` carries
them. Bodies are documented at docs.audiencepoint.com; paths but one, statuses and error bodies are
not, and none of it was observed in live answers. What may go wrong: a 200 whose body lacks the keys
is a failure passed through from behind the gateway, and a wrong path answers 403 as a wrong key does;
`refusals` knows them all.
"""

from pipeline.addresses import digest, is_hash
from pipeline.scores import Score
from workers.clients.audiencepoint.addresses import MOST_ADDRESSES
from workers.clients.audiencepoint.answers import VENDOR, headers
from workers.clients.audiencepoint.client import AudiencePoint, Paths
from workers.clients.audiencepoint.events import (
    EVENTS_PATH,
    Receipt,
    events_request,
    read_events,
)
from workers.clients.audiencepoint.scores import (
    SCORE_NAMES,
    SCORES_PATH,
    read_scores,
    scores_in_order,
    scores_request,
)
from workers.clients.audiencepoint.send_times import (
    SEND_TIMES_PATH,
    Campaign,
    SendTimes,
    read_send_times,
    send_times_request,
)
from workers.clients.audiencepoint.subscription import (
    SUBSCRIPTION_PATH,
    Subscription,
    read_subscription,
    subscription_request,
)
from workers.clients.audiencepoint.verification import (
    RESULTS,
    VERIFICATION_PATH,
    Verification,
    read_verification,
    verification_request,
)

__all__ = [
    "EVENTS_PATH",
    "MOST_ADDRESSES",
    "RESULTS",
    "SCORES_PATH",
    "SCORE_NAMES",
    "SEND_TIMES_PATH",
    "SUBSCRIPTION_PATH",
    "VENDOR",
    "VERIFICATION_PATH",
    "AudiencePoint",
    "Campaign",
    "Paths",
    "Receipt",
    "Score",
    "SendTimes",
    "Subscription",
    "Verification",
    "digest",
    "events_request",
    "headers",
    "is_hash",
    "read_events",
    "read_scores",
    "read_send_times",
    "read_subscription",
    "read_verification",
    "scores_in_order",
    "scores_request",
    "send_times_request",
    "subscription_request",
    "verification_request",
]
