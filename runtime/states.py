"""The entities that a host has in memory: what a batch must read, and what may be old after a commit that broke."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from actors.screens import render
from actors.store import Store
from actors.terminal import Terminal
from actors.visit import Session
from models.domain.events import Event
from models.domain.ids import LaneId, RegionId, StoreId
from models.domain.messages import Address
from models.domain.presence import FamilyFound
from models.tables.journal import Read
from runtime.directory import Directory
from runtime.engine import NEVER_REFUSED_FULL, Entity, Item, Work, decode_state

GENERATION_S = 300.0
GENERATIONS = 3
"""The current one and two whole ones: what is forgotten was idle for 10 to 15 minutes."""
ENTITIES_MAX = 250_000
"""Of a host in memory; about 350 MiB."""
SPARE_PER_MILLE = 20
"""Forgotten beyond what is needed at the bound: all entities are looked at for it, and not for each batch."""
LOOKED_EVERY_S = 1.0
"""So often at most, at the bound."""


class States(dict[Address, tuple[Entity, int]]):
    """State and version of each entity, as committed. At most `entities_max`, and what may not be refused."""

    def __init__(self, entities_max: int = ENTITIES_MAX) -> None:
        super().__init__()
        self._max = entities_max
        self._looked_at_s = float("-inf")
        self._unclear: set[Address] = set()
        self._touched: deque[dict[Address, None]] = deque([{}], maxlen=GENERATIONS)

    def skew_of(self, address: Address) -> tuple[int | None, bool]:
        """What a terminal's entity holds of its clock: milliseconds ahead of ours, and whether that alarms."""
        found = self.get(address)
        state = found[0] if found is not None else None
        return (state.skew_ms, state.skew_alarm) if isinstance(state, Terminal) else (None, False)

    def visit(self, region: RegionId, store: StoreId, lane: LaneId) -> Session | None:
        """The lane's session, if it is held."""
        found = self.get(Address.session(region, store, lane))
        return found[0] if found is not None and isinstance(found[0], Session) else None

    def woken(self, address: Address, state: Entity, version: int) -> None:
        """As the host found it at its start."""
        self[address] = (state, version)

    def passivate(self) -> list[Address]:
        """A generation is over: forget what nobody touched for GENERATIONS of them; returns what went.

        Stores and closed visits: they are read again when somebody comes. Not what is busy (a question, a payment, a
        live screen), and not terminals: they are connected, and as many as the registry says. Nothing here is dirty:
        what is held was committed.
        """
        complete = len(self._touched) == GENERATIONS
        idle: list[Address] = []
        if complete:
            recent = set[Address]().union(*self._touched)
            idle = [at for at, (state, _) in self.items() if at not in recent and _may_go(state)]
            for address in idle:
                del self[address]
        self._touched.appendleft({})
        return idle

    def admit(self, items: Sequence[Item], now_s: float) -> tuple[int, int]:
        """Make room for what these messages bring into memory: the least recently used idle entities are forgotten.

        Where that is not enough, events for new entities are marked `host_full`. Returns how many entities were
        forgotten and how many events refused. What was paid, answers, timers and what terminals say of themselves
        always find room: the registry bounds them.
        """
        if len(self) + len(items) <= self._max:
            return 0, 0
        needed = {item.address for item in items if item.refuse is None}
        over = len(self) + sum(at not in self for at in needed) - self._max
        if over <= 0:
            return 0, 0
        forgotten = self._forget(over, needed, now_s)
        room, refused = self._max - len(self), 0
        found: set[Address] = set()
        for item in items:
            if item.refuse is not None or item.address in self or item.address in found:
                continue
            event = item.message
            if len(found) >= room and isinstance(event, Event) and not isinstance(event.body, NEVER_REFUSED_FULL):
                item.refuse = "host_full"
                refused += 1
            else:
                found.add(item.address)
        return forgotten, refused

    def _forget(self, over: int, needed: set[Address], now_s: float) -> int:
        if now_s - self._looked_at_s < LOOKED_EVERY_S:
            return 0
        self._looked_at_s = now_s
        age: dict[Address, int] = {}
        n = 0
        for touched in self._touched:  # the newest first; of one generation by the first touch in it
            for address in reversed(touched):
                age.setdefault(address, n)
                n += 1
        idle = [at for at, (state, _) in self.items() if at not in needed and _may_go(state)]
        idle.sort(key=lambda at: -age.get(at, n))
        gone = idle[: over + self._max * SPARE_PER_MILLE // 1000]
        for address in gone:
            del self[address]
        return len(gone)

    def missing(self, items: Iterable[Item]) -> list[Address]:
        """What a batch must read first: states that are not here."""
        return [address for address in _touched(items) if address not in self]

    def doubt(self, items: Iterable[Item]) -> None:
        """The commit of these broke, and may have held all the same: nothing here may be built upon."""
        for address in _touched(items):
            self.pop(address, None)
            self._unclear.add(address)

    def committed(self, items: Iterable[Item], read: Read, work: Work, directory: Directory) -> None:
        """Keep what a batch committed. After a doubt also show again: a screen may be stored that nobody saw."""
        self.update(work.states)
        self._touched[0].update(dict.fromkeys(work.states))  # from dict to dict: no address is hashed again
        for address in _touched(items) if self._unclear else ():
            if address not in self._unclear:
                continue
            self._unclear.discard(address)
            stored = read.entities.get(address)
            if address not in self and stored is not None:
                self[address] = (decode_state(address.kind, stored.state), stored.version)
            state = self[address][0] if address in self else None
            if isinstance(state, Session) and state.live:
                screen = render(state, directory.book_of(address.store, state.book_version))
                work.screens.setdefault((address.store, LaneId(address.id)), screen)


def _may_go(state: Entity) -> bool:
    if isinstance(state, Session):
        return not (state.live or state.busy or state.question or state.enrolment)
    return isinstance(state, Store)


def _touched(items: Iterable[Item]) -> list[Address]:
    """The entities that these messages may change, those that sessions and terminals tell among them."""
    items = [item for item in items if item.refuse is None]
    addresses = {item.address for item in items}
    for item in items:
        if isinstance(item.message, FamilyFound):
            addresses.add(Address.session(item.address.region, item.address.store, item.message.lane))
    return sorted(addresses | {Address(at.region, at.store, "store", at.store) for at in addresses})
