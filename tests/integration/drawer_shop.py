"""Two stores of two legal entities with a lane each, and what their hosts' commits would write."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from actors.effects import Ask
from actors.ports import FindSale
from actors.visit import Session, Voiding
from models.domain.events import TenderKind
from models.domain.facts import Fact, SaleMade, SaleReturned
from models.domain.ids import LaneId, LegalEntityId, SaleId, SessionId, StoreId, TerminalId
from models.domain.messages import SaleFound, SaleTender
from models.domain.returns import Back
from models.domain.screen import ScreenLine
from models.tables.drawers import note_cash
from models.tables.facts import bookings_of, save_facts
from models.tables.ledger import book
from models.tables.ledger_faults import verify
from runtime.asks import Ports, VisitMemory
from runtime.drawers import DrawersOfADatabase
from tests.integration.money_shop import FRANCHISED, OWN, REGION, START, Clock, seed

LANE = LaneId("lane-1")
ENTITY_OF = {OWN: LegalEntityId("chain"), FRANCHISED: LegalEntityId("north")}
Pool = AsyncConnectionPool[AsyncConnection[Any]]


def sold(
    fen: int, store: StoreId = FRANCHISED, at: datetime = START, *, n: int = 1, kind: TenderKind = TenderKind.CASH
) -> SaleMade:
    """`n` teas for `fen` in all."""
    number, order = str(uuid.uuid4()), "P1" if kind is not TenderKind.CASH else ""
    return SaleMade(
        id=SaleId(number), receipt=f"{store}-{LANE}-{number[:6]}", session=SessionId(""), store=store, lane=LANE,
        terminal=TerminalId("t-1"), clerk=None, entity=ENTITY_OF[store], business_date="2026-03-01", at=at, member=None,
        membership=None, gross_fen=fen, discount_fen=0, due_fen=fen, rounding_fen=0, suspense_fen=0, agency_fen=0,
        lines=(ScreenLine(1, "tea", "Tea", n, fen // n, 0, fen),), tenders=(SaleTender(kind, fen, order),), uses=(),
    )  # fmt: skip


@dataclass
class Counter:
    """The drawers of one database, and the commits of its hosts."""

    pool: Pool
    clock: Clock
    drawers: DrawersOfADatabase

    async def save(self, fact: Fact) -> None:
        """As a batch's commit does."""
        async with self.pool.connection() as conn:
            await save_facts(conn, [(fact, "trace")])
            bookings = await bookings_of(conn, [(fact, "trace")])
            async with conn.cursor() as cur:
                await book(cur, bookings)
            await note_cash(conn, bookings)

    async def find(
        self, store: StoreId, receipt: str, question: str = "", lane: LaneId | None = None, approver: str = ""
    ) -> SaleFound:
        """As a lane asks for it."""
        nothing: Any = None
        ports = Ports(nothing, self.pool, nothing, nothing, nothing, nothing)
        request = FindSale(store, receipt, lane, approver)
        answer = await ports.ask(Ask(question or str(uuid.uuid4()), request), 1, VisitMemory())
        assert isinstance(answer.message, SaleFound)
        return answer.message

    async def at_it(self, store: StoreId, question: str | None) -> None:
        """The lane's session is about this question, or about none, as its host committed it."""
        voiding = None if question is None else Voiding(question, "r", TerminalId("t-1"), None)
        state = msgspec.json.encode(Session(LANE, voiding=voiding)).decode()
        async with self.pool.connection() as conn:
            await conn.execute(
                """INSERT INTO entity (region, store, kind, id, shard, state, version, changed_at)
                   VALUES (%s, %s, 'session', %s, 0, %s::jsonb, 1, now()) ON CONFLICT (region, store, kind, id)
                   DO UPDATE SET state = excluded.state""",
                (REGION, store, LANE, state),
            )

    async def balance(self, entity: str, account: str) -> int:
        """Fen, debit positive."""
        async with self.pool.connection() as conn:
            cursor = await conn.execute(
                "SELECT coalesce(sum(amount_fen), 0)::bigint FROM entry WHERE entity = %s AND account = %s",
                (entity, account),
            )
            row = await cursor.fetchone()
        assert row is not None
        return int(row[0])

    async def till(self, store: StoreId = FRANCHISED) -> int:
        """What the ledger says the drawer holds."""
        return await self.balance(ENTITY_OF[store], f"till:{store}:{LANE}")


def brought_back(found: SaleFound, back: Back, store: StoreId, at: datetime) -> SaleReturned:
    """What a lane of `store` books of it."""
    assert found.sale is not None
    assert found.entity is not None
    return SaleReturned(
        id=str(uuid.uuid4()), sale=found.sale, n=len(found.returns), store=store, lane=LANE, terminal=TerminalId("t-1"),
        clerk="c", entity=found.entity, business_date="2026-03-02", at=at, due_fen=back.due_fen,
        discount_fen=back.discount_fen, rounding_fen=back.rounding_fen, suspense_fen=back.suspense_fen,
        lines=back.lines, tenders=back.tenders, uses=back.uses, reason="", sold_at=found.store,
        paid_by=ENTITY_OF[store],
    )  # fmt: skip


@asynccontextmanager
async def open_counter(url: str) -> AsyncIterator[Counter]:
    """At the end the whole ledger is verified."""
    clock = Clock()
    async with AsyncConnectionPool[AsyncConnection[Any]](url, min_size=1, max_size=8, open=False) as pool:
        await seed(pool)
        async with pool.connection() as conn:
            await conn.execute(
                """INSERT INTO terminal (id, store, lane, role, profile, secret_sha256, registered_at)
                   SELECT 't-' || s, s, %s, 'till', 'till', '', %s FROM unnest(%s::text[]) AS s""",
                (LANE, START, [OWN, FRANCHISED]),
            )
        yield Counter(pool, clock, DrawersOfADatabase(pool, clock))
        async with pool.connection() as conn:
            verified = await verify(conn)
        assert verified.ok, [fault for fault in verified.faults if fault.count]
