"""The wall's tiles: a ring of what changed, for long polls of the gateway."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterable
from datetime import datetime
from typing import TypeVar

from actors.store import Store
from actors.terminal import Terminal
from actors.visit import Session
from models.domain.ids import LaneId, StoreId, TerminalId
from models.domain.live import Changes, StoreTile, TerminalTile
from models.domain.messages import Address
from models.domain.registry import RegisteredTerminal
from models.tables.journal import Slot
from runtime.directory import Directory
from runtime.engine import Work
from runtime.publisher import Publisher
from runtime.states import States

POLL_S = 20.0
CHANGES_EVERY_S = 0.05
"""Answers follow each other no faster: at 200 events a second a call for each cost the host more than its turns did.
The first change after a pause is told at once."""

K = TypeVar("K")
T = TypeVar("T")


class Tiles:
    """The newest tile of each terminal and store, with the version of its last change. Bounded by their number."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._version = self._forgot_at = 0
        self._terminals: OrderedDict[TerminalId, tuple[int, TerminalTile]] = OrderedDict()
        self._stores: OrderedDict[StoreId, tuple[int, StoreTile]] = OrderedDict()
        self._moved = asyncio.Event()
        self._told_at = float("-inf")

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

    def forget(self, terminal: TerminalId) -> None:
        """The terminal was retired: whoever knew its tile replaces all there are."""
        if self._terminals.pop(terminal, None) is not None:
            self._version += 1
            self._forgot_at = self._version
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
        monotonic = asyncio.get_running_loop().time
        if not full and (early_s := self._told_at + CHANGES_EVERY_S - monotonic()) > 0:
            await asyncio.sleep(early_s)
        self._told_at = monotonic()
        full = full or since < self._forgot_at
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
        profile=record.profile,
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


class Wall:
    """Keeps the tiles in step with the entities that a batch moved."""

    def __init__(self, tiles: Tiles, directory: Directory, states: States, publisher: Publisher) -> None:
        self._tiles = tiles
        self._directory = directory
        self._states = states
        self._publisher = publisher

    def begin(self, slot: Slot) -> None:
        """Everything that the slot owns, as it stands."""
        at_ms = time.time_ns() // 1_000_000
        self._tiles.put(
            [
                self._tile(record, at_ms, self._due_fen(record))
                for record in self._directory.terminals()
                if slot.owns(record.store)
            ],
            [store_tile(at.store, state) for at, (state, _) in self._states.items() if isinstance(state, Store)],
        )

    def moved(self, work: Work) -> None:
        """Which cells of the wall this batch moved."""
        at_ms = time.time_ns() // 1_000_000
        terminals, stores = {}, {}
        for address in work.commit.entities:
            state = work.states[address][0]
            if isinstance(state, Store):
                stores[address.store] = store_tile(address.store, state)
                continue
            if isinstance(state, Terminal):
                record = self._directory.terminal(TerminalId(address.id))
                records = [record] if record is not None else []
                if record is None:
                    self._tiles.forget(TerminalId(address.id))
            else:
                records = self._directory.lane(address.store, LaneId(address.id))
            for record in records:
                screen = work.screens.get((record.store, record.lane))
                before = self._tiles.get(record.terminal)
                due_fen = screen.due_fen if screen is not None else before.due_fen if before is not None else 0
                terminals[record.terminal] = self._tile(record, at_ms, due_fen)
        if terminals or stores:
            self._tiles.put(terminals.values(), stores.values())

    def _due_fen(self, record: RegisteredTerminal) -> int:
        visit = self._states.visit(record.region, record.store, record.lane)
        if visit is None or not visit.live or not visit.lines:
            return 0
        screen = self._publisher.screen(record.store, record.lane)
        return screen.due_fen if screen is not None else 0

    def _tile(self, record: RegisteredTerminal, at_ms: int, due_fen: int) -> TerminalTile:
        twin = self._states.get(Address(record.region, record.store, "terminal", record.terminal))
        return terminal_tile(
            record,
            twin[0] if twin is not None and isinstance(twin[0], Terminal) else Terminal(),
            self._states.visit(record.region, record.store, record.lane),
            due_fen,
            at_ms,
        )
