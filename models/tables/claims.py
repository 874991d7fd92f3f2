"""One lane at a time brings back goods of a sale or undoes it, wherever in the chain it is: the sale's claim."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from sqlmodel import Field, SQLModel

from models.tables.base import instant


class SaleClaimRow(SQLModel, table=True):
    """Which lane asked last to bring back goods of this sale, or to undo it.

    It counts as long as that lane's session is about this `question`: a session that ended it, whichever way, has
    released the sale in the same commit, and one that was restored after a crash still holds it.
    """

    __tablename__ = "sale_claim"
    sale: str = Field(primary_key=True)
    store: str
    lane: str
    question: str
    at: datetime = instant()


async def sale_named(conn: AsyncConnection[Any], store: str, name: str) -> str | None:
    """The id of a sale of `store`'s chain by its receipt number or by its own id; None: there is none.

    A receipt's number begins with its store: whatever of it could be one is looked for by the index.
    """
    parts = name.split("-")
    stores = [store, *("-".join(parts[:n]) for n in range(1, len(parts)))]
    cursor = await conn.execute(
        """SELECT s.id FROM sale s JOIN store t ON t.id = s.store
           WHERE ((s.store = ANY(%s) AND s.receipt = %s) OR s.id = %s)
             AND t.chain = (SELECT chain FROM store WHERE id = %s) ORDER BY s.store <> %s LIMIT 1""",
        (stores, name, name, store, store),
    )
    row = await cursor.fetchone()
    return None if row is None else str(row[0])


async def claim_sale(conn: AsyncConnection[Any], sale: str, store: str, lane: str, question: str) -> bool:
    """Lock the sale's row until the caller's transaction ends, and note who is at it. False: another lane is.

    What the caller reads afterwards in the same transaction are all returns that anybody booked.
    """
    await conn.execute("SELECT 1 FROM sale WHERE id = %s FOR UPDATE", (sale,))
    cursor = await conn.execute(
        """INSERT INTO sale_claim AS c (sale, store, lane, question, at) VALUES (%s, %s, %s, %s, now())
           ON CONFLICT (sale) DO UPDATE SET store = excluded.store, lane = excluded.lane, at = excluded.at,
             question = excluded.question
           WHERE (c.store = excluded.store AND c.lane = excluded.lane) OR NOT EXISTS (
             SELECT 1 FROM entity e JOIN store s ON s.id = e.store AND s.region = e.region
             WHERE e.store = c.store AND e.kind = 'session' AND e.id = c.lane
               AND e.state->'voiding'->>'question' = c.question) RETURNING 1""",
        (sale, store, lane, question),
    )
    return await cursor.fetchone() is not None


async def release_sale(conn: AsyncConnection[Any], sale: str) -> None:
    """What was brought back is booked in this transaction: who waits for the claim reads it then."""
    await conn.execute("DELETE FROM sale_claim WHERE sale = %s", (sale,))
