"""A chain's next book: its document and what changed of its articles, in one commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection, AsyncCursor
from psycopg.types.json import Jsonb

from models.domain.pricing import Item
from models.tables.items import changes, load_assortment, save_items

PRICE_FILE = "price_file"
"""In a book's document: its articles came from this price file. From then on the chain's file lists none."""


async def lock_books(cur: AsyncCursor[Any], chain: str) -> None:
    """Nobody else makes a book of this chain until the commit."""
    await cur.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"book:{chain}",))


async def newest_document(
    conn: AsyncConnection[Any] | AsyncCursor[Any], chain: str
) -> tuple[int, dict[str, Any]] | None:
    """Version and document of the book in force; None: the chain has none."""
    cursor = await conn.execute(
        "SELECT version, doc FROM book WHERE chain = %s ORDER BY version DESC LIMIT 1", (chain,)
    )
    row = await cursor.fetchone()
    return None if row is None else (int(row[0]), dict(row[1]))


async def save_book(
    cur: AsyncCursor[Any], chain: str, document: Mapping[str, Any], items: Sequence[Item], now: datetime
) -> int:
    """The next version of the chain's book, or the newest when nothing changed; returns its number.

    Where the newest book's articles came from a price file, they stay as they are: `items` are left aside.
    """
    await lock_books(cur, chain)
    newest = await newest_document(cur, chain)
    version, before = newest if newest is not None else (0, {})
    content = dict(document)
    changed: dict[str, Item | None] = {}
    if PRICE_FILE in before:
        content[PRICE_FILE] = before[PRICE_FILE]
    else:
        known = await load_assortment(cur.connection, chain)
        changed = changes(known.at(version), items)
    if newest is not None and before == content and not changed:
        return version
    await insert_book(cur, chain, version + 1, content, changed, now)
    return version + 1


async def insert_book(
    cur: AsyncCursor[Any],
    chain: str,
    version: int,
    document: Mapping[str, Any],
    changed: Mapping[str, Item | None],
    now: datetime,
) -> None:
    """Write a version. The caller holds the chain's books."""
    await cur.execute(
        "INSERT INTO book (chain, version, doc, created_at) VALUES (%s, %s, %s, %s)",
        (chain, version, Jsonb(dict(document)), now),
    )
    if changed:
        await save_items(cur, chain, version, changed)
