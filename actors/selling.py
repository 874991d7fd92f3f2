"""The end of a payment: one sale, one receipt, one result page. The ledger transaction follows from the sale."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from actors.pricing import after_uses, quote, sale_points, shown_lines
from actors.stage import Stage
from actors.visit import PaidTxn, Payment
from models.domain.events import Event, TenderKind
from models.domain.facts import SaleMade
from models.domain.ids import SaleId, SessionId, derived_id
from models.domain.messages import SaleNoted, SaleTender
from models.domain.money import cash_rounded_fen, format_yuan
from models.domain.points import POINTS
from models.domain.screen import Receipt, ReceiptTender, ScreenPaid, ScreenState
from models.domain.twin import REPLAY_AGE_MAX

RESULT_PAGE = timedelta(seconds=30)
CLOSED_TXNS_KEPT = 32
"""Till transactions a lane remembers as paid. Older ones are still booked once: a sale's number is its own."""


def book_sale(stage: Stage, payment: Payment, taken: tuple[SaleTender, ...]) -> None:
    """Save the sale, write the receipt, show the result page.

    What was taken differs from what is due only by cash rounding, or by what a till reported: the rest is
    suspense, matched later.
    """
    session = stage.session
    assert session.id is not None
    priced = quote(session, stage.book)
    lines = shown_lines(priced, stage.book)
    total = taken_fen(taken)
    rounding = rounding_fen(taken, priced.due_fen)
    number = session.receipts + 1
    receipt_no = receipt_number(stage, number)
    membership = session.member.membership if session.member is not None else None
    points = sale_points(session, stage.book, priced, stage.now)
    stage.save(
        SaleMade(
            id=payment.sale,
            receipt=receipt_no,
            session=session.id,
            store=stage.book.store,
            lane=session.lane,
            terminal=payment.terminal,
            clerk=session.clerk,
            entity=stage.book.entity_at(stage.now),
            business_date=stage.book.business_date(stage.now),
            at=stage.now,
            member=session.member.id if session.member is not None else None,
            membership=membership.id if membership is not None and payment.uses else None,
            gross_fen=priced.gross_fen,
            discount_fen=priced.discount_fen,
            due_fen=priced.due_fen,
            rounding_fen=rounding,
            suspense_fen=total + rounding - priced.due_fen,
            agency_fen=priced.agency_fen,
            lines=lines,
            tenders=taken,
            uses=payment.uses,
            till_txn=session.till_txn,
            vouchers=payment.vouchers,
            points=points,
        )
    )
    burned = sum(one.fen for one in payment.vouchers if one.voucher == POINTS)
    member = after_uses(session.member, payment.uses)
    if points is not None and member is not None:
        member = replace(member, points=max(0, member.points + points.earned - burned))
    receipt = Receipt(
        receipt_no,
        lines,
        tuple(ReceiptTender(tender.kind, tender.fen) for tender in taken),
        receipt_text(
            stage.book.language,
            receipt_no,
            total,
            priced.discount_fen,
            member_fen=sum(use.fen for use in payment.uses),
            points=None if points is None or member is None else (points.earned, burned, member.points),
            footer=stage.book.settings.footer(stage.book.language),
        ),
    )
    stage.tell_store(SaleNoted(1, total, priced.discount_fen))
    stage.keep(member=member, payment=None, receipts=number, points=0)
    remember_paid(stage, session.till_txn, total)
    stage.change(
        state=ScreenState.PAID,
        receipt=receipt,
        paid=tuple(
            ScreenPaid(
                tender.kind,
                tender.fen,
                tender.fen if tender.payer_fen is None else tender.payer_fen,
                tender.tendered_fen,
                tender.change_fen,
            )
            for tender in taken
        ),
    )
    stage.prompt("thank_you")
    stage.wake("close", session.id, RESULT_PAGE)


def receipt_number(stage: Stage, number: int) -> str:
    """The lane's `number`-th receipt."""
    return f"{stage.book.store}-{stage.session.lane}-{number:06d}"


def taken_fen(tenders: tuple[SaleTender, ...]) -> int:
    """Money that was taken: a coupon is none."""
    return sum(tender.fen for tender in tenders if tender.kind is not TenderKind.COUPON)


