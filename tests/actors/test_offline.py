"""A whole sale made offline: booked once for ever, as reported, on the day it happened; never refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from actors.ports import PostUses
from models.domain.events import (
    EventBody,
    OfflineSale,
    Paid,
    SaleBenefit,
    SaleVoucherClaim,
    Tender,
    TenderKind,
    TillLine,
)
from models.domain.facts import Incident, SaleMade
from models.domain.ids import BenefitId, LeaseId, LegalEntityId, MembershipId
from models.domain.messages import SaleNoted, UsesPosted
from models.domain.points import POINTS, PointsPolicy
from tests.actors.lane import NOW, Lane, cash, member

COUPON = SaleBenefit(LeaseId("le-1"), MembershipId("m-1"), BenefitId("coupon8"), 800)
TEA = TillLine(1, "tea", "Tea", 1, 1200, 1200)
SMOKES = TillLine(2, "smokes", "Cigarettes", 1, 2500, 2500)
SALE = OfflineSale((TEA,), (cash(400),), 1200, (COUPON,), "t-1")
HOUR_AGO = NOW - timedelta(hours=1)


def incidents(lane: Lane) -> list[str]:
    return [fact.kind for fact in lane.facts if isinstance(fact, Incident)]


def sold(lane: Lane, body: EventBody = SALE, **named: object) -> SaleMade:
    reply = lane.send(body, sold_at=HOUR_AGO, **named)  # type: ignore[arg-type]
    assert reply is not None
    assert reply.ok, "never refused"
    return lane.sales[-1]


def test_it_counts_at_its_own_moment() -> None:
    lane = Lane("pos")
    sale = sold(lane)
    assert (sale.at, sale.received_at, sale.business_date) == (HOUR_AGO, NOW, "2026-05-01")
    assert (sale.gross_fen, sale.discount_fen, sale.due_fen, sale.suspense_fen) == (1200, 800, 400, 0)
    post = lane.asked(PostUses)[1]
    assert (post.biz_time, post.unreserved, post.paid_fen, post.uses) == (HOUR_AGO, True, 400, sale.uses)
    assert sale.uses[0].lease == "le-1"
    assert incidents(lane) == []
    assert [tell.message for tell in lane.told] == [SaleNoted(1, 400, 800)]


def test_yesterdays_sale_is_yesterdays() -> None:
    lane = Lane("pos")
    lane.send(SALE, sold_at=NOW - timedelta(hours=23))
    assert lane.sales[0].business_date == "2026-04-30"
    assert lane.told == [], "the store counts its day of today"
    assert lane.session.receipts == 1


@pytest.mark.parametrize(("days", "date"), [(-400, "2026-04-24"), (400, "2026-05-01")])
def test_a_clock_that_lies_is_bounded(days: int, date: str) -> None:
    lane = Lane("pos")
    lane.send(SALE, sold_at=NOW + timedelta(days=days))
    assert lane.sales[0].business_date == date


def test_one_till_transaction_is_one_sale_for_ever() -> None:
    lane = Lane("pos")
    first = sold(lane)
    sold(lane)
    lane.ok(Paid("t-1", 0, (cash(400),)))
    assert len(lane.sales) == 1
    lane.session = replace(lane.session, paid_txns=())
    sold(lane)
    assert lane.sales[-1].id == first.id, "forgotten by the lane, the database still knows the number"
    other = sold(lane, replace(SALE, till_txn="t-2"))
    assert other.id != first.id


def test_without_a_till_transaction_the_event_is_the_number() -> None:
    lane = Lane("pos")
    bare = replace(SALE, till_txn=None)
    assert sold(lane, bare).id != sold(lane, bare).id
    assert incidents(lane) == []


def test_the_same_number_over_another_amount_is_other_money() -> None:
    lane = Lane("pos")
    sold(lane)
    sold(lane, replace(SALE, tenders=(cash(500),)))
    assert [sale.suspense_fen for sale in lane.sales] == [0, 100]
    assert incidents(lane) == ["paid_again", "sale_does_not_add_up"]


@pytest.mark.parametrize(
    ("changes", "suspense", "rounding", "kinds"),
    [
        ({"tenders": (cash(500),)}, 100, 0, ["sale_does_not_add_up"]),
        ({"tenders": ()}, -400, 0, ["sale_does_not_add_up"]),
        ({"total_fen": 999}, 0, 0, ["sale_does_not_add_up"]),
        ({"benefits": (), "tenders": (cash(1200),)}, 0, 0, []),
        ({"lines": (TillLine(1, "x", "X", 1, 1203, 1203),), "total_fen": 1203}, 0, 3, []),
        ({"tenders": (Tender(TenderKind.CARD, 400), Tender(TenderKind.COUPON, 800))}, 0, 0, []),
        ({"benefits": (replace(COUPON, fen=9999),), "tenders": (cash(0),)}, 0, 0, []),
        ({"lines": (), "total_fen": 0}, 400, 0, ["sale_does_not_add_up"]),
    ],
)
def test_what_does_not_add_up_is_booked_as_reported(
    changes: dict[str, object], suspense: int, rounding: int, kinds: list[str]
) -> None:
    lane = Lane("pos")
    sale = sold(lane, replace(SALE, **changes))  # type: ignore[arg-type]
    assert (sale.suspense_fen, sale.rounding_fen, incidents(lane)) == (suspense, rounding, kinds)


def test_the_discount_falls_on_what_may_be_discounted() -> None:
    lane = Lane("pos")
    body = OfflineSale((TEA, SMOKES), (cash(2900),), 3700, (COUPON,))
    sale = sold(lane, body)
    assert [(line.line, line.discount_fen, line.net_fen) for line in sale.lines] == [(1, 800, 400), (2, 0, 2500)]
    twice = sold(lane, replace(body, lines=(TEA, replace(SMOKES, line=1))))
    assert [line.line for line in twice.lines] == [1, 2], "two lines with one number can still be returned"


def test_a_membership_that_nobody_has_is_noted() -> None:
    lane = Lane("pos")
    sold(lane)
    ask, request = lane.asked(PostUses)
    lane.tell(UsesPosted(ask, request.session, None, 1, request.terminal))
    assert incidents(lane) == ["benefit_unknown"]


def test_a_customer_who_stands_there_is_left_alone() -> None:
    lane = Lane()
    lane.open()
    lane.identify(member())
    before = lane.session
    sold(lane)
    ask, request = lane.asked(PostUses)
    lane.tell(UsesPosted(ask, request.session, member(1)))
    assert replace(lane.session, receipts=0, paid_txns=()) == replace(before, receipts=0, paid_txns=())


def test_takings_that_a_till_reports_late_are_of_their_day() -> None:
    lane = Lane("pos")
    lane.send(Paid("t-9", 0, (cash(700),)), sold_at=NOW - timedelta(hours=23))
    (sale,) = lane.sales
    assert (sale.business_date, sale.suspense_fen, sale.received_at) == ("2026-04-30", 700, NOW)


def test_it_earns_points_for_the_membership_that_it_names() -> None:
    lane = Lane("pos")
    policy = PointsPolicy("sun", LegalEntityId("chain"), 100, 30)
    lane.book = replace(lane.book, chain_book=replace(lane.book.chain_book, points=policy))
    both = OfflineSale((TEA, replace(SMOKES, line=1)), (cash(2900),), 3700, (COUPON,), "t-1")
    points = sold(lane, both).points
    assert points is not None, "the two lines have one number: the receipt counts them anew"
    assert (points.earned, points.lines) == (4, ((1, 400),)), "tobacco earns nothing"
    assert points.expires_at == HOUR_AGO + timedelta(days=30)
    assert sold(lane, replace(SALE, benefits=(), till_txn="t-2")).points is None


def test_points_that_nobody_checked_are_the_store_s_own() -> None:
    lane = Lane("pos")
    claim = (SaleVoucherClaim("points", 800),)
    (given,) = sold(lane, replace(SALE, benefits=(), vouchers=claim)).vouchers
    assert (given.voucher == POINTS, incidents(lane)) == (False, ["voucher_unknown"])
