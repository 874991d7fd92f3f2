"""The host's journal: what one batch reads before its turns, and the one transaction that it commits after.

Raw psycopg 3 in pipeline mode: two round trips a batch whatever its size, one to read and one to commit.
SQLModel owns the schema only.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.errors import DivisionByZero
from psycopg.rows import TupleRow

from models.domain.errors import Fenced
from models.domain.facts import Fact
from models.domain.ids import SHARDS_TOTAL, RegionId, StoreId, TerminalId, shard_of
from models.domain.messages import Address
from models.domain.twin import PresenceRecord
from models.tables.drawers import note_cash
from models.tables.facts import bookings_of, save_facts
from models.tables.layouts import HELD, claim_slot
from models.tables.ledger import book
from models.tables.points import moves_of, points_bookings, save_moves
from models.tables.pruning import FIRST_PRUNE, PruneKey, prune
from models.tables.receipts import chain_receipts
from models.tables.terminals import write_presence


@dataclass(frozen=True, slots=True)
class Slot:
    """Which stores a host owns, and the epoch of its claim."""

    region: RegionId
    layout: int
    k: int
    slots: int
    epoch: int
    store: StoreId | None = None
    """The one store of a dedicated slot."""
    apart: tuple[StoreId, ...] = ()
    """Stores that have slots of their own: no shared slot owns them, whatever their shard."""

    def owns(self, store: StoreId) -> bool:
        """True when this slot owns the store."""
        if self.store is not None:
            return store == self.store
        return shard_of(store) % self.slots == self.k and store not in self.apart

    @property
    def shards(self) -> list[int]:
        """Shards with stores of this slot."""
        if self.store is not None:
            return [shard_of(self.store)]
        return list(range(self.k, SHARDS_TOTAL, self.slots))

    @property
    def owned(self) -> tuple[RegionId, int, int, StoreId | None, StoreId | None, list[StoreId]]:
        """The values of OWNED."""
        if self.store is not None:
            return self.region, SHARDS_TOTAL, shard_of(self.store), self.store, self.store, []
        return self.region, self.slots, self.k, None, None, list(self.apart)


OWNED = "region = %s AND shard %% %s = %s AND (%s::text IS NULL OR store = %s) AND store <> ALL(%s::text[])"
"""A row's store is the slot's; every table of a host has region, shard and store. Its values: `Slot.owned`."""


def held(slot: Slot) -> tuple[RegionId, int, int, int]:
    """The values of HELD."""
    return slot.region, slot.layout, slot.k, slot.epoch


@dataclass(frozen=True, slots=True)
class InboxKey:
    """A message's two names: (terminal, id) and (terminal, boot, seq)."""

    terminal: TerminalId
    boot: str
    seq: int
    id: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A row of the inbox that shares a name with a message. `reply` None: still pending."""

    key: InboxKey
    reply: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class StoredEntity:
    """An entity's state as stored."""

    state: bytes
    version: int


@dataclass(frozen=True, slots=True)
class TimerKey:
    """One timer: fires once."""

    address: Address
    clock: str
    kind: str
    ref: str
    due_at: datetime
    n: int = 0


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """A durable ask."""

    id: str
    address: Address
    port: str
    verb: str
    request: bytes
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Read:
    """What a batch knows before its turns."""

    offset_us: int
    seen: tuple[Seen, ...]
    entities: dict[Address, StoredEntity]
    marks: dict[tuple[TerminalId, str], int]
    """(terminal, boot) -> seq at or below which everything was processed and forgotten."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message whose turn raised. Terminals may give the same id to their events: `terminal` is part of its name."""

    id: str
    terminal: TerminalId
    """Empty for what no terminal sent."""
    address: Address
    message: bytes
    error: str


