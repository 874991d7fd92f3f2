"""A day at the provider simulator over HTTP: its statement closes the day with difference 0, and lies are found."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from sqlite3 import connect

import pytest

from actors.settlement_items import Action
from gateway.providers.port import Scene
from models.domain.calendar import business_date
from models.domain.difference_postings import reconciled
from models.domain.differences import FeeTerms, Verdict
from models.domain.ids import LegalEntityId
from models.domain.ledger import Place, Taking, Transaction, sale_paid, sale_voided
from models.domain.payments import Succeeded
from models.domain.returns import refund_number
from models.tables.differences import list_lines
from models.tables.ledger import insert_transactions
from models.tables.reconciliation import Account
from runtime.day_close import DayClose
from runtime.postgres import EmbeddedPostgres
from runtime.reconciling import Reconciler
from runtime.settlement_desk import SettlementDesk
from tests.conftest import fresh_database, scratch_data_dir
from tests.integration import money_shop
from tests.integration.money_shop import OWN, REGION, RunningSimulator, Shop, open_shop, running_simulator

CHAIN = Account("alipay", "chain")
ZONE = "Asia/Shanghai"


@pytest.fixture(scope="module")
def provider_sim() -> Iterator[RunningSimulator]:
    """One of its own: its clock is moved here."""
    with scratch_data_dir() as folder, running_simulator(folder) as running:
        yield running


@pytest.fixture
async def shop(
    embedded_postgres: EmbeddedPostgres, migrated_template: str, provider_sim: RunningSimulator
) -> AsyncIterator[Shop]:
    with fresh_database(embedded_postgres, migrated_template) as url:
        async with open_shop(url, provider_sim) as opened:
            opened.clock.now = await provider_now(opened)
            yield opened


async def provider_now(shop: Shop) -> datetime:
    """What the simulator's clock says: real time and what earlier tests moved it by."""
    await pay(shop, "Pclock", 1)
    with closing(connect(shop.simulator.data_dir / "provider.sqlite3")) as db:
        [at] = db.execute("SELECT max(paid_at) FROM trade").fetchone()
    answer = await shop.provider.cancel(number="Pclock")
    assert isinstance(answer, Succeeded)
    return datetime.fromisoformat(at).astimezone(UTC)


async def pay(shop: Shop, order: str, fen: int) -> None:
    await shop.admin.create_user(shop.customer("wang"))
    code = await shop.admin.payment_code(shop.customer("wang"))
    paid = await shop.provider.pay(
        number=order, amount_fen=fen, subject="goods", auth_code=code, scene=Scene.PAYMENT_CODE
    )
    assert isinstance(paid, Succeeded), paid


def today(shop: Shop) -> date:
    return business_date(shop.clock.now, ZONE)


async def sell(shop: Shop, order: str, fen: int) -> None:
    """Paid at the provider, and booked as a sale of the chain's own store."""
    await pay(shop, order, fen)
    async with shop.pool.connection() as conn, conn.cursor() as cur:
        await cur.execute(
            "INSERT INTO sale (id, receipt, session, store, lane, terminal, entity, business_date, at, gross_fen,"
            " discount_fen, due_fen, rounding_fen, suspense_fen, agency_fen, lines, tenders, uses, till_txn)"
            " VALUES (%(id)s, %(id)s, '', 's-own', 'l', 't', 'chain', %(day)s, %(at)s, %(fen)s, 0, %(fen)s, 0, 0, 0,"
            " '[]', jsonb_build_array(jsonb_build_object('kind', 'code', 'fen', %(fen)s::bigint,"
            " 'order', %(order)s::text)), '[]', '')",
            {"id": f"sale-{order}", "day": today(shop).isoformat(), "at": shop.clock.now, "fen": fen, "order": order},
        )
        await insert_transactions(cur, [posting(shop, order, fen)], shop.clock.now)


def posting(shop: Shop, order: str, fen: int) -> Transaction:
    return sale_paid(
        f"sale-{order}",
        place=Place(OWN, LegalEntityId("chain")),
        takings=[Taking(fen, provider="alipay")],
        due_fen=fen,
        business_date=today(shop).isoformat(),
    )


async def void(shop: Shop, order: str, fen: int) -> None:
    sale = f"sale-{order}"
    back = await shop.provider.refund(
        number=refund_number(sale, order), payment_number=order, amount_fen=fen, reason="void"
    )
    assert isinstance(back, Succeeded), back
    async with shop.pool.connection() as conn, conn.cursor() as cur:
        await cur.execute(
            "INSERT INTO sale_void (id, sale, store, terminal, business_date, at)"
            " VALUES (%s, %s, 's-own', 't', %s, %s)",
            (f"void-{order}", sale, today(shop).isoformat(), shop.clock.now),
        )
        undone = sale_voided(f"void-{order}", posting(shop, order, fen), today(shop).isoformat())
        await insert_transactions(cur, [undone], shop.clock.now)


async def later(shop: Shop, days: int) -> None:
    await shop.admin.advance(days * 86_400)
    shop.clock.now += timedelta(days=days)


def parts(shop: Shop) -> tuple[Reconciler, DayClose]:
    reconciler = Reconciler(
        shop.pool, lambda _provider, _entity: shop.provider, terms={"alipay": FeeTerms(60)}, wall=shop.clock
    )
    return reconciler, DayClose(shop.pool, reconciler, ["alipay"], wall=shop.clock)


