"""Endpoints: what the relay calls over there, each counted by itself.

A stage that calls somebody has the endpoint of its single calls, which bears its name. The others are called beside
that: for a stage, held by its pause, or by tasks of the workers, which can be paused by themselves.
"""

from __future__ import annotations

from enum import StrEnum

from pipeline.outcomes import Stage


class Endpoint(StrEnum):
    """Whom the relay calls, in the order of the page; the words are part of keys in Redis."""

    ENRICH = "enrich"  # AudienceLab about one visitor
    BULK = "bulk"  # AudienceLab's jobs about many: made, looked at, their results
    IMPORTS = "imports"  # AudienceLab's segments and pixels, page by page
    SUBSCRIBE = "subscribe"  # AudiencePoint's list subscription
    VERIFY = "verify"  # AudiencePoint about one address, before it is subscribed
    FORWARD = "forward"  # AudiencePoint's event ingestion
    POLLING = "polling"  # AudiencePoint for scores
    NOTIFY = "notify"  # whoever wants to hear of changed scores
    PROOFS = "proofs"  # Amazon for certificates, and to confirm subscriptions


#: with whose pause an endpoint's calls stop, too
STAGE_OF = {
    Endpoint.BULK: Stage.ENRICH,
    Endpoint.VERIFY: Stage.SUBSCRIBE,
    Endpoint.PROOFS: Stage.UNPACK,
}
#: those of tasks, which have a pause of their own, as stages do
OWN_PAUSE = (Endpoint.IMPORTS, Endpoint.POLLING)
