"""What a host needs of its journal. `models.tables.journal` is one, over PostgreSQL; a simulation has another."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from models.domain.ids import RegionId, StoreId
from models.domain.messages import Address
from models.tables.journal import Commit, InboxKey, OutboxEntry, Read, Slot, StoredEntity, TimerKey
from models.tables.pruning import PruneKey

Connection = AsyncConnection[TupleRow]


class Journal(Protocol):
    """The functions of `models.tables.journal`; their promises are written there."""

    async def claim(self, conn: Connection, region: RegionId, k: int, slots: int, holder: str) -> Slot: ...

    async def still_holds(self, conn: Connection, slot: Slot) -> bool: ...

    async def read_batch(self, conn: Connection, keys: Sequence[InboxKey], addresses: Sequence[Address]) -> Read: ...

    async def commit_batch(
        self, conn: Connection, slot: Slot, commit: Commit, lease_s: float, now: datetime
    ) -> None: ...

    async def due_timers(
        self, conn: Connection, slot: Slot, wall: datetime, business: datetime, rows_max: int
    ) -> list[TimerKey]: ...

    async def sweep_outbox(
        self, conn: Connection, slot: Slot, wall: datetime, lease_s: float, rows_max: int
    ) -> list[OutboxEntry]: ...

    async def pending_asks(self, conn: Connection, slot: Slot) -> list[tuple[str, StoreId]]: ...

    async def standing_entities(
        self, conn: Connection, slot: Slot, after: Address | None, rows_max: int
    ) -> list[tuple[Address, StoredEntity]]: ...

    async def prune_inbox(
        self, conn: Connection, slot: Slot, wall: datetime, rows_max: int, after: PruneKey = ...
    ) -> tuple[int, PruneKey]: ...
