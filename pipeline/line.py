"""A line: one connection of redis-py's for a single caller, without the layers above it.

For a client's command redis-py borrows a connection, arms a retry, makes a task for the time-out of the
write and a timer for that of the read. Who writes hundreds of times a second, one write after the
other and each under a time-out of its own, needs none of it; connecting, logging in, TLS and
reading replies stay redis-py's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import hiredis
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from pipeline.connections import is_of_a_replica

Word = str | bytes | int


class Line:
    """Commands written together, their replies read together, for one caller after the other.

    It connects at the first call, and anew after a failure. There is no time-out but the caller's. The
    connection is the pool's: who closes the pool hangs up.
    """

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._connection: AbstractConnection | None = None
        self._turn = asyncio.Lock()

    async def ask(self, commands: Sequence[Sequence[Word]], replies: list[Any]) -> None:
        """Fill *replies* with one for each command, a `ResponseError` for one that was refused.

        Raises redis-py's `ConnectionError` when the line broke: of those without a reply nobody knows
        what was done. The replies that had come stand in *replies* then too, also when cancelled.
        """
        async with self._turn:
            connection = await self._connected()
            packed = [hiredis.pack_command(tuple(words)) for words in commands]  # type: ignore[arg-type] # its stub means any number
            try:
                await connection.send_packed_command(packed, check_health=False)
                for _ in commands:
                    replies.append(await _reply(connection))
            except BaseException:
                # replies that nobody reads would be taken for those of the next call
                await self._give_up(connection)
                raise
            if any(map(is_of_a_replica, replies)):
                # a fail-over: the name in the URL may lead to the new primary by now
                await self._give_up(connection)

    async def _connected(self) -> AbstractConnection:
        if self._connection is not None:
            if await _is_good(self._connection):
                return self._connection
            await self._give_up(self._connection)
        connection: AbstractConnection = await self._pool.get_connection()
        # redis-py would make a task or a timer of it for each write and each read
        connection.socket_timeout = None
        self._connection = connection
        return connection

    async def _give_up(self, connection: AbstractConnection) -> None:
        self._connection = None
        connection.socket_timeout = self._pool.connection_kwargs.get("socket_timeout")
        await connection.disconnect(nowait=True)
        await self._pool.release(connection)


async def _is_good(connection: AbstractConnection) -> bool:
    """Tell whether the connection still stands, as far as is known on this side."""
    try:
        return connection.is_connected and not await connection.can_read_destructive()
    except RedisConnectionError:
        return False


async def _reply(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as refusal:
        return refusal
