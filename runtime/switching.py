"""Kill switches in a host: each second it looks what is thrown, tells the visits that are under way, and the terminals.

Level-triggered: nobody has to reach a host. One that was down reads them at its start; a visit that was not told,
because its batch broke, is told again a second later.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import structlog

from actors.visit import Session
from models.domain.ids import StoreId, derived_id
from models.domain.messages import Address, SwitchesMoved
from models.tables.journal import Slot
from runtime.directory import Directory
from runtime.engine import Item
from runtime.journal_port import Connection
from runtime.states import States
from runtime.terminal_care import TerminalCare

log = structlog.get_logger()

Run = Callable[[Callable[[Connection], Awaitable[Any]]], Awaitable[Any]]


class Switching:
    """Of one host. What it puts is bounded by its visits and its terminals."""

    def __init__(self, directory: Directory, states: States, care: TerminalCare, put: Callable[[Item], None]) -> None:
        self._directory, self._states, self._care, self._put = directory, states, care, put
        self._unsettled = True
        """At the start, too: a visit may have slept through a lift."""

    async def look(self, run: Run, slot: Slot, now: datetime) -> None:
        """`now`: wall time. Visits first: a customer stands there."""
        moved: list[StoreId] = await run(lambda conn: self._directory.refresh_switches(conn, now))
        if moved:
            log.info("kill_switches_moved", stores=len(moved))
        if moved or self._unsettled:
            self._unsettled = self._tell_visits(slot, now) or bool(moved)
        if moved:
            self._care.switched({store for store in moved if slot.owns(store)})

    def _tell_visits(self, slot: Slot, now: datetime) -> bool:
        """Those whose screen says otherwise. A visit that pays obeys by itself when that is over."""
        behind = [address for address, (state, _) in self._states.items() if self._is_behind(address, state, slot)]
        for address in behind:
            self._put(Item(address, SwitchesMoved(), derived_id(str(address), f"switches:{now.isoformat()}")))
        return bool(behind)

    def _is_behind(self, address: Address, state: object, slot: Slot) -> bool:
        if not isinstance(state, Session) or not state.live or state.busy or not slot.owns(address.store):
            return False
        try:
            return state.off != self._directory.book_of(address.store, 0).off
        except KeyError:
            return False
