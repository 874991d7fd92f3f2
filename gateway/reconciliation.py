"""What the console asks of reconciliation and the day close, which the runtime implements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Protocol

from models.domain.difference_postings import Remedy
from models.tables.business_days import DayEvent
from models.tables.differences import DayRun, Line

REASON_CHARACTERS_MAX = 400


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a day does not close. `code`: not_over (a store's day), no_statement (a provider), open_lines (their ids)."""

    code: str
    what: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CloseResult:
    """A day that was closed, or what is in the way. `runs` are what its accounts came to.

    `warnings` keep no day open: drawers (`store/lane`) whose shift of that day, or an earlier one, nobody counted.
    """

    entity: str
    day: date
    closed: bool
    obstacles: tuple[Obstacle, ...] = ()
    runs: tuple[DayRun, ...] = ()
    warnings: tuple[str, ...] = ()


class Reconciliation(Protocol):
    """One deployment's. `region` names the database where there are several; "" where there is one.

    Raises Refused with what to do, RetryLater `statement_not_ready` and `busy`. Decisions are audited.
    """

    async def fetch_and_run(self, account: str, provider: str, day: date, *, region: str = "") -> DayRun:
        """Fetch the statement unless it is there, and match."""

    async def run(self, account: str, provider: str, day: date, *, region: str = "") -> DayRun:
        """Match again."""

    async def lines(
        self,
        *,
        account: str | None = None,
        provider: str | None = None,
        day: date | None = None,
        state: str | None = None,
        after: str = "",
        limit: int = 1_000,
        region: str = "",
    ) -> Sequence[Line]:
        """Lines that do not simply match, by day and number."""

    async def days(
        self,
        *,
        account: str | None = None,
        since: date | None = None,
        until: date | None = None,
        limit: int = 400,
        region: str = "",
    ) -> Sequence[DayRun]:
        """Days that were run, the newest first."""

    async def explain(self, line: str, reason: str, by: str, *, region: str = "") -> Line:
        """An open line is explained by a sentence."""

    async def resolve(self, line: str, remedy: Remedy, reason: str, by: str, *, region: str = "") -> Line:
        """An open line's amount is booked where the remedy says."""

    async def close(self, entity: str, day: date, by: str, *, region: str = "") -> CloseResult:
        """Close a business day, and those before it; or say what is in the way."""

    async def reopen(self, entity: str, day: date, reason: str, by: str, *, region: str = "") -> DayEvent:
        """Open the last closed day again."""

    async def events(self, entity: str | None = None, *, region: str = "") -> Sequence[DayEvent]:
        """Days that were closed or opened again."""
