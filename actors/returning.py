"""The part of chapter five that is a return's own: its share of the sale, and its booking."""

from __future__ import annotations

from dataclasses import replace

from actors.ports import ReturnVouchers, ReverseUses
from actors.stage import Stage
from actors.visit import Voiding
from models.domain.facts import SaleReturned
from models.domain.ids import SessionId, derived_id
from models.domain.messages import SaleFound, SaleNoted, VoidEnded
from models.domain.money import format_yuan
from models.domain.pricing import Flag
from models.domain.returns import Back, bring_back, in_cash


def return_id(work: Voiding) -> str:
    """Names a sale's n-th return towards the provider: the same until that one is booked, whoever tries."""
    return derived_id(str(work.sale), f"return{work.n}")


def share(stage: Stage, work: Voiding, found: SaleFound) -> Voiding:
    """What these goods are worth now, and what goes back to which tender. Raises Refused."""
    items = stage.book.chain_book.items.values()
    own = frozenset(item.code for item in items if Flag.AGENCY not in item.flags) if found.agency_fen else frozenset()
    back = bring_back(found, work.lines, own)
    refunds = tuple(tender for tender in back.tenders if tender.order and tender.fen)
    return replace(work, back=back, refunds=refunds)


CASH_APPROVED = "cash:"
"""How a reason begins that allows cash where a tender's provider refuses to give back; the event names the clerk."""


def approver(work: Voiding) -> str | None:
    """Who approves of cash, "" when nobody is named; None where cash is not asked for."""
    return (work.clerk or "") if work.lines and work.reason.startswith(CASH_APPROVED) else None


def in_cash_instead(work: Voiding) -> Voiding | None:
    """The provider refused the first refund for good: its part in cash. None unless somebody approved who may."""
    if work.back is None or not approver(work):
        return None
    back = in_cash(work.back, work.refunds[0].order)
    return None if back is None else replace(work, back=back)


def book(stage: Stage, work: Voiding, back: Back) -> None:
    """The money went back: the ledger's mirror of these lines, the benefits' parts reversed, and the clerk told."""
    session, store = stage.session, stage.book.store
    assert work.sale is not None
    stage.save(
        SaleReturned(
            id=derived_id(work.question, "return"),
            sale=work.sale,
            n=work.n,
            store=store,
            lane=session.lane,
            terminal=work.terminal,
            clerk=work.clerk,
            entity=work.entity or stage.book.entity_at(stage.now),
            business_date=stage.book.business_date(stage.now),
            at=stage.now,
            due_fen=back.due_fen,
            discount_fen=back.discount_fen,
            rounding_fen=back.rounding_fen,
            suspense_fen=back.suspense_fen,
            lines=back.lines,
            tenders=back.tenders,
            uses=back.uses,
            reason=work.reason,
            vouchers=back.vouchers,
            sold_at=work.sold_at,
            paid_by=stage.book.entity_at(stage.now),
        )
    )
    if back.vouchers:
        stage.ask(ReturnVouchers(session.id or SessionId(""), store, back.vouchers, stage.now))
    if back.uses:
        stage.ask(ReverseUses(session.id or SessionId(""), store, work.sale, back.uses, stage.now))
    stage.tell_store(VoidEnded(work.receipt, session.lane))
    stage.tell_store(SaleNoted(0, -back.given_fen, -back.discount_fen))
    stage.reply(work.reply)
    if session.id is not None:
        stage.prompt("returned", back=format_yuan(back.given_fen), cash=format_yuan(back.cash_fen))
