"""Receipts, points and invoices on a real database, written by the commit that a host makes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg.errors import IntegrityError
from psycopg_pool import AsyncConnectionPool
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

from actors.ports import ReserveVouchers
from gateway.queries.invoices import invoice_of
from models.domain.events import ReturnLine, TenderKind
from models.domain.facts import Fact, SaleMade, SaleReturned, SaleVoided
from models.domain.ids import (
    LaneId,
    LegalEntityId,
    MemberId,
    MembershipId,
    SaleId,
    SessionId,
    TerminalId,
    UsageId,
    derived_id,
)
from models.domain.invoices import Invoice
from models.domain.messages import ReserveAnswered, SaleFound, SaleTender, SaleVoucher
from models.domain.plans import Text
from models.domain.points import POINTS, PointsPolicy, SalePoints, points_voucher
from models.domain.pricing import Item
from models.domain.receipts import FaultKind, Verifier
from models.domain.returns import bring_back
from models.domain.screen import ScreenLine
from models.tables import clock, journal
from models.tables.chain_books import save_book
from models.tables.columns import quick_columns
from models.tables.journal import Commit, Slot
from models.tables.ledger_faults import verify
from models.tables.points import Account, expire_points, load_accounts
from models.tables.receipts import kept_receipts
from models.tables.vouchers import save_vouchers
from runtime.plant import HOST_PLANNER_OPTIONS, Plant
from runtime.points_expiry import PointsExpiry
from runtime.postgres import sqlalchemy_url
from runtime.vouchers import Vouchers
from tests.integration.money_shop import CHAIN, FRANCHISED, OWN, REGION, START, seed

ANNA = MemberId("anna")
POLICY = PointsPolicy("sun", LegalEntityId("chain"), 10, 30)
TEA, HAM = ScreenLine(1, "tea", "Tea", 2, 600, 0, 1200), ScreenLine(2, "ham", "Ham", 1, 801, 0, 801)


@dataclass
class House:
    """A host's connection and slot, and the books beside it."""

    url: str
    conn: AsyncConnection[Any]
    slot: Slot

    async def commit(self, *facts: Fact) -> None:
        rows = [(fact, "trace") for fact in facts]
        await journal.commit_batch(self.conn, self.slot, Commit(facts=rows), 15.0, START)

    async def verified(self, store: str = FRANCHISED) -> Verifier:
        verifier = Verifier()
        async for kept in kept_receipts(self.conn, store):
            verifier.feed(kept)
        verifier.finish()
        return verifier

    async def one(self, query: str, *values: object) -> Any:
        row = await (await self.conn.execute(query, values)).fetchone()
        return None if row is None else row[0]

    async def account(self, days: int = 0) -> Account:
        (found,) = await load_accounts(self.conn, ANNA, START + timedelta(days=days))
        liability = await self.one(
            "SELECT coalesce(-sum(amount_fen), 0)::bigint FROM entry WHERE account = 'points_liability:sun'"
        )
        assert liability == found.balance
        assert [fault for fault in (await verify(self.conn)).faults if fault.count] == []
        return found

    async def invoice(self, ident: str) -> Invoice:
        engine = create_async_engine(sqlalchemy_url(self.url))
        try:
            async with AsyncSession(engine) as session:
                found = await invoice_of(session, ident)
        finally:
            await engine.dispose()
        assert found is not None
        return found


@pytest.fixture
async def house(migrated_database_url: str) -> AsyncIterator[House]:
    async with AsyncConnectionPool(migrated_database_url, min_size=1, max_size=1, open=False) as pool:
        await seed(pool)
        async with pool.connection() as conn, conn.cursor() as cur:
            await save_vouchers(cur, CHAIN, [points_voucher(POLICY)])
            items = [
                Item("tea", Text(zh="茶", en="Tea"), 600),
                Item("ham", Text(zh="火腿", en="Ham"), 801, tax="9"),
                Item("top-up", Text(zh="充值", en="Top-up"), 5000, frozenset({"agency"})),
            ]
            await save_book(cur, CHAIN, {"plans": []}, items, START)
    async with await AsyncConnection.connect(
        migrated_database_url, autocommit=True, options=HOST_PLANNER_OPTIONS
    ) as conn:
        quick_columns(conn)
        yield House(migrated_database_url, conn, await journal.claim(conn, REGION, 0, 1, "test"))


