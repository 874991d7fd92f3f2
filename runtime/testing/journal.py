"""The host's journal in memory, with the semantics of `models.tables.journal`: all or nothing, fenced, leased.

It is stricter than PostgreSQL where a fault would hide there: an entity's version must rise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import msgspec
from psycopg import OperationalError
from psycopg.errors import UniqueViolation

from models.domain.errors import Fenced
from models.domain.facts import (
    ConsentGiven,
    ConsentStands,
    Fact,
    Incident,
    SaleMade,
    SaleReturned,
    SaleVoided,
    TemplateMade,
)
from models.domain.ids import LeaseId, MemberId, MessageId, RegionId, SaleId, StoreId, TerminalId
from models.domain.ledger import Transaction, sale_voided, transaction_id
from models.domain.messages import Address
from models.domain.twin import CommandAnswered, CommandRecord, DesiredRecord
from models.tables.facts import return_transaction, sale_transaction
from models.tables.journal import (
    Commit,
    DeadLetter,
    InboxKey,
    OutboxEntry,
    Read,
    Seen,
    Slot,
    StoredEntity,
    TimerKey,
)
from models.tables.pruning import FIRST_PRUNE, PruneKey

Point = Callable[[str], None]
"""Called at each place where a process may die; raises when it dies there."""


@dataclass(slots=True)
class InboxRow:
    """A message that was seen."""

    key: InboxKey
    kind: str
    received_at: datetime
    reply: bytes | None


@dataclass(slots=True)
class OutboxRow:
    """A durable ask."""

    entry: OutboxEntry
    attempts: int
    not_before: datetime
    lease_until: datetime | None
    lease_epoch: int
    answer: bytes | None = None
    done: bool = False


@dataclass(slots=True)
class MemoryDatabase:
    """What survives every crash."""

    epoch: int = 0
    offset_us: int = 0
    inbox: dict[tuple[TerminalId, str], InboxRow] = field(default_factory=dict)
    by_seq: dict[tuple[TerminalId, str, int], InboxRow] = field(default_factory=dict)
    marks: dict[tuple[TerminalId, str], int] = field(default_factory=dict)
    entities: dict[Address, StoredEntity] = field(default_factory=dict)
    timers: dict[tuple[Address, str, str, str], TimerKey] = field(default_factory=dict)
    outbox: dict[str, OutboxRow] = field(default_factory=dict)
    dead: list[DeadLetter] = field(default_factory=list)
    sales: dict[SaleId, SaleMade] = field(default_factory=dict)
    voids: dict[SaleId, SaleVoided] = field(default_factory=dict)
    returns: dict[tuple[SaleId, int], SaleReturned] = field(default_factory=dict)
    templates: dict[MemberId, TemplateMade] = field(default_factory=dict)
    standing: dict[MemberId, ConsentStands] = field(default_factory=dict)
    consents: list[ConsentGiven] = field(default_factory=list)
    ledger: dict[str, Transaction] = field(default_factory=dict)
    online: dict[TerminalId, bool] = field(default_factory=dict)
    desired: dict[TerminalId, DesiredRecord] = field(default_factory=dict)
    commands: dict[MessageId, CommandRecord] = field(default_factory=dict)
    command_answers: list[CommandAnswered] = field(default_factory=list)
    telemetry: dict[tuple[TerminalId, int], dict[str, Any]] = field(default_factory=dict)
    registry_moves: int = 0
    """Raise it when a terminal or a book has changed."""
    incidents: list[Incident] = field(default_factory=list)
    unreachable: bool = False
    lose_next_commit: str = ""
    """`before` or `after`: the connection breaks around the next commit, and the host cannot know whether it held."""
    commits: int = 0
    timers_made: int = 0

    def sale_by_receipt(self, store: StoreId, receipt: str) -> SaleMade | None:
        """A sale by its receipt's number."""
        return next((sale for sale in self.sales.values() if (sale.store, sale.receipt) == (store, receipt)), None)

    def returns_of(self, sale: SaleId) -> list[SaleReturned]:
        """The returns of a sale, in their order."""
        return [back for (of, _), back in sorted(self.returns.items(), key=lambda one: one[0]) if of == sale]

    def lease_on_the_way(self, lease: LeaseId) -> bool:
        """Is there a sale whose uses of this lease are not posted yet?"""
        named = f'"lease":"{lease}"'.encode()
        posts = (row for row in self.outbox.values() if row.entry.verb == "PostUses")
        return any(not row.done and named in row.entry.request for row in posts)


