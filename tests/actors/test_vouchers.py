"""Vouchers at a lane: entered, shown, reserved, paid, given back; and in what returns and offline sales say of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from actors.ports import FindSale, PostVouchers, ReleaseVouchers, ReserveUses, ReserveVouchers, ReturnVouchers
from models.domain.benefits import Scope
from models.domain.book import StoreBook
from models.domain.events import (
    Amount,
    Cancel,
    Claim,
    OfflineSale,
    Return,
    ReturnLine,
    SaleVoucherClaim,
    Scan,
    TillLine,
    Void,
    Voucher,
)
from models.domain.facts import Incident
from models.domain.ids import LegalEntityId, VoucherId
from models.domain.messages import ReserveAnswered, SaleFound
from models.domain.screen import Screen
from models.domain.voucher_reader import code_key
from models.domain.vouchers import Voucher as Definition
from models.tables.facts import sale_transaction
from tests.actors.lane import NOW, Lane, book, cash
from tests.domain.baskets import voucher

FIVE = voucher("five", value_fen=500, threshold_fen=2000)
TENTH = voucher("tenth", basis_points=1000, member_quota=1)
TEA_ONLY = voucher("tea-only", value_fen=100, scope=Scope(items=frozenset({"tea"})), offered=True)
OLD = voucher("old", valid_until=NOW)
SOON = voucher("soon", valid_from=NOW + timedelta(hours=1))
ELSEWHERE = voucher("elsewhere", scope=Scope(stores=frozenset({"s9"})))
MONDAYS = voucher("mondays", scope=Scope(weekdays=frozenset({1})))
OWN = voucher("own", value_fen=300, funder=LegalEntityId("franchisee"))


def store(*definitions: Definition, **changes: Any) -> StoreBook:
    plain = book(**changes)
    return replace(
        plain, chain_book=replace(plain.chain_book, vouchers={code_key(one.code): one for one in definitions})
    )


EVERY = store(FIVE, TENTH, TEA_ONLY, OLD, SOON, ELSEWHERE, MONDAYS, OWN)


def at_lane(used: StoreBook = EVERY) -> Lane:
    lane = Lane()
    lane.book = used
    return lane


def shop(*codes: str) -> Lane:
    """A customer with two teas (24.00) and these vouchers."""
    lane = at_lane()
    lane.ok(Scan("tea", 2))
    for code in codes:
        lane.ok(Voucher(code))
    return lane


def shown(lane: Lane) -> Screen:
    assert lane.screen is not None
    return lane.screen


def pay(lane: Lane) -> None:
    lane.confirm(cash(shown(lane).cash_due_fen))
    ask, request = lane.asked(ReserveVouchers)
    lane.tell(ReserveAnswered(ask, request.session, ok=True))


def test_a_voucher_is_shown_with_why_and_paid_as_shown() -> None:
    lane = shop("five")
    screen = shown(lane)
    assert (screen.due_fen, screen.discount_fen) == (1900, 500)
    assert [(one.code, one.discount_fen, one.why) for one in screen.vouchers] == [("FIVE", 500, "5.00 off")]
    assert screen.lines[0].why == "voucher: five"
    assert screen.prompt is not None
    assert (screen.prompt.code, screen.prompt.params["saves"]) == ("voucher_added", "5.00")
    pay(lane)
    (sale,) = lane.sales
    assert (sale.due_fen, sale.discount_fen, lane.state) == (1900, 500, "paid")
    assert [(one.voucher, one.fen, one.funder, one.lines) for one in sale.vouchers] == [
        ("five", 500, "chain", ((1, 500),))
    ]
    posted = lane.asked(PostVouchers)[1]
    assert posted.vouchers == sale.vouchers
    assert posted.sale == sale.id


def test_a_voucher_may_come_before_the_goods_and_waits_for_its_threshold() -> None:
    lane = at_lane()
    lane.ok(Scan("tea", 1))
    lane.ok(Voucher(" five "))  # as it is typed
    assert lane.prompt == "voucher_waits"
    assert [(one.discount_fen, one.why) for one in shown(lane).vouchers] == [(0, "8.00 short of its threshold")]
    lane.ok(Scan("tea", 1))
    assert shown(lane).due_fen == 1900


@pytest.mark.parametrize(
    ("code", "refused"),
    [
        ("nobody", "unknown_voucher"),
        ("old", "voucher_over"),
        ("soon", "voucher_not_yet"),
        ("elsewhere", "voucher_not_here"),
        ("mondays", "voucher_not_now"),  # the first of May 2026 is a Friday
        ("tenth", "voucher_members"),
        ("five", "voucher_entered"),
    ],
)
def test_what_cannot_be_entered_is_refused_and_says_why(code: str, refused: str) -> None:
    lane = shop("five")
    lane.refused(Voucher(code), refused)


def test_an_offered_coupon_is_claimed() -> None:
    lane = shop()
    offer = next(one for one in shown(lane).offers if one.kind == "voucher")
    assert (offer.id, offer.saves_now_fen) == ("tea-only", 100)
    assert "claim" in shown(lane).actions
    lane.ok(Claim("tea-only"))
    assert shown(lane).due_fen == 2300
    assert not [one for one in shown(lane).offers if one.kind == "voucher"]
    lane.refused(Claim("five"), "unknown_offer")
    lane.refused(Claim("light-10"), "not_claimable")


def test_a_voucher_that_is_used_up_at_confirm_is_left_out_and_the_price_shown_anew() -> None:
    lane = shop("five", "own")
    assert shown(lane).due_fen == 1600
    lane.confirm(cash(shown(lane).cash_due_fen))
    ask, request = lane.asked(ReserveVouchers)
    lane.tell(ReserveAnswered(ask, request.session, ok=False, code="voucher_used", gone=(VoucherId("five"),)))
    assert (lane.state, shown(lane).due_fen, lane.prompt) == ("quoted", 2100, "price_changed")
    pay(lane)
    assert lane.sales[0].due_fen == 2100


def test_vouchers_first_then_the_benefit_and_both_given_back() -> None:
    lane = at_lane()
    lane.open()
    lane.identify()
    lane.ok(Scan("tea", 1))
    lane.ok(Voucher("own"))
    assert shown(lane).due_fen == 100  # 12.00 less 3.00 less 8.00
    lane.confirm(cash(shown(lane).cash_due_fen))
    ask, request = lane.asked(ReserveVouchers)
    assert request.member is not None
    lane.tell(ReserveAnswered(ask, request.session, ok=True))
    ask, uses = lane.asked(ReserveUses)
    lane.tell(ReserveAnswered(ask, uses.session, ok=False, code="benefit_gone"))
    assert lane.asked(ReleaseVouchers)[1].vouchers == request.vouchers


def test_cancelling_at_the_till_gives_the_vouchers_back() -> None:
    lane = shop("five")
    lane.confirm(collect="till")
    ask, request = lane.asked(ReserveVouchers)
    lane.tell(ReserveAnswered(ask, request.session, ok=True))
    lane.send(Cancel())
    assert lane.asked(ReleaseVouchers)[1].vouchers == request.vouchers
    assert shown(lane).due_fen == 1900, "still entered: the customer may pay another way"


def found(lane: Lane, ask: str) -> SaleFound:
    sale = lane.sales[0]
    return SaleFound(
        ask, sale.id, sale.receipt, sale.store, sale.business_date, gross_fen=sale.gross_fen,
        discount_fen=sale.discount_fen, tenders=sale.tenders, uses=sale.uses, entity=sale.entity, lines=sale.lines,
        vouchers=sale.vouchers,
    )  # fmt: skip


def test_a_void_returns_all_of_a_voucher_and_a_return_its_share() -> None:
    for body, back_fen in ((Void, 500), (Return, 250)):
        lane = shop("five")
        pay(lane)
        receipt = lane.sales[0].receipt
        lane.send(Void(receipt) if body is Void else Return(receipt, (ReturnLine(1, 1),), "cold"))
        ask, _ = lane.asked(FindSale)
        lane.tell(found(lane, ask))
        returned = lane.asked(ReturnVouchers)[1]
        assert [(one.voucher, one.fen) for one in returned.vouchers] == [("five", back_fen)]


def test_who_bears_a_voucher_is_named_in_the_ledger() -> None:
    lane = shop("five", "own")
    pay(lane)
    (sale,) = lane.sales
    legs = {(leg.entity, leg.account): leg.amount_fen for leg in sale_transaction(sale).entries if leg.amount_fen}
    assert legs[("franchisee", "sales_gross:s1")] == -2400
    assert legs[("chain", "subsidy:chain")] == 500
    assert legs[("franchisee", "due_from:chain")] == 500
    given = [leg.amount_fen for leg in sale_transaction(sale).entries if leg.account == "discount_given:s1"]
    assert sum(given) == 300, "the store itself bears its own voucher only"


def test_a_sale_made_offline_says_which_vouchers_it_took() -> None:
    lane = at_lane(store(FIVE, basket_owner="pos"))
    goods = (TillLine(1, "tea", "Tea", 2, 1200, 2400), TillLine(2, "roll", "Roll", 1, 600, 600))
    claims = (SaleVoucherClaim("five", 500), SaleVoucherClaim("no-book-has-it", 100))
    lane.send(OfflineSale(goods, (cash(2400),), 3000, (), "t-1", claims), sold_at=NOW)
    (sale,) = lane.sales
    assert (sale.discount_fen, sale.due_fen, sale.suspense_fen) == (600, 2400, 0)
    assert [(one.voucher, one.fen, one.funder) for one in sale.vouchers] == [
        ("five", 500, "chain"),
        ("NO-BOOK-HAS-IT", 100, "franchisee"),
    ]
    by_line = [dict(one.lines) for one in sale.vouchers]
    assert [sum(shares.get(line.line, 0) for shares in by_line) for line in sale.lines] == [
        line.discount_fen for line in sale.lines
    ]
    assert "voucher_unknown" in [fact.kind for fact in lane.facts if isinstance(fact, Incident)]
    assert lane.asked(PostVouchers)[1].vouchers == sale.vouchers


def test_an_amount_takes_only_vouchers_that_name_no_goods() -> None:
    lane = at_lane(store(FIVE, TEA_ONLY, basket_owner="none"))
    lane.send(Amount("t", 2400))
    lane.refused(Voucher("tea-only"), "voucher_not_here")
    lane.ok(Voucher("five"))
    assert shown(lane).due_fen == 1900
