"""Goods brought back: which share of a sale they are, and to whom its money goes. Pure.

Every share is cumulative (what k of n pieces are worth, less what went back before), so that however a sale is
brought back, in one piece or line by line, the parts sum to the whole: never more than was sold, never a fen left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from models.domain.errors import Refused
from models.domain.events import ReturnLine, TenderKind
from models.domain.ids import derived_id
from models.domain.messages import ReturnedLine, SaleFound, SaleTender, SaleUse, SaleVoucher
from models.domain.money import Rounding, allocate, cash_rounded_fen, divide
from models.domain.screen import ScreenLine


@dataclass(frozen=True, slots=True)
class Back:
    """What one return moves. Money given back = due_fen - rounding_fen + suspense_fen.

    `tenders`: the money tenders of the sale in their order, each with what goes back of it (0 is possible).
    `uses`: the benefits' parts that are reversed.
    """

    lines: tuple[ReturnedLine, ...]
    tenders: tuple[SaleTender, ...]
    uses: tuple[SaleUse, ...]
    due_fen: int
    discount_fen: int
    rounding_fen: int
    suspense_fen: int
    vouchers: tuple[SaleVoucher, ...] = ()
    """What of these lines' discount came from vouchers: it stays with them, whatever is left of a threshold."""

    @property
    def given_fen(self) -> int:
        """Money that goes back to the customer."""
        return sum(tender.fen for tender in self.tenders)

    @property
    def cash_fen(self) -> int:
        """What of it comes out of the drawer."""
        return sum(cash_out_fen(tender) for tender in self.tenders if tender.kind is TenderKind.CASH)


def cash_out_fen(tender: SaleTender) -> int:
    """What of a tender's part was handed out. Cash in the place of a tender that its provider would not give back is
    rounded down to 10 fen (`payer_fen`): all of the part counts as given back.
    """
    return tender.fen if tender.kind is not TenderKind.CASH or tender.payer_fen is None else tender.payer_fen


def in_cash(back: Back, order: str) -> Back | None:
    """The same with the part of `order` handed out from the drawer. None: a promotion at the provider was part of it,
    so that the customer paid less than the part is worth: only the provider can give that back.
    """
    for tender in back.tenders:
        promoted = {tender.payer_fen, tender.receipt_fen} - {None, tender.fen}
        if tender.order == order and promoted:
            return None
    return replace(
        back,
        tenders=tuple(
            replace(
                tender,
                kind=TenderKind.CASH,
                order="",
                provider="",
                trade_no="",
                payer_fen=cash_rounded_fen(tender.fen),
                receipt_fen=None,
            )
            if tender.order == order
            else tender
            for tender in back.tenders
        ),
    )


def money_tenders(tenders: Sequence[SaleTender]) -> tuple[SaleTender, ...]:
    """The tenders that moved money: all but coupons."""
    return tuple(tender for tender in tenders if tender.kind is not TenderKind.COUPON)


def bring_back(sale: SaleFound, wanted: Sequence[ReturnLine], own_goods: frozenset[str] = frozenset()) -> Back:
    """The share of `sale` that these pieces are. `own_goods`: codes of articles that are not sold for somebody else.

    Raises Refused: `no_such_line`, `return_exceeds` (more pieces than are left), `not_returnable` (agency sales).
    """
    sold = {line.line: line for line in sale.lines}
    before = Counter[int]()
    for past in sale.returns:
        before.update({line.line: line.quantity for line in past.lines})
    pieces = Counter[int]()
    for asked in wanted:
        pieces[asked.line] += asked.quantity
    lines = []
    for number, quantity in sorted(pieces.items()):
        line = sold.get(number)
        if line is None:
            raise Refused("no_such_line")
        if before[number] + quantity > line.quantity:
            raise Refused("return_exceeds")
        if sale.agency_fen and line.code not in own_goods:
            raise Refused("not_returnable")
        lines.append(_returned(line, before[number], quantity))
    return _back(sale, tuple(lines))


def _returned(line: ScreenLine, before: int, quantity: int) -> ReturnedLine:
    def share(fen: int) -> int:
        upto = divide(fen * (before + quantity), line.quantity, Rounding.FLOOR)
        return upto - divide(fen * before, line.quantity, Rounding.FLOOR)

    return ReturnedLine(line.line, quantity, share(line.net_fen), share(line.discount_fen))