@dataclass(slots=True)
class Commit:
    """What a batch writes, all or nothing."""

    inbox: list[tuple[InboxKey, int, str, bytes | None]] = field(default_factory=list)
    """(key, shard, type, reply or None)"""
    replies: list[tuple[TerminalId, str, bytes]] = field(default_factory=list)
    entities: dict[Address, tuple[bytes, int]] = field(default_factory=dict)
    timers: list[TimerKey] = field(default_factory=list)
    fired: list[int] = field(default_factory=list)
    outbox: list[OutboxEntry] = field(default_factory=list)
    answered: list[tuple[str, bytes]] = field(default_factory=list)
    deferred: list[tuple[str, float]] = field(default_factory=list)
    """(outbox id, seconds until the next attempt)"""
    facts: list[tuple[Fact, str]] = field(default_factory=list)
    """(fact, trace: the message that caused it)"""
    dead: list[DeadLetter] = field(default_factory=list)
    presence: dict[TerminalId, PresenceRecord] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Nothing to write."""
        return not any(
            (
                self.inbox,
                self.replies,
                self.entities,
                self.timers,
                self.fired,
                self.outbox,
                self.answered,
                self.deferred,
                self.facts,
                self.dead,
                self.presence,
            )
        )


async def claim(conn: AsyncConnection[TupleRow], region: RegionId, k: int, slots: int, holder: str) -> Slot:
    """Claim a slot of the current layout: from now on the one before is fenced out.

    `slots` counts at a region's first start only. Raises Refused `no_slot` as `layouts.claim_slot` does.
    """
    layout, epoch = await claim_slot(conn, region, k, slots, holder)
    store = layout.store_of(k)
    return Slot(region, layout.number, k, layout.slots, epoch, store, () if store else layout.dedicated)


async def still_holds(conn: AsyncConnection[TupleRow], slot: Slot) -> bool:
    """True while nobody else has claimed the slot."""
    cursor = await conn.execute(HELD, held(slot))
    return await cursor.fetchone() is not None


async def read_batch(conn: AsyncConnection[TupleRow], keys: Sequence[InboxKey], addresses: Sequence[Address]) -> Read:
    """The business clock, what the inbox knows of these messages, and the states of these entities."""
    async with conn.pipeline():
        clock = await conn.execute("SELECT offset_us FROM business_clock WHERE id = 1")
        seen_cursor = mark_cursor = entity_cursor = None
        if keys:
            seen_cursor = await conn.execute(
                """SELECT i.terminal, i.boot, i.seq, i.id, i.reply
                   FROM unnest(%s::text[], %s::text[]) AS k(terminal, id) JOIN inbox i USING (terminal, id)
                   UNION
                   SELECT i.terminal, i.boot, i.seq, i.id, i.reply
                   FROM unnest(%s::text[], %s::text[], %s::bigint[]) AS k(terminal, boot, seq)
                   JOIN inbox i USING (terminal, boot, seq)""",
                (
                    [key.terminal for key in keys],
                    [key.id for key in keys],
                    [key.terminal for key in keys],
                    [key.boot for key in keys],
                    [key.seq for key in keys],
                ),
            )
            mark_cursor = await conn.execute(
                """SELECT m.terminal, m.boot, m.seq FROM unnest(%s::text[], %s::text[]) AS k(terminal, boot)
                   JOIN inbox_mark m USING (terminal, boot)""",
                ([key.terminal for key in keys], [key.boot for key in keys]),
            )
        if addresses:
            entity_cursor = await conn.execute(
                """SELECT e.region, e.store, e.kind, e.id, e.state::text, e.version
                   FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]) AS k(region, store, kind, id)
                   JOIN entity e USING (region, store, kind, id)""",
                _columns(addresses),
            )
    offset = await clock.fetchone()
    seen = [] if seen_cursor is None else await seen_cursor.fetchall()
    marks = [] if mark_cursor is None else await mark_cursor.fetchall()
    entities = [] if entity_cursor is None else await entity_cursor.fetchall()
    return Read(
        offset[0] if offset is not None else 0,
        tuple(Seen(InboxKey(TerminalId(row[0]), row[1], row[2], row[3]), row[4]) for row in seen),
        {_address(row): StoredEntity(row[4].encode(), row[5]) for row in entities},
        {(TerminalId(row[0]), row[1]): row[2] for row in marks},
    )


def _columns(addresses: Sequence[Address]) -> tuple[list[str], list[str], list[str], list[str]]:
    return (
        [address.region for address in addresses],
        [address.store for address in addresses],
        [address.kind for address in addresses],
        [address.id for address in addresses],
    )


async def commit_batch(
    conn: AsyncConnection[TupleRow], slot: Slot, commit: Commit, lease_s: float, now: datetime
) -> None:
    """Write the batch in one transaction whose first statement is the epoch check.

    Raises Fenced, and writes nothing, when another host has claimed the slot. `now` is wall time.
    """
    moved = await moves_of(conn, commit.facts)
    bookings = [*await bookings_of(conn, commit.facts), *await points_bookings(conn, moved)]
    try:
        # One round trip from BEGIN to COMMIT: nobody waits for the epoch, a wrong one is an error, and the server
        # skips what comes after an error.
        async with conn.pipeline():
            await conn.execute("BEGIN")
            await conn.execute(f"WITH held AS ({HELD} FOR SHARE) SELECT 1 / count(*) FROM held", held(slot))
            await _write_messages(conn, commit, now)
            await _write_entities(conn, commit, now)
            await _write_timers(conn, commit)
            await _write_outbox(conn, slot, commit, lease_s, now)
            await save_facts(conn, commit.facts)
            await save_moves(conn, [move for _, _, moves in moved for move in moves])
            await chain_receipts(conn, commit.facts)
            if bookings:
                async with conn.cursor() as cursor:
                    await book(cursor, bookings)
                await note_cash(conn, bookings)
            await conn.execute("COMMIT")
    except DivisionByZero:
        await conn.rollback()
        raise Fenced("fenced", f"slot {slot.region}/{slot.k} is held by a newer host than epoch {slot.epoch}") from None
    except BaseException:
        if not conn.closed:
            await conn.rollback()
        raise


async def _write_messages(conn: AsyncConnection[TupleRow], commit: Commit, now: datetime) -> None:
    if commit.inbox:
        keys = [key for key, _, _, _ in commit.inbox]
        await conn.execute(
            """INSERT INTO inbox (terminal, boot, seq, id, shard, type, received_at, reply)
               SELECT t, b, s, i, h, y, %s, r::jsonb FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::text[],
               %s::smallint[], %s::text[], %s::text[]) AS u(t, b, s, i, h, y, r)""",
            (
                now,
                [key.terminal for key in keys],
                [key.boot for key in keys],
                [key.seq for key in keys],
                [key.id for key in keys],
                [shard for _, shard, _, _ in commit.inbox],
                [kind for _, _, kind, _ in commit.inbox],
                [None if reply is None else reply.decode() for _, _, _, reply in commit.inbox],
            ),
        )
    if commit.replies:
        await conn.execute(
            """UPDATE inbox SET reply = u.r::jsonb FROM unnest(%s::text[], %s::text[], %s::text[]) AS u(t, i, r)
               WHERE inbox.terminal = u.t AND inbox.id = u.i""",
            (
                [terminal for terminal, _, _ in commit.replies],
                [message for _, message, _ in commit.replies],
                [reply.decode() for _, _, reply in commit.replies],
            ),
        )
    for dead in commit.dead:
        at = dead.address
        await conn.execute(
            """INSERT INTO dead_letter (id, terminal, region, store, entity_kind, entity_id, message, error, at)
               VALUES (%s, %s, %s, %s, %s, %s, %s::jsonb, %s, %s) ON CONFLICT (terminal, id) DO NOTHING""",
            (dead.id, dead.terminal, at.region, at.store, at.kind, at.id, dead.message.decode(), dead.error, now),
        )


async def _write_entities(conn: AsyncConnection[TupleRow], commit: Commit, now: datetime) -> None:
    if commit.entities:
        addresses = list(commit.entities)
        states = list(commit.entities.values())
        await conn.execute(
            """INSERT INTO entity (region, store, kind, id, shard, state, version, changed_at)
               SELECT r, s, k, i, h, x::jsonb, v, %s FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[],
               %s::smallint[], %s::text[], %s::bigint[]) AS u(r, s, k, i, h, x, v)
               ON CONFLICT (region, store, kind, id) DO UPDATE
               SET state = excluded.state, version = excluded.version, changed_at = excluded.changed_at""",
            (
                now,
                *_columns(addresses),
                [shard_of(address.store) for address in addresses],
                [state.decode() for state, _ in states],
                [version for _, version in states],
            ),
        )
    if commit.presence:
        await write_presence(conn, commit.presence, now)


async def _write_timers(conn: AsyncConnection[TupleRow], commit: Commit) -> None:
    if commit.fired:
        await conn.execute("DELETE FROM timer WHERE n = ANY(%s)", (commit.fired,))
    if commit.timers:
        addresses = [timer.address for timer in commit.timers]
        await conn.execute(
            """INSERT INTO timer (region, store, entity_kind, entity_id, shard, clock, kind, ref, due_at)
               SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::smallint[], %s::text[],
               %s::text[], %s::text[], %s::timestamptz[])
               ON CONFLICT (region, store, entity_kind, entity_id, clock, kind, ref) DO NOTHING""",
            (
                *_columns(addresses),
                [shard_of(address.store) for address in addresses],
                [timer.clock for timer in commit.timers],
                [timer.kind for timer in commit.timers],
                [timer.ref for timer in commit.timers],
                [timer.due_at for timer in commit.timers],
            ),
        )


async def _write_outbox(
    conn: AsyncConnection[TupleRow], slot: Slot, commit: Commit, lease_s: float, now: datetime
) -> None:
    if commit.outbox:
        addresses = [entry.address for entry in commit.outbox]
        await conn.execute(
            """INSERT INTO outbox (id, region, store, entity_kind, entity_id, shard, port, verb, request,
                 idempotency_key, not_before, attempts, lease_until, lease_epoch, created_at)
               SELECT d, r, s, k, e, h, p, b, q::jsonb, d, %s, 1, %s + make_interval(secs => %s), %s, %s
               FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::smallint[], %s::text[],
               %s::text[], %s::text[]) AS u(d, r, s, k, e, h, p, b, q) ON CONFLICT (id) DO NOTHING""",
            (
                now,
                now,
                lease_s,
                slot.epoch,
                now,
                [entry.id for entry in commit.outbox],
                *_columns(addresses),
                [shard_of(address.store) for address in addresses],
                [entry.port for entry in commit.outbox],
                [entry.verb for entry in commit.outbox],
                [entry.request.decode() for entry in commit.outbox],
            ),
        )
    if commit.answered:
        # What is done is never asked again: a phone number and a customer's payment token do not stay.
        await conn.execute(
            """UPDATE outbox SET answer = u.a::jsonb, done_at = %s, lease_until = NULL,
                 request = request - '{phone,auth}'::text[]
               FROM unnest(%s::text[], %s::text[]) AS u(d, a) WHERE outbox.id = u.d AND outbox.done_at IS NULL""",
            (now, [ask for ask, _ in commit.answered], [answer.decode() for _, answer in commit.answered]),
        )
    if commit.deferred:
        await conn.execute(
            """UPDATE outbox SET not_before = %s + make_interval(secs => u.w), lease_until = NULL
               FROM unnest(%s::text[], %s::float8[]) AS u(d, w) WHERE outbox.id = u.d AND outbox.done_at IS NULL""",
            (now, [ask for ask, _ in commit.deferred], [wait for _, wait in commit.deferred]),
        )


async def due_timers(
    conn: AsyncConnection[TupleRow], slot: Slot, wall: datetime, business: datetime, rows_max: int
) -> list[TimerKey]:
    """Timers of this slot at or past due, in due order, at most `rows_max`. Deleted by the turn's commit."""
    # Each clock by its own index, in due order: a backlog of any length is read no further than what is taken of it.
    one = f"""(SELECT region, store, entity_kind, entity_id, clock, kind, ref, due_at, n FROM timer
               WHERE {OWNED} AND clock = %s AND due_at <= %s ORDER BY due_at, n LIMIT %s)"""
    cursor = await conn.execute(
        f"{one} UNION ALL {one} ORDER BY due_at, n LIMIT %s",
        (*slot.owned, "wall", wall, rows_max, *slot.owned, "business", business, rows_max, rows_max),
    )
    return [
        TimerKey(Address(row[0], row[1], row[2], row[3]), row[4], row[5], row[6], row[7], row[8])
        for row in await cursor.fetchall()
    ]


