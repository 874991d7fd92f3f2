"""Which host owns which store: a region's layouts, one of them current, and what its slots are doing.

A layout never changes: another number of slots, or another dedicated store, is the next layout. Ending one fences all
its hosts in the same transaction that makes the next, so two layouts never write at the same time. The tables are
in registry.py: a host, which is to start fast, imports no SQLModel.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from models.domain.errors import Refused
from models.domain.ids import RegionId, StoreId, shard_of

Connection = AsyncConnection[TupleRow]

SLOTS_MAX = 256
"""One for each shard."""

HELD = "SELECT 1 FROM slot WHERE region = %s AND layout = %s AND k = %s AND epoch = %s"
"""One row while nobody has claimed the slot since. Its values: `journal.held(slot)`."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Slots 0..slots-1 share the stores by `shard % slots`; slot `slots + i` has `dedicated[i]` alone."""

    region: RegionId
    number: int
    slots: int
    dedicated: tuple[StoreId, ...] = ()

    @property
    def ks(self) -> range:
        """Every slot."""
        return range(self.slots + len(self.dedicated))

    def k_of(self, store: StoreId) -> int:
        """The slot that owns a store."""
        if store in self.dedicated:
            return self.slots + self.dedicated.index(store)
        return shard_of(store) % self.slots

    def store_of(self, k: int) -> StoreId | None:
        """The store that a dedicated slot has alone; None for a shared slot."""
        return self.dedicated[k - self.slots] if k >= self.slots else None


def carried(old: Layout, new: Layout, drained: Collection[int]) -> list[int]:
    """Which slots of the next layout are drained, when those of the old one are: no store is served that was not.

    Raises Refused `drained_mixed` when a slot would join drained stores and served ones.
    """
    if not drained:
        return []
    apart = {store: old.k_of(store) in drained for store in (*old.dedicated, *new.dedicated)}
    were: dict[int, set[bool]] = {k: set() for k in new.ks}
    for shard in range(SLOTS_MAX):
        were[shard % new.slots].add(shard % old.slots in drained)
    for store, was in apart.items():
        were[new.k_of(store)].add(was)
    mixed = [k for k, before in were.items() if len(before) > 1]
    if mixed:
        raise Refused(
            "drained_mixed",
            f"slot {mixed[0]} of the next layout would join drained stores and served ones",
            "storeops hosts resume, or drain all of them: then change the hosts",
        )
    return [k for k, before in were.items() if before == {True}]


@dataclass(frozen=True, slots=True)
class SlotState:
    """What the table knows of one slot. `restarts`: claims after a holder that had not left in order."""

    k: int
    epoch: int
    holder: str
    drained: bool
    restarts: int
    claimed_at: datetime | None


async def current_layout(conn: Connection, region: RegionId) -> Layout | None:
    """The layout in force; None before the region's first start."""
    cursor = await conn.execute(
        "SELECT layout, slots, dedicated FROM layout WHERE region = %s AND ended_at IS NULL", (region,)
    )
    row = await cursor.fetchone()
    return None if row is None else Layout(region, row[0], row[1], tuple(StoreId(store) for store in row[2]))


async def ended_since(conn: Connection, region: RegionId, seconds: float) -> list[Layout]:
    """Layouts that ended in the last so many seconds."""
    cursor = await conn.execute(
        """SELECT layout, slots, dedicated FROM layout
           WHERE region = %s AND ended_at > now() - make_interval(secs => %s) ORDER BY layout""",
        (region, seconds),
    )
    return [
        Layout(region, row[0], row[1], tuple(StoreId(store) for store in row[2])) for row in await cursor.fetchall()
    ]


async def first_layout(conn: Connection, region: RegionId, slots: int) -> Layout:
    """The layout in force; at a region's first start, one of so many slots."""
    standing = await current_layout(conn, region)
    if standing is None:
        async with conn.transaction():
            first = Layout(region, 1, slots, tuple(await wanted_dedicated(conn, region)))
            cursor = await conn.execute(
                """INSERT INTO layout (region, layout, slots, dedicated, made_at) VALUES (%s, %s, %s, %s, now())
                   ON CONFLICT DO NOTHING RETURNING 1""",
                (region, first.number, slots, Jsonb(list(first.dedicated))),
            )
            if await cursor.fetchone() is not None:
                await _insert_slots(conn, first)
        standing = await current_layout(conn, region)
    assert standing is not None, "two starts at once insert one layout"
    return standing


async def _insert_slots(conn: Connection, layout: Layout, drained: Sequence[int] = ()) -> None:
    """Epochs rise over a region's layouts: a lease of an older layout is an older epoch's."""
    await conn.execute(
        """INSERT INTO slot (region, layout, k, epoch, holder, drained, restarts)
           SELECT %s, %s, k, coalesce((SELECT max(epoch) FROM slot WHERE region = %s), 0), '', k = ANY(%s), 0
           FROM unnest(%s::int[]) AS u(k) ON CONFLICT DO NOTHING""",
        (layout.region, layout.number, layout.region, list(drained), list(layout.ks)),
    )


async def wanted_dedicated(conn: Connection, region: RegionId) -> list[StoreId]:
    """Stores of the region that are to have hosts of their own, in the order of their names."""
    cursor = await conn.execute(
        "SELECT d.store FROM dedicated_store d JOIN store s ON s.id = d.store WHERE s.region = %s ORDER BY d.store",
        (region,),
    )
    return [StoreId(row[0]) for row in await cursor.fetchall()]


