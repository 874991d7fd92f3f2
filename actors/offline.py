"""A whole sale made offline, sent later: booked once for ever, as reported, on the business date of its moment.

Money was taken, so nothing is refused. What does not add up is suspense and an incident; benefits are classed by
the memberships port when they arrive: from a lease REGULAR, within quota as any late report, else OVERUSE.
"""

from __future__ import annotations

from datetime import datetime

from actors.baskets import till_lines
from actors.paying import as_reported
from actors.ports import PostUses, PostVouchers
from actors.pricing import points_of
from actors.selling import dated, moment, receipt_number, remember_paid, rounding_fen, taken_fen, till_sale
from actors.stage import Stage
from actors.visit import Line
from models.domain.events import Event, OfflineSale
from models.domain.facts import SaleMade
from models.domain.ids import SaleId, SessionId, UsageId, VoucherId, derived_id
from models.domain.messages import SaleNoted, SaleTender, SaleUse, SaleVoucher
from models.domain.money import allocate
from models.domain.points import SalePoints
from models.domain.pricing import Flag
from models.domain.screen import ScreenLine
from models.domain.voucher_reader import code_key


def sale(stage: Stage, event: Event, body: OfflineSale) -> None:
    """Book it, unless this number with this amount is booked already."""
    stage.reply(event)
    at = moment(stage, event)
    tenders = tuple(as_reported(tender) for tender in body.tenders)
    taken = taken_fen(tenders)
    known = False
    number = SaleId(derived_id(stage.cause, "sale"))
    if body.till_txn is not None:
        txn = dated(stage, at, body.till_txn)
        number = till_sale(stage, txn, taken)
        same = [paid.fen for paid in stage.session.paid_txns if paid.number == txn]
        if taken in same:
            return
        known = bool(same)
    made = _made(stage, event, body, number, at, tenders)
    stage.save(made)
    stage.keep(receipts=stage.session.receipts + 1)
    if body.till_txn is not None:
        remember_paid(stage, body.till_txn, taken, at)
    if made.business_date == stage.book.business_date(stage.now):
        stage.tell_store(SaleNoted(1, taken, made.discount_fen))
    if known:
        stage.incident(event.terminal, "paid_again", f"{body.till_txn} {taken}")
    if made.suspense_fen or sum(line.net_fen for line in body.lines) != body.total_fen:
        stage.incident(event.terminal, "sale_does_not_add_up", made.receipt)
    unknown = [given.code for given in body.vouchers if code_key(given.code) not in stage.book.chain_book.vouchers]
    if unknown:
        stage.incident(event.terminal, "voucher_unknown", ", ".join(unknown)[:200])
    if made.uses:
        stage.ask(_post(stage, event, made, taken))
    if made.vouchers:
        nobody, store = SessionId(""), stage.book.store
        stage.ask(PostVouchers(nobody, store, event.terminal, made.id, None, made.vouchers, made.at))


def _made(
    stage: Stage, event: Event, body: OfflineSale, number: SaleId, at: datetime, tenders: tuple[SaleTender, ...]
) -> SaleMade:
    session, book = stage.session, stage.book
    bought = till_lines(body.lines, book)
    gross = sum(line.net_fen for line in body.lines)
    claimed = _claimed(body, gross)
    uses = _uses(body, number, gross - sum(fen for _, fen in claimed))
    lines = _priced(bought, sum(use.fen for use in uses) + sum(fen for _, fen in claimed))
    discount = sum(line.discount_fen for line in lines)
    due = gross - discount
    rounding = rounding_fen(tenders, due)
    return SaleMade(
        id=number,
        receipt=receipt_number(stage, session.receipts + 1),
        session=SessionId(""),
        store=book.store,
        lane=session.lane,
        terminal=event.terminal,
        clerk=event.clerk,
        entity=book.entity_at(at),
        business_date=book.business_date(at),
        at=at,
        member=None,
        membership=uses[0].membership if uses else None,
        gross_fen=gross,
        discount_fen=discount,
        due_fen=due,
        rounding_fen=rounding,
        suspense_fen=taken_fen(tenders) + rounding - due,
        agency_fen=_agency_fen(bought, lines),
        lines=lines,
        tenders=tenders,
        uses=uses,
        till_txn=body.till_txn or "",
        received_at=stage.now,
        vouchers=_vouchers(stage, number, claimed, lines),
        points=_points(stage, bought, lines, at) if uses else None,
    )