def rounding_fen(tenders: tuple[SaleTender, ...], due_fen: int) -> int:
    """What rounding down let the customer off: only when all the money was cash, and exactly the rounded due."""
    money = [tender for tender in tenders if tender.kind is not TenderKind.COUPON]
    all_cash = bool(money) and all(tender.kind is TenderKind.CASH for tender in money)
    rounded = cash_rounded_fen(due_fen)
    return due_fen - rounded if all_cash and taken_fen(tenders) == rounded else 0


def dated(stage: Stage, at: datetime, till_txn: str) -> str:
    """A till transaction's number for ever: many tills start again from 1 each day."""
    return f"{stage.book.business_date(at)}:{till_txn}"


def till_sale(stage: Stage, number: str, fen: int) -> SaleId:
    """The one sale of this till transaction over so much money: reported again, it is the same row for ever."""
    return SaleId(derived_id(f"{stage.book.store}:{stage.session.lane}:{number}", f"sale:{fen}"))


def remember_paid(stage: Stage, till_txn: str, fen: int, at: datetime | None = None) -> None:
    """From now on this till transaction is paid."""
    paid = PaidTxn(dated(stage, at or stage.now, till_txn), fen)
    if till_txn and paid not in stage.session.paid_txns:
        stage.keep(paid_txns=(*stage.session.paid_txns, paid)[-CLOSED_TXNS_KEPT:])


def receipt_text(
    language: str,
    number: str,
    total_fen: int,
    discount_fen: int,
    *,
    member_fen: int = 0,
    points: tuple[int, int, int] | None = None,
    footer: str = "",
) -> str:
    """The receipt in one line, for printers and screens alike. `member_fen` of the discount came from the membership;
    `points`: earned, paid with, and what may be spent now; `footer`: the chain's or store's own last sentence."""
    zh = language == "zh"
    paid, saved = format_yuan(total_fen), format_yuan(discount_fen)
    said = f"小票 {number}：实付 {paid} 元，优惠 {saved} 元" if zh else f"Receipt {number}: paid {paid}, saved {saved}"
    if member_fen:
        of_it = format_yuan(member_fen)
        said += f"，其中会员优惠 {of_it} 元" if zh else f", {of_it} of it as a member"
    if points is not None:
        earned, burned, left = points
        if burned:
            said += f"；积分抵扣 {burned}" if zh else f"; {burned} points spent"
        said += f"；本单积分 +{earned}，可用积分 {left}" if zh else f"; points +{earned}, {left} to spend"
    if footer:
        said += f"。{footer}" if zh else f". {footer}"
    return said


def moment(stage: Stage, event: Event) -> datetime:
    """When it happened: a replayed event at its own time (the host corrected its `ts`), an online one now."""
    if not event.replay:
        return stage.now
    return min(max(event.ts, stage.now - REPLAY_AGE_MAX), stage.now)


def book_unknown_takings(
    stage: Stage, event: Event, sale: SaleId, till_txn: str, tenders: tuple[SaleTender, ...]
) -> None:
    """A till took money for a basket that we do not have: all of it is suspense, matched later.

    It names no visit: a report that comes late finds the next customer at the lane.
    """
    at = moment(stage, event)
    total = taken_fen(tenders)
    session = stage.session
    number = session.receipts + 1
    stage.save(
        SaleMade(
            id=sale,
            receipt=receipt_number(stage, number),
            session=SessionId(""),
            store=stage.book.store,
            lane=session.lane,
            terminal=event.terminal,
            clerk=event.clerk,
            entity=stage.book.entity_at(at),
            business_date=stage.book.business_date(at),
            at=at,
            member=None,
            membership=None,
            gross_fen=0,
            discount_fen=0,
            due_fen=0,
            rounding_fen=0,
            suspense_fen=total,
            agency_fen=0,
            lines=(),
            tenders=tenders,
            uses=(),
            till_txn=till_txn,
            received_at=stage.now if event.replay else None,
        )
    )
    stage.keep(receipts=number)
    remember_paid(stage, till_txn, total, at)
    stage.incident(event.terminal, "takings_without_order", till_txn)
    if stage.book.business_date(at) == stage.book.business_date(stage.now):
        stage.tell_store(SaleNoted(1, total, 0))
