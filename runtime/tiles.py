"""The wall's tiles: a ring of what changed, for long polls of the gateway."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from datetime import datetime
from typing import TypeVar

from actors.store import Store
from actors.terminal import Terminal
from actors.visit import Session
from models.domain.ids import StoreId, TerminalId
from models.domain.live import Changes, StoreTile, TerminalTile
from models.domain.registry import RegisteredTerminal

POLL_S = 20.0

K = TypeVar("K")
T = TypeVar("T")


class Tiles:
    """The newest tile of each terminal and store, with the version of its last change. Bounded by their number."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._version = 0
        self._terminals: OrderedDict[TerminalId, tuple[int, TerminalTile]] = OrderedDict()
        self._stores: OrderedDict[StoreId, tuple[int, StoreTile]] = OrderedDict()
        self._moved = asyncio.Event()

    def put(self, terminals: Iterable[TerminalTile], stores: Iterable[StoreTile]) -> None:
        """These changed; whoever waits is woken."""
        self._version += 1
        for tile in terminals:
            self._terminals[tile.terminal] = (self._version, tile)
            self._terminals.move_to_end(tile.terminal)
        for store in stores:
            self._stores[store.store] = (self._version, store)
            self._stores.move_to_end(store.store)
        self._moved.set()
        self._moved = asyncio.Event()

    def get(self, terminal: TerminalId) -> TerminalTile | None:
        """A terminal's newest tile."""
        found = self._terminals.get(terminal)
        return found[1] if found is not None else None

    async def changes(self, epoch: int, since: int, business_now: datetime) -> Changes:
        """What changed after `since`; everything when the epoch is another one. Waits up to 20 s."""
        full = epoch != self._epoch or since > self._version
        if not full and since == self._version:
            try:
                async with asyncio.timeout(POLL_S):
                    await self._moved.wait()
            except TimeoutError:
                pass
        after = -1 if full else since
        return Changes(
            epoch=self._epoch,
            version=self._version,
            full=full,
            terminals=_newer(self._terminals, after),
            stores=_newer(self._stores, after),
            business_now=business_now.isoformat(),
        )


def _newer(tiles: OrderedDict[K, tuple[int, T]], after: int) -> tuple[T, ...]:
    """The tiles of later versions; the mapping is ordered by version, so the walk stops at the first older one."""
    newer: list[T] = []
    for version, tile in reversed(tiles.values()):
        if version <= after:
            break
        newer.append(tile)
    return tuple(newer)


def terminal_tile(
    record: RegisteredTerminal, terminal: Terminal, session: Session | None, due_fen: int, at_ms: int
) -> TerminalTile:
    """One cell of the wall."""
    live = session is not None and session.live
    return TerminalTile(
        terminal=record.terminal,
        store=record.store,
        lane=record.lane,
        role=record.role,
        profile=terminal.profile or record.profile,
        online=terminal.online,
        state=str(session.state) if session is not None and live else "",
        prompt=session.prompt.code if session is not None and live and session.prompt is not None else "",
        member=session.member.name if session is not None and live and session.member is not None else "",
        due_fen=due_fen if live else 0,
        changed_ms=at_ms,
    )


def store_tile(store_id: StoreId, store: Store) -> StoreTile:
    """One store's figures."""
    return StoreTile(store_id, store.sales, store.takings_fen, store.discount_fen, store.incidents)
