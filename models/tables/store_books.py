"""Which version of its chain's book a store uses, and what else a rollout changed for the whole store.

A pin is a row beside the store. `gen` rises with each order to the store; hosts put it into the documents of its
terminals, so that a terminal that applied one proves that its host has read the row. Nothing here commits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection, AsyncCursor

from models.domain.errors import Refused
from models.domain.ids import ChainId, StoreId
from models.domain.rollout import ArtefactKind
from models.tables.chain_books import PLAN_FILE

Connection = AsyncConnection[Any]
IN_FORCE_SQL = "(SELECT max(version) FROM book WHERE chain = %(chain)s AND NOT candidate)"


@dataclass(frozen=True, slots=True)
class StoreSight:
    """One store as its row and its live layer say it. `version`: of the book that it uses; 0: its chain has none."""

    gen: int
    version: int
    layer: Mapping[str, Any]


async def load_store_sights(conn: Connection, chain: ChainId, stores: Sequence[StoreId]) -> dict[StoreId, StoreSight]:
    """Every one of these stores that is the chain's."""
    cursor = await conn.execute(
        f"""SELECT s.id, coalesce(b.gen, 0), coalesce(b.version, {IN_FORCE_SQL}, 0), coalesce(l.patch, '{{}}'::jsonb)
            FROM store s LEFT JOIN store_book b ON b.store = s.id
            LEFT JOIN config_layer l
              ON l.chain = s.chain AND l.level = 'store' AND l.scope = s.id AND l.source = 'live'
            WHERE s.chain = %(chain)s AND s.id = ANY(%(stores)s)""",
        {"chain": chain, "stores": list(stores)},
    )
    return {StoreId(row[0]): StoreSight(row[1], row[2], row[3]) for row in await cursor.fetchall()}


async def in_force(conn: Connection | AsyncCursor[Any], chain: str) -> int:
    """The version of the chain's book for every store that is not pinned; 0: it has none."""
    cursor = await conn.execute(f"SELECT coalesce({IN_FORCE_SQL}, 0)", {"chain": chain})
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def is_candidate(conn: Connection | AsyncCursor[Any], chain: str, version: int) -> bool | None:
    """None: there is no such version."""
    cursor = await conn.execute("SELECT candidate FROM book WHERE chain = %s AND version = %s", (chain, version))
    row = await cursor.fetchone()
    return None if row is None else bool(row[0])


async def kind_of(conn: Connection, chain: str, version: int) -> ArtefactKind:
    """What made a version: a file of plans, or else one of prices."""
    cursor = await conn.execute(
        "SELECT coalesce((doc->%s->>'version')::int = version, false) FROM book WHERE chain = %s AND version = %s",
        (PLAN_FILE, chain, version),
    )
    row = await cursor.fetchone()
    return ArtefactKind.PLAN if row is not None and row[0] else ArtefactKind.PRICES


async def pin(conn: Connection, chain: ChainId, store: StoreId, version: int) -> None:
    """From its host's next look on the store uses this version; the one in force means: it follows the chain."""
    await conn.execute(
        f"""INSERT INTO store_book AS b (store, version, gen, changed_at)
            VALUES (%(store)s, nullif(%(version)s, {IN_FORCE_SQL}), 1, clock_timestamp())
            ON CONFLICT (store) DO UPDATE SET version = excluded.version, gen = b.gen + 1,
              changed_at = excluded.changed_at""",
        {"chain": chain, "store": store, "version": version},
    )


async def mark_changed(conn: Connection, store: StoreId) -> None:
    """Something else of the whole store was changed in this transaction: its terminals are to prove it."""
    await conn.execute(
        """INSERT INTO store_book AS b (store, gen, changed_at) VALUES (%s, 1, clock_timestamp())
           ON CONFLICT (store) DO UPDATE SET gen = b.gen + 1, changed_at = excluded.changed_at""",
        (store,),
    )


async def make_current(conn: Connection, chain: ChainId, base: int, candidate: int, planned: Sequence[StoreId]) -> bool:
    """The candidate becomes the chain's book, and no planned store changes: who has it follows the chain from now on,
    who has not stays where it is. False, and nothing is done: the chain's book is not `base` any more, or a later one
    than the candidate."""
    if await in_force(conn, chain) != base or candidate < base:
        return False
    await conn.execute(
        """INSERT INTO store_book AS b (store, version, gen, changed_at)
           SELECT s, %s, 0, clock_timestamp() FROM unnest(%s::text[]) AS s
           ON CONFLICT (store) DO UPDATE SET version = excluded.version, changed_at = excluded.changed_at
             WHERE b.version IS NULL""",
        (base, list(planned)),
    )
    await conn.execute("UPDATE book SET candidate = false WHERE chain = %s AND version = %s", (chain, candidate))
    await _follow(conn, chain, candidate)
    return True


async def take_back(conn: Connection, chain: ChainId, base: int, candidate: int, asked: Sequence[StoreId]) -> None:
    """The chain's book is `base` again; those stores keep the candidate until they are brought back one by one.

    Raises Refused `book_moved` when another version is in force by now.
    """
    now_in_force = await in_force(conn, chain)
    if now_in_force == base or await is_candidate(conn, chain, candidate):
        return  # it never became the chain's
    if now_in_force == candidate:
        await conn.execute(
            "UPDATE store_book SET version = %s WHERE version IS NULL AND store = ANY(%s)", (candidate, list(asked))
        )
        await conn.execute("UPDATE book SET candidate = true WHERE chain = %s AND version = %s", (chain, candidate))
        now_in_force = await in_force(conn, chain)
    if now_in_force != base:
        raise Refused(
            "book_moved",
            f"the chain's book is version {now_in_force} by now",
            "roll out a candidate with what it was before",
        )
    await _follow(conn, chain, base)


async def _follow(conn: Connection, chain: ChainId, version: int) -> None:
    await conn.execute(
        """UPDATE store_book b SET version = NULL, changed_at = clock_timestamp() FROM store s
           WHERE s.id = b.store AND s.chain = %s AND b.version = %s""",
        (chain, version),
    )
