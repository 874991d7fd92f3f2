"""Settlement as people run it: runs as rows, paused between chunks, forecast, parked items resolved."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta

import pytest

from actors.settlement_items import Action
from models.domain.errors import Refused
from runtime.settlement import SettlementLimits
from runtime.settlement_desk import BY_CLOCK, SettlementDesk
from tests.integration.money_shop import CHAIN, REGION, RunningSimulator, Shop, open_shop, running_simulator

LATER = timedelta(days=40)
ONE_BY_ONE = SettlementLimits(chunk_memberships_max=1, chunk_calls_max=1, patience_s=0)


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSimulator]:
    with running_simulator(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture
async def shop(migrated_database_url: str, simulator: RunningSimulator) -> AsyncIterator[Shop]:
    async with open_shop(migrated_database_url, simulator) as shop:
        for user, coupons in (("a", 5), ("b", 1), ("c", 0)):
            membership = await shop.member(user)
            for _ in range(coupons):
                await shop.use_coupon(membership)
        shop.clock.now += LATER
        yield shop


def desk_of(shop: Shop) -> SettlementDesk:
    return SettlementDesk(CHAIN, REGION, shop.pool, shop.clock)


async def test_a_forecast_is_what_the_run_then_charges(shop: Shop) -> None:
    before = await shop.rows("SELECT id, state, charge_fen FROM membership ORDER BY id")
    forecast = await shop.runner(limits=ONE_BY_ONE).forecast(shop.clock.now)
    assert (forecast.cut_off, forecast.fee, forecast.fee_fen) == (3, 1, 1000)
    assert (forecast.clawback, forecast.clawback_fen, forecast.nothing, forecast.calls) == (1, 800, 1, 3)
    assert await shop.rows("SELECT id, state, charge_fen FROM membership ORDER BY id") == before
    assert await shop.rows("SELECT 1 FROM settlement_call") == []
    report = await desk_of(shop).run(shop.runner(), shop.clock.now, "test")
    assert report.totals.charge_fen == forecast.fee_fen + forecast.clawback_fen


async def test_a_pause_stops_between_chunks_and_a_resumed_run_goes_on(shop: Shop) -> None:
    desk = desk_of(shop)

    async def pause(step: str) -> None:
        if step == "cut_off committed" and not (await desk.status()).switch.paused:
            await desk.switch(True, "cli:ann", "the provider is down")

    report = await desk.run(shop.runner(limits=ONE_BY_ONE, between_steps=pause), shop.clock.now, "test")
    assert (report.paused, report.cut_off, report.booked) == (True, 1, 0)
    status = await desk.status()
    assert (status.due, status.switch.why, status.runs[0].state) == (3, "the provider is down", "paused")
    assert await desk.due_now() is None
    await desk.switch(False, "cli:ann", "")
    shop.clock.now += timedelta(seconds=1)
    report = await desk.run(shop.runner(), shop.clock.now, "test")
    assert (report.paused, report.cut_off, report.booked) == (False, 2, 3)
    done = (await desk.status()).runs[0]
    assert (done.state, done.due, done.booked, done.started_by) == ("done", 3, 3, "test")
    assert done.totals is not None
    assert done.totals["agree"] is True
    assert report.day is not None
    assert (report.totals.memberships, report.day.memberships, report.day.charge_fen) == (2, 3, 1800), "the day's batch"
    assert done.totals["day"] == asdict(report.day)
    kinds = await shop.rows("SELECT kind FROM audit_event ORDER BY n")
    assert [kind for (kind,) in kinds if kind.startswith("settlement")] == ["settlement_paused", "settlement_resumed"]


async def test_progress_counts_answers_while_everything_fails(shop: Shop) -> None:
    await shop.admin.add_fault("alipay.trade.pay", "fail", sub_code="ACQ.BUYER_BALANCE_NOT_ENOUGH")
    await shop.admin.add_fault("alipay.fund.auth.order.unfreeze", "fail", sub_code="ACQ.BUYER_BALANCE_NOT_ENOUGH")
    seen: list[int] = []
    report = await shop.runner(limits=ONE_BY_ONE).run(shop.clock.now, lambda progress: seen.append(progress.booked))
    await shop.admin.clear_faults()
    assert (sorted(set(seen)), report.booked) == ([0, 1, 2, 3], 3)


async def test_the_business_clock_starts_what_is_due_and_leaves_no_row_for_nothing(shop: Shop) -> None:
    desk = desk_of(shop)
    assert await desk.due_now() == shop.clock.now
    async with shop.pool.connection() as conn:
        await conn.execute("UPDATE business_clock SET movable = true")
    assert await desk.due_now() is None
    await desk.run(shop.runner(), shop.clock.now, BY_CLOCK)
    await desk.run(shop.runner(), shop.clock.now, BY_CLOCK)
    assert len((await desk.status()).runs) == 1


async def test_a_run_that_died_is_said_to_have_failed(shop: Shop) -> None:
    desk = desk_of(shop)

    async def die(step: str) -> None:
        if step == "claimed":
            raise ConnectionError("the worker died")

    with pytest.raises(ConnectionError):
        await desk.run(shop.runner(between_steps=die), shop.clock.now, "test")
    failed = (await desk.status()).runs[0]
    assert (failed.state, failed.problem) == ("failed", "ConnectionError: the worker died")
    shop.clock.now += timedelta(minutes=2)
    await desk.run(shop.runner(), shop.clock.now, "test")


@contextmanager
def refused(code: str) -> Iterator[None]:
    with pytest.raises(Refused) as error:
        yield
    assert error.value.code == code


async def test_a_parked_item_is_closed_with_a_reason(shop: Shop) -> None:
    desk = desk_of(shop)
    await desk.run(shop.runner(), shop.clock.now, "test")
    (membership,) = (row[0] for row in await shop.rows("SELECT id FROM membership WHERE used_fen = 0"))
    with refused("not_parked"):
        await desk.resolve(membership, Action.CLOSE, "it is", "cli:ann")
    async with shop.pool.connection() as conn:
        await conn.execute("UPDATE membership SET state = 'PARKED', parked_why = 'seen' WHERE id = %s", (membership,))
    assert [item.why for item in await desk.items("parked")] == ["seen"]
    with refused("reason_missing"):
        await desk.resolve(membership, Action.CLOSE, " ", "cli:ann")
    with refused("nothing_owed"):
        await desk.resolve(membership, Action.WRITE_OFF, "gone", "cli:ann")
    with refused("nothing_held"):
        await desk.resolve(membership, Action.RELEASE, "gone", "cli:ann")
    assert await desk.resolve(membership, Action.CLOSE, "given back by hand", "cli:ann") == "CLOSED"
    assert await desk.items("parked") == []
    assert await shop.one("SELECT detail->>'reason' FROM audit_event WHERE kind = 'settlement_item'") == (
        "given back by hand"
    )


async def test_what_was_written_off_and_parked_for_its_hold_is_not_written_off_again(shop: Shop) -> None:
    desk = desk_of(shop)
    poor = "ACQ.BUYER_BALANCE_NOT_ENOUGH"
    await shop.admin.add_fault("alipay.trade.pay", "fail", sub_code=poor, times=9)
    await shop.admin.add_fault("alipay.fund.auth.order.unfreeze", "fail", sub_code=poor, times=3)
    for days in (0, 1, 3):
        shop.clock.now += timedelta(days=days)
        await desk.run(shop.runner(), shop.clock.now, "test")
    await shop.admin.clear_faults()
    for item in await desk.items("parked"):
        with refused("hold_is_open" if item.charge_fen else "nothing_owed"):
            await desk.resolve(item.membership, Action.WRITE_OFF, "gone", "cli:ann")
        await desk.resolve(item.membership, Action.RELEASE, "gone", "cli:ann")
    await desk.run(shop.runner(), shop.clock.now, "test")
    for item in await desk.items("parked"):
        if item.charge_fen:
            with refused("still_owed"):
                await desk.resolve(item.membership, Action.CLOSE, "gone", "cli:ann")
        await desk.resolve(item.membership, Action.WRITE_OFF if item.charge_fen else Action.CLOSE, "gone", "cli:ann")
    states = await shop.rows("SELECT state, charge_fen FROM membership ORDER BY charge_fen")
    assert states == [("CLOSED", 0), ("WRITTEN_OFF", 800), ("WRITTEN_OFF", 1000)]
    assert await shop.account("chain", "bad_debt") == 1800
    assert await shop.account("chain", "member_receivable") == 0


async def test_what_failed_to_go_back_is_retried_and_what_was_captured_twice_goes_back(shop: Shop) -> None:
    desk = desk_of(shop)
    membership = await shop.member("d")
    uses = [await shop.use_coupon(membership, fen=fen) for fen in (300, 200, 100)]
    await shop.settle_after(40)
    await shop.admin.add_fault("alipay.trade.refund", "fail", sub_code="ACQ.SELLER_BALANCE_NOT_ENOUGH", times=2)
    for use in uses:
        await shop.reverse(use)
        await desk.run(shop.runner(), shop.clock.now, "test")
    (item,) = await desk.items("parked")
    assert "failed" in item.why, "another reversal does not hide why"
    assert await shop.account("chain", "refund_payable") == -500
    assert await desk.resolve(membership, Action.RETRY, "the account is filled", "cli:ann") == "CLOSED"
    await desk.run(shop.runner(), shop.clock.now, "test")
    assert await shop.account("chain", "refund_payable") == 0
    refunds = "SELECT fen FROM settlement_call WHERE kind = 'refund' AND answer->>'answer' = 'succeeded' ORDER BY fen"
    assert await shop.rows(refunds) == [(100,), (200,), (300,)]

    (membership,) = (row[0] for row in await shop.rows("SELECT id FROM membership WHERE charge_fen = 800"))
    await shop.collect_again(membership, "b", 900)
    await desk.run(shop.runner(), shop.clock.now, "test")
    (item,) = await desk.items("parked")
    assert "captured twice" in item.why
    assert await desk.resolve(membership, Action.REFUND, "taken twice", "cli:ann") == "CLOSED"
    await desk.run(shop.runner(), shop.clock.now, "test")
    assert await shop.one("SELECT paid_fen FROM membership WHERE id = %s", membership) == 800
    assert await shop.account("chain", "refund_payable") == 0
    assert (await shop.provider_net())["net_fen"] == 1800, "of both memberships together"


async def test_a_failed_release_is_retried_under_a_new_number(shop: Shop) -> None:
    desk = desk_of(shop)
    await shop.admin.add_fault("alipay.fund.auth.order.unfreeze", "fail", sub_code="ACQ.BUYER_BALANCE_NOT_ENOUGH")
    await desk.run(shop.runner(), shop.clock.now, "test")
    await shop.admin.clear_faults()
    (item,) = await desk.items("parked")
    assert item.hold_state == "held"
    with refused("hold_is_open"):
        await desk.resolve(item.membership, Action.CLOSE, "gone", "cli:ann")
    assert await desk.resolve(item.membership, Action.RETRY, "the provider is well again", "cli:ann") == "SETTLING"
    assert (await desk.run(shop.runner(), shop.clock.now, "test")).booked == 1
    assert (await desk.status()).parked == 0
    assert await shop.one("SELECT state FROM membership WHERE id = %s", item.membership) == "CLOSED"
