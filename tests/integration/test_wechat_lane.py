"""WeChat at a lane of the running house: paid by its code, refunded, and its bill reconciled with difference 0."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from devices.simulator import SimulatedTerminal
from gateway.providers.simulator import SimulatorAdmin
from models.domain.differences import Verdict
from models.domain.screen import ScreenState
from runtime.reconciliation_desk import ReconciliationDesk
from tests.integration.house import NOODLES, WATER, House, eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

STORE, ENTITY = "gz-haizhu", "chain"
BEIJING = timezone(timedelta(hours=8))


async def buy(house: House, terminal: SimulatedTerminal, article: tuple[str, int]) -> tuple[str, str]:
    """A visit with one article, paid by a code; the sale's id and its receipt's number."""
    await terminal.open_session()
    await terminal.scan(article[0])
    assert (await terminal.pay_code("wei")).state is ScreenState.PAID
    [(sale, receipt)] = house.rows(
        "SELECT id, receipt FROM sale WHERE terminal = %s ORDER BY at DESC LIMIT 1",
        (str(terminal.agent.config.terminal),),
    )
    return sale, receipt


async def test_a_day_of_wechat_at_a_lane_reconciles_to_the_fen(house: House) -> None:
    desk = ReconciliationDesk([house.plant])
    assert ("wechat", ENTITY) in {(one.provider, one.entity) for one in desk.accounts()}
    async with SimulatorAdmin(house.plant.provider_url) as admin:
        mchid = next(one.app_id for one in house.plant.accounts if one.provider == "wechat")
        async with house.terminal(STORE, "wechat-lane", provider="wechat") as terminal:
            kept, _ = await buy(house, terminal, NOODLES)
            undone, receipt = await buy(house, terminal, WATER)
            clearing = (ENTITY, "provider_clearing:wechat")
            assert house.ledger_of(kept)[clearing] == NOODLES[1]
            assert house.ledger_of(undone)[clearing] == WATER[1]
            await terminal.void(receipt)
            await eventually(
                lambda: house.rows("SELECT 1 FROM sale WHERE id = %s AND voided_at IS NOT NULL", (undone,)), "voided"
            )
        books = await admin.books(mchid)
        assert (books["captured_fen"], books["refunded_fen"]) == (NOODLES[1] + WATER[1], WATER[1])
        assert {order["kind"] for order in books["orders"]} == {"pay"}
        paid_at = [datetime.fromisoformat(order["paid_at"]) for order in books["orders"]]
        [day] = {at.astimezone(BEIJING).date() for at in paid_at}
        await admin.advance(86_400)
    run = await desk.fetch_and_run(ENTITY, "wechat", day)
    lines = await desk.lines(account=ENTITY, provider="wechat")
    # What was paid before the cutoff hour is of another business day here than there: the same lines, paired.
    assert (run.matched, run.difference_fen, run.open_lines) == (3, 0, 0), (run, lines)
    assert not [line for line in lines if line.verdict is not Verdict.TIMING], lines
    [(net,)] = house.rows(
        "SELECT sum(amount_fen)::bigint FROM entry WHERE account = 'provider_clearing:wechat' AND book = 'posted'"
    )
    assert net == NOODLES[1] - run_fees(house)


def run_fees(house: House) -> int:
    """What the provider kept, as reconciliation booked it."""
    [(fen,)] = house.rows(
        "SELECT coalesce(sum(amount_fen), 0)::bigint FROM entry "
        "WHERE account = 'provider_fee:wechat' AND book = 'posted'"
    )
    return int(fen)
