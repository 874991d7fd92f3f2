"""A chain's next book: its document and what changed of its articles, in one commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection, AsyncCursor
from psycopg.types.json import Jsonb

from models.domain.errors import Refused
from models.domain.pricing import Item
from models.domain.rollout import BOOK_KEY
from models.tables.items import changes, load_assortment, save_items

PRICE_FILE = "price_file"
"""In a book's document: its articles came from this price file. From then on the chain's file lists none."""
PLAN_FILE = "plan_file"
"""In a book's document: its plans came by a rollout. From then on the chain's file changes none."""
CANDIDATES_MAX = 32
"""Made since the book in force: each may be a whole price list."""


async def lock_books(cur: AsyncCursor[Any], chain: str) -> None:
    """Nobody else makes a book of this chain until the commit."""
    await cur.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"book:{chain}",))


async def newest_document(
    conn: AsyncConnection[Any] | AsyncCursor[Any], chain: str
) -> tuple[int, dict[str, Any]] | None:
    """Version and document of the book in force; None: the chain has none."""
    cursor = await conn.execute(
        "SELECT version, doc FROM book WHERE chain = %s AND NOT candidate ORDER BY version DESC LIMIT 1", (chain,)
    )
    row = await cursor.fetchone()
    return None if row is None else (int(row[0]), dict(row[1]))


async def last_version(cur: AsyncCursor[Any], chain: str) -> int:
    """Of all the chain's books, candidates too: articles are kept as changes from one number to the next."""
    await cur.execute("SELECT coalesce(max(version), 0) FROM book WHERE chain = %s", (chain,))
    row = await cur.fetchone()
    assert row is not None
    return int(row[0])


async def require_no_rollout(cur: AsyncCursor[Any], chain: str) -> None:
    """The caller holds the chain's books. Raises Refused `book_on_its_way`: two next versions cannot both come true."""
    await cur.execute(
        """SELECT id FROM rollout WHERE chain = %s AND artefact_key = %s
           AND state NOT IN ('draft', 'rolled_back', 'completed', 'superseded') LIMIT 1""",
        (chain, BOOK_KEY),
    )
    if (row := await cur.fetchone()) is not None:
        raise Refused(
            "book_on_its_way",
            f"rollout {row[0]} brings the chain's next book to its stores",
            f"see `storeops rollout status {row[0]}`; end it first, or let another rollout supersede it",
        )


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
    known = await load_assortment(cur.connection, chain)
    wanted: Sequence[Item] = items
    if PRICE_FILE in before:
        content[PRICE_FILE] = before[PRICE_FILE]
        wanted = list(known.at(version).values())
    if PLAN_FILE in before:
        content |= {name: before[name] for name in (PLAN_FILE, "plans")}
    if newest is not None and before == content and not changes(known.at(version), wanted):
        return version
    await require_no_rollout(cur, chain)
    last = await last_version(cur, chain)
    await insert_book(cur, chain, last + 1, content, changes(known.at(last), wanted), now)
    return last + 1


async def save_candidate(
    cur: AsyncCursor[Any],
    chain: str,
    document: Mapping[str, Any],
    source: tuple[str, Mapping[str, Any]],
    items: Sequence[Item],
    now: datetime,
) -> int:
    """A version that nobody uses until a rollout pins it; the last one again when it is the same. `source`: PRICE_FILE
    or PLAN_FILE, and what stands there. The caller holds the chain's books. Raises Refused `too_many_candidates`."""
    name, said = source
    last = await last_version(cur, chain)
    changed = changes((await load_assortment(cur.connection, chain)).at(last), items)
    await cur.execute(
        """SELECT (SELECT doc FROM book WHERE chain = %(chain)s AND version = %(last)s AND candidate),
             (SELECT count(*) FROM book WHERE chain = %(chain)s AND candidate AND version >
               (SELECT coalesce(max(version), 0) FROM book WHERE chain = %(chain)s AND NOT candidate))""",
        {"chain": chain, "last": last},
    )
    row = await cur.fetchone()
    assert row is not None
    if row[0] == {**document, name: {**said, "version": last}} and not changed:
        return last
    if row[1] >= CANDIDATES_MAX:
        raise Refused(
            "too_many_candidates",
            f"{row[1]} candidates stand after the book in force",
            "roll one of them out: storeops rollout plan --book VERSION",
        )
    content = {**document, name: {**said, "version": last + 1}}
    await insert_book(cur, chain, last + 1, content, changed, now, candidate=True)
    return last + 1


async def insert_book(
    cur: AsyncCursor[Any],
    chain: str,
    version: int,
    document: Mapping[str, Any],
    changed: Mapping[str, Item | None],
    now: datetime,
    *,
    candidate: bool = False,
) -> None:
    """Write a version; `changed` since the version with the number before. The caller holds the chain's books."""
    await cur.execute(
        "INSERT INTO book (chain, version, doc, created_at, candidate) VALUES (%s, %s, %s, %s, %s)",
        (chain, version, Jsonb(dict(document)), now, candidate),
    )
    if changed:
        await save_items(cur, chain, version, changed)
