"""A till that collects by itself: benefits are reserved first, what it reports is booked, whatever we think of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from actors.ports import PostUses, ReleaseUses, ReserveUses
from models.domain.events import Confirm, FaceShown, Paid, SessionOpen, Tender, TenderKind, Traits
from models.domain.facts import Incident
from models.domain.messages import ReserveAnswered
from models.tables.facts import sale_transaction
from tests.actors.lane import JPEG, TILL, Lane, cancel, cash
from tests.actors.test_baskets import till_basket

CARD = Tender(TenderKind.CARD, 400)


def till_lane(*, who: bool = True, txn: str = "till-1") -> Lane:
    lane = Lane("pos")
    lane.ok(SessionOpen(txn), terminal=TILL)
    if who:
        lane.identify()
    lane.ok(till_basket(1, 1200, txn=txn), terminal=TILL)
    return lane


def collecting(lane: Lane) -> int:
    """The benefits are reserved, the till collects; returns the revision that was confirmed."""
    rev = lane.session.rev
    event = lane.later(Confirm(rev, (), "till"), terminal=TILL)
    lane.reserve_answer()
    assert lane.replies[event].ok
    assert (lane.state, lane.prompt) == ("paying", "collect_at_till")
    assert lane.screen is not None
    assert set(lane.screen.actions) == {"cancel", "paid"}
    return rev


def test_confirm_then_paid() -> None:
    lane = till_lane()
    rev = collecting(lane)
    lane.refused(till_basket(2, 100), "lane_busy")
    lane.ok(Paid("till-1", rev, (CARD,)), terminal=TILL)
    (sale,) = lane.sales
    assert (sale.due_fen, sale.discount_fen, sale.suspense_fen, sale.till_txn) == (400, 800, 0, "till-1")
    assert (sale.tenders[0].kind, sale.tenders[0].order) == (TenderKind.CARD, "")
    post = lane.asked(PostUses)[1]
    assert (post.uses, post.unreserved) == (sale.uses, False)
    assert lane.state == "paid"
    lane.nobody_waits()


def test_coupon_tenders_mean_the_same_as_line_adjustments() -> None:
    lane = till_lane()
    rev = collecting(lane)
    lane.ok(Paid("till-1", rev, (CARD, Tender(TenderKind.COUPON, 800))))
    (sale,) = lane.sales
    assert (sale.due_fen, sale.discount_fen, sale.suspense_fen) == (400, 800, 0)


def test_paid_twice_is_booked_once() -> None:
    lane = till_lane()
    rev = collecting(lane)
    lane.ok(Paid("till-1", rev, (CARD,)))
    lane.ok(Paid("till-1", rev, (CARD,)))
    lane.ok(Paid("other", 1, (CARD,)))  # in between another customer's
    lane.ok(Paid("till-1", rev, (CARD,)))
    lane.ok(Paid("other", 1, (CARD,)))
    assert [sale.till_txn for sale in lane.sales] == ["till-1", "other"]
    assert len([ask for ask in lane.asks if isinstance(ask.request, PostUses)]) == 1
    lane.after(31)
    assert lane.state == "closed"
    lane.ok(Paid("till-1", rev, (CARD,)))
    assert len(lane.sales) == 2


def test_paid_without_a_reservation_is_booked_as_reported() -> None:
    lane = till_lane()
    lane.ok(Paid("till-1", lane.session.rev, (CARD,)))
    (sale,) = lane.sales
    assert (sale.due_fen, sale.suspense_fen) == (400, 0)
    post = lane.asked(PostUses)[1]
    assert (post.uses, post.unreserved) == (sale.uses, True)


def test_paid_with_a_stale_revision_is_booked_as_reported() -> None:
    lane = till_lane()
    rev = collecting(lane)
    lane.ok(Paid("till-1", rev - 1, (Tender(TenderKind.CARD, 1200),)))
    (sale,) = lane.sales
    assert (sale.due_fen, sale.suspense_fen) == (400, 800), "what the till took too much waits to be matched"
    assert lane.asked(PostUses)[1].unreserved


def test_paid_for_an_unknown_transaction_is_suspense() -> None:
    lane = Lane("pos")
    lane.ok(Paid("ghost", 1, (cash(1850, 2000),)), terminal=TILL)
    (sale,) = lane.sales
    assert (sale.due_fen, sale.suspense_fen, sale.lines, sale.uses) == (0, 1850, (), ())
    assert sale.tenders[0].change_fen == 150
    assert lane.state == "closed"
    assert lane.asks == []


def test_paid_of_another_customer_leaves_this_one_alone() -> None:
    lane = till_lane()
    before = lane.session
    lane.ok(Paid("ghost", 1, (CARD,)))
    assert lane.sales[0].suspense_fen == 400
    assert (lane.session.id, lane.session.lines, lane.session.state) == (before.id, before.lines, before.state)


def test_a_till_that_is_quicker_than_the_reservation() -> None:
    lane = till_lane()
    rev = lane.session.rev
    event = lane.later(Confirm(rev, (), "till"))
    lane.ok(Paid("till-1", rev, (CARD,)))
    assert lane.replies[event].ok
    (sale,) = lane.sales
    post = lane.asked(PostUses)[1]
    assert (sale.suspense_fen, post.uses, post.unreserved) == (0, sale.uses, True)
    lane.reserve_answer()
    assert lane.state == "paid"
    assert len(lane.sales) == 1
    lane.nobody_waits()


def test_cancel_gives_the_reservation_back() -> None:
    lane = till_lane()
    rev = lane.session.rev
    lane.later(Confirm(rev, (), "till"))
    ask, reserve = lane.asked(ReserveUses)
    lane.tell(ReserveAnswered(ask, reserve.session, True))
    reply = cancel(lane)
    assert reply is not None
    assert reply.ok
    assert lane.asked(ReleaseUses)[1].uses == reserve.uses
    assert lane.state == "quoted"


def test_a_silent_till_does_not_hold_the_lane_for_ever() -> None:
    lane = till_lane()
    rev = collecting(lane)
    lane.refused(SessionOpen("till-2"), "lane_busy")
    lane.after(601)
    assert lane.asked(ReleaseUses)
    assert lane.state in ("quoted", "closed")
    lane.ok(SessionOpen("till-2"))
    lane.ok(Paid("till-1", rev, (CARD,)))
    assert lane.sales[-1].suspense_fen == 400, "the money that it reports later is not lost"
    assert lane.sales[-1].session == "", "and is not told to be the next customer's"


def test_a_late_paid_after_silence_still_finds_its_basket() -> None:
    lane = till_lane()
    rev = collecting(lane)
    while lane.session.payment is not None:
        lane.after(60)
    assert lane.state == "quoted"
    lane.ok(Paid("till-1", rev, (CARD,)))
    (sale,) = lane.sales
    assert (sale.due_fen, sale.suspense_fen) == (400, 0)


def test_paid_is_never_refused() -> None:
    lane = till_lane(who=False)
    lane.consent()
    event = lane.later(FaceShown(JPEG, "frame"))
    lane.ok(Paid("till-1", 1, (Tender(TenderKind.CARD, 1200),)))
    assert lane.state == "paid"
    lane.after(3)
    assert event in lane.replies
    lane.after(60)
    assert lane.state == "closed"
    lane.nobody_waits()


def test_the_same_number_over_another_amount_is_other_money() -> None:
    lane = till_lane()
    rev = collecting(lane)
    lane.ok(Paid("till-1", rev, (CARD,)))
    other = Paid("till-1", rev, (Tender(TenderKind.CARD, 777),))
    lane.ok(other)
    lane.ok(other)
    lane.ok(Paid("till-1", rev, (CARD,)))
    assert [(sale.due_fen, sale.suspense_fen) for sale in lane.sales] == [(400, 0), (0, 777)]
    assert [fact.kind for fact in lane.facts if isinstance(fact, Incident)] == ["paid_again", "takings_without_order"]
    lane.session = replace(lane.session, paid_txns=())
    lane.ok(other)
    assert lane.sales[-1].id == lane.sales[1].id, "forgotten by the lane, the database still knows the number"


def coupon_till() -> Lane:
    """A till that takes no line adjustments, with a member's basket of 12.00 that costs 4.00."""
    lane = till_lane()
    assert lane.screen is not None
    assert (lane.screen.due_fen, lane.screen.discount_fen) == (400, 800)
    return lane


