"""A host's connection to its database: opened however long that takes, opened again after an outage."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from psycopg import AsyncConnection, DataError, Error, IntegrityError, InternalError, ProgrammingError
from psycopg.rows import TupleRow

from runtime.telemetry import HostCounts

log = structlog.get_logger()

Connect = Callable[[], Awaitable[AsyncConnection[TupleRow]]]
T = TypeVar("T")

DATABASE_RETRY_S_MAX = 5.0
REFUSALS = (DataError, IntegrityError, ProgrammingError, InternalError)
"""The database is there and will not have it: sent again, it would refuse again."""


def is_outage(error: Exception) -> bool:
    """True when it may go well on another connection; a bug or a refusal would only be met again."""
    return isinstance(error, Error | OSError | TimeoutError) and not isinstance(error, REFUSALS)


class HostDatabase:
    """One connection. `run` outlives outages; nothing is acknowledged to the broker meanwhile."""

    def __init__(self, connect: Connect, counts: HostCounts) -> None:
        self.connect = connect
        self._counts = counts
        self._stopping = False
        self._conn: AsyncConnection[TupleRow] | None = None

    @property
    def conn(self) -> AsyncConnection[TupleRow]:
        """The connection. `open` comes first."""
        assert self._conn is not None, "open() comes first"
        return self._conn

    async def open(self) -> None:
        """Connect, however long the database is away. Raises its error once `give_up` was called."""
        wait_s = 0.1
        while True:
            try:
                self._conn = await self.connect()
            except Exception as error:  # noqa: BLE001 - psycopg raises several kinds while a server starts
                problem = error
            else:
                return
            if self._stopping:
                raise problem
            log.warning("database_unreachable", error=str(problem), retry_s=wait_s)
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, DATABASE_RETRY_S_MAX)

    async def run(self, work: Callable[[AsyncConnection[TupleRow]], Awaitable[T]]) -> T:
        """Run something idempotent, again after an outage. Raises REFUSALS, Fenced and bugs as they come."""
        while True:
            try:
                return await work(self.conn)
            except Exception as error:
                if self._stopping or not is_outage(error):
                    raise
                log.warning("database_lost", error=str(error))
                await self.reopen()

    async def reopen(self) -> None:
        """A fresh connection: the one before is of no use."""
        self._counts.database_outages += 1
        try:
            await self.conn.close()
        finally:
            await self.open()

    def give_up(self) -> None:
        """The host stops: an outage is not waited for any longer."""
        self._stopping = True

    async def close(self) -> None:
        """Disconnect."""
        if self._conn is not None:
            await self._conn.close()