async def sweep_outbox(
    conn: AsyncConnection[TupleRow], slot: Slot, wall: datetime, lease_s: float, rows_max: int
) -> list[OutboxEntry]:
    """Take asks that are not done and that nobody holds: lease them to this epoch and count the attempt.

    A fenced host takes nothing.
    """
    cursor = await conn.execute(
        f"""WITH fence AS ({HELD} FOR SHARE)
           UPDATE outbox SET attempts = attempts + 1, lease_until = %s + make_interval(secs => %s), lease_epoch = %s
           WHERE EXISTS (SELECT 1 FROM fence) AND id IN (SELECT id FROM outbox WHERE done_at IS NULL AND {OWNED}
             AND not_before <= %s AND (lease_until IS NULL OR lease_until < %s OR lease_epoch < %s)
             ORDER BY created_at LIMIT %s FOR UPDATE SKIP LOCKED)
           RETURNING id, region, store, entity_kind, entity_id, port, verb, request::text, attempts""",
        (
            *held(slot),
            wall,
            lease_s,
            slot.epoch,
            *slot.owned,
            wall,
            wall,
            slot.epoch,
            rows_max,
        ),
    )
    return [
        OutboxEntry(row[0], Address(row[1], row[2], row[3], row[4]), row[5], row[6], row[7].encode(), row[8])
        for row in await cursor.fetchall()
    ]


