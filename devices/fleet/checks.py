"""The terminals' side against the books: what must be true when everything is quiet. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from devices.fleet.evidence import CrewEvidence, Intent, SeenSale

SHOWN_MAX = 20


@dataclass(frozen=True, slots=True)
class BookedSale:
    """A sale as the tables have it. `tenders` are sums by kind; `postings` counts its ledger transactions."""

    id: str
    session: str
    till_txn: str
    store: str
    receipt: str
    due_fen: int
    tenders: dict[str, int]
    voided: bool
    postings: int
    cash_fen: int
    """What the ledger's transaction put into the drawer, before any void."""
    voucher_fen: int = 0
    voucher_booked_fen: int = 0
    """The same in the ledger's transaction: as the store's discount, or as another company's subsidy."""
    voucher_used_fen: int = 0
    """The same by the vouchers' own uses."""


@dataclass(frozen=True, slots=True)
class Books:
    """Everything of the fleet's stores since it began."""

    sales: tuple[BookedSale, ...]
    unbalanced: tuple[str, ...] = ()
    """Transactions that do not sum to 0."""
    dead_letters: tuple[str, ...] = ()
    open_asks: int = 0
    sum_fen: int = 0
    provider_fen: int = 0
    """What the provider says it holds for us, since the fleet began."""
    clearing_fen: int = 0
    """What our ledger says about the same."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was not kept."""

    rule: str
    what: str


def violations(crews: Sequence[CrewEvidence], books: Books) -> list[Violation]:
    """All of them; empty: every reply came once, every sale is booked once, and the money is the same everywhere."""
    found: list[Violation] = []
    for crew in crews:
        found += _each("reply_missing", crew.unanswered)
        found += _each("reply_differs", crew.contradictions)
        found += _each("answer_unexpected", crew.unexpected)
        found += _each("sale_shown_twice", crew.sales_twice)
        found += _each("desired_missing", crew.undesired)
        found += _each("not_online", crew.offline_now)
    found += _sales([sale for crew in crews for sale in crew.sales], books)
    found += _started([intent for crew in crews for intent in crew.intents], books)
    found += _voids(crews, books)
    found += _each("unbalanced", books.unbalanced)
    found += _each("dead_letter", books.dead_letters)
    if books.open_asks:
        found.append(Violation("not_quiet", f"{books.open_asks} asks without an answer"))
    if books.sum_fen:
        found.append(Violation("ledger_sum", f"{books.sum_fen} fen"))
    if books.provider_fen != books.clearing_fen:
        found.append(Violation("provider_books", f"they {books.provider_fen} fen, we {books.clearing_fen} fen"))
    return found


def _each(rule: str, things: Iterable[str]) -> list[Violation]:
    return [Violation(rule, thing) for thing in things]


def _sales(seen: list[SeenSale], books: Books) -> list[Violation]:
    """What a screen showed as paid is booked exactly once, with that amount and those tenders."""
    found: list[Violation] = []
    by_session: defaultdict[str, list[BookedSale]] = defaultdict(list)
    for sale in books.sales:
        by_session[sale.session].append(sale)
        if sale.postings != 1 and sale.due_fen:
            found.append(Violation("sale_postings", f"{sale.receipt} has {sale.postings} ledger transactions"))
        if sale.postings and sale.cash_fen != sale.tenders.get("cash", 0):
            booked = f"{sale.cash_fen} fen in the drawer's account, {sale.tenders.get('cash', 0)} in the sale"
            found.append(Violation("cash_books", f"{sale.receipt}: {booked}"))
        if sale.postings and {sale.voucher_booked_fen, sale.voucher_used_fen} != {sale.voucher_fen}:
            booked = (
                f"{sale.voucher_booked_fen} fen booked, {sale.voucher_used_fen} used, {sale.voucher_fen} in the sale"
            )
            found.append(Violation("voucher_books", f"{sale.receipt}: {booked}"))
    for one in seen:
        sales = by_session.get(one.session, [])
        if len(sales) != 1:
            found.append(Violation("sale_not_once", f"{one.receipt} of {one.store}: {len(sales)} times"))
            continue
        [sale] = sales
        shown = (one.receipt, one.due_fen, one.voucher_fen, _without_coupons(one.tenders))
        if (sale.receipt, sale.due_fen, sale.voucher_fen, _without_coupons(sale.tenders)) != shown:
            found.append(Violation("sale_differs", f"shown {shown}, booked {sale}"))
    return found


def _started(intents: list[Intent], books: Books) -> list[Violation]:
    """No sale that nobody started; no till's money that is not booked; each amount is one that was asked for."""
    found: list[Violation] = []
    asked: defaultdict[str, set[int]] = defaultdict(set)
    for intent in intents:
        asked[intent.key].add(intent.fen)
    by_txn = Counter(sale.till_txn for sale in books.sales if sale.till_txn)
    for sale in books.sales:
        amounts = asked.get(sale.session, set()) | asked.get(f"till:{sale.till_txn}", set())
        taken = sum(_without_coupons(sale.tenders).values())
        if not amounts:
            found.append(Violation("sale_unstarted", f"{sale.receipt} of {sale.store}: no terminal asked for it"))
        elif taken not in amounts:
            found.append(Violation("sale_amount", f"{sale.receipt}: took {taken}, asked for {sorted(amounts)}"))
    for intent in intents:
        if intent.reported and by_txn[intent.key.removeprefix("till:")] != 1:
            times = by_txn[intent.key.removeprefix("till:")]
            found.append(Violation("paid_not_booked", f"{intent.key} {intent.fen} fen: booked {times} times"))
    return found


def _voids(crews: Sequence[CrewEvidence], books: Books) -> list[Violation]:
    """A sale is undone when a screen said so, and only when somebody asked for it."""
    asked = {receipt for crew in crews for receipt in crew.voids_asked}
    seen = {receipt for crew in crews for receipt in crew.voids_seen}
    voided = {sale.receipt for sale in books.sales if sale.voided}
    return [
        *_each("void_unasked", sorted(voided - asked)),
        *_each("void_not_booked", sorted(seen - voided)),
    ]


def _without_coupons(tenders: dict[str, int]) -> dict[str, int]:
    return {kind: fen for kind, fen in tenders.items() if kind != "coupon" and fen}
