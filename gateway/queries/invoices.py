"""What may be invoiced, from the rows of a sale or of a membership's charge."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.dialects.postgresql import distinct_on
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.charging import Branch, UseClass
from models.domain.events import TenderKind
from models.domain.invoices import (
    CameBack,
    Document,
    Goods,
    Invoice,
    LeftOut,
    document,
    membership_invoice,
    refund_of,
    sale_invoice,
)
from models.domain.money import allocate
from models.domain.points import POINTS
from models.domain.pricing import Flag
from models.domain.taxes import DEFAULT_TAX, SERVICE_TAX, read_taxes
from models.tables.books import EntryRow, TransactionRow
from models.tables.items import ItemRow
from models.tables.members import MembershipRow, PlanRow, UsageRow
from models.tables.registry import BookRow, StoreRow
from models.tables.sales import ReturnRow, SaleRow, VoidRow

CHARGED = ("settled", "capture_failed")
"""Kinds of transactions that book a membership's charge."""
REDUCED = "due_reduced"


@dataclass(frozen=True, slots=True)
class _Terms:
    """Rates by code, and of each article its tax code and whether it is sold for somebody else."""

    rates: Mapping[str, int]
    taxes: Mapping[str, str]
    agency: frozenset[str]

    def goods(self, line: Mapping[str, Any], fen: int) -> Goods:
        code = str(line["code"])
        tax = self.taxes.get(code) or DEFAULT_TAX
        rate_bp = self.rates.get(tax, self.rates[DEFAULT_TAX])
        return Goods(line["line"], code, line["name"], line["quantity"], fen, tax, rate_bp)


async def invoice_of(session: AsyncSession, ident: str) -> Invoice | None:
    """The invoice of a sale (by id or receipt) or of a membership; None: this database has neither."""
    sale = await session.get(SaleRow, ident)
    if sale is None:
        sale = (await session.exec(select(SaleRow).where(col(SaleRow.receipt) == ident).limit(1))).first()
    if sale is not None:
        return await _of_sale(session, sale)
    membership = await session.get(MembershipRow, ident)
    return None if membership is None else await _of_membership(session, membership)


async def _terms(session: AsyncSession, chain: str, codes: Collection[str]) -> _Terms:
    """The rates of the book in force; of an article what it was listed with last, also when it is gone."""
    in_force = col(BookRow.chain) == chain, ~col(BookRow.candidate)
    book = select(BookRow.doc).where(*in_force).order_by(col(BookRow.version).desc()).limit(1)
    doc = (await session.exec(book)).first() or {}
    listed = (
        select(ItemRow.code, ItemRow.doc)
        .where(col(ItemRow.chain) == chain, col(ItemRow.code).in_(codes), col(ItemRow.doc).is_not(None))
        .ext(distinct_on(col(ItemRow.code)))
        .order_by(col(ItemRow.code), col(ItemRow.version).desc())
    )
    found: dict[str, dict[str, Any]] = {code: dict(item or {}) for code, item in (await session.exec(listed)).all()}
    taxes: Any = doc.get("taxes") or {}
    return _Terms(
        read_taxes(taxes),
        {code: str(item.get("tax", "")) for code, item in found.items()},
        frozenset(code for code, item in found.items() if Flag.AGENCY in item.get("flags", ())),
    )


async def _chain_of(session: AsyncSession, store: str) -> str:
    row = await session.get(StoreRow, store)
    return "" if row is None else row.chain


# ---------------------------------------------------------------- a sale


async def _of_sale(session: AsyncSession, sale: SaleRow) -> Invoice:
    lines: list[Any] = sale.lines
    terms = await _terms(session, await _chain_of(session, sale.store), {line["code"] for line in lines})
    own = [terms.goods(line, line["net_fen"]) for line in lines if line["code"] not in terms.agency]
    own_fen = sum(one.fen for one in own)
    tenders: list[Any] = [one for one in sale.tenders if one["kind"] != TenderKind.COUPON]
    said = [one["fen"] if one.get("invoiceable_fen") is None else one["invoiceable_fen"] for one in tenders]
    taken_fen = sum(one["fen"] for one in tenders)
    provider_fen = taken_fen - sum(said)
    # What was taken beyond the goods waits to be matched; what is missing was not paid.
    paid_fen = min(own_fen - sale.rounding_fen, max(0, taken_fen - sale.agency_fen))
    total_fen = max(0, paid_fen - provider_fen)
    vouchers: list[Any] = sale.vouchers
    first = document(sale.receipt, sale.entity, sale.store, sale.at, own, total_fen)
    left_out = (
        LeftOut("agency", sale.agency_fen),
        LeftOut("points", sum(one["fen"] for one in vouchers if one["voucher"] == POINTS)),
        LeftOut("provider", min(provider_fen, paid_fen)),
        LeftOut("rounding", sale.rounding_fen),
        LeftOut("not_paid", own_fen - sale.rounding_fen - paid_fen),
    )
    return sale_invoice(sale.id, first, own, await _came_back(session, sale), left_out)


async def _came_back(session: AsyncSession, sale: SaleRow) -> list[CameBack]:
    void = (await session.exec(select(VoidRow).where(col(VoidRow.sale) == sale.id))).first()
    if void is not None:
        return [CameBack(void.id, void.at, None)]
    rows = (
        await session.exec(select(ReturnRow).where(col(ReturnRow.sale) == sale.id).order_by(col(ReturnRow.n)))
    ).all()
    back = []
    for row in rows:
        lines: list[Any] = row.lines
        back.append(CameBack(row.id, row.at, {one["line"]: (one["quantity"], one["net_fen"]) for one in lines}))
    return back


