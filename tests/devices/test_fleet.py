"""The fleet's parts that need no network: its days, its chain, its lies, and the checks that hold it against books."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from devices.fleet.checks import BookedSale, Books, Violation, violations
from devices.fleet.days import BEGINS_H, ENDS_H, demand, demand_until, hour_at, opening_hours
from devices.fleet.evidence import CrewEvidence, Intent, SeenSale, Witness
from devices.fleet.mischief import SHARES, afflicted
from devices.fleet.orders import KILLS, Chaos, CrewOrder, Day
from devices.topics import parse, prefix
from models.domain.errors import Bug, Refused
from models.domain.ids import MessageId, RegionId, SessionId
from models.domain.screen import Receipt, ReceiptTender, ReplyBody, ReplyError, Screen, ScreenState
from runtime.fleet import parse_chaos, until_signal
from runtime.fleet_chain import STORES_MAX, articles_of, fleet_chain, lanes_of
from runtime.fleet_crews import Crews

SEEN = SeenSale("session-1", "s1", "s1-f1", "r-1", 1590, {"cash": 1590})
BOOKED = BookedSale("sale-1", "session-1", "", "s1", "r-1", 1590, {"cash": 1590}, False, 1, 1590)
STARTED = Intent("session-1", "s1", 1590)


def crew(**changes: object) -> CrewEvidence:
    return replace(CrewEvidence(sales=[SEEN], intents=[STARTED]), **changes)  # type: ignore[arg-type]


def rules(evidence: CrewEvidence, books: Books) -> set[str]:
    return {one.rule for one in violations([evidence], books)}


# ---------------------------------------------------------------- checks: each promise, broken once


def test_what_was_seen_and_what_is_booked_agree() -> None:
    assert violations([crew()], Books((BOOKED,))) == []


@pytest.mark.parametrize(
    ("books", "rule"),
    [
        (Books(()), "sale_not_once"),
        (Books((BOOKED, replace(BOOKED, id="sale-2", receipt="r-2"))), "sale_not_once"),
        (Books((replace(BOOKED, due_fen=1591),)), "sale_differs"),
        (Books((replace(BOOKED, tenders={"qr": 1590}, cash_fen=0),)), "sale_differs"),
        (Books((replace(BOOKED, postings=2),)), "sale_postings"),
        (Books((replace(BOOKED, cash_fen=1500),)), "cash_books"),
        (Books((replace(BOOKED, voucher_fen=500, voucher_booked_fen=500),)), "voucher_books"),
        (Books((replace(BOOKED, voucher_fen=500, voucher_booked_fen=400, voucher_used_fen=500),)), "voucher_books"),
        (Books((replace(BOOKED, voucher_fen=500, voucher_booked_fen=500, voucher_used_fen=500),)), "sale_differs"),
        (Books((BOOKED, replace(BOOKED, id="x", session="nobody", receipt="r-9"))), "sale_unstarted"),
        (Books((replace(BOOKED, tenders={"cash": 90}, cash_fen=90),)), "sale_amount"),
        (Books((replace(BOOKED, voided=True),)), "void_unasked"),
        (Books((BOOKED,), unbalanced=("t1",)), "unbalanced"),
        (Books((BOOKED,), dead_letters=("boom",)), "dead_letter"),
        (Books((BOOKED,), open_asks=1), "not_quiet"),
        (Books((BOOKED,), sum_fen=1), "ledger_sum"),
        (Books((BOOKED,), provider_fen=100, clearing_fen=99), "provider_books"),
    ],
)
def test_books_that_differ_are_violations(books: Books, rule: str) -> None:
    assert rule in rules(crew(), books)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"unanswered": ["e1"]}, "reply_missing"),
        ({"contradictions": ["e1"]}, "reply_differs"),
        ({"unexpected": ["ok instead of stale_rev"]}, "answer_unexpected"),
        ({"sales_twice": ["two receipts"]}, "sale_shown_twice"),
        ({"undesired": ["s1-f1"]}, "desired_missing"),
        ({"offline_now": ["s1-f1"]}, "not_online"),
        ({"voids_seen": ["r-1"]}, "void_not_booked"),
        ({"intents": [STARTED, Intent("till:txn-1", "s1", 500, reported=True)]}, "paid_not_booked"),
    ],
)
def test_what_terminals_saw_may_be_a_violation(changes: dict[str, object], rule: str) -> None:
    assert rule in rules(crew(**changes), Books((BOOKED,)))


def test_a_tills_money_is_booked_once_by_its_own_number() -> None:
    paid = Intent("till:txn-1", "s1", 410, offline=True, reported=True)
    sale = BookedSale("sale-2", "session-2", "txn-1", "s1", "r-2", 415, {"cash": 410}, False, 1, 410)
    assert violations([crew(intents=[STARTED, paid])], Books((BOOKED, sale))) == []
    again = replace(sale, id="sale-3", session="session-3", receipt="r-3")
    assert rules(crew(intents=[STARTED, paid]), Books((BOOKED, sale, again))) == {"paid_not_booked"}


def test_coupons_are_no_money() -> None:
    seen = replace(SEEN, tenders={"cash": 790, "coupon": 800}, due_fen=790)
    booked = replace(BOOKED, tenders={"cash": 790, "coupon": 800}, due_fen=790, cash_fen=790)
    assert violations([crew(sales=[seen], intents=[replace(STARTED, fen=790)])], Books((booked,))) == []


# ---------------------------------------------------------------- the witness


def test_a_second_reply_must_be_the_first_one_again() -> None:
    witness = Witness(0)
    witness.sent("e1", 10.0)
    witness.sent("e1", 11.0)
    witness.sent("e2", 11.0)
    witness.replied("e1", b"yes", 10.5)
    witness.replied("e1", b"yes", 12.0)
    assert (witness.waiting, witness.evidence.events, witness.evidence.duplicate_replies) == (1, 2, 1)
    assert not witness.evidence.contradictions
    witness.replied("e1", b"no", 13.0)
    evidence = witness.finish()
    assert evidence.contradictions == ["e1: no"]
    assert evidence.unanswered == ["e2"]
    assert evidence.reply_ms == [500.0]


def test_a_pause_without_replies_is_an_outage() -> None:
    witness = Witness(0)
    witness.sent("e1", 100.0)
    witness.replied("e1", b"", 100.2)
    witness.sent("e2", 200.0)
    witness.replied("e2", b"", 203.5)
    assert witness.evidence.outages_s == [3.5]


def test_a_liar_must_hear_what_the_protocol_says() -> None:
    witness = Witness(0)
    for event, expected in (("e1", "stale_rev"), ("e2", "")):
        witness.expect(event, expected)
    witness.refused(ReplyBody(MessageId("e1"), False, error=ReplyError("stale_rev", "", "")))
    assert not witness.evidence.unexpected
    witness.refused(ReplyBody(MessageId("e2"), False, error=ReplyError("bad_json", "", "")))
    assert witness.evidence.unexpected == ["bad_json instead of : e2"]
    assert witness.evidence.refusals == {"stale_rev": 1, "bad_json": 1}


def test_a_result_page_is_a_sale_that_was_seen() -> None:
    witness = Witness(0)
    receipt = Receipt("r-1", (), (ReceiptTender("cash", 1000), ReceiptTender("cash", 590)), "")
    page = Screen(SessionId("session-1"), 7, ScreenState.PAID, due_fen=1590, receipt=receipt)
    witness.shown("s1", "s1-f1", replace(page, state=ScreenState.QUOTED))
    witness.shown("s1", "s1-f1", page)
    witness.shown("s1", "s1-t1", replace(page, rev=8))
    assert witness.finish().sales == [SEEN]
    witness.shown("s1", "s1-f1", replace(page, due_fen=1))
    assert len(witness.evidence.sales_twice) == 1


# ---------------------------------------------------------------- days, chains, chaos


def test_a_day_has_its_customers_at_its_peaks() -> None:
    assert (hour_at(0), hour_at(1), hour_at(2)) == (BEGINS_H, ENDS_H, ENDS_H)
    assert demand(12.4) > 1.5 > 1.0 > demand(15.5) > demand(22.5)
    curve = [demand_until(step / 50) for step in range(51)]
    assert curve == sorted(curve)
    assert curve[0] < 0.01
    assert curve[-1] == pytest.approx(1.0, abs=0.01)
    opens, closes = opening_hours(random.Random(1))
    assert opens < closes


def test_a_chain_of_a_thousand_stores_is_one_that_the_wire_can_name() -> None:
    chain = fleet_chain(1_000, 3)
    lanes = lanes_of(chain, "key", 1)
    assert len({store.id for store in chain.stores}) == len(lanes) == 1_000
    assert {store.entity for store in chain.stores} == {entity.id for entity in chain.entities}
    assert 0.2 < sum(lane.pos for lane in lanes) / 1_000 < 0.5
    for lane in lanes[::100]:
        assert [one.role for one in lane.terminals] == ["face", "till", "face"]
        topic = f"{prefix(RegionId('south-china'), lane.store, lane.terminals[0].terminal)}/up/event"
        assert parse(topic).store == lane.store
    assert lanes == lanes_of(chain, "key", 1)
    assert all(article.unit_fen > 0 for article in articles_of(chain))
    assert fleet_chain(3, 1).stores[2].basket_owner == "storeops", "a lane without a till owns no basket"


@pytest.mark.parametrize("size", [(0, 3), (STORES_MAX + 1, 3), (1, 9)])
def test_a_fleet_has_a_size(size: tuple[int, int]) -> None:
    with pytest.raises(Refused, match="stores"):
        fleet_chain(*size)


def test_chaos_is_named() -> None:
    assert parse_chaos("none") == ()
    assert set(parse_chaos("all")) == set(Chaos) == {*SHARES, *KILLS}
    assert parse_chaos("flapping, host") == (Chaos.FLAPPING, Chaos.HOST)
    with pytest.raises(Refused, match="earthquake"):
        parse_chaos("earthquake")


def test_every_trouble_finds_a_lane_and_the_same_one_for_the_same_seed() -> None:
    counters = [object() for _ in range(20)]
    chosen = afflicted(counters, tuple(Chaos), random.Random(3))  # type: ignore[arg-type]
    assert {kind for kind, _ in chosen} == set(SHARES)
    assert chosen == afflicted(counters, tuple(Chaos), random.Random(3))  # type: ignore[arg-type]


def test_violations_say_what_and_where() -> None:
    [one] = violations([crew(intents=[STARTED])], Books((BOOKED, replace(BOOKED, id="x", session="s", receipt="r-9"))))
    assert one == Violation("sale_unstarted", "r-9 of s1: no terminal asked for it")


def test_a_tills_money_that_came_late_belongs_to_no_visit() -> None:
    late = replace(BOOKED, id="sale-2", receipt="r-2", session="", till_txn="txn-2", due_fen=0)
    intents = [STARTED, Intent("till:txn-2", "s1", 1590, reported=True)]
    assert violations([crew(intents=intents)], Books(sales=(BOOKED, late))) == []
    named = replace(late, session=BOOKED.session)
    found = violations([crew(intents=intents)], Books(sales=(BOOKED, named)))
    assert [one.rule for one in found] == ["sale_not_once"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_and_what_it_started(number: signal.Signals) -> None:
    """It cancels the run; the house is stopped after the loop, not inside it."""
    ended: list[str] = []

    async def run() -> None:
        try:
            os.kill(os.getpid(), number)
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append("crews")

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(until_signal(run()))
    assert ended == ["crews"]


async def test_a_crew_in_the_middle_of_its_day_ends_at_once(tmp_path: Path) -> None:
    order = CrewOrder(0, 1, RegionId("south"), "127.0.0.1", 1, "http://127.0.0.1:1", "plan", (), ())
    crews = Crews(order, tmp_path, count=1)
    await crews.start()
    day = asyncio.create_task(crews.day(Day(600.0, 0.1, flat=True)))
    await asyncio.sleep(0)
    began = asyncio.get_running_loop().time()
    crews.kill()
    with pytest.raises(Bug, match="its process ended"):
        await day
    await crews.stop()
    assert asyncio.get_running_loop().time() - began < 10.0