class MemoryConnection:
    """One connection; ends with an outage, like a real one."""

    def __init__(self, database: MemoryDatabase) -> None:
        self.database = database
        self.broken = database.unreachable

    def use(self) -> MemoryDatabase:
        """The database. Raises OperationalError when it cannot be reached through this connection."""
        self.broken = self.broken or self.database.unreachable
        if self.broken:
            raise OperationalError("the connection is lost")
        return self.database

    async def close(self) -> None:
        """Nothing to do."""

    async def __aenter__(self) -> MemoryConnection:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class MemoryJournal:
    """Implements `runtime.journal_port.Journal`. One per incarnation of a host: `point` is where that one may die."""

    def __init__(
        self,
        point: Point,
        committed: Callable[[Commit], None] = lambda _: None,
        violated: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`committed` is called after each commit, for what must hold at every step; `violated` when one does not."""
        self._point = point
        self._committed = committed
        self._violated = violated

    async def claim(self, conn: Any, region: RegionId, k: int, slots: int, holder: str) -> Slot:
        """See models.tables.journal."""
        database = _use(conn)
        database.epoch += 1
        return Slot(region, slots, k, slots, database.epoch)

    async def still_holds(self, conn: Any, slot: Slot) -> bool:
        """See models.tables.journal."""
        return _use(conn).epoch == slot.epoch

    async def read_batch(self, conn: Any, keys: Sequence[InboxKey], addresses: Sequence[Address]) -> Read:
        """See models.tables.journal."""
        self._point("before_read")
        database = _use(conn)
        rows: dict[int, InboxRow] = {}
        for key in keys:
            for row in (
                database.inbox.get((key.terminal, key.id)),
                database.by_seq.get((key.terminal, key.boot, key.seq)),
            ):
                if row is not None:
                    rows[id(row)] = row
        seen = tuple(
            Seen(row.key, None if row.reply is None else msgspec.json.decode(row.reply)) for row in rows.values()
        )
        entities = {at: database.entities[at] for at in addresses if at in database.entities}
        marks = {
            (key.terminal, key.boot): database.marks[key.terminal, key.boot]
            for key in keys
            if (key.terminal, key.boot) in database.marks
        }
        return Read(database.offset_us, seen, entities, marks)

    async def commit_batch(self, conn: Any, slot: Slot, commit: Commit, lease_s: float, now: datetime) -> None:
        """See models.tables.journal. Raises UniqueViolation, and writes nothing, for a message that is there."""
        self._point("before_commit")
        database = _use(conn)
        if database.epoch != slot.epoch:
            raise Fenced("fenced", f"epoch {slot.epoch} is over, {database.epoch} holds the slot")
        fault, database.lose_next_commit = database.lose_next_commit, ""
        if fault == "before":
            conn.broken = True
            raise OperationalError("the connection broke before the commit")
        _check(database, commit)
        for address, (_, version) in commit.entities.items():
            stored = database.entities.get(address)
            if stored is not None and version <= stored.version:
                self._violated(f"{address} is written at version {version}, over {stored.version}: a stale state")
        _write(database, slot, commit, lease_s, now)
        database.commits += 1
        self._committed(commit)
        if fault == "after":
            conn.broken = True
            raise OperationalError("the connection broke after the commit")
        self._point("after_commit")

    async def due_timers(
        self, conn: Any, slot: Slot, wall: datetime, business: datetime, rows_max: int
    ) -> list[TimerKey]:
        """See models.tables.journal."""
        timers = _use(conn).timers.values()
        due = [timer for timer in timers if timer.due_at <= (wall if timer.clock == "wall" else business)]
        return sorted(due, key=lambda timer: (timer.due_at, timer.n))[:rows_max]

    async def sweep_outbox(
        self, conn: Any, slot: Slot, wall: datetime, lease_s: float, rows_max: int
    ) -> list[OutboxEntry]:
        """See models.tables.journal."""
        taken: list[OutboxEntry] = []
        for row in _use(conn).outbox.values():
            held = row.lease_until is not None and row.lease_until >= wall and row.lease_epoch >= slot.epoch
            if row.done or held or row.not_before > wall or len(taken) == rows_max:
                continue
            row.attempts += 1
            row.lease_until, row.lease_epoch = wall + timedelta(seconds=lease_s), slot.epoch
            taken.append(replace(row.entry, attempts=row.attempts))
        if taken:
            self._point("after_sweep")
        return taken

    async def pending_asks(self, conn: Any, slot: Slot) -> list[tuple[str, StoreId]]:
        """See models.tables.journal."""
        return [(row.entry.id, row.entry.address.store) for row in _use(conn).outbox.values() if not row.done]

    async def standing_entities(
        self, conn: Any, slot: Slot, after: Address | None, rows_max: int
    ) -> list[tuple[Address, StoredEntity]]:
        """See models.tables.journal."""
        begin = ("", "", "") if after is None else (after.store, after.kind, after.id)
        standing = [
            (at, stored)
            for at, stored in _use(conn).entities.items()
            if (at.store, at.kind, at.id) > begin
            and (at.kind != "session" or msgspec.json.decode(stored.state)["state"] != "closed")
        ]
        return sorted(standing, key=lambda one: (one[0].store, one[0].kind, one[0].id))[:rows_max]

    async def prune_inbox(
        self, conn: Any, slot: Slot, wall: datetime, rows_max: int, after: PruneKey = FIRST_PRUNE
    ) -> tuple[int, PruneKey]:
        """Nothing is old enough in a simulated shop."""
        _use(conn)
        return 0, after


def _use(conn: MemoryConnection) -> MemoryDatabase:
    return conn.use()


def _check(database: MemoryDatabase, commit: Commit) -> None:
    for key, _, _, _ in commit.inbox:
        if (key.terminal, key.id) in database.inbox or (key.terminal, key.boot, key.seq) in database.by_seq:
            raise UniqueViolation(f"inbox: {key}")
    receipts = {(sale.store, sale.receipt): sale.id for sale in database.sales.values()}
    for fact, _ in commit.facts:
        if isinstance(fact, SaleMade) and receipts.get((fact.store, fact.receipt), fact.id) != fact.id:
            raise UniqueViolation(f"sale: receipt {fact.receipt}")
        if isinstance(fact, SaleReturned) and database.returns.get((fact.sale, fact.n), fact).id != fact.id:
            raise UniqueViolation(f"sale_return: {fact.sale} {fact.n}")


def _write(database: MemoryDatabase, slot: Slot, commit: Commit, lease_s: float, now: datetime) -> None:
    for key, _, kind, reply in commit.inbox:
        row = InboxRow(key, kind, now, reply)
        database.inbox[key.terminal, key.id] = database.by_seq[key.terminal, key.boot, key.seq] = row
    for terminal, message, reply in commit.replies:
        if (terminal, message) in database.inbox:
            database.inbox[terminal, message].reply = reply
    for address, (state, version) in commit.entities.items():
        database.entities[address] = StoredEntity(state, version)
    fired = set(commit.fired)
    database.timers = {key: timer for key, timer in database.timers.items() if timer.n not in fired}
    for timer in commit.timers:
        database.timers_made += 1
        name = (timer.address, timer.clock, timer.kind, timer.ref)
        database.timers.setdefault(name, replace(timer, n=database.timers_made))
    for entry in commit.outbox:
        lease = now + timedelta(seconds=lease_s)
        database.outbox.setdefault(entry.id, OutboxRow(entry, 1, now, lease, slot.epoch))
    for ask, answer in commit.answered:
        done = database.outbox.get(ask)
        if done is not None and not done.done:
            done.answer, done.done, done.lease_until = answer, True, None
    for ask, wait_s in commit.deferred:
        put_off = database.outbox.get(ask)
        if put_off is not None and not put_off.done:
            put_off.not_before, put_off.lease_until = now + timedelta(seconds=wait_s), None
    database.dead += commit.dead
    for terminal, presence in commit.presence.items():
        database.online[terminal] = presence.online
    for fact, _ in commit.facts:
        _write_fact(database, fact)


def _write_fact(database: MemoryDatabase, fact: Fact) -> None:
    match fact:
        case SaleMade():
            if database.sales.setdefault(fact.id, fact) is fact:
                _book(database, sale_transaction(fact))
        case SaleVoided():
            paid = database.ledger.get(transaction_id(fact.sale, "sale_paid"))
            if database.voids.setdefault(fact.sale, fact) is fact and paid is not None:
                _book(database, sale_voided(fact.id, paid, fact.business_date))
        case SaleReturned():
            if database.returns.setdefault((fact.sale, fact.n), fact) is fact:
                _book(database, return_transaction(fact))
        case ConsentStands():
            database.standing[fact.member] = fact
        case TemplateMade():
            database.templates[fact.template.member] = fact
        case ConsentGiven():
            database.consents.append(fact)
        case DesiredRecord():
            if fact.terminal not in database.desired or database.desired[fact.terminal].gen < fact.gen:
                database.desired[fact.terminal] = fact
        case CommandRecord():
            database.commands.setdefault(fact.command.id, fact)
        case CommandAnswered():
            database.command_answers.append(fact)
        case Incident():
            database.incidents.append(fact)
        case _:
            pass


def _book(database: MemoryDatabase, transaction: Transaction) -> None:
    database.ledger.setdefault(transaction.id, transaction)
