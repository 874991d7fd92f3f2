"""What a host's care needs of the twins' tables. `models.tables.terminals` is one; a simulation has another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from models.domain.ids import RegionId, TerminalId
from models.domain.registry import RegisteredTerminal
from models.tables.terminals import DesiredDocument
from runtime.journal_port import Connection

Fence = tuple[str, int, int, int]


class TwinStore(Protocol):
    """The functions of `models.tables.terminals`; their promises are written there."""

    async def load_desired(self, conn: Connection, terminals: Sequence[TerminalId]) -> list[DesiredDocument]: ...

    async def registry_mark(self, conn: Connection, region: RegionId) -> str: ...

    async def load_departed(self, conn: Connection, region: RegionId) -> list[RegisteredTerminal]: ...

    async def newest_seqs(self, conn: Connection, before: Sequence[tuple[TerminalId, str, int]]) -> list[int]: ...

    async def save_telemetry(
        self, conn: Connection, fence: Fence, samples: Mapping[TerminalId, Mapping[str, Any]], at: datetime
    ) -> None: ...

    async def prune_commands(self, conn: Connection, fence: Fence, now: datetime, rows_max: int) -> None: ...