NO_LINES = Traits(takes_line_adjustments=False)
COUPON = Tender(TenderKind.COUPON, 800)


def test_a_till_without_line_adjustments_shows_the_benefit_as_a_coupon() -> None:
    lane = coupon_till()
    event = lane.send(Confirm(lane.session.rev, (cash(400, 1000), COUPON)), traits=NO_LINES, terminal=TILL)
    assert event is None
    lane.reserve_answer()
    (sale,) = lane.sales
    assert (sale.gross_fen, sale.discount_fen, sale.due_fen, sale.suspense_fen) == (1200, 800, 400, 0)
    assert [(tender.kind, tender.fen) for tender in sale.tenders] == [(TenderKind.CASH, 400), (TenderKind.COUPON, 800)]
    post = lane.asked(PostUses)[1]
    assert (post.paid_fen, post.uses) == (400, sale.uses), "a coupon is no money"
    assert lane.screen is not None
    assert lane.screen.cash_due_fen == 400
    assert sale_transaction(sale).entries[0].amount_fen == 400
    assert sum(entry.amount_fen for entry in sale_transaction(sale).entries) == 0


def test_cash_is_rounded_beside_a_coupon() -> None:
    lane = Lane("pos")
    lane.ok(SessionOpen("till-1"), terminal=TILL)
    lane.identify()
    lane.ok(till_basket(1, 1207), terminal=TILL)
    lane.send(Confirm(lane.session.rev, (cash(400), COUPON)), traits=NO_LINES, terminal=TILL)
    lane.reserve_answer()
    (sale,) = lane.sales
    assert (sale.due_fen, sale.rounding_fen, sale.suspense_fen) == (407, 7, 0)


