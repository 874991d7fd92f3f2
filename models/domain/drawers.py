"""The drawer of a lane and its shifts: a float, what goes in and out, a blind count, and what is over or short. Pure.

A shift is counted once. Until then nobody is told what the drawer should hold: a count that knows its answer finds
nothing. What a lane takes and gives back in cash belongs to the first count after it; selling never waits for a shift.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from models.domain.errors import Refused

FEN_MAX = 100_000_000
"""Nobody counts more than a million yuan in one drawer: such a figure is a slip of the finger."""
REASON_CHARACTERS_MAX = 200
NAME_CHARACTERS_MAX = 64


class ShiftState(StrEnum):
    """OPEN until it is counted; ENDED once its money went to the safe, or to the next shift."""

    OPEN = "open"
    COUNTED = "counted"
    ENDED = "ended"


class MoveKind(StrEnum):
    """Cash that goes into or out of a drawer without a sale."""

    PAID_IN = "paid-in"
    PAID_OUT = "paid-out"
    DROP = "drop"
    """To the safe, so that no more than needed lies in the drawer."""


@dataclass(frozen=True, slots=True)
class Move:
    """`fen` > 0, whichever way it goes."""

    kind: MoveKind
    fen: int


def expected_fen(float_fen: int, cash: Sequence[int], moves: Sequence[Move]) -> int:
    """What a drawer should hold. `cash`: what each sale brought (positive) and each return or void took (negative).

    float + cash sales - cash returns + paid in - paid out - drops.
    """
    return float_fen + sum(cash) + sum(one.fen if one.kind is MoveKind.PAID_IN else -one.fen for one in moves)


def over_short_fen(counted_fen: int, expected: int) -> int:
    """More than expected: positive; something is missing: negative."""
    return counted_fen - expected


def may_open(current: ShiftState | None) -> None:
    """`current`: the state of the drawer's last shift; None: it had none. Raises Refused `shift_open`."""
    if current in (ShiftState.OPEN, ShiftState.COUNTED):
        raise Refused("shift_open", "this drawer has a shift", "count it, then close it or hand it over")


def may_move(current: ShiftState | None) -> None:
    """Raises Refused `no_open_shift`: a drawer that was counted is touched again only by the next shift."""
    if current is not ShiftState.OPEN:
        raise Refused("no_open_shift", "no shift is open at this drawer", "open one, or hand the counted one over")


may_count = may_move
"""A shift is counted once: a second count would know the answer."""


def may_end(current: ShiftState | None) -> None:
    """Raises Refused `not_counted`: a shift ends, at the safe or in other hands, once it was counted."""
    if current is not ShiftState.COUNTED:
        raise Refused("not_counted", "this drawer has no counted shift", "count the drawer first")


def require_amount(fen: int, *, least: int = 0) -> int:
    """`fen` itself. Raises Refused `bad_amount` unless it is between `least` and a million yuan."""
    if not least <= fen <= FEN_MAX:
        raise Refused("bad_amount", f"{fen} fen is not between {least} and {FEN_MAX}", "look at the amount again")
    return fen


def require_reason(reason: str) -> str:
    """The reason without blanks around it. Raises Refused `reason_missing`: money out of a drawer says why."""
    said = reason.strip()
    if not said or len(said) > REASON_CHARACTERS_MAX:
        raise Refused("reason_missing", f"a reason has 1 to {REASON_CHARACTERS_MAX} characters", "say what it is for")
    return said
