"""A session's basket through the pricing rules: the screen's preview and the charge are one computation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from actors.visit import Line, Session
from models.domain.benefits import Scope, holds_at
from models.domain.book import StoreBook
from models.domain.calendar import days_later
from models.domain.ids import SaleId, UsageId, VoucherId, derived_id
from models.domain.kill_switch import Switch
from models.domain.messages import BenefitLeft, MembershipView, MemberView, SaleUse, SaleVoucher
from models.domain.money import format_yuan
from models.domain.plans import Plan, Text
from models.domain.points import SalePoints, earned_points, earning_lines, pay_with
from models.domain.pricing import BasketLine, LightOffer, Quote, price
from models.domain.pricing import saves_now_fen as _saves_now_fen
from models.domain.screen import ScreenLine, ScreenVoucher
from models.domain.vouchers import Counter, Voucher, refusal_now

OFFERED_MAX = 5
"""Coupons on the screen: each costs one more pricing of the basket."""


class _Last:
    """The last answer, because one turn asks the same question up to six times: whether the basket can be priced, what
    the screen shows, what is due. Held by identity: what a quote follows from are values that nobody changes.
    """

    lines: tuple[Line, ...] | None = None
    basket: tuple[BasketLine, ...] = ()
    quoted: (
        tuple[tuple[Line, ...], MemberView | None, tuple[VoucherId, ...], int, tuple[Switch, ...], StoreBook, Quote]
        | None
    ) = None


def basket_lines(lines: tuple[Line, ...]) -> tuple[BasketLine, ...]:
    """The session's lines as the rules take them."""
    if _Last.lines is not lines:
        _Last.basket = tuple(
            BasketLine(
                line.line, line.code, line.name, line.quantity, line.unit_fen, frozenset(line.flags), line.base_fen
            )
            for line in lines
        )
        _Last.lines = lines
    return _Last.basket


def quote(session: Session, book: StoreBook) -> Quote:
    """The basket priced for this member and these vouchers with the pinned book. Same question, same answer."""
    last = _Last.quoted
    if (
        last is not None
        and last[0] is session.lines
        and last[1] is session.member
        and last[2] is session.vouchers
        and last[3] == session.points
        and last[4] == session.off
        and last[5] is book
    ):
        return last[6]
    priced = _price(session, book, entered_vouchers(session, book))
    _Last.quoted = (session.lines, session.member, session.vouchers, session.points, session.off, book, priced)
    return priced


def _price(session: Session, book: StoreBook, vouchers: tuple[Voucher, ...]) -> Quote:
    """Every discount first; then what the customer pays with points."""
    items = book.chain_book.items
    priced = price(basket_lines(session.lines), _light(session, book), items, vouchers)
    policy = book.chain_book.points
    if not session.points or policy is None:
        return priced
    flags = [(line.line, line.flags) for line in session.lines]
    return pay_with(priced, session.points, policy.owner, flags, items)


def sale_points(session: Session, book: StoreBook, priced: Quote, now: datetime) -> SalePoints | None:
    """What this sale earns its member; None where nobody is known, or the chain gives no points."""
    if session.member is None:
        return None
    had = {line.line: line for line in session.lines}
    return points_of(((line.line, line.net_fen, had[line.line]) for line in priced.lines), book, now)


def points_of(paid: Iterable[tuple[int, int, Line]], book: StoreBook, at: datetime) -> SalePoints | None:
    """What is earned at `at` by lines as (number on the receipt, fen paid, line); None where the chain gives none."""
    policy = book.chain_book.points
    if policy is None:
        return None
    items = book.chain_book.items
    lines = earning_lines(
        (
            (number, fen, (*line.flags, *(items[line.code].flags if line.code in items else ())))
            for number, fen, line in paid
        ),
        policy,
    )
    expires_at = days_later(at, policy.expires_days, book.zone)
    return SalePoints(policy.brand, policy.owner, earned_points(lines, policy), lines, expires_at)


def entered_vouchers(session: Session, book: StoreBook) -> tuple[Voucher, ...]:
    """The vouchers of this visit, each as often as it was entered. The book is pinned, so each is in it."""
    if not session.vouchers:
        return ()
    found = (book.chain_book.voucher(entered) for entered in session.vouchers)
    return tuple(voucher for voucher in found if voucher is not None)


def counter(session: Session, book: StoreBook, now: datetime) -> Counter:
    """Where and when a voucher is entered."""
    return Counter(book.store, book.basket_owner, book.zone, now, session.member is not None)


def offered_vouchers(session: Session, book: StoreBook) -> tuple[Voucher, ...]:
    """Coupons that are on the screen of this visit: those that count here and when it began, not entered yet."""
    at = counter(session, book, session.opened_at) if session.opened_at is not None else None
    open_to_all = (voucher for voucher in book.chain_book.vouchers.values() if voucher.offered)
    return tuple(
        voucher
        for voucher in open_to_all
        if at is not None
        and voucher.id not in session.vouchers
        and (book.basket_owner != "none" or voucher.whole_baskets)
        and not refusal_now(voucher, at)
    )[:OFFERED_MAX]


