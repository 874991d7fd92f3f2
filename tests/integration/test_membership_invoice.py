"""What may be invoiced of a membership's charge, in both branches, settled by the real thing; and refunds after it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.queries.invoices import invoice_of
from models.domain.ids import LegalEntityId, MembershipId, SaleId, StoreId
from models.domain.invoices import Invoice
from models.domain.messages import SaleUse
from models.domain.plans import Text
from models.domain.pricing import Item
from models.domain.screen import ScreenLine
from models.tables.chain_books import save_book
from models.tables.facts import save_facts
from runtime.postgres import sqlalchemy_url
from tests.integration.drawer_shop import sold
from tests.integration.money_shop import (
    CHAIN,
    FRANCHISED,
    OWN,
    START,
    RunningSimulator,
    Shop,
    open_shop,
    running_simulator,
)

LATER = 40


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSimulator]:
    with running_simulator(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture
async def shop(migrated_database_url: str, simulator: RunningSimulator) -> AsyncIterator[Shop]:
    async with open_shop(migrated_database_url, simulator) as shop:
        async with shop.pool.connection() as conn, conn.cursor() as cur:
            items = [Item("tea", Text(zh="茶", en="Tea"), 600), Item("ham", Text(zh="火腿", en="Ham"), 900, tax="9")]
            await save_book(cur, CHAIN, {"plans": []}, items, START)
        yield shop


async def bought(shop: Shop, membership: MembershipId, store: StoreId, fen: int) -> SaleUse:
    """A tea and a ham with a coupon of so much, two thirds of it on the ham."""
    use, number = shop.use(membership, fen), SaleId(str(uuid.uuid4()))
    ham = fen * 2 // 3
    lines = (
        ScreenLine(1, "tea", "Tea", 1, 600, fen - ham, 600 - fen + ham),
        ScreenLine(2, "ham", "Ham", 1, 900, ham, 900 - ham),
    )
    sale = sold(1500 - fen, store, shop.clock.now)
    sale = replace(sale, id=number, receipt=number, gross_fen=1500, discount_fen=fen, lines=lines, uses=(use,))
    async with shop.pool.connection() as conn:
        await save_facts(conn, [(sale, "trace")])
    await shop.ask(shop.reserve_request(use, store=store))
    await shop.ask(shop.post_request(use, store=store, sale=number))
    return use


async def invoice(url: str, membership: MembershipId) -> Invoice:
    engine = create_async_engine(sqlalchemy_url(url))
    try:
        async with AsyncSession(engine) as session:
            found = await invoice_of(session, membership)
    finally:
        await engine.dispose()
    assert found is not None
    return found


async def test_a_fee_is_a_service_of_the_plans_owner_and_a_refund_corrects_it(
    shop: Shop, migrated_database_url: str
) -> None:
    membership = await shop.member()
    assert (await invoice(migrated_database_url, membership)).documents == ()
    uses = [await bought(shop, membership, OWN, 800) for _ in range(2)]
    await shop.settle_after(LATER)
    found = await invoice(migrated_database_url, membership)
    (fee,) = found.documents
    assert (found.kind, fee.issuer, fee.gross_fen, fee.lines[0].rate_bp) == ("fee", "chain", 1000, 600)
    assert fee.tax_fen == 1000 * 600 // 10600
    await shop.reverse(uses[0])
    await shop.settle_after(0)
    after = await invoice(migrated_database_url, membership)
    assert ([one.gross_fen for one in after.corrections], after.stands_fen) == ([-200], 800)
    await shop.reverse(uses[1])
    await shop.settle_after(0)
    done = await invoice(migrated_database_url, membership)
    assert (done.stands_fen, sum(one.tax_fen for one in (*done.documents, *done.corrections))) == (0, 0)


async def test_a_clawback_is_the_stores_goods_at_their_rates(shop: Shop, migrated_database_url: str) -> None:
    membership = await shop.member()
    own = await bought(shop, membership, OWN, 300)
    await bought(shop, membership, FRANCHISED, 600)
    await shop.settle_after(LATER)
    found = await invoice(migrated_database_url, membership)
    assert (found.kind, found.stands_fen) == ("clawback", 900)
    by_issuer = {one.issuer: one for one in found.documents}
    assert {issuer: one.gross_fen for issuer, one in by_issuer.items()} == {"chain": 300, "north": 600}
    assert [(line.code, line.rate_bp, line.gross_fen) for line in by_issuer["north"].lines] == [
        ("tea", 1300, 200), ("ham", 900, 400),
    ]  # fmt: skip
    assert by_issuer["north"].store == FRANCHISED
    await shop.reverse(own)
    await shop.settle_after(0)
    after = await invoice(migrated_database_url, membership)
    assert [(one.issuer, one.gross_fen) for one in after.corrections] == [(LegalEntityId("chain"), -300)]
    assert after.stands_fen == 600