def sold(n: int, *, burned: int = 0, member: MemberId | None = ANNA) -> SaleMade:
    """Two teas and a ham for 20.01, so many points paid on the tea."""
    number = SaleId(derived_id("sale", str(n)))
    lines = (replace(TEA, discount_fen=burned, net_fen=1200 - burned), HAM)
    due = 2001 - burned
    on = (SaleVoucher(UsageId(f"u{n}"), POINTS, burned, LegalEntityId("chain"), ((1, burned),)),) if burned else ()
    earning = tuple((line.line, line.net_fen) for line in lines)
    at = START + timedelta(minutes=n)
    points = SalePoints("sun", LegalEntityId("chain"), due // 10, earning, at + timedelta(days=30))
    return SaleMade(
        id=number, receipt=f"{FRANCHISED}-{n:06}", session=SessionId("v"), store=FRANCHISED, lane=LaneId("lane-1"),
        terminal=TerminalId("t-1"), clerk=None, entity=LegalEntityId("north"), business_date="2026-03-01", at=at,
        member=member, membership=None, gross_fen=2001, discount_fen=burned, due_fen=due, rounding_fen=0,
        suspense_fen=0, agency_fen=0, lines=lines, tenders=(SaleTender(TenderKind.CODE, due, f"P{n}"),), uses=(),
        vouchers=on, points=points if member is not None else None,
    )  # fmt: skip


def brought_back(sale: SaleMade, n: int, before: list[SaleReturned], *lines: ReturnLine) -> SaleReturned:
    found = SaleFound(
        "q", sale.id, sale.receipt, gross_fen=sale.gross_fen, discount_fen=sale.discount_fen, tenders=sale.tenders,
        entity=sale.entity, lines=sale.lines, vouchers=sale.vouchers, returns=tuple(before),  # type: ignore[arg-type]
    )  # fmt: skip
    back = bring_back(found, lines)
    return SaleReturned(
        id=derived_id(sale.id, f"r{n}"), sale=sale.id, n=n, store=FRANCHISED, lane=LaneId("lane-1"),
        terminal=TerminalId("t-1"), clerk="c", entity=sale.entity, business_date="2026-03-02",
        at=sale.at + timedelta(days=1), due_fen=back.due_fen, discount_fen=back.discount_fen,
        rounding_fen=back.rounding_fen, suspense_fen=back.suspense_fen, lines=back.lines, tenders=back.tenders,
        uses=back.uses, reason="", vouchers=back.vouchers,
    )  # fmt: skip


def voided(sale: SaleMade) -> SaleVoided:
    ident = derived_id(sale.id, "void")
    return SaleVoided(ident, sale.id, sale.store, sale.terminal, sale.at + timedelta(hours=1), sale.business_date)


async def test_every_sale_void_and_return_is_a_link_of_its_stores_chain(house: House) -> None:
    first, second, third, elsewhere = sold(1), sold(2), sold(3), replace(sold(4), store=OWN)
    await house.commit(first, elsewhere, second)
    await house.commit(second)  # said again, it is the same receipt
    await house.commit(voided(first), third)
    await house.commit(brought_back(third, 0, [], ReturnLine(1, 1)))
    found = await house.verified()
    assert (found.faults, found.receipts, (await house.verified(OWN)).receipts) == ([], 5, 1)
    kinds = await house.conn.execute("SELECT kind FROM receipt WHERE store = %s ORDER BY n", (FRANCHISED,))
    assert [row[0] for row in await kinds.fetchall()] == ["sale", "sale", "void", "sale", "return"]
    for statement in ("DELETE FROM receipt", "UPDATE receipt SET n = n + 1", "TRUNCATE receipt"):
        with pytest.raises(IntegrityError):
            await house.conn.execute(statement)


@pytest.mark.parametrize(
    ("harm", "kinds"),
    [
        ("UPDATE sale SET lines = jsonb_set(lines, '{0,net_fen}', '1199') WHERE id = %(second)s", {FaultKind.CHANGED}),
        ("UPDATE sale SET at = at + interval '1 microsecond' WHERE id = %(second)s", {FaultKind.CHANGED}),
        ("DELETE FROM receipt WHERE id = %(second)s", {FaultKind.MISSING, FaultKind.NO_RECEIPT}),
        ("DELETE FROM sale WHERE id = %(third)s", {FaultKind.MISSING}),
        ("UPDATE receipt SET n = 6 - n WHERE n IN (2, 4)", {FaultKind.OUT_OF_PLACE}),
        ("DELETE FROM receipt WHERE n = 4", {FaultKind.NO_RECEIPT}),
    ],
)
async def test_harm_done_behind_the_database_s_back_is_found(house: House, harm: str, kinds: set[FaultKind]) -> None:
    await house.commit(*(sold(n) for n in range(1, 5)))
    assert (await house.verified()).faults == []
    async with house.conn.transaction():
        await house.conn.execute("ALTER TABLE receipt DISABLE TRIGGER receipt_append_only")
        await house.conn.execute("ALTER TABLE receipt DROP CONSTRAINT receipt_pkey")
        await house.conn.execute(harm, {"second": sold(2).id, "third": sold(3).id})
    assert {fault.kind for fault in (await house.verified()).faults} == kinds


async def test_erasing_a_person_leaves_the_chain_whole(house: House) -> None:
    await house.commit(sold(1), sold(2))
    await house.conn.execute("UPDATE sale SET member = NULL")
    await house.conn.execute("UPDATE points_move SET member = NULL")
    assert (await house.verified()).faults == []
    assert await load_accounts(house.conn, ANNA, START) == []


async def test_points_come_and_go_with_the_sale(house: House) -> None:
    first = sold(1)
    await house.commit(first)
    assert (await house.account()).spendable == 200
    second = sold(2, burned=150)
    await house.commit(second)
    account = await house.account()
    assert (account.earned, account.burned, account.balance) == (200 + 185, 150, 235)
    # One tea of two: half of what it earned goes (105 of its 1050 fen at 10 fen a point), half of the points come back.
    half = brought_back(second, 0, [], ReturnLine(1, 1))
    await house.commit(half)
    account = await house.account()
    assert (account.reversed, account.restored) == (185 * 525 // 1851, 75)
    rest = brought_back(second, 1, [half], ReturnLine(1, 1), ReturnLine(2, 1))
    await house.commit(rest)
    account = await house.account()
    assert (account.reversed, account.restored, account.balance) == (185, 150, 200)
    await house.commit(voided(first))
    account = await house.account()
    assert (account.reversed, account.balance) == (385, 0)
    assert await house.one("SELECT sum(amount_fen)::bigint FROM entry WHERE account LIKE 'points_given:%%'") == 0
    assert (await house.verified()).faults == []


async def test_spent_points_whose_goods_come_back_are_a_debt(house: House) -> None:
    first = sold(1)
    await house.commit(first)
    await house.commit(sold(2, burned=200))
    await house.commit(voided(first))
    account = await house.account()
    assert (account.earned, account.burned, account.reversed) == (200 + 180, 200, 200)
    assert (account.balance, account.spendable) == (-20, 0)
    await house.commit(sold(3))
    account = await house.account()
    assert (account.balance, account.spendable) == (180, 180)


async def test_two_lanes_cannot_spend_the_same_points(house: House) -> None:
    await house.commit(sold(1))
    async with AsyncConnectionPool(house.url, min_size=1, max_size=2, open=False) as pool:
        desk = Vouchers(CHAIN, pool)

        async def reserve(name: str, fen: int) -> ReserveAnswered:
            use = SaleVoucher(UsageId(name), POINTS, fen, LegalEntityId("chain"))
            answer = await desk.ask(name, ReserveVouchers(SessionId(name), OWN, ANNA, (use,), START))
            assert isinstance(answer, ReserveAnswered)
            return answer

        assert (await reserve("a", 150)).ok
        assert (await reserve("a", 150)).ok, "asked again it is the same reservation"
        refused = await reserve("b", 51)
        assert (refused.ok, refused.gone) == (False, (POINTS,))
        assert (await reserve("c", 50)).ok


async def test_what_nobody_spent_in_time_expires_once_and_is_booked(house: House) -> None:
    await house.commit(sold(1))
    await house.commit(sold(2, burned=80))
    assert (await house.account(29)).spendable == 312
    assert (await house.account(31)).spendable == 0
    moves = [move async for move in expire_points(house.conn, START + timedelta(days=31))]
    assert [move.points for move in moves] == [312]
    assert [move async for move in expire_points(house.conn, START + timedelta(days=31))] == []
    account = await house.account(31)
    assert (account.expired, account.balance) == (312, 0)
    assert await house.one("SELECT -sum(amount_fen)::bigint FROM entry WHERE account = 'points_breakage'") == 312


async def test_a_sale_made_offline_earns_for_the_member_of_its_membership(house: House) -> None:
    await house.conn.execute(
        "INSERT INTO member (id, chain, region, home_store, name, phone_tail, provider_user, joined_at)"
        " VALUES (%s, %s, %s, %s, '', '', '', %s)",
        (ANNA, CHAIN, REGION, FRANCHISED, START),
    )
    await house.conn.execute(
        """INSERT INTO membership (id, enrol_key, member, chain, region, store, terminal, session, plan, plan_version,
             owner, generation, state, fee_fen, fee_eff_fen, used_fen, guarantee, hold_order, hold_no, hold_fen,
             hold_state, enrolled_at, expires_at, cutoff_at, cancelled_by, paid_fen, refunded_fen, receivable_fen,
             captured_number, attempts, parked_why)
           VALUES ('m-1', 'm-1', %s, %s, %s, %s, 't', '', 'light-10', 1, 'chain', 1, 'ACTIVE', 1000, 1000, 0,
             'merchant_trust', '', '', 0, 'none', %s, %s, %s, '', 0, 0, 0, '', 0, '')""",
        (ANNA, CHAIN, REGION, FRANCHISED, START, START, START),
    )
    offline = replace(sold(1), member=None, membership=MembershipId("m-1"), session=SessionId(""), received_at=START)
    await house.commit(
        offline, replace(offline, id=SaleId("other"), receipt="other", membership=MembershipId("nobody-s"))
    )
    await house.commit(offline)
    assert (await house.account()).balance == 200
    await house.commit(brought_back(offline, 0, [], ReturnLine(2, 1)))
    assert (await house.account()).balance == 200 - 200 * 801 // 2001
    await house.conn.execute("UPDATE points_move SET member = NULL")
    await house.conn.execute(
        """INSERT INTO privacy_request (id, chain, member, kind, state, via, reason, asked_by, asked_at, approved_by)
           VALUES ('p', %s, %s, 'erase_person', 'done', '', '', '', %s, '')""",
        (CHAIN, ANNA, START),
    )
    await house.commit(replace(offline, id=SaleId("late"), receipt="late"))
    assert await load_accounts(house.conn, ANNA, START) == [], "nothing leads to an erased person again"


async def test_the_house_takes_what_is_over_once_a_business_day(house: House) -> None:
    duty = PointsExpiry([Plant(Path(), database_url=house.url)])
    assert await duty.look() == 0, "no store ever gave points"
    await house.commit(sold(1))
    await _set_clock(house, START + timedelta(days=29))
    assert await duty.look() == 0
    await _set_clock(house, START + timedelta(days=31))
    assert await duty.look() == 200
    await house.commit(sold(2))
    assert await duty.look() == 0, "the day is done"
    assert (await PointsExpiry([Plant(Path(), database_url=house.url)]).look(), await duty.look()) == (200, 0)
    account = await house.account(31)
    assert (account.expired, account.balance) == (400, 0)


async def _set_clock(house: House, to: datetime) -> None:
    async with house.conn.cursor() as cur:
        await clock.save_offset(cur, to - datetime.now(UTC))


async def test_a_sale_is_invoiced_by_its_store_and_corrected_by_returns(house: House) -> None:
    sale = sold(1, burned=150)
    await house.commit(sale)
    found = await house.invoice(sale.receipt)
    (first,) = found.documents
    assert (first.issuer, first.gross_fen, found.stands_fen) == ("north", 1851, 1851)
    # 13 % of what was paid for tea, 9 % for ham, both contained.
    assert [(line.rate_bp, line.gross_fen, line.tax_fen) for line in first.lines] == [
        (1300, 1050, 1050 * 1300 // 11300), (900, 801, 801 * 900 // 10900),
    ]  # fmt: skip
    assert [(one.why, one.fen) for one in found.left_out] == [("points", 150)]
    half = brought_back(sale, 0, [], ReturnLine(1, 1))
    await house.commit(half)
    after = await house.invoice(sale.id)
    assert [one.gross_fen for one in after.corrections] == [-525]
    await house.commit(brought_back(sale, 1, [half], ReturnLine(1, 1), ReturnLine(2, 1)))
    done = await house.invoice(sale.id)
    assert done.stands_fen == 0
    assert sum(one.tax_fen for one in (*done.documents, *done.corrections)) == 0


async def test_agency_sales_and_a_provider_s_part_are_not_invoiced(house: House) -> None:
    plain = sold(1, member=None)
    lines = (TEA, ScreenLine(2, "top-up", "Top-up", 1, 5000, 0, 5000))
    sale = replace(
        plain, lines=lines, gross_fen=6200, due_fen=6200, agency_fen=5000,
        tenders=(SaleTender(TenderKind.CODE, 6200, "P1", payer_fen=6000, invoiceable_fen=6000),),
    )  # fmt: skip
    await house.commit(sale)
    found = await house.invoice(sale.id)
    assert found.stands_fen == 1000
    assert {one.why: one.fen for one in found.left_out} == {"agency": 5000, "provider": 200}