# ---------------------------------------------------------------- a membership's charge


async def _of_membership(session: AsyncSession, row: MembershipRow) -> Invoice:
    """Only what was paid may be invoiced: by the plan's owner or those who share the fee, or by the stores' entities
    that took a discount back."""
    kind = "clawback" if row.branch == Branch.CLAWBACK else "fee"
    charged, reduced = await _income(session, row.id)
    paid_fen = row.paid_fen + row.refunded_fen
    left_out = [LeftOut("not_paid", max(0, (row.charge_fen or 0) - paid_fen))]
    if not paid_fen or not charged:
        return membership_invoice(row.id, kind, (), (), left_out)
    at = row.settled_at or row.cutoff_at
    goods = await _discounted(session, row) if kind == "clawback" else {}
    one_line = await _one_line(session, row, SERVICE_TAX if kind == "fee" else DEFAULT_TAX)
    parts = allocate(paid_fen, [fen for _, fen in charged])
    documents = [
        document(f"{row.id}/{n}", entity, store, at, goods.get((entity, store), [one_line]), part)
        for n, (((entity, store), _), part) in enumerate(zip(charged, parts, strict=True), 1)
    ]
    return membership_invoice(row.id, kind, documents, _refunds(documents, reduced, row.refunded_fen), left_out)


Party = tuple[str, str]
"""A legal entity and the store whose account it was; "" for an account of the whole entity."""


async def _income(
    session: AsyncSession, membership: str
) -> tuple[list[tuple[Party, int]], list[tuple[TransactionRow, Party, int]]]:
    """Whose income the charge was, and each reduction of it, as the ledger has them."""
    query = (
        select(TransactionRow, EntryRow)
        .join(EntryRow, col(EntryRow.txn) == col(TransactionRow.id))
        .where(col(TransactionRow.memo) == membership, col(TransactionRow.kind).in_((*CHARGED, REDUCED)))
        .order_by(col(TransactionRow.booked_at), col(TransactionRow.id), col(EntryRow.leg))
    )
    charged: Counter[Party] = Counter()
    reduced = []
    for transaction, entry in (await session.exec(query)).all():
        account, _, store = entry.account.partition(":")
        if account not in ("membership_fee_income", "discount_given"):
            continue
        if transaction.kind == REDUCED:
            reduced.append((transaction, (entry.entity, store), entry.amount_fen))
        else:
            charged[entry.entity, store] -= entry.amount_fen
    return [(party, fen) for party, fen in charged.items() if fen > 0], reduced


def _refunds(
    documents: Sequence[Document], reduced: Sequence[tuple[TransactionRow, Party, int]], refunded_fen: int
) -> list[Document]:
    """Each reduction after the charge was paid, against the invoice of the same entity and store."""
    gone: defaultdict[Party, list[Document]] = defaultdict(list)
    made = []
    left = refunded_fen
    for transaction, party, fen in reduced:
        of = next((one for one in documents if (one.issuer, one.store) == party), None)
        before = gone[party]
        stands = 0 if of is None else of.gross_fen + sum(one.gross_fen for one in before)
        fen = min(fen, left, stands)
        if of is not None and fen > 0:
            before.append(refund_of(of, transaction.request_number, transaction.booked_at, fen, before))
            made.append(before[-1])
            left -= fen
    return made


async def _one_line(session: AsyncSession, row: MembershipRow, tax: str) -> Goods:
    """The plan itself as a line: its service, or a discount whose goods nobody knows (an amount has none)."""
    plan = await session.get(PlanRow, (row.plan, row.plan_version))
    doc: Any = plan.doc if plan is not None else {}
    rates = (await _terms(session, row.chain, ())).rates
    name = doc.get("name", {}).get("zh", row.plan)
    return Goods(1, row.plan, str(name), 1, row.fee_fen, tax, rates[tax])


async def _discounted(session: AsyncSession, row: MembershipRow) -> dict[Party, list[Goods]]:
    """The goods whose discount is taken back, by whose they were: what each line had of the light benefit."""
    found = await session.exec(
        select(UsageRow, SaleRow)
        .join(SaleRow, col(SaleRow.id) == col(UsageRow.sale))
        .where(col(UsageRow.membership) == row.id, col(UsageRow.class_) == UseClass.REGULAR)
        .order_by(col(UsageRow.biz_time), col(UsageRow.id))
    )
    uses = [(use, sale) for use, sale in found.all() if use.fen > 0]
    codes = {str(line["code"]) for _, sale in uses for line in sale.lines}
    terms = await _terms(session, row.chain, codes)
    made: defaultdict[Party, list[Goods]] = defaultdict(list)
    for use, sale in uses:
        lines: list[Any] = sale.lines
        had = _light_parts(sale)
        shares = allocate(min(use.fen, sum(had)), had)
        goods = made[use.entity, use.store]
        for line, fen in zip(lines, shares, strict=True):
            if fen:
                goods.append(terms.goods({**line, "line": len(goods) + 1}, fen))
    return dict(made)


def _light_parts(sale: SaleRow) -> list[int]:
    """What of each line's discount no voucher gave."""
    vouchers: list[Any] = sale.vouchers
    given: Counter[int] = Counter()
    for one in vouchers:
        for line, fen in one["lines"]:
            given[line] += fen
    lines: list[Any] = sale.lines
    return [line["discount_fen"] - given[line["line"]] for line in lines]
