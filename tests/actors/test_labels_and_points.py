"""What a scale printed, and what a member pays with points, at the lane."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from actors.ports import ReserveVouchers
from models.domain.barcode import InStoreLayout, Measure
from models.domain.book import StoreBook
from models.domain.events import Scan, Voucher
from models.domain.ids import LegalEntityId
from models.domain.messages import ReserveAnswered
from models.domain.plans import Text
from models.domain.points import POINTS, PointsPolicy
from models.domain.pricing import Item
from models.domain.screen import Screen
from tests.actors.lane import ITEMS, NOW, Lane, book, cash, member

WEIGHED = InStoreLayout(frozenset({"22"}), measure=Measure.WEIGHT)
PRICED = InStoreLayout(frozenset({"21"}))
POLICY = PointsPolicy("sun", LegalEntityId("chain"), 100, 365)


def shop() -> StoreBook:
    plain = book()
    more = {
        "12345": Item("12345", Text(zh="苹果", en="Apples"), 1299, frozenset({"weight"})),
        "6901234567892": Item("6901234567892", Text(zh="可乐", en="Cola"), 300),
        "2199999": Item("2199999", Text(zh="沙拉", en="Salad"), 100),
        "soon": Item("soon", Text(zh="新品", en="New"), 100, later=((NOW + timedelta(days=1), 200),)),
        "later": Item("later", Text(zh="新品", en="New"), 100, later=((NOW - timedelta(days=1), None),)),
    }
    chain = replace(plain.chain_book, items={**ITEMS, **more}, codes=(WEIGHED, PRICED), points=POLICY)
    return replace(plain, chain_book=chain)


def at_lane(points: int | None = None) -> Lane:
    """A lane of that shop; with a member who has so many points."""
    lane = Lane()
    lane.book = shop()
    if points is not None:
        lane.open()
        lane.identify(replace(member(membership=False), points=points))
    return lane


def shown(lane: Lane) -> Screen:
    assert lane.screen is not None
    return lane.screen


def test_weighed_goods_are_one_line_each_at_the_labels_price() -> None:
    lane = at_lane()
    for code in (
        WEIGHED.write("22", "12345", 350),
        WEIGHED.write("22", "12345", 350),
        "(01)06901234567892(10)A1",
        "6901234567892",
        PRICED.write("21", "99999", 1234),
        "soon",
    ):
        lane.ok(Scan(code, 1))
    assert [(line.name, line.quantity, line.net_fen) for line in shown(lane).lines] == [
        ("Apples 350 g", 1, 1299 * 350 // 1000),
        ("Apples 350 g", 1, 1299 * 350 // 1000),
        ("Cola", 2, 600),
        ("Salad", 1, 1234),
        ("New", 1, 100),
    ]
    lane.refused(Scan(WEIGHED.write("22", "12345", 350), 2), "bad_quantity")


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("12345", "weight_missing"),
        ("6901234567893", "code_misread"),
        ("]C1zz", "code_unreadable"),
        ("6900000000007", "unknown_item"),
        ("(01)06901234567892(17)260430", "item_expired"),
        ("later", "unknown_item"),
    ],
)
def test_a_code_that_is_not_sold_is_refused_by_name(code: str, problem: str) -> None:
    at_lane().refused(Scan(code, 1), problem)


def test_points_pay_after_every_discount_and_are_said_on_the_receipt() -> None:
    stranger = at_lane()
    stranger.ok(Scan("tea", 1))
    stranger.refused(Voucher("POINTS"), "voucher_members")
    lane = at_lane(500)
    lane.ok(Scan("tea", 1))
    lane.refused(Voucher("POINTS 501"), "points_short")
    lane.ok(Voucher("points 200"))
    assert (shown(lane).due_fen, [one.discount_fen for one in shown(lane).vouchers]) == (1000, [200])
    lane.ok(Voucher("POINTS"))
    assert shown(lane).due_fen == 700
    lane.confirm(cash(700))
    ask, reserve = lane.asked(ReserveVouchers)
    assert [(one.voucher, one.fen) for one in reserve.vouchers] == [(POINTS, 500)]
    lane.tell(ReserveAnswered(ask, reserve.session, ok=True))
    (sale,) = lane.sales
    assert sale.points is not None
    assert (sale.due_fen, sale.points.earned, sale.points.lines) == (700, 7, ((1, 700),))
    assert shown(lane).receipt is not None
    assert str(lane.session.receipt).count("500 points spent; points +7, 7 to spend") == 1
    assert (lane.session.points, lane.session.member and lane.session.member.points) == (0, 7)


def test_points_that_are_gone_meanwhile_leave_the_price_without_them() -> None:
    lane = at_lane(500)
    lane.ok(Scan("tea", 1))
    lane.ok(Voucher("POINTS"))
    lane.confirm(cash(700))
    ask, reserve = lane.asked(ReserveVouchers)
    lane.tell(ReserveAnswered(ask, reserve.session, ok=False, code="voucher_used", gone=(POINTS,)))
    assert (shown(lane).due_fen, shown(lane).vouchers) == (1200, ())


def test_the_receipt_says_what_the_membership_saved() -> None:
    lane = Lane()
    lane.open()
    lane.identify()
    lane.ok(Scan("tea", 1))
    lane.confirm(cash(400))
    lane.reserve_answer()
    assert lane.session.receipt is not None
    assert "saved 8.00, 8.00 of it as a member" in lane.session.receipt.text
