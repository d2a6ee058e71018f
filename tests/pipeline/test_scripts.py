"""What a log says of Redis's failures: the kind and the reason, nothing of what was sent."""

from __future__ import annotations

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

from pipeline.scripts import words_of


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RedisConnectionError("redis://:secret@there"), "ConnectionError"),
        (
            ResponseError("MISCONF Redis cannot persist"),
            "ResponseError: MISCONF Redis cannot persist",
        ),
        (
            ResponseError("unknown command 'X', with args beginning with: 'ann@example.com'"),
            "ResponseError: unknown command 'X'",
        ),
        (
            ResponseError(
                "Command # 1 (SET k ann@example.com) of pipeline caused error: WRONGTYPE no"
            ),
            "ResponseError: WRONGTYPE no",
        ),
        (
            OutOfMemoryError("Error running script (call to f_1): @user_script: 7: -OOM no memory"),
            "OutOfMemoryError: OOM no memory",
        ),
    ],
)
def test_a_failure_of_redis_is_told_without_what_was_sent(error: RedisError, words: str) -> None:
    """Addresses, keys and passwords stay out; why Redis refused does not."""
    assert words_of(error) == words