@pytest.mark.parametrize(
    ("tenders", "traits", "code"),
    [
        ((cash(400),), NO_LINES, "coupon_mismatch"),
        ((cash(400), Tender(TenderKind.COUPON, 799)), NO_LINES, "coupon_mismatch"),
        ((cash(1200),), NO_LINES, "coupon_mismatch"),
        ((cash(1200), COUPON), NO_LINES, "tender_mismatch"),
        ((cash(400), COUPON), Traits(), "coupon_mismatch"),
    ],
)
def test_coupons_are_exactly_the_discount(tenders: tuple[Tender, ...], traits: Traits, code: str) -> None:
    lane = coupon_till()
    reply = lane.send(Confirm(lane.session.rev, tenders), traits=traits, terminal=TILL)
    assert reply is not None
    assert reply.error is not None
    assert reply.error.code == code
    assert lane.sales == []


def test_a_till_that_counts_from_one_each_morning_loses_no_sale() -> None:
    lane = till_lane(who=False)
    lane.ok(Paid("till-1", collecting_without_benefits(lane), (Tender(TenderKind.CARD, 1200),)), terminal=TILL)
    lane.now += timedelta(days=1)
    lane.ok(SessionOpen("till-1"), terminal=TILL)
    lane.ok(till_basket(1, 1200, txn="till-1"), terminal=TILL)
    lane.ok(Paid("till-1", collecting_without_benefits(lane), (Tender(TenderKind.CARD, 1200),)), terminal=TILL)
    assert len({sale.id for sale in lane.sales}) == 2


def collecting_without_benefits(lane: Lane) -> int:
    """Nobody is known: nothing to reserve, the till collects at once."""
    rev = lane.session.rev
    lane.ok(Confirm(rev, (), "till"), terminal=TILL)
    assert lane.prompt == "collect_at_till"
    return rev
