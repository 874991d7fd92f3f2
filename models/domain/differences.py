"""Reconciliation's rule: a statement and our entries of one day, matched by number, and what is left over.

Match on (kind, order number, request number); then the receipt, then the fee, then the day. Pure: `examine` is the
whole rule over values; for a million lines the database does its first two steps (`number`, and leaving out the
equal pairs) by joins, and `classify` decides over what is left.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from enum import StrEnum
from typing import TypeVar

from models.domain.money import Rounding, divide
from models.domain.reconciliation import LineKind, StatementLine

TIMING_DAYS = 2
"""So many days a movement may be known to one side only before it is a difference."""

T = TypeVar("T")
Key = tuple[LineKind, str, str]
"""(kind, order number, request number), within one provider and account."""


class Verdict(StrEnum):
    """What a line is. MATCHED lines are counted, all others are findings."""

    MATCHED = "MATCHED"
    TIMING = "TIMING"
    """The other side has it on another day (`pair_day`), or may still have it: at most TIMING_DAYS later."""
    PROVIDER_ONLY = "PROVIDER_ONLY"
    OURS_ONLY = "OURS_ONLY"
    AMOUNT = "AMOUNT"
    FEE = "FEE"
    """The fee is not what was agreed: the finding is the part beyond it."""
    DUPLICATE = "DUPLICATE"
    """The same number once more than the other side has it."""
    HOLD_OPEN = "HOLD_OPEN"
    """A hold stands though its membership is over. No money: its difference is 0."""


class Explained(StrEnum):
    """Why a finding needs nobody, as far as the rule itself can tell. Empty: somebody must look."""

    NOT = ""
    TIMING = "timing"
    REVERSED = "reversed"
    """Paid and given back under one order within the day, and nothing of it ever was ours."""


@dataclass(frozen=True, slots=True)
class OurLine:
    """What one transaction changed in `provider_clearing`, under the numbers that the provider knows it by.

    `fen` has its sign: a payment > 0, a refund < 0. A transaction that no number is known for has `order_no` "".
    """

    kind: LineKind
    order_no: str
    request_no: str
    fen: int
    txn: str
    store: str = ""

    @property
    def key(self) -> Key:
        """What it is matched by."""
        return self.kind, self.order_no, self.request_no


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold that nobody may need any more, by our number of its freeze."""

    order_no: str
    membership: str
    fen: int


@dataclass(frozen=True, slots=True)
class FeeTerms:
    """What was agreed with a provider: basis points of each receipt; None: nothing, so any fee is a difference.

    A share that is no whole fen may be rounded either way. A refund may give back all of its share, or less.
    """

    basis_points: int | None = None

    def bounds(self, kind: LineKind, receipt_fen: int) -> tuple[int, int]:
        """The least and the largest fee of a line that is as agreed."""
        share = receipt_fen * (self.basis_points or 0)
        most = divide(share, 10_000, Rounding.CEIL)
        if kind is LineKind.REFUND:
            return -most, 0
        return divide(share, 10_000, Rounding.FLOOR), most

    def accepted_fen(self, line: StatementLine) -> int:
        """The fee that needs no question: what was taken, as far as it is within the bounds."""
        bounds = self.bounds(line.kind, line.receipt_fen)
        return min(max(line.fee_fen, bounds[0]), bounds[1])


@dataclass(frozen=True, slots=True)
class Finding:
    """One line that is not simply matched. `occurrence` counts lines of one key on one side, from 1."""

    verdict: Verdict
    kind: LineKind
    order_no: str
    request_no: str
    occurrence: int = 1
    provider_fen: int = 0
    ours_fen: int = 0
    trade_no: str = ""
    txn: str = ""
    store: str = ""
    pair_day: date | None = None
    explained: Explained = Explained.NOT
    hold_fen: int = 0

    @property
    def difference_fen(self) -> int:
        """What it adds to the statement's net beyond our account's change."""
        return self.provider_fen - self.ours_fen


@dataclass(frozen=True, slots=True)
class Carried:
    """A finding of another day that still waits for its other side: exactly one of the amounts is 0."""

    key: Key
    day: date
    provider_fen: int
    ours_fen: int


@dataclass(frozen=True, slots=True)
class Examined:
    """One day of one account. statement_fen - ours_fen + accepted_fee_fen = the sum of the findings' differences."""

    matched: int
    findings: tuple[Finding, ...]
    statement_fen: int
    ours_fen: int
    accepted_fee_fen: int
    """Booked as provider_fee / provider_clearing, so that only questions remain."""

    @property
    def difference_fen(self) -> int:
        """Statement's net less the change of our account, once the accepted fees are booked."""
        return self.statement_fen - (self.ours_fen - self.accepted_fee_fen)


def key_of(line: StatementLine) -> Key:
    """What a provider's line is matched by."""
    return line.kind, line.order_no, line.request_no