async def pending_asks(conn: AsyncConnection[TupleRow], slot: Slot) -> list[tuple[str, StoreId]]:
    """(outbox id, store) of this slot's asks that are not done."""
    cursor = await conn.execute(f"SELECT id, store FROM outbox WHERE done_at IS NULL AND {OWNED}", slot.owned)
    return [(row[0], StoreId(sys.intern(row[1]))) for row in await cursor.fetchall()]


async def standing_entities(
    conn: AsyncConnection[TupleRow], slot: Slot, after: Address | None, rows_max: int
) -> list[tuple[Address, StoredEntity]]:
    """What a host shows from its first moment: its stores, its terminals, and sessions that are not closed.

    A page of them by address, at most `rows_max` after `after`; a shorter one is the last.
    """
    begin = ("", "", "") if after is None else (after.store, after.kind, after.id)
    cursor = await conn.execute(
        f"""SELECT region, store, kind, id, state::text, version FROM entity
           WHERE {OWNED} AND (store, kind, id) > (%s, %s, %s) AND (kind <> 'session' OR state->>'state' <> 'closed')
           ORDER BY store, kind, id LIMIT %s""",
        (*slot.owned, *begin, rows_max),
    )
    return [(_address(row), StoredEntity(row[4].encode(), row[5])) for row in await cursor.fetchall()]


def _address(row: TupleRow) -> Address:
    """Of a row's first four columns. Each text once in memory: 100,000 entities share regions, kinds and stores."""
    return Address(RegionId(sys.intern(row[0])), StoreId(sys.intern(row[1])), sys.intern(row[2]), sys.intern(row[3]))


async def prune_inbox(
    conn: AsyncConnection[TupleRow], slot: Slot, wall: datetime, rows_max: int, after: PruneKey = FIRST_PRUNE
) -> tuple[int, PruneKey]:
    """See models.tables.pruning."""
    return await prune(conn, held(slot), (slot.slots, slot.k), wall, rows_max, after)
