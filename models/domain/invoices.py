"""What may be invoiced for a sale, or for what a membership was charged; corrections after returns and refunds.

Data only: no tax authority is called. Amounts contain the tax; each line's tax follows from its article's rate, that of
a document from the sum of its lines at each rate. A part that provider or points paid is no part of the buyer's price.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from models.domain.money import Rounding, allocate, divide
from models.domain.taxes import tax_of


@dataclass(frozen=True, slots=True)
class Goods:
    """A line that may be invoiced: what was paid for it, with its tax code and rate in basis points."""

    line: int
    code: str
    name: str
    quantity: int
    fen: int
    tax: str
    rate_bp: int


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """gross_fen = net_fen + tax_fen. Of a correction all three are 0 or below."""

    line: int
    code: str
    name: str
    quantity: int
    tax: str
    rate_bp: int
    gross_fen: int
    net_fen: int
    tax_fen: int


@dataclass(frozen=True, slots=True)
class Document:
    """An invoice, or its correction. `issuer`: the legal entity; `reason` of a correction: return, void, refund."""

    number: str
    issuer: str
    store: str
    at: datetime
    lines: tuple[InvoiceLine, ...]
    gross_fen: int
    net_fen: int
    tax_fen: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What the buyer's bill names and an invoice may not. `why`: agency, provider, points, rounding, not_paid."""

    why: str
    fen: int


@dataclass(frozen=True, slots=True)
class Invoice:
    """Everything that may be invoiced of one sale or membership. stands_fen = documents and corrections together.

    `kind`: sale, fee (a service of the plan's owner) or clawback (goods of the stores: the discount that was taken
    back). Amounts in integer fen of `currency`.
    """

    id: str
    kind: str
    documents: tuple[Document, ...]
    corrections: tuple[Document, ...]
    left_out: tuple[LeftOut, ...]
    stands_fen: int
    currency: str = "CNY"


def document(
    number: str, issuer: str, store: str, at: datetime, goods: Sequence[Goods], total_fen: int, reason: str = ""
) -> Document:
    """An invoice over `total_fen`, which is shared over the lines by what was paid for each."""
    parts = allocate(total_fen, [one.fen for one in goods]) if total_fen else [0] * len(goods)
    by_rate: defaultdict[int, list[int]] = defaultdict(list)
    for n, one in enumerate(goods):
        by_rate[one.rate_bp].append(n)
    taxes = [0] * len(goods)
    for rate_bp, places in by_rate.items():
        for n, tax in zip(places, tax_of([parts[n] for n in places], rate_bp), strict=True):
            taxes[n] = tax
    lines = tuple(
        InvoiceLine(one.line, one.code, one.name, one.quantity, one.tax, one.rate_bp, part, part - tax, tax)
        for one, part, tax in zip(goods, parts, taxes, strict=True)
        if part
    )
    return _summed(number, issuer, store, at, lines, reason)


def _summed(
    number: str, issuer: str, store: str, at: datetime, lines: tuple[InvoiceLine, ...], reason: str
) -> Document:
    gross, tax = sum(line.gross_fen for line in lines), sum(line.tax_fen for line in lines)
    return Document(number, issuer, store, at, lines, gross, gross - tax, tax, reason)


@dataclass(frozen=True, slots=True)
class CameBack:
    """One return, or the void: pieces and fen by line; None: all of the sale."""

    id: str
    at: datetime
    lines: Mapping[int, tuple[int, int]] | None


def corrections(of: Document, goods: Sequence[Goods], back: Sequence[CameBack]) -> tuple[Document, ...]:
    """What each return takes out of the invoice, in their order: its share of each line, cumulative, so that goods that
    are all back leave nothing invoiced."""
    paid = {one.line: one.fen for one in goods}
    came: Counter[int] = Counter()
    taken: defaultdict[int, tuple[int, int]] = defaultdict(lambda: (0, 0))
    made = []
    for one in back:
        lines = []
        for line in of.lines:
            quantity, fen = (line.quantity, paid[line.line]) if one.lines is None else one.lines.get(line.line, (0, 0))
            if not quantity and not fen:
                continue
            came[line.line] = min(paid[line.line], came[line.line] + fen)
            gross, tax = _share(line, came[line.line], paid[line.line])
            before = taken[line.line]
            taken[line.line] = (gross, tax)
            lines.append(_minus(line, quantity, gross - before[0], tax - before[1]))
        made.append(
            _summed(one.id, of.issuer, of.store, one.at, tuple(lines), "void" if one.lines is None else "return")
        )
    return tuple(made)


def _share(line: InvoiceLine, came_fen: int, paid_fen: int) -> tuple[int, int]:
    """Gross and tax of the line that went with `came_fen` of what was paid for it."""
    gross = divide(line.gross_fen * came_fen, paid_fen, Rounding.FLOOR)
    return gross, _tax(line, gross)


def _tax(line: InvoiceLine, gross: int) -> int:
    """What of so much of the line is tax: cumulative, so that all of it takes all of the tax along."""
    return divide(line.tax_fen * gross, line.gross_fen, Rounding.FLOOR)


def _minus(line: InvoiceLine, quantity: int, gross: int, tax: int) -> InvoiceLine:
    return InvoiceLine(line.line, line.code, line.name, -quantity, line.tax, line.rate_bp, -gross, tax - gross, -tax)


def sale_invoice(
    sale: str,
    of: Document,
    goods: Sequence[Goods],
    back: Sequence[CameBack],
    left_out: Sequence[LeftOut],
) -> Invoice:
    """A sale's invoice with its corrections."""
    minus = corrections(of, goods, back)
    stands = of.gross_fen + sum(one.gross_fen for one in minus)
    return Invoice(sale, "sale", (of,), minus, tuple(one for one in left_out if one.fen), stands)


def membership_invoice(
    membership: str, kind: str, documents: Sequence[Document], minus: Sequence[Document], left_out: Sequence[LeftOut]
) -> Invoice:
    """What a membership was charged, with what was given back."""
    stands = sum(one.gross_fen for one in (*documents, *minus))
    return Invoice(membership, kind, tuple(documents), tuple(minus), tuple(one for one in left_out if one.fen), stands)


def refund_of(of: Document, number: str, at: datetime, fen: int, before: Sequence[Document]) -> Document:
    """`fen` of an invoice that were paid back, shared over what its corrections `before` left of each line.

    No share of a running total: such a share may fall when the total grows, and a correction would add to a line.
    """
    gone: Counter[int] = Counter()
    for one in before:
        for line in one.lines:
            gone[line.line] -= line.gross_fen
    left = [line.gross_fen - gone[line.line] for line in of.lines]
    lines = tuple(
        _minus(line, 0, part, _tax(line, gone[line.line] + part) - _tax(line, gone[line.line]))
        for line, part in zip(of.lines, allocate(min(fen, sum(left)), left), strict=True)
        if part
    )
    return _summed(number, of.issuer, of.store, at, lines, "refund")
