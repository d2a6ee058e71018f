"""What a command changes at a vendor's is audited before and after."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from console.orders_at_vendors import Order
from pipeline import keys

pytestmark = pytest.mark.anyio


async def test_an_audit_that_is_lost_in_the_middle_hides_nothing(
    redis: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the vendor has done by then is told all the same, with a word about the audit on stderr."""
    async with Order(redis, "pixels create", {}) as order:
        await redis.set(keys.AUDIT, "no stream")
        order.done_with("some-id")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Done, but the end could not be written to the audit (ResponseError)." in printed.err


async def test_nothing_is_begun_that_cannot_be_audited(redis: Redis) -> None:
    """Without the audit the vendor is not asked at all."""
    await redis.set(keys.AUDIT, "no stream")
    begun = False
    with pytest.raises(Exception, match="WRONGTYPE"):
        async with Order(redis, "pixels create", {}):
            begun = True
    assert not begun