def examine(
    day: date,
    as_of: date,
    statement: Sequence[StatementLine],
    ours: Sequence[OurLine],
    *,
    carried: Sequence[Carried] = (),
    seen: Container[Key] = frozenset(),
    holds: Sequence[Hold] = (),
    terms: FeeTerms = FeeTerms(),
) -> Examined:
    """The whole rule. `seen`: keys that a statement of another day had and that were matched there."""
    theirs = _numbered((key_of(line), line) for line in statement)
    mine = _numbered((one.key, one) for one in ours)
    matched = 0
    for at in theirs.keys() & mine.keys():
        line = theirs[at]
        if line.kind.sign * line.receipt_fen == mine[at].fen and line.fee_fen == terms.accepted_fen(line):
            matched += 1
            del theirs[at], mine[at]
    findings = classify(day, as_of, theirs, mine, carried=carried, seen=seen, holds=holds, terms=terms)
    return Examined(
        matched,
        findings,
        sum(line.net_fen for line in statement),
        sum(one.fen for one in ours),
        sum(terms.accepted_fen(line) for line in statement),
    )


def classify(
    day: date,
    as_of: date,
    theirs: Mapping[tuple[Key, int], StatementLine],
    ours: Mapping[tuple[Key, int], OurLine],
    *,
    carried: Sequence[Carried] = (),
    seen: Container[Key] = frozenset(),
    holds: Sequence[Hold] = (),
    terms: FeeTerms = FeeTerms(),
) -> tuple[Finding, ...]:
    """What each line is that did not simply match; lines by (key, occurrence). In the order of their numbers."""
    waiting = _waiting(carried)
    ripe = as_of > day + timedelta(days=TIMING_DAYS)
    findings: list[Finding] = []
    for at in sorted(theirs.keys() | ours.keys()):
        line, one = theirs.get(at), ours.get(at)
        if line is not None and (fee := _fee(at, line, terms)) is not None:
            findings.append(fee)
        finding = _finding(at, line, one)
        if finding is None:
            continue
        both = line is not None and one is not None
        findings.append(finding if both else _one_sided(finding, at, ripe, waiting, seen))
    findings += [
        Finding(Verdict.HOLD_OPEN, LineKind.PAYMENT, hold.order_no, "", txn=hold.membership, hold_fen=hold.fen)
        for hold in holds
    ]
    return tuple(_without_reversed(findings))


def _numbered(lines: Iterable[tuple[Key, T]]) -> dict[tuple[Key, int], T]:
    counts: Counter[Key] = Counter()
    numbered = {}
    for key, line in lines:
        counts[key] += 1
        numbered[key, counts[key]] = line
    return numbered


def _waiting(carried: Sequence[Carried]) -> dict[tuple[Key, int], list[Carried]]:
    """By key and by the difference that would settle it, oldest first."""
    waiting: defaultdict[tuple[Key, int], list[Carried]] = defaultdict(list)
    for one in sorted(carried, key=lambda one: one.day):
        waiting[one.key, one.ours_fen - one.provider_fen].append(one)
    return waiting


def _fee(at: tuple[Key, int], line: StatementLine, terms: FeeTerms) -> Finding | None:
    accepted = terms.accepted_fen(line)
    if accepted == line.fee_fen:
        return None
    (kind, order_no, request_no), occurrence = at
    return Finding(Verdict.FEE, kind, order_no, request_no, occurrence, -line.fee_fen, -accepted, line.trade_no)


def _finding(at: tuple[Key, int], line: StatementLine | None, one: OurLine | None) -> Finding | None:
    """The two sides as they stand, not yet told apart further; None when the receipts are equal."""
    (kind, order_no, request_no), occurrence = at
    provider_fen = 0 if line is None else line.kind.sign * line.receipt_fen
    ours_fen = 0 if one is None else one.fen
    if line is not None and one is not None and provider_fen == ours_fen:
        return None
    return Finding(
        Verdict.AMOUNT,
        kind,
        order_no,
        request_no,
        occurrence,
        provider_fen,
        ours_fen,
        "" if line is None else line.trade_no,
        "" if one is None else one.txn,
        "" if one is None else one.store,
    )


def _one_sided(
    finding: Finding,
    at: tuple[Key, int],
    ripe: bool,
    waiting: dict[tuple[Key, int], list[Carried]],
    seen: Container[Key],
) -> Finding:
    key, occurrence = at
    theirs = not finding.txn
    counterparts = waiting.get((key, finding.difference_fen))
    if counterparts:
        other = counterparts.pop(0)
        return replace(finding, verdict=Verdict.TIMING, pair_day=other.day, explained=Explained.TIMING)
    if occurrence > 1 or (theirs and key in seen):
        return replace(finding, verdict=Verdict.DUPLICATE)
    if not ripe:
        return replace(finding, verdict=Verdict.TIMING, explained=Explained.TIMING)
    return replace(finding, verdict=Verdict.PROVIDER_ONLY if theirs else Verdict.OURS_ONLY)


def _without_reversed(findings: Sequence[Finding]) -> list[Finding]:
    """Orders that the provider took and gave back, with nothing on our side: they explain themselves."""
    orders: defaultdict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        if not finding.txn and finding.pair_day is None and finding.verdict is not Verdict.FEE:
            orders[finding.order_no].append(finding)
    reversed_orders = {
        order
        for order, lines in orders.items()
        if order and len({line.kind for line in lines}) > 1 and not sum(line.provider_fen for line in lines)
    }
    return [
        replace(finding, verdict=Verdict.PROVIDER_ONLY, explained=Explained.REVERSED)
        if finding.order_no in reversed_orders
        and not finding.txn
        and finding.pair_day is None
        and finding.verdict is not Verdict.FEE
        else finding
        for finding in findings
    ]