def voucher_saves_now_fen(session: Session, book: StoreBook, voucher: Voucher) -> int:
    """What claiming this voucher would take off this basket."""
    if not session.lines:
        return 0
    vouchers = (*entered_vouchers(session, book), voucher)
    with_it = _price(session, book, vouchers)
    return max(0, quote(session, book).due_fen - with_it.due_fen)


def saves_now_fen(session: Session, book: StoreBook, plan: Plan) -> int:
    """What enrolling now would take off this basket."""
    if not session.lines or Switch.BENEFITS in session.off:
        return 0
    lines, items = basket_lines(session.lines), book.chain_book.items
    return _saves_now_fen(lines, _here(plan, session, book), items, entered_vouchers(session, book))


def _light(session: Session, book: StoreBook) -> LightOffer | None:
    view = session.member.membership if session.member is not None else None
    plan = book.chain_book.plans.get(view.plan) if view is not None else None
    if view is None or plan is None or Switch.BENEFITS in session.off:
        return None
    left = {str(benefit.benefit): benefit.uses_left for benefit in view.benefits}
    return LightOffer(_here(plan, session, book), view.used_fen, left, view.fee_fen, view.task_done)


def _here(plan: Plan, session: Session, book: StoreBook) -> Plan:
    """The plan with those of its benefits that hold in this store since the visit began. An amount names no goods:
    there only a benefit that excludes no more than the law does can be given."""
    kept = tuple(benefit for benefit in plan.benefits if _holds(benefit.scope, session, book))
    return plan if len(kept) == len(plan.benefits) else replace(plan, benefits=kept)


def _holds(scope: Scope, session: Session, book: StoreBook) -> bool:
    if book.basket_owner == "none" and not scope.whole_baskets:
        return False
    if not (scope.stores or scope.channels or scope.weekdays or scope.hours):
        return True
    at = session.opened_at
    return at is not None and holds_at(scope, store=book.store, channel=book.basket_owner, at=at, zone=book.zone)


def uses_of(session: Session, book: StoreBook, sale: SaleId) -> tuple[SaleUse, ...]:
    """The benefit uses of the current quote, numbered by the sale."""
    view = session.member.membership if session.member is not None else None
    if view is None:
        return ()
    return tuple(
        SaleUse(UsageId(derived_id(sale, f"use{n}")), view.id, use.benefit, use.fen)
        for n, use in enumerate(quote(session, book).uses)
    )


def vouchers_of(session: Session, book: StoreBook, sale: SaleId) -> tuple[SaleVoucher, ...]:
    """The vouchers of the current quote, numbered by the sale."""
    return tuple(
        SaleVoucher(UsageId(derived_id(sale, f"voucher{n}")), one.voucher, one.fen, one.funder, one.lines)
        for n, one in enumerate(quote(session, book).vouchers)
    )


def shown_vouchers(session: Session, book: StoreBook) -> tuple[ScreenVoucher, ...]:
    """The entered vouchers as the screen shows them: what each takes off, or why it does not."""
    if not session.vouchers and not session.points:
        return ()
    priced = quote(session, book)
    saves = Text(zh="优惠 {} 元", en="{} off")
    taken = tuple(
        ScreenVoucher(
            one.code, one.name.to(book.language), one.fen, saves.to(book.language).format(format_yuan(one.fen))
        )
        for one in priced.vouchers
    )
    waiting = tuple(
        ScreenVoucher(one.code, one.name.to(book.language), 0, one.why.to(book.language)) for one in priced.not_taken
    )
    return taken + waiting


def shown_lines(priced: Quote, book: StoreBook) -> tuple[ScreenLine, ...]:
    """The quote's lines as the screen shows them and the sale keeps them: one and the same."""
    return tuple(
        ScreenLine(
            line.line,
            line.code,
            line.name,
            line.quantity,
            line.unit_fen,
            line.discount_fen,
            line.net_fen,
            line.why.to(book.language) if line.why is not None else "",
        )
        for line in priced.lines
    )


def after_uses(member: MemberView | None, uses: tuple[SaleUse, ...]) -> MemberView | None:
    """The membership as it stands once these uses count; the port's own figures follow."""
    view: MembershipView | None = member.membership if member is not None else None
    if member is None or view is None or not uses:
        return member
    taken = [use.benefit for use in uses]
    left = tuple(
        BenefitLeft(benefit.benefit, max(0, benefit.uses_left - taken.count(benefit.benefit)))
        for benefit in view.benefits
    )
    used = view.used_fen + sum(use.fen for use in uses)
    return replace(member, membership=replace(view, used_fen=used, benefits=left))
