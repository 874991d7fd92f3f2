"""Receipts in a chain by store: each carries the SHA-256 of its content and of the one before.

Written in the commit of the sale, void or return, by one statement for a whole batch; a store has one host, so its
receipts follow one another. Nothing is ever changed or taken out: the database refuses it too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from sqlalchemy import BigInteger
from sqlmodel import Field, SQLModel

from models.domain.facts import Fact, SaleMade, SaleReturned, SaleVoided
from models.domain.receipts import (
    GENESIS,
    Fault,
    Kept,
    Link,
    Receipt,
    Verifier,
    kept_from_row,
    link_faults,
    receipt_of,
)
from models.tables.base import blob, instant


class ReceiptRow(SQLModel, table=True):
    """The n-th receipt of a store, from 1. `id`: of the sale, void or return; `digest`: of its content."""

    __tablename__ = "receipt"
    store: str = Field(primary_key=True)
    n: int = Field(primary_key=True, sa_type=BigInteger)
    id: str = Field(unique=True)
    kind: str
    at: datetime = instant()
    digest: bytes = blob()
    sha256: bytes = blob()


_CHAIN = """
WITH RECURSIVE came AS (
    SELECT DISTINCT ON (c.id) c.* FROM unnest(%(stores)s::text[], %(ids)s::text[], %(kinds)s::text[],
        %(at)s::timestamptz[], %(digests)s::text[]) WITH ORDINALITY AS c(store, id, kind, at, digest, k)
    WHERE NOT EXISTS (SELECT 1 FROM receipt r WHERE r.id = c.id) ORDER BY c.id, c.k
), new AS (
    SELECT store, id, kind, at, decode(digest, 'hex') AS digest,
           row_number() OVER (PARTITION BY store ORDER BY k) AS k FROM came
), head AS (
    SELECT s.store, coalesce(h.n, 0) AS n, coalesce(h.sha256, %(genesis)s) AS sha256
    FROM (SELECT DISTINCT store FROM new) s LEFT JOIN LATERAL
        (SELECT r.n, r.sha256 FROM receipt r WHERE r.store = s.store ORDER BY r.n DESC LIMIT 1) h ON true
), chain AS (
    SELECT h.store, h.n, NULL::text AS id, NULL::text AS kind, NULL::timestamptz AS at, NULL::bytea AS digest, h.sha256,
           0::bigint AS k FROM head h
    UNION ALL
    SELECT c.store, c.n + 1, w.id, w.kind, w.at, w.digest, sha256(c.sha256 || w.digest), w.k
    FROM chain c JOIN new w ON w.store = c.store AND w.k = c.k + 1
)
INSERT INTO receipt (store, n, id, kind, at, digest, sha256)
SELECT store, n, id, kind, at, digest, sha256 FROM chain WHERE k > 0
"""


async def chain_receipts(conn: AsyncConnection[TupleRow], facts: Sequence[tuple[Fact, str]]) -> None:
    """Append the receipts of these facts. One statement, nothing is read back: it may run in a pipeline.

    A fact that is repeated is not appended again.
    """
    made = [receipt_of(fact) for fact, _ in facts if isinstance(fact, SaleMade | SaleVoided | SaleReturned)]
    if made:
        await conn.execute(
            _CHAIN,
            {
                "stores": [one.store for one in made],
                "ids": [one.id for one in made],
                "kinds": [one.kind for one in made],
                "at": [one.at for one in made],
                "digests": [one.digest.hex() for one in made],
                "genesis": GENESIS,
            },
        )


# Every receipt with the row that it is about, in the order of the chain; then rows that no receipt is about.
_KEPT = """
WITH row AS (
    SELECT 'sale' AS kind, id, to_jsonb(s) AS doc FROM sale s WHERE store = %(store)s AND chained
    UNION ALL
    SELECT 'void', v.id, to_jsonb(v) || jsonb_build_object('receipt', s.receipt)
    FROM sale_void v JOIN sale s ON s.id = v.sale WHERE v.store = %(store)s AND v.chained
    UNION ALL
    SELECT 'return', b.id, to_jsonb(b) || jsonb_build_object('receipt', s.receipt)
    FROM sale_return b JOIN sale s ON s.id = b.sale WHERE b.store = %(store)s AND b.chained
)
SELECT r.n, r.id, r.kind, r.at, r.digest, r.sha256, row.kind, row.id, row.doc
FROM (SELECT * FROM receipt WHERE store = %(store)s) r FULL JOIN row ON row.id = r.id
ORDER BY r.n NULLS LAST, row.id
"""
ROWS_AT_ONCE = 1_000


async def kept_receipts(conn: AsyncConnection[Any], store: str) -> AsyncIterator[Kept]:
    """The store's chain as it is stored, each link with what its sale, void or return says today. Streamed."""
    async with conn.transaction(), conn.cursor("kept_receipts") as cursor:
        cursor.itersize = ROWS_AT_ONCE
        await cursor.execute(_KEPT, {"store": store})
        async for n, ident, kind, at, digest, sha256, row_kind, row_id, doc in cursor:
            link = None if n is None else Link(n, ident, kind, at, bytes(digest), bytes(sha256))
            yield Kept(link, _content(store, row_kind, row_id, doc))


def _content(store: str, kind: str | None, ident: str | None, doc: dict[str, Any] | None) -> Receipt | None:
    return None if kind is None or ident is None or doc is None else kept_from_row(store, kind, ident, doc)


