"""Goods brought back to another store, of another legal entity: once, whoever asks where, and each entity's books 0."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio

from models.domain.events import ReturnLine, TenderKind
from models.domain.kill_switch import Scope, ScopeKind
from models.domain.permissions import Grant, Permission
from models.domain.returns import bring_back, in_cash
from models.tables.franchise import statements
from models.tables.permissions import save_grant
from tests.integration.drawer_shop import ENTITY_OF, LANE, Counter, brought_back, open_counter, sold
from tests.integration.money_shop import FRANCHISED, OWN


@pytest_asyncio.fixture
async def counter(migrated_database_url: str) -> AsyncIterator[Counter]:
    async with open_counter(migrated_database_url) as counter:
        yield counter


async def test_cash_out_of_another_entitys_drawer_is_owed_to_it(counter: Counter) -> None:
    sale = sold(1_200, FRANCHISED, n=2)
    await counter.save(sale)
    for n, name in enumerate((sale.receipt, sale.id)):  # by the receipt's number, by the sale's id
        found = await counter.find(OWN, name)
        assert (found.sale, found.store, found.entity, len(found.returns)) == (sale.id, FRANCHISED, "north", n)
        await counter.save(brought_back(found, bring_back(found, [ReturnLine(1, 1)]), OWN, counter.clock.now))
    assert await counter.till(FRANCHISED) == 1_200, "the drawer that sold it was not touched"
    assert await counter.till(OWN) == -1_200
    assert await counter.balance("north", f"sales_gross:{FRANCHISED}") == 0, "the selling entity bears the mirror"
    assert await counter.balance("north", "due_to:chain") == -1_200
    assert await counter.balance("chain", "due_from:north") == 1_200
    assert await counter.balance("chain", f"sales_gross:{OWN}") == 0
    async with counter.pool.connection() as conn:
        for store in (OWN, FRANCHISED):
            for one in await statements(conn, store, "2026-03"):
                assert one.difference_fen == 0, "a franchise statement equals the ledger"
    await counter.drawers.open_shift("open-1-open", OWN, LANE, 2_000, "ann")
    report = await counter.drawers.count("count-1-count", OWN, LANE, 800, "ann")
    assert (report.returns, report.cash_returns_fen, report.over_short_fen) == (2, 1_200, 0)


async def test_a_provider_gives_back_on_the_account_that_collected(counter: Counter) -> None:
    sale = sold(1_200, FRANCHISED, kind=TenderKind.FACE)
    await counter.save(sale)
    found = await counter.find(OWN, sale.receipt)
    await counter.save(brought_back(found, bring_back(found, [ReturnLine(1, 1)]), OWN, counter.clock.now))
    assert await counter.balance("north", "provider_clearing:alipay") == 0
    assert await counter.till(OWN) == 0
    assert await counter.balance("chain", "due_from:north") == 0


async def test_cash_in_the_place_of_a_refused_refund_is_rounded_and_balances(counter: Counter) -> None:
    sale = sold(1_237, FRANCHISED, kind=TenderKind.FACE)
    await counter.save(sale)
    found = await counter.find(OWN, sale.receipt)
    back = in_cash(bring_back(found, [ReturnLine(1, 1)]), "P1")
    assert back is not None
    assert (back.given_fen, back.cash_fen) == (1_237, 1_230)
    async with counter.pool.connection() as conn:
        await save_grant(conn, Grant("ann", Permission.RETURN_CASH, Scope(ScopeKind.STORE, OWN)), "test", sale.at)
    where = [(store, who) for store in (OWN, FRANCHISED) for who in ("ann", "bob", "")]
    approved = [(await counter.find(store, sale.receipt, approver=who)).approved for store, who in where]
    assert approved == [True, False, False, False, False, False], "where the cash would go out, by who may"
    await counter.save(brought_back(found, back, OWN, counter.clock.now))
    assert await counter.till(OWN) == -1_230
    assert await counter.balance("north", "cash_rounding") == -7
    assert await counter.balance("north", "provider_clearing:alipay") == 1_237, "the provider still has it for us"
    assert await counter.balance("north", "due_to:chain") == -1_230
    again = await counter.find(OWN, sale.receipt)
    assert [tender.fen for past in again.returns for tender in past.tenders] == [1_237]


async def test_one_receipt_in_two_stores_at_once_is_paid_back_once(counter: Counter) -> None:
    """Each lane's session stands in its host's commit before it asks, as in production."""
    sale = sold(1_200, FRANCHISED)
    await counter.save(sale)
    places = (OWN, FRANCHISED)
    for store in places:
        await counter.at_it(store, f"q-{store}")
    answers = await asyncio.gather(*(counter.find(store, sale.receipt, f"q-{store}", LANE) for store in places))
    assert sorted(one.busy for one in answers) == [False, True]
    winner, loser = places if answers[1].busy else places[::-1]
    first = answers[places.index(winner)]
    assert (await counter.find(loser, sale.receipt, f"q-{loser}", LANE)).busy, "as long as the lane is at it"
    again = await counter.find(winner, sale.receipt, f"q-{winner}", LANE)
    assert not again.busy, "a lane that lost its answer asks again"
    await counter.save(brought_back(first, bring_back(first, [ReturnLine(1, 1)]), winner, counter.clock.now))
    await counter.at_it(winner, None)
    second = await counter.find(loser, sale.receipt, f"q-{loser}", LANE)
    assert (second.busy, len(second.returns)) == (False, 1), "it sees what the other brought back"
    paid = [await counter.till(store) - (1_200 if store == FRANCHISED else 0) for store in places]
    assert sorted(paid) == [-1_200, 0]
    assert {str(ENTITY_OF[store]) for store in places} == {"chain", "north"}


async def test_a_lane_that_gave_up_holds_nobody_up(counter: Counter) -> None:
    sale = sold(1_200, FRANCHISED)
    await counter.save(sale)
    await counter.at_it(OWN, "q-1")
    assert not (await counter.find(OWN, sale.receipt, "q-1", LANE)).busy
    await counter.at_it(OWN, "q-2")  # refused, and at something else
    assert not (await counter.find(FRANCHISED, sale.receipt, "q-3", LANE)).busy


async def test_a_receipt_of_another_chain_is_not_found(counter: Counter) -> None:
    sale = sold(1_200, FRANCHISED)
    await counter.save(sale)
    async with counter.pool.connection() as conn:
        await conn.execute("UPDATE store SET chain = 'other' WHERE id = %s", (OWN,))
    for name in (sale.receipt, sale.id):
        assert (await counter.find(OWN, name)).sale is None
