"""What a host does for its terminals beside visits: desired documents, commands, resync, retirement.

The entity decides and its commit makes durable; here is only what follows: publish, publish again what a lost
connection or a restart left open, and look whether the registry or a chain's book has moved.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog

from actors.effects import Command, Desire
from actors.terminal import Terminal
from devices.bridge import Bridge
from devices.link import LinkError
from devices.wire import SoftwareRelease
from models.domain.ids import MessageId, RegionId, StoreId, TerminalId, derived_id
from models.domain.messages import Address
from models.domain.presence import Birth, CommandResponse, FamilyClaimed, FamilyFound, PresenceAsked, Reported, Retired
from models.domain.registry import RegisteredTerminal
from models.domain.twin import DesiredAsked, PendingCommand, SoftwareVersion, Sync, canonical, hash_of
from models.tables.journal import Slot, held
from runtime import families
from runtime.directory import Directory
from runtime.engine import Item, Work
from runtime.journal_port import Connection
from runtime.observed import Observed, address_of
from runtime.publisher import Publisher
from runtime.states import States
from runtime.telemetry import HostCounts
from runtime.twin_port import TwinStore

log = structlog.get_logger()

RESYNC_DEADLINE = timedelta(seconds=30)
PUBLISHES_AT_ONCE_MAX = 64
REGISTRY_EVERY_TICKS = 5
PRUNE_EVERY_TICKS, PRUNED_ROWS_MAX = 600, 5_000
CHECKED_A_TICK_MAX = 512
OWED_A_TICK_MAX = 256
BASES_MAX = 256
"""Whole documents kept, up to 20 kB each: few kinds of terminals differ, unless each store has settings of its own."""

Run = Callable[[Callable[[Connection], Awaitable[Any]]], Awaitable[Any]]


@dataclass(slots=True)
class _Base:
    """The chain's configuration for terminals of one kind."""

    text: str
    hash: str


