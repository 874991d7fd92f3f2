"""The matching rule: the theorem in every history, every injected fault found, and none invented."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.difference_postings import Remedy, difference_resolved, reconciled
from models.domain.differences import (
    TIMING_DAYS,
    Carried,
    Examined,
    Explained,
    FeeTerms,
    Finding,
    Hold,
    OurLine,
    Verdict,
    examine,
    key_of,
)
from models.domain.ids import LegalEntityId
from models.domain.reconciliation import LineKind, StatementLine, totals_of

DAY = date(2026, 3, 1)
TOMORROW = DAY + timedelta(days=1)
RIPE = DAY + timedelta(days=TIMING_DAYS + 1)
TERMS = FeeTerms(60)


def theirs(
    order: str, fen: int, fee_fen: int = 0, kind: LineKind = LineKind.PAYMENT, request: str = ""
) -> StatementLine:
    at = datetime(2026, 3, 1, 4, tzinfo=UTC)
    return StatementLine("alipay", "chain", kind, order, request, f"T-{order}", fen, fen, fee_fen, at, DAY)


def mine(order: str, fen: int, request: str = "") -> OurLine:
    kind = LineKind.PAYMENT if fen > 0 else LineKind.REFUND
    return OurLine(kind, order, request, fen, f"txn-{order}{request}", "s-own")


def verdicts(found: Examined) -> list[Verdict]:
    return sorted(one.verdict for one in found.findings)


def sums_up(found: Examined) -> None:
    assert found.difference_fen == sum(one.difference_fen for one in found.findings)


def test_where_no_fee_was_agreed_every_fee_is_a_difference() -> None:
    lines = [theirs("P1", 1000, 6), theirs("P2", 500)]
    found = examine(DAY, TOMORROW, lines, [mine("P1", 1000), mine("P2", 500)], terms=FeeTerms(None))
    assert (verdicts(found), found.accepted_fee_fen, found.difference_fen) == ([Verdict.FEE], 0, -6)
    assert found.findings[0].order_no == "P1"


def test_equal_sides_match_and_the_fee_is_accepted() -> None:
    lines = [theirs("P1", 1000, 6), theirs("P1", 400, -2, LineKind.REFUND, "R1")]
    found = examine(DAY, TOMORROW, lines, [mine("P1", 1000), mine("P1", -400, "R1")], terms=TERMS)
    assert (found.matched, found.findings, found.accepted_fee_fen) == (2, (), 4)
    assert found.difference_fen == 0


@pytest.mark.parametrize(
    ("lines", "ours", "as_of", "expected", "difference_fen"),
    [
        ([theirs("P1", 1000, 6)], [], TOMORROW, Verdict.TIMING, 1000),
        ([theirs("P1", 1000, 6)], [], RIPE, Verdict.PROVIDER_ONLY, 1000),
        ([], [mine("P1", 1000)], TOMORROW, Verdict.TIMING, -1000),
        ([], [mine("P1", 1000)], RIPE, Verdict.OURS_ONLY, -1000),
        ([theirs("P1", 900, 5)], [mine("P1", 1000)], TOMORROW, Verdict.AMOUNT, -100),
        ([theirs("P1", 1000, 7)], [mine("P1", 1000)], TOMORROW, Verdict.FEE, -1),
        ([theirs("P1", 1000, 6), theirs("P1", 1000, 6)], [mine("P1", 1000)], TOMORROW, Verdict.DUPLICATE, 1000),
        ([theirs("P1", 1000, 6)], [mine("P1", 1000), mine("P1", 1000)], TOMORROW, Verdict.DUPLICATE, -1000),
    ],
)
def test_each_difference_has_its_verdict(
    lines: Sequence[StatementLine], ours: Sequence[OurLine], as_of: date, expected: Verdict, difference_fen: int
) -> None:
    found = examine(DAY, as_of, lines, ours, terms=TERMS)
    assert verdicts(found) == [expected]
    assert found.difference_fen == difference_fen
    sums_up(found)


def test_what_is_not_said_of_a_difference_is_nothing() -> None:
    one = Finding(Verdict.MATCHED, LineKind.PAYMENT, "o1", "r1")
    assert (one.occurrence, one.provider_fen, one.ours_fen, one.hold_fen, one.difference_fen) == (1, 0, 0, 0, 0)


def test_a_line_of_another_days_statement_comes_again() -> None:
    line = theirs("P1", 1000)
    found = examine(DAY, TOMORROW, [line], [], seen={key_of(line)})
    assert verdicts(found) == [Verdict.DUPLICATE]


@pytest.mark.parametrize("side", ["theirs", "ours"])
def test_timing_finds_its_other_side_however_late(side: str) -> None:
    key, before = (LineKind.PAYMENT, "P1", ""), DAY - timedelta(days=9)
    if side == "theirs":
        found = examine(DAY, RIPE, [theirs("P1", 1000)], [], carried=[Carried(key, before, 0, 1000)])
    else:
        found = examine(DAY, RIPE, [], [mine("P1", 1000)], carried=[Carried(key, before, 1000, 0)])
    assert [(one.verdict, one.pair_day, one.explained) for one in found.findings] == [
        (Verdict.TIMING, before, Explained.TIMING)
    ]
    other_amount = examine(DAY, RIPE, [theirs("P1", 1000)], [], carried=[Carried(key, before, 0, 999)])
    assert verdicts(other_amount) == [Verdict.PROVIDER_ONLY], "another amount is no other side"


def test_paid_and_cancelled_at_the_provider_explains_itself() -> None:
    lines = [theirs("P1", 1000), theirs("P1", 1000, kind=LineKind.REFUND), theirs("P2", 500)]
    found = examine(DAY, RIPE, lines, [])
    explained = {(one.order_no, one.explained) for one in found.findings}
    assert explained == {("P1", Explained.REVERSED), ("P2", Explained.NOT)}
    part = examine(DAY, RIPE, [lines[0], theirs("P1", 999, kind=LineKind.REFUND)], [])
    assert {one.explained for one in part.findings} == {Explained.NOT}, "a fen was kept"


def test_a_hold_that_stands_moves_no_money() -> None:
    found = examine(DAY, TOMORROW, [], [], holds=[Hold("H1", "m-1", 1000)])
    assert verdicts(found) == [Verdict.HOLD_OPEN]
    assert found.difference_fen == 0
    sums_up(found)


# ---------------------------------------------------------------- any day

AMOUNTS = st.integers(1, 100_000)
FAULTS = ("provider_only", "ours_only", "amount", "fee", "duplicate", "duplicate_ours", "reversed")
EXPECTED = {
    "provider_only": [Verdict.PROVIDER_ONLY],
    "ours_only": [Verdict.OURS_ONLY],
    "amount": [Verdict.AMOUNT],
    "fee": [Verdict.FEE],
    "duplicate": [Verdict.DUPLICATE],
    "duplicate_ours": [Verdict.DUPLICATE],
    "reversed": [Verdict.PROVIDER_ONLY, Verdict.PROVIDER_ONLY],
}


@st.composite
def days(draw: st.DrawFn) -> tuple[list[StatementLine], list[OurLine], list[str]]:
    """A day as both sides have it, then faults: (their lines, our lines, the fault of each order)."""
    faults = draw(st.lists(st.sampled_from(("none", *FAULTS)), max_size=12))
    lines: list[StatementLine] = []
    ours: list[OurLine] = []
    for n, fault in enumerate(faults):
        order, fen = f"P{n}", draw(AMOUNTS)
        bounds = TERMS.bounds(LineKind.PAYMENT, fen)
        line = theirs(order, fen, draw(st.integers(*bounds)))
        match fault:
            case "amount":
                line = replace(line, receipt_fen=fen + 1 + draw(AMOUNTS), fee_fen=0)
                line = replace(line, fee_fen=TERMS.accepted_fen(line))
            case "fee":
                line = replace(line, fee_fen=bounds[1] + draw(AMOUNTS))
            case "reversed":
                lines.append(theirs(order, fen, kind=LineKind.REFUND))
        lines += [] if fault == "ours_only" else [line] * (2 if fault == "duplicate" else 1)
        if fault not in {"provider_only", "reversed"}:
            ours += [mine(order, fen)] * (2 if fault == "duplicate_ours" else 1)
    return draw(st.permutations(lines)), draw(st.permutations(ours)), faults


@given(days())
def test_every_fault_is_found_none_is_invented_and_the_sum_is_exact(
    day: tuple[list[StatementLine], list[OurLine], list[str]],
) -> None:
    lines, ours, faults = day
    found = examine(DAY, RIPE, lines, ours, terms=TERMS)
    sums_up(found)
    expected = Counter((f"P{n}", verdict) for n, fault in enumerate(faults) for verdict in EXPECTED.get(fault, []))
    assert Counter((one.order_no, one.verdict) for one in found.findings) == expected
    assert found.statement_fen == totals_of(lines).net_fen


KEYS = st.tuples(st.sampled_from(("P1", "P2", "P3")), st.sampled_from(("", "R1")))


@given(
    st.lists(st.tuples(KEYS, st.integers(0, 500), st.integers(-5, 5), st.sampled_from(LineKind)), max_size=10),
    st.lists(st.tuples(KEYS, st.integers(-500, 500).filter(bool)), max_size=10),
    st.sampled_from([TOMORROW, RIPE]),
    st.sampled_from([FeeTerms(), TERMS]),
)
def test_the_theorem_holds_for_any_two_lists(
    raw: list[tuple[tuple[str, str], int, int, LineKind]],
    ours: list[tuple[tuple[str, str], int]],
    as_of: date,
    terms: FeeTerms,
) -> None:
    lines = [theirs(order, fen, fee, kind, request) for (order, request), fen, fee, kind in raw]
    found = examine(DAY, as_of, lines, [mine(order, fen, request) for (order, request), fen in ours], terms=terms)
    sums_up(found)
    assert found.matched + sum(1 for one in found.findings if one.provider_fen and one.verdict is not Verdict.FEE) <= (
        len(lines)
    )


# ---------------------------------------------------------------- postings


def test_what_is_posted_balances_and_moves_the_clearing_account_to_the_statement() -> None:
    legs = {"provider_fee:alipay": 6, "timing:alipay": -1000}
    posted = reconciled("n", entity=LegalEntityId("chain"), provider="alipay", legs=legs, business_date=DAY)
    assert {one.account: one.amount_fen for one in posted.entries} == {**legs, "provider_clearing:alipay": 994}


@pytest.mark.parametrize("remedy", Remedy)
def test_a_resolved_difference_leaves_clearing_or_goes_on_from_timing(remedy: Remedy) -> None:
    out = difference_resolved(
        "n", entity=LegalEntityId("chain"), provider="alipay", difference_fen=70, remedy=remedy,
        waits_in_timing=False, business_date=DAY,
    )  # fmt: skip
    on = difference_resolved(
        "n", entity=LegalEntityId("chain"), provider="alipay", difference_fen=70, remedy=remedy,
        waits_in_timing=True, business_date=DAY,
    )  # fmt: skip
    assert {one.account: one.amount_fen for one in out.entries}["provider_clearing:alipay"] == 70
    assert {one.account: one.amount_fen for one in on.entries}["timing:alipay"] == 70
    assert not any(one.account.startswith("provider_clearing") for one in on.entries)


@pytest.mark.parametrize("amounts", [{"gross_fen": -1}, {"receipt_fen": -1}])
def test_a_statement_has_no_negative_amounts(amounts: dict[str, Any]) -> None:
    assert replace(theirs("p", 0)).gross_fen == 0
    with pytest.raises(ValueError, match="negative"):
        replace(theirs("p", 1), **amounts)