async def set_dedicated(conn: Connection, region: RegionId, store: StoreId, dedicated: bool) -> None:
    """Say whether a store is to have a host of its own. Raises Refused `unknown_store`."""
    cursor = await conn.execute("SELECT 1 FROM store WHERE id = %s AND region = %s", (store, region))
    if await cursor.fetchone() is None:
        raise Refused("unknown_store", f"no store {store!r} in region {region}", "see the console's list of stores")
    if dedicated:
        await conn.execute("INSERT INTO dedicated_store (store) VALUES (%s) ON CONFLICT DO NOTHING", (store,))
    else:
        await conn.execute("DELETE FROM dedicated_store WHERE store = %s", (store,))


async def next_layout(conn: Connection, old: Layout, slots: int, dedicated: Sequence[StoreId]) -> Layout:
    """End a layout and make the next, in one transaction; from its commit on no host of the old one can write.

    Drained slots are carried over. Raises Refused `layout_moved` when `old` is not in force any more, and
    `drained_mixed` as `carried` does.
    """
    async with conn.transaction():
        cursor = await conn.execute(
            """UPDATE layout SET ended_at = now() WHERE region = %s AND layout = %s AND ended_at IS NULL
               RETURNING layout""",
            (old.region, old.number),
        )
        if await cursor.fetchone() is None:
            raise Refused("layout_moved", f"layout {old.number} is not in force any more", "look again: storeops hosts")
        await conn.execute("UPDATE slot SET epoch = epoch + 1, holder = '' WHERE region = %s", (old.region,))
        drained = [k for k, state in (await slot_states(conn, old)).items() if state.drained]
        cursor = await conn.execute(
            """INSERT INTO layout (region, layout, slots, dedicated, made_at)
               SELECT %s, max(layout) + 1, %s, %s, now() FROM layout WHERE region = %s RETURNING layout""",
            (old.region, slots, Jsonb(list(dedicated)), old.region),
        )
        row = await cursor.fetchone()
        assert row is not None
        made = Layout(old.region, row[0], slots, tuple(dedicated))
        await _insert_slots(conn, made, carried(old, made, drained))
    return made


async def claim_slot(conn: Connection, region: RegionId, k: int, slots: int, holder: str) -> tuple[Layout, int]:
    """The current layout and the epoch of this claim: from now on the holder before is fenced out.

    `slots` counts at a region's first start only. Raises Refused `no_slot` when the layout has no such slot, or it is
    drained: whoever wants it waits and asks again.
    """
    await first_layout(conn, region, slots)
    async with conn.transaction():
        cursor = await conn.execute(
            # The lock holds off a change of layout until the claim is there to be fenced by it.
            "SELECT layout, slots, dedicated FROM layout WHERE region = %s AND ended_at IS NULL FOR SHARE",
            (region,),
        )
        row = await cursor.fetchone()
        layout = None if row is None else Layout(region, row[0], row[1], tuple(StoreId(store) for store in row[2]))
        if layout is None or k not in layout.ks:
            raise Refused("no_slot", f"the layout of {region} has no slot {k}", "storeops hosts resize")
        cursor = await conn.execute(
            """UPDATE slot SET epoch = epoch + 1, claimed_at = now(), holder = %s,
                 restarts = restarts + (holder <> '')::int
               WHERE region = %s AND layout = %s AND k = %s AND NOT drained RETURNING epoch""",
            (holder, region, layout.number, k),
        )
        claimed = await cursor.fetchone()
        if claimed is None:
            raise Refused("no_slot", f"slot {region}/{k} is drained", "storeops hosts resume")
    return layout, int(claimed[0])


async def release_slot(conn: Connection, region: RegionId, layout: int, k: int, epoch: int) -> None:
    """A host left in order: its next claim is no restart. Changes nothing for a host that is fenced."""
    await conn.execute(
        "UPDATE slot SET holder = '' WHERE region = %s AND layout = %s AND k = %s AND epoch = %s",
        (region, layout, k, epoch),
    )


async def set_drained(conn: Connection, layout: Layout, ks: Sequence[int], drained: bool) -> None:
    """Drain these slots, which fences their hosts in the same statement, or let them be claimed again."""
    await conn.execute(
        """UPDATE slot SET drained = %s, epoch = epoch + 1, holder = ''
           WHERE region = %s AND layout = %s AND k = ANY(%s) AND drained <> %s""",
        (drained, layout.region, layout.number, list(ks), drained),
    )


async def slot_states(conn: Connection, layout: Layout) -> dict[int, SlotState]:
    """The layout's slots, by k."""
    cursor = await conn.execute(
        """SELECT k, epoch, holder, drained, restarts, claimed_at FROM slot
           WHERE region = %s AND layout = %s ORDER BY k""",
        (layout.region, layout.number),
    )
    return {row[0]: SlotState(*row) for row in await cursor.fetchall()}


async def may_claim(conn: Connection, region: RegionId, k: int, slots: int) -> Layout | None:
    """The current layout if it has this slot and the slot is not drained; at a first start it is made."""
    layout = await first_layout(conn, region, slots)
    if k not in layout.ks:
        return None
    state = (await slot_states(conn, layout)).get(k)
    return None if state is not None and state.drained else layout


async def stores_of(conn: AsyncConnection[Any], terminals: Sequence[str]) -> dict[str, StoreId]:
    """Where registered terminals stand."""
    cursor = await conn.execute("SELECT id, store FROM terminal WHERE id = ANY(%s)", (list(terminals),))
    return {row[0]: StoreId(row[1]) for row in await cursor.fetchall()}
