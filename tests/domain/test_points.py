"""Points: what is earned, paid with, taken back and lost, in any order; and the ledger beside it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.ids import LegalEntityId, MemberId, SaleId, StoreId
from models.domain.ledger import Place
from models.domain.points import (
    POINTS,
    Move,
    MoveKind,
    PointsPolicy,
    balance,
    earned_points,
    earning_lines,
    entered_points,
    expiring,
    pay_with,
    read_policy,
    reversed_points,
    spendable,
)
from models.domain.points_ledger import points_expired, points_moved
from models.domain.pricing import BasketLine, price

OWNER, NORTH = LegalEntityId("hq"), LegalEntityId("north")
STORE = StoreId("s1")
POLICY = PointsPolicy("sun", OWNER)
START = datetime(2026, 1, 1, tzinfo=UTC)
LIFE = timedelta(days=30)


def move(n: int, kind: MoveKind, points: int, day: int) -> Move:
    at = START + timedelta(days=day)
    ends = at + LIFE if kind in (MoveKind.EARN, MoveKind.RESTORE) else None
    return Move(f"m{n}", "sun", OWNER, MemberId("anna"), kind, points, SaleId(f"sale{n}"), STORE, at, ends)


STEPS = st.lists(
    st.tuples(
        st.integers(0, 20), st.sampled_from(["earn", "burn", "reverse", "restore", "expire"]), st.integers(0, 500)
    ),
    max_size=40,
)


def _lots(moves: list[Move], at: datetime) -> int:
    """The same figure, lot by lot: every taking empties the lot that ends first."""
    lots = sorted((m.expires_at, m.points) for m in moves if m.expires_at is not None)
    taken = sum(m.points for m in moves if m.expires_at is None)
    left = 0
    for ends, points in lots:
        part = min(points, taken)
        taken -= part
        left += (points - part) if ends <= at else 0
    return left


@given(STEPS)
def test_the_balance_is_what_came_less_what_went_whatever_happens(steps: list[tuple[int, str, int]]) -> None:
    moves: list[Move] = []
    sums: Counter[str] = Counter()
    ledger: Counter[tuple[str, str]] = Counter()
    day = 0
    for n, (days, kind, points) in enumerate(steps):
        day += days
        now = START + timedelta(days=day)
        if kind == "burn":
            points = min(points, spendable(moves, now))
        if kind == "expire":
            points = expiring(moves, now)
            assert points == _lots(moves, now)
        one = move(n, MoveKind(kind), points, day)
        moves.append(one)
        sums[kind] += points
        posted = (
            points_expired(one, "2026-01-01")
            if kind == "expire"
            else points_moved(one.id, [one], Place(STORE, NORTH), "2026-01-01")
        )
        for entry in posted.entries:
            ledger[entry.entity, entry.account] += entry.amount_fen
        assert spendable(moves, now) >= 0
        assert spendable(moves, now) <= max(0, balance(moves))
        if kind == "expire":
            assert expiring(moves, now) == 0
    came, went = sums["earn"] + sums["restore"], sums["burn"] + sums["reverse"] + sums["expire"]
    assert balance(moves) == came - went
    assert -ledger["hq", "points_liability:sun"] == balance(moves)
    assert ledger["north", "points_given:s1"] == sums["earn"] - sums["reverse"]
    assert ledger["north", "due_to:hq"] == -ledger["hq", "due_from:north"]


def test_a_debt_is_filled_by_what_is_earned_later() -> None:
    moves = [move(0, MoveKind.EARN, 100, 0), move(1, MoveKind.BURN, 100, 1), move(2, MoveKind.REVERSE, 100, 2)]
    now = START + timedelta(days=3)
    assert (balance(moves), spendable(moves, now)) == (-100, 0)
    moves.append(move(3, MoveKind.EARN, 130, 3))
    assert (balance(moves), spendable(moves, now)) == (30, 30)


def test_a_lot_ends_and_what_was_spent_came_out_of_it_first() -> None:
    moves = [move(0, MoveKind.EARN, 100, 0), move(1, MoveKind.EARN, 50, 10), move(2, MoveKind.BURN, 70, 12)]
    assert expiring(moves, START + LIFE - timedelta(seconds=1)) == 0
    assert expiring(moves, START + LIFE) == 30
    assert spendable(moves, START + LIFE) == 50
    moves.append(move(3, MoveKind.EXPIRE, 30, 31))
    assert balance(moves) == spendable(moves, START + LIFE + timedelta(days=1)) == 50


@given(
    st.lists(st.integers(1, 5_000), min_size=1, max_size=6),
    st.integers(1, 300),
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5_000)), max_size=8),
)
def test_what_goes_back_adds_up_to_what_was_earned(
    fens: list[int], per_point: int, back: list[tuple[int, int]]
) -> None:
    lines = tuple(enumerate(fens, 1))
    earned = earned_points(lines, replace(POLICY, fen_per_point=per_point))
    assert earned == sum(fens) // per_point
    came: Counter[int] = Counter()
    gone = 0
    for place, fen in back:
        line = place % len(fens) + 1
        came[line] = min(fens[line - 1], came[line] + fen)
        went = reversed_points(earned, lines, came, gone)
        assert went >= 0
        gone += went
        assert gone <= earned
        # Rounded for the member: never more than the share that is back.
        assert gone * sum(fens) <= earned * sum(came.values())
    came.update({line: fen - came[line] for line, fen in lines})
    assert gone + reversed_points(earned, lines, came, gone) == earned


def test_what_earns() -> None:
    lines = [(1, 1200, ()), (2, 800, ("tobacco",)), (3, 500, ("no_points",)), (4, 0, ()), (5, 99, ("agency",))]
    assert earning_lines(lines, POLICY) == ((1, 1200),)
    generous = read_policy({"brand": "sun", "owner": "hq", "excluded_flags": []})
    assert earning_lines(lines, generous) == ((1, 1200), (3, 500))


@pytest.mark.parametrize(
    "wrong",
    [
        {"brand": "sun"},
        {"brand": "", "owner": "hq"},
        {"brand": "sun", "owner": "hq", "fen_per_point": 0},
        {"brand": "sun", "owner": "hq", "expires_days": 0},
        {"brand": "sun", "owner": "hq", "colour": 1},
        {"brand": "sun", "owner": "hq", "excluded_flags": ["red"]},
    ],
)
def test_a_policy_that_cannot_be_applied(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="points"):
        read_policy(wrong)


def test_what_is_typed() -> None:
    assert [entered_points(text) for text in ("POINTS", "points 500", " Points500", "积分", "积分 20", "points 0")] == [
        -1, 500, 500, -1, 20, 0,
    ]  # fmt: skip
    assert [entered_points(text) for text in ("POINT", "POINTS -1", "SUN5", "POINTS 1 2", "XPOINTS")] == [None] * 5


@given(
    st.lists(
        st.tuples(st.integers(0, 3_000), st.sampled_from([(), ("tobacco",), ("agency",), ("age_18",)])),
        min_size=1,
        max_size=6,
    ),
    st.integers(0, 12_000),
)
def test_points_pay_for_what_they_may_and_no_more(goods: list[tuple[int, tuple[str, ...]]], points: int) -> None:
    lines = [BasketLine(n, f"c{n}", "x", 1, fen, frozenset(flags)) for n, (fen, flags) in enumerate(goods, 1)]
    before = price(lines)
    after = pay_with(before, points, OWNER, [(line.line, line.flags) for line in lines], {})
    may = sum(fen for fen, flags in goods if not {"tobacco", "agency"} & set(flags))
    paid = min(points, may)
    assert before.due_fen - after.due_fen == after.discount_fen == paid
    assert after.gross_fen == before.gross_fen == after.due_fen + after.discount_fen
    assert (after.agency_fen, after.later_fen) == (before.agency_fen, before.later_fen)
    assert all(line.net_fen >= 0 for line in after.lines)
    taken = [one for one in after.vouchers if one.voucher == POINTS]
    assert sum(one.fen for one in taken) == paid
    for one in taken:
        assert dict(one.lines) == {line.line: line.discount_fen for line in after.lines if line.discount_fen}