class TerminalCare:
    """Of one host. What it owes is bounded by the number of terminals."""

    def __init__(
        self,
        directory: Directory,
        publisher: Publisher,
        counts: HostCounts,
        states: States,
        observed: Observed,
        twins: TwinStore,
        *,
        put: Callable[[Item], None],
        wall: Callable[[], datetime],
    ) -> None:
        """`put` takes an item into the host's queue."""
        self._directory, self._publisher, self._counts = directory, publisher, counts
        self._states, self._observed, self._twins = states, observed, twins
        self._put, self._wall = put, wall
        self._bases: dict[Hashable, _Base] = {}
        self._unchecked: deque[RegisteredTerminal] = deque()
        self._owed_desired: OrderedDict[TerminalId, None] = OrderedDict()
        self._owed_commands: dict[MessageId, tuple[RegisteredTerminal, PendingCommand]] = {}
        self._departing: set[TerminalId] = set()
        self._mark = ""
        self._ticks = 0

    # ------------------------------------------------------------ the connection

    def connected(self, slot: Slot) -> None:
        """What a lost connection, or a host that died, left untold: commands within their deadline."""
        for address, (state, _) in self._states.items():
            record = self._directory.terminal(TerminalId(address.id)) if address.kind == "terminal" else None
            if record is not None and isinstance(state, Terminal) and slot.owns(record.store):
                for command in state.pending:
                    self._owed_commands[command.id] = (record, command)

    async def resync(self, bridge: Bridge, slot: Slot) -> None:
        """The broker forgot: desired again, and every terminal is asked for presence, report and what waits.

        Who does not answer by its deadline is shown as unknown: a retained presence proves nothing now.
        """
        stamp = time.time_ns()
        owned = [record for record in self._directory.terminals() if slot.owns(record.store)]
        for record in owned:
            self._owed_desired[record.terminal] = None

        async def ask(record: RegisteredTerminal) -> None:
            command = MessageId(derived_id(record.terminal, f"resync:{stamp}"))
            self._put(Item(address_of(record), PresenceAsked(command), command, terminal=record))
            await bridge.publish_command(record, command, "resync", {}, RESYNC_DEADLINE)

        await self._each(ask, owned)

    async def greet(self, bridge: Bridge, born: list[RegisteredTerminal]) -> None:
        """The lane's screen once more."""
        await self._publisher.show_again(bridge, born)

    async def _each(
        self, tell: Callable[[RegisteredTerminal], Awaitable[None]], records: Sequence[RegisteredTerminal]
    ) -> None:
        """Some at a time; ends with the connection, the next one starts again."""
        for n in range(0, len(records), PUBLISHES_AT_ONCE_MAX):
            results = await asyncio.gather(
                *(tell(record) for record in records[n : n + PUBLISHES_AT_ONCE_MAX]), return_exceptions=True
            )
            lost = [result for result in results if isinstance(result, BaseException)]
            self._counts.publish_failures += len(lost)
            for error in lost:
                if not isinstance(error, LinkError):
                    raise error
            if lost:
                return

    # ------------------------------------------------------------ after a commit

    async def tell(self, bridge: Bridge, told: Sequence[tuple[Address, Desire | Command]]) -> None:
        """Publish what turns decided. What fails here is owed, and told in a second."""
        known = [(self._directory.terminal(TerminalId(address.id)), effect) for address, effect in told]
        await self.publish(bridge, [(record, effect) for record, effect in known if record is not None])

    async def _desire(
        self, bridge: Bridge, record: RegisteredTerminal, gen: int, config: str, software: SoftwareVersion | None
    ) -> None:
        release = None
        if software is not None:
            release = SoftwareRelease(software.version, software.url, software.sha256, software.size_bytes)
        try:
            await bridge.publish_desired(record, gen, json.loads(config), release)
        except LinkError:
            self._counts.publish_failures += 1
            self._owed_desired[record.terminal] = None

    async def _command(self, bridge: Bridge, record: RegisteredTerminal, command: PendingCommand) -> None:
        left = command.deadline_at - self._wall()
        if left <= timedelta(0):
            return
        try:
            await bridge.publish_command(record, command.id, command.verb, dict(command.args), left)
        except LinkError:
            self._counts.publish_failures += 1
            self._owed_commands[command.id] = (record, command)

    def after(self, items: Iterable[Item], work: Work) -> None:
        """What terminals said of themselves was committed: is there something that they should be told?"""
        for item in items:
            match item.message:
                case Birth() | Reported() if item.terminal is not None:
                    self._look(item.terminal, self._state(item.address, work))
                case CommandResponse() if not self._state(item.address, work).awaits(item.message.command):
                    self._counts.unasked_responses += 1
                case FamilyFound():
                    self._became(TerminalId(item.address.id), item.message)
                case FamilyClaimed():
                    self._counts.families_claimed += 1
                case Retired():
                    self._departing.discard(TerminalId(item.address.id))
                    self._observed.forget(TerminalId(item.address.id))
                case _:
                    pass

    def _state(self, address: Address, work: Work | None = None) -> Terminal:
        found = (work.states.get(address) if work is not None else None) or self._states.get(address)
        return found[0] if found is not None and isinstance(found[0], Terminal) else Terminal()

    def _look(self, record: RegisteredTerminal, state: Terminal) -> None:
        """Hold a terminal against the chain's book and its own report."""
        found = families.look(self._directory, record, state)
        if found is not None:
            cause = derived_id(record.terminal, f"family:{state.boot}:{found}")
            self._put(Item(address_of(record), found, cause, terminal=record))
        base = self._base(record)
        if base is None:
            return
        leap = state.sync in (Sync.AHEAD, Sync.DIFFERS) and state.leapt_boot != state.boot
        if leap or state.desired.base_hash != base.hash:
            reason = f"leap:{state.boot}" if leap else f"base:{base.hash}"
            change = MessageId(derived_id(record.terminal, f"{state.desired.gen}:{reason}"))
            self._put(Item(address_of(record), DesiredAsked(change, base.text, leap=leap), change, terminal=record))
        elif state.sync is Sync.BEHIND and state.applied_gen != state.desired.gen:
            self._owed_desired[record.terminal] = None

    def _became(self, terminal: TerminalId, found: FamilyFound) -> None:
        """Committed: true for the next message, and its configuration is what the new family can use."""
        self._directory.became(terminal, found.profile)
        record = self._directory.terminal(terminal)
        if record is not None:
            log.info("family_changed", terminal=terminal, before=found.before, profile=found.profile)
            self._look(record, self._state(address_of(record)))

    def _base(self, record: RegisteredTerminal) -> _Base | None:
        try:
            book = self._directory.book_of(record.store, 0)
        except KeyError:
            return None  # a store without a book yet: the registry's next move brings it
        key = self._directory.config_key(record, book)
        base = self._bases.get(key)
        if base is None:
            if len(self._bases) >= BASES_MAX:
                self._bases.clear()
            text = canonical(self._directory.desired_config(record, book))
            base = self._bases[key] = _Base(text, hash_of(text))
        return base

    def complete(self, record: RegisteredTerminal, asked: DesiredAsked) -> DesiredAsked:
        """An administrator's change, over the chain's configuration as this host knows it.

        Raises Refused for software that would make the terminal what its lane cannot do with.
        """
        if asked.software is not None:
            families.require_fit(self._directory, record, asked.software)
        base = self._base(record)
        return DesiredAsked(
            asked.id,
            "{}" if base is None else base.text,
            asked.patch,
            asked.software,
            asked.no_software,
            asked.reset,
            asked.expected_gen,
            anew=asked.anew,
        )

    def switched(self, stores: Collection[StoreId]) -> None:
        """Kill switches moved there: look at every terminal of them now, not a part each second."""
        for record in self._directory.terminals():
            if record.store in stores:
                self._look(record, self._state(address_of(record)))

    # ------------------------------------------------------------ each second

    def refresh(self) -> None:
        """The registry has changed: look at the next tick."""
        self._mark = "changed"
        self._ticks = 0

    async def tick(self, run: Run, slot: Slot) -> list[tuple[RegisteredTerminal, Desire | Command | None]]:
        """Read what is owed, write what was observed. Returns what to publish: `None` clears a retired terminal."""
        if self._ticks % REGISTRY_EVERY_TICKS == 0:
            await self._look_at_registry(run, slot)
        self._ticks += 1
        for _ in range(min(len(self._unchecked), CHECKED_A_TICK_MAX)):
            record = self._unchecked.popleft()
            self._look(record, self._state(address_of(record)))
        samples = self._observed.samples()
        if samples:
            await run(lambda conn: self._twins.save_telemetry(conn, held(slot), samples, self._wall()))
        if self._ticks % PRUNE_EVERY_TICKS == 0:
            await run(lambda conn: self._twins.prune_commands(conn, held(slot), self._wall(), PRUNED_ROWS_MAX))
        publish: list[tuple[RegisteredTerminal, Desire | Command | None]] = []
        owed = [self._owed_desired.popitem(last=False)[0] for _ in range(min(len(self._owed_desired), OWED_A_TICK_MAX))]
        if owed:
            for document in await run(lambda conn: self._twins.load_desired(conn, owed)):
                known = self._directory.terminal(document.terminal)
                if known is not None:
                    publish.append((known, Desire(document.gen, document.config, document.software)))
        publish += [(record, Command(command)) for record, command in self._owed_commands.values()]
        self._owed_commands.clear()
        departed: list[RegisteredTerminal] = []
        if self._departing:
            departed = await run(lambda conn: self._twins.load_departed(conn, RegionId(slot.region)))
        return publish + [(one, None) for one in departed if one.terminal in self._departing]

    async def _look_at_registry(self, run: Run, slot: Slot) -> None:
        mark = await run(lambda conn: self._twins.registry_mark(conn, slot.region))
        if mark == self._mark:
            return
        if self._mark:
            await run(self._directory.load)
        self._mark = mark
        self._unchecked.clear()
        self._unchecked.extend(one for one in self._directory.terminals() if slot.owns(one.store))
        departed = await run(lambda conn: self._twins.load_departed(conn, slot.region))
        self._departing = {one.terminal for one in departed if slot.owns(one.store)}

    async def publish(self, bridge: Bridge, due: Sequence[tuple[RegisteredTerminal, Desire | Command | None]]) -> None:
        """What `tick` returned."""
        for n in range(0, len(due), PUBLISHES_AT_ONCE_MAX):
            await asyncio.gather(*(self._publish(bridge, *one) for one in due[n : n + PUBLISHES_AT_ONCE_MAX]))

    async def _publish(self, bridge: Bridge, record: RegisteredTerminal, effect: Desire | Command | None) -> None:
        match effect:
            case Desire():
                await self._desire(bridge, record, effect.gen, effect.config, effect.software)
            case Command():
                await self._command(bridge, record, effect.command)
            case None:
                try:
                    await bridge.clear_retained(record)
                except LinkError:
                    self._counts.publish_failures += 1
                    return  # still departing: again in a second
                log.info("terminal_retired", terminal=record.terminal)
                cause = derived_id(record.terminal, f"retired:{time.time_ns()}")
                self._put(Item(address_of(record), Retired(), cause, terminal=record))
