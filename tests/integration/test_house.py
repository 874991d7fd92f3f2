"""`storeops up` as a person uses it: ready, Ctrl-C, and again on the same data."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from models.domain.errors import Refused
from models.domain.screen import ScreenState
from tests.conftest import within
from tests.integration.house import WATER, House, Note, storeops, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]
STOP_PROMISE_S = 2.0


async def test_ctrl_c_leaves_no_process_and_a_second_start_resumes(house: House, note: Note) -> None:
    async with house.terminal("gz-haizhu", "resumes") as counter:
        await counter.scan(WATER[0])
        sold = await counter.pay_cash(500)
        assert sold.receipt is not None
        await counter.open_session()
        left = await counter.scan(WATER[0], 3)

        def stopped() -> float:
            if not house.running:  # the stop before this one was too slow
                house.start()
            stop_s, strays = house.stop()
            assert strays == []
            return stop_s

        note("stop_s", await asyncio.to_thread(within, STOP_PROMISE_S, stopped))

        note("second_start_s", await asyncio.to_thread(house.start))
        # The visit that was open is shown again, to a terminal that came back by itself, and can be paid.
        await counter.agent.wait_screen(lambda screen: screen.session == left.session, 30.0)
        paid = await counter.pay_cash()
        assert paid.state is ScreenState.PAID
        assert paid.receipt is not None
        assert (paid.gross_fen, paid.session) == (600, left.session)
        receipts = house.rows("SELECT receipt FROM sale WHERE lane = 'resumes' ORDER BY at")
        assert receipts == [(sold.receipt.no,), (paid.receipt.no,)]
    house.check_books()


def test_the_console_answers_and_says_when_it_is_ready(house: House, note: Note) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{house.plant.gateway_port}", timeout=30.0, trust_env=False) as http:
        assert http.get("/healthz").json() == {"status": "ok"}
        # It joins the engine by itself, once the house says where that is.
        note("ready_s", wait_until(lambda: http.get("/readyz").status_code == 200, "the console is ready"))
        assert http.get("/readyz").json() == {
            "ready": True,
            "database": True,
            "hosts": True,
            "slots_waiting": [],
            "regions": {house.plant.region: {"ready": True, "database": True, "slots_waiting": []}},
        }


def test_the_command_line_finds_the_running_house_by_its_folder(house: House) -> None:
    here = ("--data", str(house.data))
    now = datetime.fromisoformat(storeops("clock", "now", *here, cold=True)["business_now"])
    assert abs(datetime.now(UTC) - now) < timedelta(days=1)
    [host] = storeops("hosts", *here)["hosts"]
    assert (host["slot"], host["pid"]) == (f"{house.plant.region}/0", house.host().pid)
    report = storeops("settle", *here)
    assert (report["ok"], report["region"]) == (True, house.plant.region)
    link = httpx.get(storeops("login", *here)["url"], timeout=30.0, trust_env=False)
    assert (link.status_code, link.headers["location"]) == (303, "/wall")


async def test_a_payment_reaches_the_screen_by_the_providers_notification_before_the_poll(house: House) -> None:
    door = f"http://127.0.0.1:{house.plant.gateway_port}/api/v1/providers/alipay/notify"
    with httpx.Client(timeout=30.0, trust_env=False) as http:
        wait_until(lambda: http.post(door, content=b"app_id=nobody").status_code == 400, "its door is open")
    async with house.terminal("gz-haizhu", "notified") as counter:
        await counter.scan(WATER[0])
        paid = await counter.pay_qr("notified-1")
        assert paid.state is ScreenState.PAID
    (order,) = house.rows("SELECT tenders -> 0 ->> 'order' FROM sale WHERE lane = 'notified'")
    # `hastened`: the poll was still to come when the notification was here, and it came at once.
    notices = house.rows("SELECT number, kind, hastened FROM provider_notice WHERE number = %s", order)
    assert notices == [(order[0], "payment", True)]


async def test_a_member_pays_with_their_balance_after_two_factors_and_a_void_gives_it_back(house: House) -> None:
    house.rows(
        """INSERT INTO member (id, chain, region, home_store, name, phone_tail, provider_user, joined_at)
           SELECT 'saver', chain, region, id, '', '0815', '', now() FROM store WHERE id = 'gz-yuexiu' RETURNING id"""
    )
    here = ("--data", str(house.data))
    async with house.terminal("gz-yuexiu", "saved") as counter:
        into = ("--fen", "500", "--store", "gz-yuexiu", "--drawer", "saved", "--number", "top-up-1")
        topped = await asyncio.to_thread(storeops, "balance", "top-up", "saver", *into, *here)
        assert (topped["kind"], topped["left_fen"]) == ("top_up", 500)
        await counter.scan(WATER[0])
        await counter.identify("card", "saver")
        own = [{"kind": "balance", "fen": 200}]
        with pytest.raises(Refused, match=r"second factor|第二重"):
            await counter.confirm(own)
        assert "digits" in counter.screen.actions
        await counter.digits("0815")
        await counter.confirm(own)
        paid = await counter.agent.wait_screen(lambda screen: screen.state is ScreenState.PAID, 20.0)
        assert house.rows("SELECT fen FROM member_balance WHERE member = 'saver'") == [(300,)]
        assert paid.receipt is not None
        await counter.void(paid.receipt.no)
        assert house.rows("SELECT fen FROM member_balance WHERE member = 'saver'") == [(500,)]
    shown = await asyncio.to_thread(storeops, "balance", "show", "saver", *here)
    assert [move["kind"] for move in shown["moves"]] == ["refund", "spend", "top_up"]
    booked = "SELECT coalesce(sum(amount_fen), 0)::bigint FROM entry WHERE account = %s"
    assert house.rows(booked, ("member_balance",)) == [(-500,)]
    assert house.rows(booked, ("provider_clearing:balance",)) == [(0,)]
    house.check_books()
