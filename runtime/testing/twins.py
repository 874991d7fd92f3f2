"""The twins' tables in memory: what a simulated host's care reads and writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from models.domain.ids import RegionId, TerminalId
from models.domain.registry import RegisteredTerminal
from models.tables.terminals import DesiredDocument
from runtime.testing.journal import MemoryDatabase


class MemoryTwins:
    """Implements `runtime.twin_port.TwinStore` over the simulated database. Nobody retires there."""

    async def load_desired(self, conn: Any, terminals: Sequence[TerminalId]) -> list[DesiredDocument]:
        """See models.tables.terminals."""
        database: MemoryDatabase = conn.use()
        found = [database.desired[one] for one in terminals if one in database.desired]
        return [DesiredDocument(one.terminal, one.gen, one.config, one.software) for one in found]

    async def registry_mark(self, conn: Any, region: RegionId) -> str:
        """See models.tables.terminals."""
        database: MemoryDatabase = conn.use()
        return f"{region} {database.registry_moves}"

    async def load_departed(self, conn: Any, region: RegionId) -> list[RegisteredTerminal]:
        """See above."""
        conn.use()
        return []

    async def newest_seqs(self, conn: Any, before: Sequence[tuple[TerminalId, str, int]]) -> list[int]:
        """See models.tables.terminals."""
        database: MemoryDatabase = conn.use()
        newest: list[int] = []
        for terminal, boot, seq in before:
            known = [row[2] for row in database.by_seq if row[:2] == (terminal, boot) and row[2] < seq]
            newest.append(max([0, database.marks.get((terminal, boot), 0), *known]))
        return newest

    async def save_telemetry(
        self, conn: Any, fence: tuple[str, int, int, int], samples: Mapping[TerminalId, Mapping[str, Any]], at: datetime
    ) -> None:
        """See models.tables.terminals."""
        database: MemoryDatabase = conn.use()
        if database.epoch == fence[3]:
            database.telemetry.update({(terminal, at.minute): dict(doc) for terminal, doc in samples.items()})

    async def prune_commands(self, conn: Any, fence: tuple[str, int, int, int], now: datetime, rows_max: int) -> None:
        """Nothing is old enough in a simulated shop."""
        conn.use()
