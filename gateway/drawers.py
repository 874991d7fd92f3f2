"""What the console and the API ask of the drawers' desk, which the runtime implements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from models.domain.drawers import MoveKind


@dataclass(frozen=True, slots=True)
class ReportMove:
    """Cash put in or taken out by hand."""

    kind: str
    fen: int
    reason: str
    by: str
    at: datetime


@dataclass(frozen=True, slots=True)
class ReportTender:
    """What the lane took otherwise than in cash meanwhile; voided sales left out."""

    kind: str
    sales: int
    fen: int


@dataclass(frozen=True, slots=True)
class ShiftReport:
    """A shift on paper. `kind` X while it is open: then nothing here says what the drawer should hold; else Z.

    expected_fen = float_fen + cash_sales_fen - cash_returns_fen + paid_in_fen - paid_out_fen - drops_fen;
    over_short_fen = counted_fen - expected_fen. `next_shift`: whom it was handed over to; "" when it went to the safe.
    """

    kind: str
    shift: str
    store: str
    drawer: str
    n: int
    entity: str
    business_date: str
    state: str
    opened_at: datetime
    opened_by: str
    float_fen: int
    paid_in_fen: int
    paid_out_fen: int
    drops_fen: int
    moves: tuple[ReportMove, ...]
    sales: int | None
    returns: int | None
    cash_sales_fen: int | None
    cash_returns_fen: int | None
    expected_fen: int | None
    counted_fen: int | None
    over_short_fen: int | None
    counted_at: datetime | None
    counted_by: str
    ended_at: datetime | None
    ended_by: str
    next_shift: str
    other_tenders: tuple[ReportTender, ...]


@dataclass(frozen=True, slots=True)
class Drawer:
    """A drawer of a store, and its shift, if it has one."""

    name: str
    shift: ShiftReport | None


class Drawers(Protocol):
    """One deployment's. A request number has one effect for ever: repeated, the same shift is answered.

    Raises Refused: `unknown_drawer`, `unknown_shift`, `shift_open`, `no_open_shift`, `not_counted`, `bad_amount`,
    `reason_missing`, `number_reused`.
    """

    async def drawers(self, store: str) -> Sequence[Drawer]:
        """The drawers of a store."""

    async def open_shift(self, number: str, store: str, drawer: str, float_fen: int, by: str) -> ShiftReport:
        """A shift begins, with change from the safe."""

    async def move(
        self, number: str, store: str, drawer: str, kind: MoveKind, fen: int, reason: str, by: str
    ) -> ShiftReport:
        """Cash goes in, out, or to the safe."""

    async def count(self, number: str, store: str, drawer: str, counted_fen: int, by: str) -> ShiftReport:
        """What somebody counted, who was not told what to find. Books what is over or short; answers with it."""

    async def hand_over(self, number: str, store: str, drawer: str, by: str) -> ShiftReport:
        """The counted shift ends and the next begins with its money; answers the next one. `by`: who takes over."""

    async def close(self, number: str, store: str, drawer: str, by: str) -> ShiftReport:
        """The counted shift ends, its money goes to the safe."""

    async def report(self, shift: str) -> ShiftReport:
        """One shift."""

    async def reports(self, store: str, *, day: str = "", drawer: str = "", limit: int = 50) -> Sequence[ShiftReport]:
        """A store's shifts, the newest first. `day`: business date, ISO 8601."""
