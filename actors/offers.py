"""What a customer may take: a voucher by its code, an offer from the screen."""

from __future__ import annotations

from actors.pricing import counter, offered_vouchers, quote
from actors.stage import Stage
from models.domain.errors import Refused
from models.domain.events import Claim, Event
from models.domain.events import Voucher as VoucherEntered
from models.domain.kill_switch import Switch
from models.domain.money import format_yuan
from models.domain.points import NAME, POINTS, entered_points
from models.domain.screen import ScreenState
from models.domain.voucher_reader import code_key
from models.domain.vouchers import Voucher, check_entry


def voucher(stage: Stage, event: Event, body: VoucherEntered) -> None:
    """Enter a voucher by its code. It stays entered for the visit: the best set of all of them is what counts."""
    _may_take(stage)
    points, policy = entered_points(body.code), stage.book.chain_book.points
    if points is not None and policy is not None:
        _pay_with_points(stage, event, points)
        return
    known = stage.book.chain_book.vouchers.get(code_key(body.code))
    if known is None:
        raise Refused("unknown_voucher")
    _enter(stage, event, known)


def claim(stage: Stage, event: Event, body: Claim) -> None:
    """Take a coupon that the screen offers: as if its code had been entered. A plan is entered by `enrol`."""
    _may_take(stage)
    if Switch.OFFERS in stage.session.off:
        raise Refused("offers_off")
    if body.offer in stage.book.chain_book.plans:
        raise Refused("not_claimable")
    known = stage.book.chain_book.voucher(body.offer)
    if known is None or known not in offered_vouchers(stage.session, stage.book):
        raise Refused("unknown_offer")
    _enter(stage, event, known)


def _may_take(stage: Stage) -> None:
    if stage.session.busy:
        raise Refused("lane_busy")
    if stage.session.state is ScreenState.PAID:
        raise Refused("not_now")


def _enter(stage: Stage, event: Event, known: Voucher) -> None:
    session, book = stage.session, stage.book
    check_entry(known, counter(session, book, stage.now), session.vouchers)
    if book.basket_owner == "none" and not known.whole_baskets:
        raise Refused("voucher_not_here")  # an amount names no goods
    stage.change(vouchers=(*session.vouchers, known.id))
    if _rests(stage):
        priced = quote(stage.session, book)
        _say(stage, known, sum(one.fen for one in priced.vouchers if one.voucher == known.id))
    stage.reply(event)


def _pay_with_points(stage: Stage, event: Event, asked: int) -> None:
    """Points as a part of the price: so many, or below 0 as many as there are. Asked again, the last one counts."""
    member = stage.session.member
    if member is None:
        raise Refused("voucher_members")
    if stage.book.basket_owner == "none":
        raise Refused("voucher_not_here")  # an amount names no goods
    points = member.points if asked < 0 else asked
    if points > member.points or (asked < 0 and not points):
        raise Refused("points_short")
    stage.change(points=points)
    if _rests(stage):
        priced = quote(stage.session, stage.book)
        fen = sum(one.fen for one in priced.vouchers if one.voucher == POINTS)
        name = NAME.to(stage.book.language)
        stage.prompt("voucher_added", name=name, saves=format_yuan(fen))
    stage.reply(event)


def _rests(stage: Stage) -> bool:
    """Back to the state without a question; False where one is open, or a clerk is being asked for."""
    if stage.session.state in (ScreenState.DIGITS, ScreenState.ENROLLING):
        return False
    stage.change(state=stage.session.resting_state)
    return stage.session.state is not ScreenState.BASKET


def _say(stage: Stage, known: Voucher, saves_fen: int) -> None:
    language = stage.book.language
    name = known.name.to(language)
    if saves_fen:
        stage.prompt("voucher_added", name=name, saves=format_yuan(saves_fen))
        return
    missing = quote(stage.session, stage.book).not_taken
    why = next(one.why.to(language) for one in missing if one.voucher == known.id)
    stage.prompt("voucher_waits", name=name, why=why)
