"""Drawers and shifts on PostgreSQL: every sum of shifts is the till's account, whoever counts while others sell."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from datetime import date, timedelta
from typing import Any

import pytest
import pytest_asyncio
import typer

from gateway.drawers import ShiftReport
from models.domain.drawers import MoveKind
from models.domain.errors import Refused
from models.domain.facts import SaleVoided
from models.domain.ids import LaneId, TerminalId
from runtime.day_close import DayClose
from runtime.terminal_verbs import whole_fen
from tests.integration.drawer_shop import LANE, Counter, open_counter, sold
from tests.integration.money_shop import FRANCHISED


@pytest_asyncio.fixture
async def counter(migrated_database_url: str) -> AsyncIterator[Counter]:
    async with open_counter(migrated_database_url) as counter:
        yield counter


def number() -> str:
    return str(uuid.uuid4())


async def opened(counter: Counter, fen: int = 20_000) -> ShiftReport:
    return await counter.drawers.open_shift(number(), FRANCHISED, LANE, fen, "ann")


async def counted(counter: Counter, fen: int) -> ShiftReport:
    return await counter.drawers.count(number(), FRANCHISED, LANE, fen, "ann")


async def moved(counter: Counter, kind: MoveKind, fen: int) -> ShiftReport:
    return await counter.drawers.move(number(), FRANCHISED, LANE, kind, fen, "stamps", "ann")


async def test_a_shift_from_its_float_to_the_safe(counter: Counter) -> None:
    await counter.save(sold(700))  # nobody had opened a shift: it is the next count's
    opening = await opened(counter)
    assert (opening.kind, opening.n, opening.business_date, opening.entity) == ("X", 1, "2026-03-01", "north")
    sale = sold(1_500)
    await counter.save(sale)
    await counter.save(sale)
    await moved(counter, MoveKind.PAID_IN, 300)
    await moved(counter, MoveKind.PAID_OUT, 450)
    blind = await moved(counter, MoveKind.DROP, 10_000)
    assert (blind.paid_in_fen, blind.paid_out_fen, blind.drops_fen) == (300, 450, 10_000)
    hidden = (blind.sales, blind.cash_sales_fen, blind.cash_returns_fen, blind.expected_fen, blind.over_short_fen)
    assert hidden == (None,) * 5, "nothing from which the answer of a blind count follows"
    assert await counter.till() == 20_000 + 700 + 1_500 + 300 - 450 - 10_000 == 12_050

    report = await counted(counter, 12_000)
    assert (report.kind, report.expected_fen, report.counted_fen, report.over_short_fen) == ("Z", 12_050, 12_000, -50)
    assert (report.sales, report.cash_sales_fen, report.returns, report.cash_returns_fen) == (2, 2_200, 0, 0)
    assert await counter.till() == 12_000
    assert await counter.balance("north", f"cash_over_short:{FRANCHISED}") == 50
    for kind in MoveKind:
        with pytest.raises(Refused, match="no shift is open"):
            await moved(counter, kind, 1)
    with pytest.raises(Refused, match="no shift is open"):
        await counted(counter, 12_050)

    ended = await counter.drawers.close(number(), FRANCHISED, LANE, "ben")
    assert (ended.state, ended.next_shift, ended.ended_by) == ("ended", "", "ben")
    assert await counter.till() == 0
    assert await counter.balance("north", f"safe:{FRANCHISED}") == -20_000 + 10_000 + 12_000
    assert await counter.balance("north", f"petty_expense:{FRANCHISED}") == 450
    assert await counter.balance("north", f"other_income:{FRANCHISED}") == -300


async def test_a_drawer_is_handed_over_while_the_shop_sells_past_its_cutoff(counter: Counter) -> None:
    first = await opened(counter, 10_000)
    await counter.save(sold(500))
    await counted(counter, 10_500)
    between = sold(900)
    await counter.save(between)
    counter.clock.now += timedelta(hours=15)  # 01:00 in Shanghai, past this store's cutoff hour
    second = await counter.drawers.hand_over(number(), FRANCHISED, LANE, "ben")
    assert (second.float_fen, second.n, second.opened_by) == (10_500, 2, "ben")
    assert (first.business_date, second.business_date) == ("2026-03-01", "2026-03-02")
    ended = await counter.drawers.report(first.shift)
    assert (ended.next_shift, ended.cash_sales_fen, ended.over_short_fen) == (second.shift, 500, 0)
    await counter.save(
        SaleVoided("v", between.id, FRANCHISED, TerminalId("t"), counter.clock.now, "2026-03-02", LaneId("lane-1"))
    )
    report = await counted(counter, 10_500)
    assert (report.sales, report.cash_sales_fen, report.returns, report.cash_returns_fen) == (1, 900, 1, 900)
    assert report.over_short_fen == 0
    assert await counter.till() == 10_500
    newest = await counter.drawers.reports(FRANCHISED)
    assert [one.n for one in newest] == [2, 1]
    assert [one.n for one in await counter.drawers.reports(FRANCHISED, day="2026-03-01")] == [1]


async def test_a_day_closes_with_a_warning_of_what_nobody_counted(counter: Counter) -> None:
    nothing: Any = None  # no provider, no statement
    days = DayClose(counter.pool, nothing, ())
    await opened(counter)
    after = counter.clock.now + timedelta(days=2)
    first = await days.close("north", date(2026, 3, 1), after, "test")
    assert (first.closed, first.warnings) == (True, (f"{FRANCHISED}/{LANE}",))
    await counted(counter, 20_000)
    assert (await days.close("north", date(2026, 3, 2), after, "test")).warnings == ()


async def test_a_store_that_changed_hands_closes_its_drawer_first(counter: Counter) -> None:
    await opened(counter)
    await counted(counter, 20_000)
    async with counter.pool.connection() as conn:
        await conn.execute("INSERT INTO store_entity VALUES (%s, '2026-03-02', 'chain')", (FRANCHISED,))
    counter.clock.now += timedelta(days=1)
    with pytest.raises(Refused, match="is chain's now"):
        await counter.drawers.hand_over(number(), FRANCHISED, LANE, "ben")
    await counter.drawers.close(number(), FRANCHISED, LANE, "ann")
    assert await counter.till() == 0, "in the books of the entity whose money it was"
    assert (await opened(counter)).entity == "chain"


async def test_what_a_drawer_refuses(counter: Counter) -> None:
    drawers = counter.drawers
    with pytest.raises(Refused, match="no counted shift"):
        await drawers.close(number(), FRANCHISED, LANE, "ann")
    with pytest.raises(Refused, match="no lane"):
        await drawers.open_shift(number(), FRANCHISED, "lane-9", 0, "ann")
    await opened(counter)
    for fen in (-1, 100_000_001):
        with pytest.raises(Refused, match="is not between"):
            await counted(counter, fen)
    with pytest.raises(Refused, match="a reason has"):
        await drawers.move(number(), FRANCHISED, LANE, MoveKind.PAID_OUT, 10, "  ", "ann")
    with pytest.raises(Refused, match="has a shift"):
        await opened(counter)
    with pytest.raises(Refused, match="no counted shift"):
        await drawers.hand_over(number(), FRANCHISED, LANE, "ann")


async def test_a_request_number_has_one_effect(counter: Counter) -> None:
    mine, theirs = number(), number()
    for _ in range(2):
        shift = await counter.drawers.open_shift(mine, FRANCHISED, LANE, 5_000, "ann")
        moved_to = await counter.drawers.move(theirs, FRANCHISED, LANE, MoveKind.DROP, 100, "", "ann")
        assert moved_to.shift == shift.shift
    assert len(moved_to.moves) == 1
    assert await counter.till() == 4_900
    with pytest.raises(Refused, match="another request"):
        await counter.drawers.move(theirs, FRANCHISED, LANE, MoveKind.DROP, 200, "", "ann")
    both = await asyncio.gather(
        *(counter.drawers.count(number(), FRANCHISED, LANE, 4_900, who) for who in ("ann", "ben")),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in both) == ["Refused", "ShiftReport"], "a shift is counted once"


@pytest.mark.parametrize("seed", [1, 2])
async def test_all_shifts_together_are_the_tills_account(counter: Counter, seed: int) -> None:
    """Selling goes on while somebody counts: each movement belongs to one shift, or still to none."""
    rng = random.Random(seed)
    await opened(counter, 1_000)
    for _ in range(4):
        count = counter.drawers.count(number(), FRANCHISED, LANE, rng.randrange(20_000), "ann")
        sales = [counter.save(sold(rng.randrange(100, 900))) for _ in range(6)]
        await asyncio.gather(count, *sales)
        if rng.random() < 0.5:
            await counter.drawers.hand_over(number(), FRANCHISED, LANE, "ben")
        else:
            await counter.drawers.close(number(), FRANCHISED, LANE, "ben")
            await counter.save(sold(350))
            await opened(counter, rng.randrange(3_000))
        await moved(counter, rng.choice(list(MoveKind)), rng.randrange(1, 500))
    last, *_ = await counter.drawers.reports(FRANCHISED)
    expected = await counter.till()
    report = await counted(counter, expected)
    assert report.shift == last.shift
    assert report.over_short_fen == 0, "float + sales - returns + paid in - paid out - drops is the account's balance"
    reports = await counter.drawers.reports(FRANCHISED)
    over_short = sum(one.over_short_fen or 0 for one in reports)
    assert await counter.balance("north", f"cash_over_short:{FRANCHISED}") == -over_short
    assert sum(one.sales or 0 for one in reports) == await _sales(counter)


async def _sales(counter: Counter) -> int:
    async with counter.pool.connection() as conn:
        row = await (await conn.execute("SELECT count(*) FROM sale")).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("text", ["200.00", "2e2", "-5", "", "½"])
def test_an_amount_that_is_not_whole_fen_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        whole_fen(text)
    assert whole_fen("20000") == 20_000