async def receipts_total(conn: AsyncConnection[Any], store: str) -> int:
    """How many links the store's chain has, for a progress bar."""
    cursor = await conn.execute("SELECT count(*) FROM receipt WHERE store = %s", (store,))
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def unchained_total(conn: AsyncConnection[Any], store: str) -> int:
    """Sales of the store that were booked before there was a chain."""
    cursor = await conn.execute("SELECT count(*) FROM sale WHERE store = %s AND NOT chained", (store,))
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def verify_chain(
    conn: AsyncConnection[Any],
    store: str,
    noted: Sequence[tuple[int, bytes]] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> Verifier:
    """The whole chain of a store held against what its sales, voids and returns say today; `noted`: heads that must
    still be there. `progress` is told every 1,000 receipts."""
    verifier = Verifier()
    for n, sha256 in noted:
        if n:
            verifier.watch(n, sha256)
    async for kept in kept_receipts(conn, store):
        verifier.feed(kept)
        if verifier.receipts % ROWS_AT_ONCE == 0:
            progress(verifier.receipts)
    verifier.finish()
    return verifier


# ---------------------------------------------------------------- looking at them


@dataclass(frozen=True, slots=True)
class Linked:
    """A link of a store's chain as a list shows it. `receipt` and `sale`: whose receipt, void or return it is, "" when
    that is gone; `fen`: what was paid, below 0 what went back."""

    store: str
    n: int
    id: str
    kind: str
    at: datetime
    sha256: str
    receipt: str
    sale: str
    fen: int


_LINKED = """
SELECT r.store, r.n, r.id, r.kind, r.at, encode(r.sha256, 'hex'), coalesce(s.receipt, ''), coalesce(s.id, ''),
       coalesce(CASE r.kind WHEN 'return' THEN -b.due_fen WHEN 'void' THEN -s.due_fen ELSE s.due_fen END, 0)
FROM receipt r LEFT JOIN sale_void v ON r.kind = 'void' AND v.id = r.id
LEFT JOIN sale_return b ON r.kind = 'return' AND b.id = r.id
LEFT JOIN sale s ON s.id = coalesce(v.sale, b.sale, r.id)
"""
_OF_SALE = """
WITH wanted AS (SELECT id FROM sale WHERE {which} ORDER BY at DESC, id LIMIT %(limit)s)
SELECT * FROM (
    {linked} WHERE r.id IN (
        SELECT id FROM wanted UNION ALL SELECT id FROM sale_void WHERE sale IN (SELECT id FROM wanted)
        UNION ALL SELECT id FROM sale_return WHERE sale IN (SELECT id FROM wanted))
) found ORDER BY 5, 2 LIMIT %(limit)s
"""
_EXACT = "receipt = %(text)s OR id = %(text)s"
_PREFIX = "starts_with(receipt, %(text)s)"


async def chain_links(conn: AsyncConnection[Any], store: str, *, limit: int, before: int | None = None) -> list[Linked]:
    """The store's chain, the newest first; `before`: only links with a lower number."""
    cursor = await conn.execute(
        _LINKED + " WHERE r.store = %s AND (%s::bigint IS NULL OR r.n < %s::bigint) ORDER BY r.n DESC LIMIT %s",
        (store, before, before, limit),
    )
    return [Linked(*row) for row in await cursor.fetchall()]


async def find_links(conn: AsyncConnection[Any], text: str, *, limit: int) -> list[Linked]:
    """Links of the sale with this receipt's number or id, of any store, its void and returns with it; where there is
    none, of receipts whose numbers begin so."""
    for which in (_EXACT, _PREFIX):
        cursor = await conn.execute(_OF_SALE.format(which=which, linked=_LINKED), {"text": text, "limit": limit})
        if rows := await cursor.fetchall():
            return [Linked(*row) for row in rows]
    return []


async def load_link(conn: AsyncConnection[Any], store: str, n: int) -> tuple[Linked, list[Fault]] | None:
    """One link with what is wrong with it; None: the chain has no such number."""
    cursor = await conn.execute(
        """SELECT r.n, r.id, r.kind, r.at, r.digest, r.sha256,
                  CASE r.kind WHEN 'sale' THEN (SELECT to_jsonb(s) FROM sale s WHERE s.id = r.id)
                  WHEN 'void' THEN (SELECT to_jsonb(v) || jsonb_build_object('receipt', s.receipt)
                                    FROM sale_void v JOIN sale s ON s.id = v.sale WHERE v.id = r.id)
                  ELSE (SELECT to_jsonb(b) || jsonb_build_object('receipt', s.receipt)
                        FROM sale_return b JOIN sale s ON s.id = b.sale WHERE b.id = r.id) END,
                  (SELECT p.sha256 FROM receipt p WHERE p.store = r.store AND p.n = r.n - 1)
           FROM receipt r WHERE r.store = %s AND r.n = %s""",
        (store, n),
    )
    row = await cursor.fetchone()
    if row is None:
        return None
    _, ident, kind, at, digest, sha256, doc, before = row
    link = Link(n, ident, kind, at, bytes(digest), bytes(sha256))
    faults = link_faults(
        bytes(before) if before is not None else GENESIS, Kept(link, _content(store, kind, ident, doc))
    )
    cursor = await conn.execute(_LINKED + " WHERE r.store = %s AND r.n = %s", (store, n))
    shown = await cursor.fetchone()
    assert shown is not None
    return Linked(*shown), faults