def _back(sale: SaleFound, lines: tuple[ReturnedLine, ...]) -> Back:
    due_fen = sum(line.net_fen for line in lines)
    discount_fen = sum(line.discount_fen for line in lines)
    taken = money_tenders(sale.tenders)
    gone = [sum(past.tenders[n].fen for past in sale.returns) for n in range(len(taken))]
    due_before = sum(line.net_fen for past in sale.returns for line in past.lines)
    given_fen = max(0, _given_upto(sale, taken, due_before + due_fen) - sum(gone))
    parts = allocate(given_fen, [tender.fen - back for tender, back in zip(taken, gone, strict=True)])
    exact = due_fen - given_fen
    rounds = _is_rounded(sale, taken)
    vouchers = _vouchers_back(sale, lines)
    return Back(
        lines=lines,
        tenders=tuple(
            replace(
                tender,
                fen=part,
                tendered_fen=None,
                change_fen=None,
                payer_fen=_share(tender.payer_fen, tender.fen, back, part),
                receipt_fen=_share(tender.receipt_fen, tender.fen, back, part),
            )
            for tender, back, part in zip(taken, gone, parts, strict=True)
        ),
        uses=_uses_back(sale, discount_fen - sum(one.fen for one in vouchers)),
        vouchers=vouchers,
        due_fen=due_fen,
        discount_fen=discount_fen,
        rounding_fen=exact if rounds else 0,
        suspense_fen=0 if rounds else -exact,
    )


def _share(whole_fen: int | None, of_fen: int, gone_fen: int, part_fen: int) -> int | None:
    """What of a promoted tender's part goes back with `part_fen`: cumulative, so that the parts sum exactly."""
    if whole_fen is None:
        return None
    return whole_fen * (gone_fen + part_fen) // of_fen - whole_fen * gone_fen // of_fen


def _is_rounded(sale: SaleFound, taken: Sequence[SaleTender]) -> bool:
    """All of it was cash, and enough: what a return gives less than the lines' price is cash rounding."""
    due = sale.gross_fen - sale.discount_fen
    all_cash = bool(taken) and all(tender.kind is TenderKind.CASH for tender in taken)
    return all_cash and sum(tender.fen for tender in taken) + sale.rounding_fen >= due


def _given_upto(sale: SaleFound, taken: Sequence[SaleTender], due_fen: int) -> int:
    """Money back once goods worth `due_fen` have come back in all: never more than was taken for the order."""
    taken_fen = sum(tender.fen for tender in taken)
    due = sale.gross_fen - sale.discount_fen
    if due_fen == due:
        return min(due - sale.rounding_fen, taken_fen)
    upto = min(due_fen, taken_fen)
    return cash_rounded_fen(upto) if _is_rounded(sale, taken) else upto


def _vouchers_back(sale: SaleFound, lines: Sequence[ReturnedLine]) -> tuple[SaleVoucher, ...]:
    """What each voucher gave of these lines' discount. A line's discount is shared over what gave it as far as it is
    not back already, by largest remainder; the rest of it is the light benefit's. Earlier returns are gone through
    again in their order, so nothing has to be kept of how they were shared.
    """
    if not sale.vouchers:
        return ()
    left = {line.line: _gave(sale, line) for line in sale.lines}
    for returned in [*(past.lines for past in sale.returns), lines]:
        taken: Counter[tuple[int, int]] = Counter()
        for line in returned:
            shares = allocate(line.discount_fen, left[line.line])
            left[line.line] = [had - share for had, share in zip(left[line.line], shares, strict=True)]
            taken.update({(n, line.line): share for n, share in enumerate(shares[:-1]) if share})
    return tuple(
        replace(one, fen=sum(fen for _, fen in parts), lines=parts)
        for n, one in enumerate(sale.vouchers)
        if (parts := tuple((line, fen) for (giver, line), fen in sorted(taken.items()) if giver == n))
    )


def _gave(sale: SaleFound, line: ScreenLine) -> list[int]:
    """What gave this line's discount: voucher by voucher, last the light benefit."""
    given = [dict(one.lines).get(line.line, 0) for one in sale.vouchers]
    return [*given, line.discount_fen - sum(given)]


def _uses_back(sale: SaleFound, discount_fen: int) -> tuple[SaleUse, ...]:
    """The light benefit's part of the discount of these lines, taken back from the uses that gave it."""
    gone = Counter[str]()
    for past in sale.returns:
        gone.update({use.usage: use.fen for use in past.uses})
    left = [use.fen - gone[use.usage] for use in sale.uses]
    parts = allocate(min(discount_fen, sum(left)), left)
    return tuple(replace(use, fen=part) for use, part in zip(sale.uses, parts, strict=True) if part)


def refund_number(cause: str, order: str) -> str:
    """Our number of a refund: one for ever per cause (a voided sale, a return) and order, whoever asks again."""
    return "R" + derived_id(cause, order).replace("-", "")
