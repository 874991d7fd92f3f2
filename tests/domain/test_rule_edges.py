"""Edges of returns, receipts, reconciliation, points, drawers and taxes that no story comes by."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from models.domain.differences import Carried, Explained, FeeTerms, Verdict, examine, key_of
from models.domain.drawer_postings import drawer_counted, paid_from
from models.domain.drawers import require_amount, require_reason
from models.domain.errors import Refused
from models.domain.events import ReturnLine, TenderKind
from models.domain.facts import SaleMade, SaleReturned, SaleVoided
from models.domain.ids import (
    BenefitId,
    LaneId,
    LegalEntityId,
    MembershipId,
    SaleId,
    SessionId,
    StoreId,
    TerminalId,
    UsageId,
    VoucherId,
)
from models.domain.ledger import Entry, Place, Transaction
from models.domain.messages import PastReturn, ReturnedLine, SaleFound, SaleTender, SaleUse, SaleVoucher
from models.domain.periods import Days, Months, last_day
from models.domain.points import MoveKind, PointsPolicy, earning_lines, pay_with, points_voucher, reversed_points
from models.domain.points_ledger import points_moved
from models.domain.pricing import BasketLine, price
from models.domain.receipts import (
    GENESIS,
    FaultKind,
    Kept,
    Receipt,
    Verifier,
    canonical,
    kept_from_row,
    link_faults,
    receipt_of,
    verify,
)
from models.domain.reconciliation import LineKind, StatementTotals, totals_of
from models.domain.returns import Back, bring_back, cash_out_fen, in_cash
from models.domain.screen import ScreenLine
from models.domain.taxes import DEFAULT_TAXES, read_taxes, tax_of
from tests.domain.test_points import move
from tests.domain.test_receipts import chain
from tests.domain.test_reconciliation import DAY, RIPE, TERMS, TOMORROW, mine, theirs

AT = datetime(2026, 5, 1, 4, tzinfo=UTC)
OWNER = LegalEntityId("hq")


def again(word: str) -> Any:
    """An equal word that is another object, as a database hands it out."""
    return "".join(list(word))


# ---------------------------------------------------------------- returns


@pytest.mark.parametrize("kind", TenderKind)
def test_only_cash_is_handed_out_rounded_and_only_cash_comes_out_of_the_drawer(kind: TenderKind) -> None:
    tender = SaleTender(kind, 123, payer_fen=120)
    assert cash_out_fen(tender) == (120 if kind is TenderKind.CASH else 123)
    assert Back((), (tender,), (), 123, 0, 0, 0).cash_fen == (120 if kind is TenderKind.CASH else 0)


def test_cash_in_the_place_of_one_tender_leaves_the_others() -> None:
    promoted = [SaleTender(TenderKind.FACE, 500, order, "t", payer_fen=400) for order in ("P1", "P3")]
    back = Back((), (promoted[0], SaleTender(TenderKind.FACE, 123, "P2", "t"), promoted[1]), (), 1123, 0, 0, 0)
    found = in_cash(back, again("P2"))
    assert found is not None
    assert found.tenders == (promoted[0], SaleTender(TenderKind.CASH, 123, payer_fen=120), promoted[1])
    assert in_cash(back, again("P3")) is None, "the customer paid less than it is worth"


def two_cups(tenders: tuple[SaleTender, ...], rounding_fen: int = 0) -> SaleFound:
    """Two cups for 28.00 less 8.01: 19.99 are due."""
    return SaleFound(
        "q", SaleId("s"), "r", gross_fen=2800, discount_fen=801, rounding_fen=rounding_fen, tenders=tenders,
        lines=(ScreenLine(1, "cup", "", 2, 1400, 801, 1999),),
    )  # fmt: skip


def one_of(sale: SaleFound, quantity: int = 1) -> tuple[int, int, int]:
    """What is given back, rounding and suspense."""
    back = bring_back(sale, [ReturnLine(1, quantity)])
    return back.given_fen, back.rounding_fen, back.suspense_fen


@pytest.mark.parametrize("kind", [kind for kind in TenderKind if kind not in {TenderKind.CASH, TenderKind.COUPON}])
def test_nothing_but_cash_is_rounded(kind: TenderKind) -> None:
    assert one_of(two_cups((SaleTender(kind, 1999, "P1"),))) == (999, 0, 0)
    assert one_of(two_cups((SaleTender(TenderKind.CASH, 999), SaleTender(kind, 1000, "P1")))) == (999, 0, 0)


@pytest.mark.parametrize(
    ("cash_fen", "rounding_fen", "one", "both"),
    [
        (1990, 9, (990, 9, 0), (1990, 9, 0)),
        (1999, 0, (990, 9, 0), (1999, 0, 0)),
        (2490, 9, (990, 9, 0), (1990, 9, 0)),
        (1980, 0, (999, 0, 0), (1980, 0, -19)),
    ],
    ids=["rounded", "to the fen", "too much", "too little"],
)
def test_cash_goes_back_rounded_and_all_of_it_with_the_last_piece(
    cash_fen: int, rounding_fen: int, one: tuple[int, int, int], both: tuple[int, int, int]
) -> None:
    sale = two_cups((SaleTender(TenderKind.CASH, cash_fen),), rounding_fen)
    assert (one_of(sale), one_of(sale, 2)) == (one, both)


def voucher(name: str, *lines: tuple[int, int]) -> SaleVoucher:
    return SaleVoucher(UsageId(name), VoucherId(name), sum(fen for _, fen in lines), OWNER, lines)


def test_a_lines_discount_is_shared_by_whoever_gave_it_and_once() -> None:
    """Three pieces with a fen off of each of two vouchers and the light benefit; another line of one voucher alone."""
    sale = SaleFound(
        "q", SaleId("s"), "r", gross_fen=800, discount_fen=53, tenders=(SaleTender(TenderKind.CARD, 747),),
        uses=(SaleUse(UsageId("u"), MembershipId("m"), BenefitId("b"), 1),),
        lines=(ScreenLine(1, "cup", "", 3, 100, 3, 297), ScreenLine(2, "tea", "", 1, 500, 50, 450)),
        vouchers=(voucher("v1", (1, 1)), voucher("v2", (1, 1), (2, 50))),
    )  # fmt: skip
    given = []
    for asked in ([ReturnLine(1, 1)], [ReturnLine(1, 1), ReturnLine(2, 1)], [ReturnLine(1, 1)]):
        back = bring_back(sale, asked)
        given.append(([(one.voucher, one.lines) for one in back.vouchers], [one.fen for one in back.uses]))
        sale = replace(sale, returns=(*sale.returns, PastReturn(back.lines, back.tenders, back.uses, back.vouchers)))
    assert given == [([("v1", ((1, 1),))], []), ([("v2", ((1, 1), (2, 50)))], []), ([], [1])]


def test_the_light_benefit_gives_back_its_part_alone() -> None:
    sale = replace(
        two_cups((SaleTender(TenderKind.CARD, 1999),)),
        uses=(SaleUse(UsageId("u"), MembershipId("m"), BenefitId("b"), 600),), vouchers=(voucher("v1", (1, 201)),),
    )  # fmt: skip
    back = bring_back(sale, [ReturnLine(1, 1)])
    assert ([one.fen for one in back.vouchers], [one.fen for one in back.uses]) == ([100], [300])


def test_a_period_counts_once_unless_it_is_said() -> None:
    assert last_day(Days(30), date(2026, 1, 1)) == date(2026, 1, 31)
    assert last_day(Months(1), date(2026, 1, 31)) == date(2026, 2, 28)


# ---------------------------------------------------------------- receipts

SALE = SaleMade(
    SaleId("S1"), "R1", SessionId("v"), StoreId("s1"), LaneId("l1"), TerminalId("t1"), "anna", LegalEntityId("north"),
    "2026-05-01", AT, None, None, 1000, 100, 900, 0, 0, 0, (ScreenLine(1, "tea", "茶", 2, 500, 100, 900, "coupon"),),
    (SaleTender(TenderKind.FACE, 900, "P1", "trade", provider="alipay"),),
    (SaleUse(UsageId("u1"), MembershipId("m1"), BenefitId("b1"), 60),), "T7",
    vouchers=(voucher("v1", (1, 40)),),
)  # fmt: skip
SALE_SAYS: dict[str, Any] = {
    "id": "S1", "receipt": "R1", "store": "s1", "lane": "l1", "terminal": "t1", "clerk": "anna", "entity": "north",
    "till_txn": "T7", "gross_fen": 1000, "discount_fen": 100, "due_fen": 900, "rounding_fen": 0, "suspense_fen": 0,
    "agency_fen": 0, "kind": "sale", "at": "2026-05-01T04:00:00+00:00",
    "lines": [{"line": 1, "code": "tea", "name": "茶", "quantity": 2, "unit_fen": 500, "discount_fen": 100,
               "net_fen": 900}],
    "tenders": [{"kind": "face", "fen": 900, "order": "P1", "tendered_fen": None, "change_fen": None}],
    "uses": [{"usage": "u1", "benefit": "b1", "fen": 60}],
    "vouchers": [{"use": "v1", "voucher": "v1", "fen": 40}],
}  # fmt: skip
BACK = SaleReturned(
    "B1", SaleId("S1"), 0, StoreId("s1"), LaneId("l1"), TerminalId("t1"), None, LegalEntityId("north"), "2026-05-02",
    AT, 450, 50, 0, 0, (ReturnedLine(1, 1, 450, 50),), (), (), "damaged",
)  # fmt: skip
BACK_SAYS: dict[str, Any] = {
    "id": "B1", "sale": "S1", "n": 0, "store": "s1", "lane": "l1", "terminal": "t1", "clerk": None, "entity": "north",
    "due_fen": 450, "discount_fen": 50, "rounding_fen": 0, "suspense_fen": 0, "reason": "damaged", "kind": "return",
    "at": "2026-05-01T04:00:00+00:00", "lines": [{"line": 1, "quantity": 1, "discount_fen": 50, "net_fen": 450}],
    "tenders": [], "uses": [], "vouchers": [],
}  # fmt: skip
VOID = SaleVoided("V1", SaleId("S1"), StoreId("s1"), TerminalId("t1"), AT, "2026-05-01")
VOID_SAYS: dict[str, Any] = {
    "id": "V1", "sale": "S1", "store": "s1", "terminal": "t1", "kind": "void", "at": "2026-05-01T04:00:00+00:00",
}  # fmt: skip


@pytest.mark.parametrize(("fact", "says"), [(SALE, SALE_SAYS), (BACK, BACK_SAYS), (VOID, VOID_SAYS)])
def test_a_receipt_says_the_same_from_the_fact_and_from_its_row(
    fact: SaleMade | SaleReturned | SaleVoided, says: dict[str, Any]
) -> None:
    made = receipt_of(fact)
    assert json.loads(made.content) == says
    assert (made.id, made.kind, made.store, made.at) == (fact.id, says["kind"], "s1", AT)
    row = {name: value for name, value in says.items() if name not in {"id", "store", "kind"}}
    assert kept_from_row("s1", says["kind"], fact.id, row) == made
    if "lines" in row:
        bare = kept_from_row("s1", says["kind"], fact.id, {**row, "lines": None, "uses": None})
        assert json.loads(bare.content) == {**says, "lines": [], "uses": []}


def details(chained: list[Kept]) -> list[tuple[FaultKind, int, str]]:
    return [(one.kind, one.n, one.detail) for one in verify(chained).faults]


def test_a_gap_names_the_numbers_that_are_not_there() -> None:
    whole = chain(260)
    assert verify(whole).faults == []
    assert details(whole[:2] + whole[3:]) == [(FaultKind.MISSING, 3, "receipt 3 is missing before r4")]
    assert details(whole[:1] + whole[4:]) == [(FaultKind.MISSING, 2, "receipt 2 to 4 is missing before r5")]
    assert details(whole[:257] + whole[258:]) == [(FaultKind.MISSING, 258, "receipt 258 is missing before r259")]
    assert details([*whole[:3], whole[1]])[0][:2] == (FaultKind.MISSING, 4), "a number that was there already"


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        ({"kind": again("sale"), "at": datetime.fromisoformat("2026-01-01T00:01:00+00:00")}, False),
        ({"kind": "return"}, True),
        ({"kind": "void"}, True),
        ({"at": datetime(2026, 1, 1, 0, 0, tzinfo=UTC)}, True),
        ({"at": datetime(2026, 1, 1, 0, 2, tzinfo=UTC)}, True),
    ],
)
def test_a_receipt_of_another_kind_or_time_is_changed(changes: dict[str, Any], changed: bool) -> None:
    (kept,) = chain(1)
    assert kept.link is not None
    other = Kept(replace(kept.link, **changes), kept.receipt)
    assert [one.kind for one in link_faults(GENESIS, other)] == [FaultKind.CHANGED] * changed


@pytest.mark.parametrize("noted", [bytes(32), b"\xff" * 32, None])
def test_a_noted_head_is_the_one_or_it_is_not(noted: bytes | None) -> None:
    (kept,) = chain(1)
    assert kept.link is not None
    verifier = Verifier()
    verifier.watch(1, bytes(bytearray(kept.link.sha256)) if noted is None else noted)
    verifier.feed(kept)
    assert [one.kind for one in verifier.faults] == [FaultKind.OUT_OF_PLACE] * (noted is not None)
    assert link_faults(hashlib.sha256(b"").digest(), kept)[0].kind is FaultKind.OUT_OF_PLACE


def test_a_thousand_faults_are_kept_and_all_are_counted() -> None:
    stray = Kept(None, Receipt("r", "sale", "s1", AT, canonical({})))
    verifier = verify([stray] * 1002)
    assert (len(verifier.faults), verifier.faults_total, verifier.receipts) == (1000, 1002, 0)
    assert verifier.faults[0].n == 0


# ---------------------------------------------------------------- reconciliation


def test_the_fee_that_was_agreed() -> None:
    assert FeeTerms(60).bounds(LineKind.PAYMENT, 10_000_000) == (60_000, 60_000)
    assert FeeTerms(60).bounds(LineKind.PAYMENT, 1001) == (6, 7)
    assert FeeTerms(60).bounds(LineKind.REFUND, 1000) == (-6, 0)
    assert FeeTerms().bounds(LineKind.PAYMENT, 1000) == (0, 0)


@pytest.mark.parametrize("fee_fen", [5, 7])
def test_a_fee_that_is_too_low_is_no_match_either(fee_fen: int) -> None:
    found = examine(DAY, TOMORROW, [theirs("P1", 1000, fee_fen)], [mine("P1", 1000)], terms=TERMS)
    assert (found.matched, [one.difference_fen for one in found.findings]) == (0, [6 - fee_fen])


@pytest.mark.parametrize(("days", "verdict"), [(1, Verdict.TIMING), (2, Verdict.TIMING), (3, Verdict.PROVIDER_ONLY)])
def test_two_days_may_pass(days: int, verdict: Verdict) -> None:
    found = examine(DAY, DAY + timedelta(days=days), [theirs("P1", 1000)], [])
    assert [one.verdict for one in found.findings] == [verdict]


def test_the_oldest_that_waits_is_met_first() -> None:
    key = (LineKind.PAYMENT, "P1", "")
    carried = [Carried(key, DAY - timedelta(days=n), 0, 1000) for n in (3, 9, 5)]
    found = examine(DAY, RIPE, [theirs("P1", 1000), theirs("P1", 1000)], [], carried=carried)
    assert [one.pair_day for one in found.findings] == [DAY - timedelta(days=9), DAY - timedelta(days=5)]


def test_what_explains_itself_as_reversed_and_what_does_not() -> None:
    paid, gone = theirs("P1", 1000), theirs("P1", 1000, kind=LineKind.REFUND, request="R1")

    def explained(lines: list[Any], ours: list[Any], **more: Any) -> list[tuple[Verdict, Explained]]:
        return [(one.verdict, one.explained) for one in examine(DAY, RIPE, lines, ours, **more).findings]

    reversed_one = (Verdict.PROVIDER_ONLY, Explained.REVERSED)
    fee = (Verdict.FEE, Explained.NOT)
    assert explained([replace(paid, fee_fen=9), gone], [], terms=TERMS) == [fee, reversed_one, reversed_one]
    assert explained([paid, gone], [], seen={key_of(paid)}) == [reversed_one] * 2, "a duplicate that went back"
    assert explained([paid, gone], [mine("P1", -900, "R1")]) == [
        (Verdict.PROVIDER_ONLY, Explained.NOT),
        (Verdict.AMOUNT, Explained.NOT),
    ]
    assert explained([theirs("P1", 0)], []) == [(Verdict.PROVIDER_ONLY, Explained.NOT)]


def test_a_statements_totals_are_counted_by_kind() -> None:
    refund = theirs("P1", 400, -2, LineKind.REFUND)
    assert totals_of([theirs("P1", 1000, 6), theirs("P2", 50), refund]) == StatementTotals(2, 1, 1050, 400, 4)
    assert totals_of([]) == StatementTotals(0, 0, 0, 0, 0)


# ---------------------------------------------------------------- points


def test_a_points_rule_within_its_bounds() -> None:
    rule = PointsPolicy("sun", OWNER)
    assert (rule.fen_per_point, rule.expires_days, points_voucher(rule).value_fen) == (100, 365, 1)
    assert [replace(rule, expires_days=days).expires_days for days in (1, 36_500)] == [1, 36_500]
    assert replace(rule, fen_per_point=1).fen_per_point == 1
    wrong: list[dict[str, Any]] = [{"expires_days": 0}, {"expires_days": 36_501}, {"fen_per_point": 0}]
    for changes in wrong:
        with pytest.raises(ValueError, match="1 to 36500"):
            PointsPolicy("sun", OWNER, **changes)
    assert earning_lines([(1, -5, ()), (2, 0, ()), (3, 1, ()), (4, 9, ("tobacco",))], rule) == ((3, 1),)


def test_no_points_pay_for_nothing_and_one_pays_a_fen() -> None:
    priced = price([BasketLine(1, "c", "x", 1, 500), BasketLine(2, "d", "y", 1, 300)])
    lines: list[tuple[int, tuple[str, ...]]] = [(1, ()), (2, ())]
    for points in (0, -1, -5):
        assert pay_with(priced, points, OWNER, lines, {}) == priced
    paid = pay_with(priced, 1, OWNER, lines, {})
    assert (paid.due_fen, [one.fen for one in paid.vouchers]) == (799, [1])


def test_points_go_back_by_what_came_back() -> None:
    assert reversed_points(5, (), {1: 100}, 0) == 0
    assert reversed_points(10, ((1, 500), (2, 500)), {1: 500}, 0) == 5
    assert reversed_points(1000, ((1, 500), (2, 500)), {}, 0) == 0
    assert reversed_points(1000, ((1, 500), (2, 500)), {1: 900}, 0) == 500, "a line takes no more than its own"
    assert reversed_points(10, ((1, 500), (2, 500)), {1: 500}, 7) == 0


def test_points_of_its_own_company_need_no_debt_and_none_need_no_entry() -> None:
    place = Place(StoreId("s1"), LegalEntityId(again("hq")))
    found = points_moved("n", [move(1, MoveKind.EARN, 7, 0), move(2, MoveKind.BURN, 0, 0)], place, "2026-01-01")
    assert [(one.account, one.amount_fen) for one in found.entries] == [
        ("points_given:s1", 7),
        ("points_liability:sun", -7),
    ]


# ---------------------------------------------------------------- drawers, taxes


def test_what_may_be_counted_and_said() -> None:
    assert [require_amount(fen) for fen in (0, 100_000_000)] == [0, 100_000_000]
    for fen in (-1, 100_000_001):
        with pytest.raises(Refused, match="not between 0 and 100000000"):
            require_amount(fen)
    assert require_reason("x" * 200) == "x" * 200
    with pytest.raises(Refused):
        require_reason("x" * 201)


@pytest.mark.parametrize("owner", ["chain", "north", "zone"])
def test_cash_of_another_drawer_is_owed_where_it_is_another_companys(owner: str) -> None:
    sold, paid = Place(StoreId("s1"), LegalEntityId("north")), Place(StoreId("s2"), LegalEntityId(again(owner)))
    entries = (Entry(0, "north", "till:s1:bay:1", -90, "d"), Entry(1, "north", "sales_gross:s1", 90, "d"))
    found = paid_from(Transaction("sale_refunded", "n", entries), sold, paid)
    assert [one.leg for one in found.entries] == list(range(len(found.entries)))
    owed = [("north", f"due_to:{owner}", -90), (owner, "due_from:north", 90)] if owner != "north" else []
    assert [(one.entity, one.account, one.amount_fen) for one in found.entries] == [
        *owed, (owner, "till:s2:bay:1", -90), ("north", "sales_gross:s1", 90),
    ]  # fmt: skip
    counted = drawer_counted("n", place=sold, drawer="bay:1", over_short=-3, business_date="d")
    assert [(one.leg, one.amount_fen) for one in counted.entries] == [(0, -3), (1, 3)]


def test_rates_within_their_bounds_and_what_they_take() -> None:
    assert DEFAULT_TAXES == {"13": 1300, "9": 900, "6": 600, "0": 0}
    assert read_taxes({"free": 0, "most": 5000}) == {**DEFAULT_TAXES, "free": 0, "most": 5000}
    for rate in (-1, 5001, True):
        with pytest.raises(ValueError, match="0 to 5000 basis points"):
            read_taxes({"odd": rate})
    assert (tax_of([113_000_000], 1300), tax_of([15_000, 15_000], 5000)) == ([13_000_000], [5000, 5000])
