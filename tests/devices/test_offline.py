"""Selling alone: prices, one benefit from a lease, cash and card; nothing is given twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices import wire
from devices.offline import LEASES_MAX, SALES_MAX, HeldLease, OfflineTill, PriceList
from models.domain.errors import Refused

NOW = datetime(2026, 5, 1, 4, 0, tzinfo=UTC)
PRICES = {
    "version": 3,
    "items": [
        {"code": "rice", "name": "Curry rice", "unit_fen": 1593},
        {"code": "gum", "name": "Gum", "unit_fen": 300},
        {"code": "smokes", "name": "Cigarettes", "unit_fen": 2200, "flags": ["tobacco", "age_18"]},
        {"code": "gold", "name": "Gold bar", "unit_fen": 400_000},
    ],
    "benefits": [{"id": "coupon8", "name": "8-yuan coupon", "value_fen": 800}],
}
LEASE = HeldLease("L1", "m-1", "coupon8", 2, NOW + timedelta(hours=2), member="张*")


def till(*leases: HeldLease) -> OfflineTill:
    one = OfflineTill(PriceList.read(PRICES))
    for lease in leases:
        one = one.hold(lease)
    return one


def refused(code: str) -> Any:
    return pytest.raises(Refused, match=r".", check=lambda error: error.code == code)


def body_of(document: dict[str, Any]) -> wire.SaleBody:
    """As the server reads it."""
    return msgspec.json.decode(msgspec.json.encode(document), type=wire.SaleBody)


def test_cash_is_rounded_down_and_the_sale_adds_up() -> None:
    sold, document = till().scan("rice", 2).scan("gum").sell("cash", NOW, tendered_fen=4000, till_txn="T")
    sale = body_of(document)
    assert (sale.total_fen, sale.tenders[0].fen, sale.tenders[0].tendered_fen) == (3486, 3480, 4000)
    assert sum(line.net_fen for line in sale.lines) == sale.total_fen
    assert (sold.lines, sold.sales, sold.taken_fen) == ((), 1, 3480)
    _, document = till().scan("rice").sell("card", NOW, till_txn="T")
    assert body_of(document).tenders[0].fen == 1593, "only cash is rounded"


def test_a_lease_is_used_once_for_each_sale_and_ends() -> None:
    one = till(LEASE)
    for left in (1, 0):
        one, document = one.scan("rice").give("L1", NOW).sell("card", NOW, till_txn="T")
        assert document["benefits"] == [{"lease": "L1", "membership": "m-1", "benefit": "coupon8", "fen": 800}]
        assert document["tenders"] == [{"kind": "card", "fen": 793}]
        assert one.leases[0].left(NOW) == left
    with refused("lease_over"):
        one.scan("rice").give("L1", NOW)
    fresh = till(LEASE).scan("rice").give("张*", NOW)
    with refused("lease_over"):
        fresh.sell("cash", NOW + timedelta(hours=2), till_txn="T")
    with refused("no_such_lease"):
        till().give("L1", NOW)


def test_a_benefit_never_takes_more_than_what_may_be_discounted() -> None:
    quote = till(LEASE).scan("gum").give("L1", NOW).quote()
    assert (quote.benefits[0].fen, quote.due_fen) == (300, 0)
    only_tobacco = till(LEASE).scan("smokes").give("L1", NOW).quote()
    assert (only_tobacco.benefits, only_tobacco.due_fen) == ((), 2200)
    sold, document = till(LEASE).scan("gum").give("L1", NOW).sell("cash", NOW, till_txn="T")
    assert document["tenders"] == []
    assert sold.leases[0].used == 1


def test_without_a_lease_the_server_classes_it() -> None:
    _, document = till().scan("rice").give_unleased("m-9", "coupon8").sell("cash", NOW, till_txn="T")
    assert body_of(document).benefits[0].lease is None


def test_a_basket_that_shrinks_keeps_an_unused_lease() -> None:
    one = till(LEASE).scan("rice").scan("smokes").give("L1", NOW).remove(1).age_checked(ok=True)
    sold, document = one.sell("cash", NOW, till_txn="T")
    assert document["benefits"] == []
    assert sold.leases[0].used == 0


@pytest.mark.parametrize(
    ("code", "act"),
    [
        ("unknown_item", lambda t: t.scan("caviar")),
        ("bad_quantity", lambda t: t.scan("gum", 0)),
        ("no_such_line", lambda t: t.remove(9)),
        ("unknown_benefit", lambda t: t.give_unleased("m", "coupon9")),
        ("nothing_to_pay", lambda t: t.sell("cash", NOW, till_txn="T")),
        ("tender_unsupported", lambda t: t.scan("gum").sell("face", NOW, till_txn="T")),
        ("tender_short", lambda t: t.scan("gum").sell("cash", NOW, tendered_fen=299, till_txn="T")),
        ("tender_short", lambda t: t.scan("gum").sell("card", NOW, tendered_fen=400, till_txn="T")),
        ("age_check_missing", lambda t: t.scan("smokes").sell("cash", NOW, till_txn="T")),
        ("sale_too_large", lambda t: t.scan("gold", 2).sell("cash", NOW, till_txn="T")),
    ],
)
def test_what_cannot_be_done_says_what_to_do(code: str, act: Any) -> None:
    with refused(code):
        act(till())


def test_an_age_that_was_not_enough_puts_the_goods_back() -> None:
    assert [line.item.code for line in till().scan("smokes").scan("gum").age_checked(ok=False).lines] == ["gum"]
    sold, _ = till().scan("smokes").age_checked(ok=True).sell("cash", NOW, till_txn="T")
    assert not sold.aged, "the next customer is another person"


def test_everything_is_bounded() -> None:
    one = till()
    for n in range(LEASES_MAX):
        one = one.hold(HeldLease(f"L{n}", "m", "coupon8", 1, NOW))
    with refused("leases_full"):
        one.hold(HeldLease("another", "m", "coupon8", 1, NOW))
    assert one.hold(HeldLease("L0", "m", "coupon8", 1, NOW)) is one, "the same lease again changes nothing"
    full = OfflineTill(PriceList.read(PRICES), sales=SALES_MAX).scan("gum")
    with refused("offline_full"):
        full.sell("cash", NOW, till_txn="T")
    assert full.back_online().sell("cash", NOW, till_txn="T")[0].sales == 1


@pytest.mark.parametrize(
    "document",
    [
        {"items": {}},
        {"items": [1]},
        {"items": [{"code": "x", "name": "x"}]},
        {"items": [{"code": "x", "name": "x", "unit_fen": 1.5}]},
        {"items": [{"code": "x", "name": "x", "unit_fen": -1}]},
        {"items": [{"code": "x", "name": "x", "unit_fen": True}]},
        {"items": [{}] * 30_000},
        {"benefits": [{"id": "x", "name": "x"}]},
    ],
)
def test_a_price_list_is_taken_whole_or_not_at_all(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        PriceList.read(document)


def test_a_lease_survives_the_disk() -> None:
    assert HeldLease.read(LEASE.document()) == LEASE


@given(st.lists(st.tuples(st.sampled_from(["rice", "gum", "smokes"]), st.integers(1, 9)), min_size=1, max_size=9))
def test_tenders_and_benefits_are_the_total(bought: list[tuple[str, int]]) -> None:
    one = till(LEASE).age_checked(ok=True).give("L1", NOW)
    for code, quantity in bought:
        one = one.scan(code, quantity)
    for kind in ("cash", "card"):
        _, document = one.sell(kind, NOW, till_txn="T")
        paid = sum(tender["fen"] for tender in document["tenders"])
        off = sum(benefit["fen"] for benefit in document["benefits"])
        rounding = document["total_fen"] - off - paid
        assert 0 <= rounding < (10 if kind == "cash" else 1)
        body_of(document)