def _points(stage: Stage, bought: tuple[Line, ...], lines: tuple[ScreenLine, ...], at: datetime) -> SalePoints | None:
    """What it earns the member of the membership that it names: who that is, the books know."""
    paid = ((line.line, line.net_fen, had) for line, had in zip(lines, bought, strict=True))
    return points_of(paid, stage.book, at)


def _claimed(body: OfflineSale, gross_fen: int) -> list[tuple[str, int]]:
    """The vouchers' codes and what they gave, together never more than the lines are worth."""
    left = gross_fen
    claimed = []
    for given in body.vouchers:
        fen = min(given.fen, left)
        left -= fen
        if fen:
            claimed.append((given.code, fen))
    return claimed


def _vouchers(
    stage: Stage, number: SaleId, claimed: list[tuple[str, int]], lines: tuple[ScreenLine, ...]
) -> tuple[SaleVoucher, ...]:
    """Each with its share of the lines' discount, by largest remainder; one that no book has is the store's own."""
    left = [line.discount_fen for line in lines]
    made = []
    for n, (code, fen) in enumerate(claimed):
        shares = allocate(fen, left)
        left = [had - share for had, share in zip(left, shares, strict=True)]
        known = stage.book.chain_book.vouchers.get(code_key(code))
        funder = known.funder if known is not None else stage.book.entity_at(stage.now)
        voucher = known.id if known is not None else VoucherId(code_key(code))  # never `points`: nobody checked them
        on = tuple((line.line, share) for line, share in zip(lines, shares, strict=True) if share)
        made.append(SaleVoucher(UsageId(derived_id(number, f"voucher{n}")), voucher, fen, funder, on))
    return tuple(made)


def _uses(body: OfflineSale, number: SaleId, gross_fen: int) -> tuple[SaleUse, ...]:
    """The benefits as uses, together never more than the lines are worth."""
    left = gross_fen
    uses = []
    for n, given in enumerate(body.benefits):
        fen = min(given.fen, left)
        left -= fen
        if fen:
            usage = UsageId(derived_id(number, f"use{n}"))
            uses.append(SaleUse(usage, given.membership, given.benefit, fen, given.lease))
    return tuple(uses)


def _priced(bought: tuple[Line, ...], discount_fen: int) -> tuple[ScreenLine, ...]:
    """The discount over the lines by largest remainder; over those that may be discounted, as far as they go."""
    worth = [line.base_fen or 0 for line in bought]
    free = [0 if _NEVER & set(line.flags) else fen for line, fen in zip(bought, worth, strict=True)]
    first = allocate(min(discount_fen, sum(free)), free)
    rest = allocate(discount_fen - sum(first), [fen - off for fen, off in zip(worth, first, strict=True)])
    unique = len({line.line for line in bought}) == len(bought)
    return tuple(
        ScreenLine(
            line.line if unique else number,
            line.code,
            line.name,
            line.quantity,
            line.unit_fen,
            off + more,
            fen - off - more,
        )
        for number, (line, fen, off, more) in enumerate(zip(bought, worth, first, rest, strict=True), 1)
    )


_NEVER = frozenset({Flag.NO_DISCOUNT, Flag.TOBACCO, Flag.AGENCY})


def _agency_fen(bought: tuple[Line, ...], lines: tuple[ScreenLine, ...]) -> int:
    return sum(line.net_fen for line, had in zip(lines, bought, strict=True) if Flag.AGENCY in had.flags)


def _post(stage: Stage, event: Event, made: SaleMade, paid_fen: int) -> PostUses:
    return PostUses(
        session=SessionId(""),
        store=stage.book.store,
        terminal=event.terminal,
        sale=made.id,
        paid_fen=paid_fen,
        uses=made.uses,
        biz_time=made.at,
        seq=event.seq,
        clerk=event.clerk,
        unreserved=True,
    )
