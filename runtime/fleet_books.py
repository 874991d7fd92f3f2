"""The books that the fleet is held against: sales, ledger, dead letters, and the provider's own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg import AsyncConnection, OperationalError

from devices.fleet.checks import BookedSale, Books
from gateway.providers.simulator import SimulatorAdmin
from models.domain.errors import RetryLater
from runtime.plant import Plant

PATIENCE_S = 60.0
PROVIDER = "alipay"


@dataclass(frozen=True, slots=True)
class Mark:
    """Where the books stood when the fleet began, on the database's clock."""

    wall: datetime
    business: datetime
    provider_fen: int
    clearing_fen: int


async def mark(plant: Plant) -> Mark:
    """Now. Call it before the first terminal connects."""
    async with await _connect(plant) as conn:
        [(wall, ahead_us)] = await _rows(
            conn, "SELECT clock_timestamp(), coalesce((SELECT offset_us FROM business_clock LIMIT 1), 0)"
        )
        clearing = await _clearing(conn)
    return Mark(wall, wall + timedelta(microseconds=ahead_us), await _provider(plant), clearing)


async def quiet(plant: Plant, deadline_s: float = 120.0) -> float:
    """Wait until every ask is answered; the seconds. What is open after `deadline_s` the books will say."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while loop.time() - began < deadline_s:
        try:
            async with await _connect(plant) as conn:
                while loop.time() - began < deadline_s:
                    [(waiting,)] = await _rows(conn, "SELECT count(*) FROM outbox WHERE done_at IS NULL")
                    if waiting == 0:
                        return loop.time() - began
                    await asyncio.sleep(0.2)
        except OperationalError:
            await asyncio.sleep(0.2)
    return loop.time() - began


async def read_books(plant: Plant, stores: Sequence[str], since: Mark) -> Books:
    """Everything of these stores since the mark. Raises RetryLater `database_away` after a minute without one."""
    async with await _connect(plant) as conn, conn.transaction():
        await conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        sales = await _sales(conn, stores, since)
        unbalanced = await _rows(
            conn, "SELECT txn, entity, book FROM entry GROUP BY txn, entity, book HAVING sum(amount_fen) <> 0 LIMIT 100"
        )
        dead = await _rows(
            conn,
            "SELECT id || ': ' || error FROM dead_letter WHERE at >= %s ORDER BY at LIMIT 100",
            since.wall,
        )
        [(open_asks,)] = await _rows(conn, "SELECT count(*) FROM outbox WHERE done_at IS NULL")
        [(total,)] = await _rows(conn, "SELECT coalesce(sum(amount_fen), 0)::bigint FROM entry")
        clearing = await _clearing(conn)
    return Books(
        sales=tuple(sales),
        unbalanced=tuple(str(row) for row in unbalanced),
        dead_letters=tuple(str(row[0])[:300] for row in dead),
        open_asks=open_asks,
        sum_fen=total,
        provider_fen=await _provider(plant) - since.provider_fen,
        clearing_fen=clearing - since.clearing_fen,
    )


async def _sales(conn: AsyncConnection[Any], stores: Sequence[str], since: Mark) -> list[BookedSale]:
    rows = await _rows(
        conn,
        """SELECT s.id, s.session, s.till_txn, s.store, s.receipt, s.due_fen, s.tenders, s.voided_at IS NOT NULL,
             count(DISTINCT t.id),
             coalesce(sum(e.amount_fen) FILTER (WHERE starts_with(e.account, 'till:' || s.store)), 0)::bigint,
             (SELECT coalesce(sum((v ->> 'fen')::bigint), 0)::bigint FROM jsonb_array_elements(s.vouchers) v),
             coalesce(sum(e.amount_fen) FILTER (WHERE starts_with(e.account, 'discount_given:')
                                                OR starts_with(e.account, 'subsidy:')), 0)::bigint,
             (SELECT coalesce(sum(u.fen), 0)::bigint FROM voucher_use u
              WHERE u.sale = s.id AND u.state IN ('posted', 'returned'))
           FROM sale s
           LEFT JOIN txn t ON t.request_number = s.id AND t.kind = 'sale_paid'
           LEFT JOIN entry e ON e.txn = t.id AND e.book = 'posted'
           WHERE s.store = ANY(%s) AND s.at >= %s
           GROUP BY s.id""",
        list(stores),
        since.business,
    )
    sales = []
    for sale, session, txn, store, receipt, due, documents, voided, postings, cash, *vouchers in rows:
        tenders: dict[str, int] = {}
        for tender in documents:
            tenders[tender["kind"]] = tenders.get(tender["kind"], 0) + int(tender["fen"])
        sales.append(BookedSale(sale, session, txn, store, receipt, due, tenders, voided, postings, cash, *vouchers))
    return sales


async def _clearing(conn: AsyncConnection[Any]) -> int:
    [(fen,)] = await _rows(
        conn,
        "SELECT coalesce(sum(e.amount_fen), 0)::bigint FROM entry e JOIN txn t ON t.id = e.txn"
        " WHERE e.account = %s AND e.book = 'posted' AND t.kind <> 'reconciled'",
        f"provider_clearing:{PROVIDER}",
    )
    return int(fen)


async def _provider(plant: Plant) -> int:
    async with SimulatorAdmin(plant.provider_url, timeout_s=30.0) as admin:
        return int((await admin.books(limit=1))["net_fen"])


async def _connect(plant: Plant) -> AsyncConnection[Any]:
    """A database that was killed a moment ago comes back."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    return await AsyncConnection.connect(plant.database_url, autocommit=True, connect_timeout=5)
                except OperationalError:
                    await asyncio.sleep(0.2)
    except TimeoutError:
        raise RetryLater("database_away", "the database does not answer", "see its log, then try again") from None


async def _rows(conn: AsyncConnection[Any], query: str, *values: Any) -> list[Any]:
    return await (await conn.execute(query, values or None)).fetchall()
