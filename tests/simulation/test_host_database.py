"""An outage is waited for; a bug is met once and said, not again and again."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg import OperationalError

from runtime.host_database import HostDatabase
from runtime.telemetry import HostCounts
from runtime.testing.journal import MemoryConnection, MemoryDatabase


async def opened(counts: HostCounts) -> HostDatabase:
    memory = MemoryDatabase()

    async def connect() -> Any:
        return MemoryConnection(memory)

    database = HostDatabase(connect, counts)
    await database.open()
    return database


async def test_a_bug_is_not_an_outage() -> None:
    counts = HostCounts()
    database = await opened(counts)

    async def work(conn: Any) -> None:
        raise RecursionError("a document that nobody can write")

    with pytest.raises(RecursionError):
        await database.run(work)
    assert counts.database_outages == 0


async def test_after_an_outage_the_same_is_done_again() -> None:
    counts = HostCounts()
    database = await opened(counts)
    tries = iter((OperationalError("gone"), TimeoutError(), None))

    async def work(conn: Any) -> str:
        problem = next(tries)
        if problem is not None:
            raise problem
        return "done"

    assert await database.run(work) == "done"
    assert counts.database_outages == 2
