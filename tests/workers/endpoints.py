"""What a test reads of an endpoint's calls, once the worker that made them has ended."""

from __future__ import annotations

from pipeline import calls
from pipeline.calls import Calls
from pipeline.endpoints import Endpoint
from tests.workbench import Workbench


async def calls_of(bench: Workbench, endpoint: Endpoint) -> Calls:
    """Return what is known of the calls of *endpoint*."""
    return (await calls.read(bench.redis, [endpoint]))[endpoint]


async def outcomes(bench: Workbench, endpoint: Endpoint) -> dict[str, int]:
    """Return how many calls of *endpoint* came to what, without what none came to; each was answered in some time."""
    known = await calls_of(bench, endpoint)
    counted = {name: count for name, count in known.hour.outcomes.items() if count}
    assert sum(known.hour.buckets) == sum(counted.values())
    assert len(known.failures) == sum(count for name, count in counted.items() if name != "ok")
    return counted