async def test_sales_voids_and_a_settlement_close_with_difference_0(shop: Shop) -> None:
    reconciler, days = parts(shop)
    first = today(shop)
    await sell(shop, "PA", 1200)
    await sell(shop, "PB", 530)
    await void(shop, "PB", 530)
    membership = await shop.member()
    await shop.use_coupon(membership)
    await later(shop, 33)
    assert (await shop.runner().run(shop.clock.now)).ok
    settled_on = today(shop)
    await later(shop, 1)
    for day, lines in ((first, 3), (settled_on, 1)):
        await reconciler.fetch(CHAIN, day)
        run = await reconciler.run(CHAIN, day, today(shop))
        assert (run.matched, run.difference_fen, run.open_lines) == (lines, 0, 0)
    closed = await days.close("chain", first, shop.clock.now, "test")
    assert closed.closed, closed.obstacles
    assert (await days.close("chain", settled_on, shop.clock.now, "test")).closed
    assert await shop.account("chain", "timing:alipay") == 0
    async with shop.pool.connection() as conn:
        assert {(one.order_no, one.reason) for one in await list_lines(conn)} == {("Pclock", "reversed")}
    # What the invariants of the shop compare is before the provider's fees.
    fees = await shop.account("chain", "provider_fee:alipay")
    assert fees > 0
    await give_fees_back(shop, fees)


async def test_what_was_collected_twice_and_given_back_by_hand_closes_with_difference_0(shop: Shop) -> None:
    reconciler, days = parts(shop)
    membership = await shop.member("twice")
    await shop.use_coupon(membership)
    await later(shop, 33)
    desk = SettlementDesk(money_shop.CHAIN, REGION, shop.pool, shop.clock)
    await desk.run(shop.runner(), shop.clock.now, "test")
    await shop.collect_again(membership, "twice", 800)
    await desk.run(shop.runner(), shop.clock.now, "test")
    assert await desk.resolve(membership, Action.REFUND, "taken twice", "cli:ann") == "CLOSED"
    await desk.run(shop.runner(), shop.clock.now, "test")
    day = today(shop)
    await later(shop, 1)
    await reconciler.fetch(CHAIN, day)
    run = await reconciler.run(CHAIN, day, today(shop))
    assert (run.matched, run.difference_fen, run.open_lines) == (3, 0, 0), "two collections and one that went back"
    closed = await days.close("chain", day, shop.clock.now, "test")
    assert closed.closed, closed.obstacles
    await give_fees_back(shop, await shop.account("chain", "provider_fee:alipay"))


async def give_fees_back(shop: Shop, fees_fen: int) -> None:
    """The shop's closing invariant holds the clearing account against captures less refunds."""
    async with shop.pool.connection() as conn, conn.cursor() as cur:
        await insert_transactions(cur, [_fees(shop, fees_fen)], shop.clock.now)


def _fees(shop: Shop, fen: int) -> Transaction:
    return reconciled(
        "fees", entity=LegalEntityId("chain"), provider="alipay", legs={"provider_fee:alipay": -fen},
        business_date=today(shop),
    )  # fmt: skip


FAULTS = {
    "PF0": ("missing_line", {Verdict.OURS_ONLY}),
    "PF1": ("wrong_amount", {Verdict.AMOUNT}),
    "PF2": ("wrong_fee", {Verdict.FEE}),
    "PF3": ("duplicate", {Verdict.DUPLICATE}),
    "PF4": ("other_date", {Verdict.TIMING}),
    "PF5": ("", set()),
}


async def test_every_lie_of_the_statement_is_found_and_none_invented(shop: Shop) -> None:
    reconciler, days = parts(shop)
    day = today(shop)
    for order, (fault, _) in FAULTS.items():
        await sell(shop, order, 1000)
        if fault:
            await shop.admin.add_bill_fault(day, fault, number=order, app_id=shop.app)
    await shop.admin.add_bill_fault(day, "extra_line", app_id=shop.app)
    await later(shop, 4)
    for on in (day, day + timedelta(days=1)):
        await reconciler.fetch(CHAIN, on)
        await reconciler.run(CHAIN, on, today(shop))
    refused = await days.close("chain", day, shop.clock.now, "test")
    async with shop.pool.connection() as conn:
        lines = await list_lines(conn, day=day)
        open_lines = await list_lines(conn, state="open")
    found: dict[str, set[Verdict]] = {}
    for one in lines:
        found.setdefault(one.order_no if one.order_no in FAULTS else "others", set()).add(one.verdict)
    assert {order: found.get(order, set()) for order in FAULTS} == {order: want for order, (_, want) in FAULTS.items()}
    unknown = [one for one in lines if one.order_no not in FAULTS and one.reason != "reversed"]
    assert Counter(one.verdict for one in unknown) == Counter({Verdict.PROVIDER_ONLY: 1})
    assert (refused.closed, [one.code for one in refused.obstacles]) == (False, ["open_lines"])
    assert set(refused.obstacles[0].lines) == {one.id for one in open_lines if one.day <= day}
    for one in open_lines:
        await reconciler.explain(one.id, "the provider's mistake, reported", "test")
    assert (await days.close("chain", day, shop.clock.now, "test")).closed
    await give_fees_back(shop, await shop.account("chain", "provider_fee:alipay"))
