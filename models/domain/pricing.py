"""What a basket costs, and how it may be paid. One function serves the screen and the charge: preview == charge.

The light benefit is one fixed coupon per sale, chosen by effective price = price + change of min(F, u), because
using it may raise the later charge; ties go to the lower price, then fewer uses, then the lower benefit id.
Nothing here knows a clock or a store: what a membership has left is handed in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from models.domain import charging
from models.domain.errors import Refused
from models.domain.events import Tender, TenderKind
from models.domain.ids import BenefitId
from models.domain.money import allocate, cash_rounded_fen, format_yuan, require_fen
from models.domain.plans import Benefit, Plan, Text


class Flag(StrEnum):
    """What the law or a contract says about an item. A closed list of the terminal protocol."""

    NO_DISCOUNT = "no_discount"
    NO_POINTS = "no_points"
    TOBACCO = "tobacco"
    AGE_18 = "age_18"
    AGENCY = "agency"
    """Sold for somebody else (top-ups, bills, parcels): a liability, outside u."""
    WEIGHT = "weight"
    RETURNABLE = "returnable"


@dataclass(frozen=True, slots=True)
class Item:
    """An article of the chain's book. `unit_fen` is the price of one, or of one kilogram with flag `weight`."""

    code: str
    name: Text
    unit_fen: int
    flags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class BasketLine:
    """One line before pricing. `base_fen` is the till's own price of the line; None: quantity * unit_fen."""

    line: int
    code: str
    name: str
    quantity: int
    unit_fen: int
    flags: frozenset[str] = frozenset()
    base_fen: int | None = None

    @property
    def gross_fen(self) -> int:
        """The line before our discounts."""
        return self.quantity * self.unit_fen if self.base_fen is None else self.base_fen


@dataclass(frozen=True, slots=True)
class LightOffer:
    """What a member's light membership can give now. `used_fen` is u, open reservations of others excluded."""

    plan: Plan
    used_fen: int
    uses_left: Mapping[str, int]
    fee_eff_fen: int | None = None
    """F_eff; None: the plan's fee."""

    @staticmethod
    def fresh(plan: Plan) -> LightOffer:
        """What somebody has who enrols now."""
        return LightOffer(plan, 0, {benefit.id: benefit.quota for benefit in plan.benefits})


@dataclass(frozen=True, slots=True)
class BenefitUse:
    """One use of a benefit in this sale: `fen` in all, and what of it fell on which line."""

    benefit: BenefitId
    fen: int
    lines: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class QuoteLine:
    """One priced line: net = gross of the line less discount; `why` explains the discount."""

    line: int
    code: str
    name: str
    quantity: int
    unit_fen: int
    discount_fen: int
    net_fen: int
    why: Text | None = None


@dataclass(frozen=True, slots=True)
class Quote:
    """A priced basket. due = gross - discount; `cash_due_fen` is what is paid when all of it is cash.

    `later_fen` is how much more the membership will charge at its end because of this sale.
    `agency_fen` of the due is not our revenue. `age_check` says that a clerk must look.
    """

    lines: tuple[QuoteLine, ...] = ()
    gross_fen: int = 0
    discount_fen: int = 0
    due_fen: int = 0
    cash_due_fen: int = 0
    uses: tuple[BenefitUse, ...] = ()
    later_fen: int = 0
    agency_fen: int = 0
    age_check: bool = False


@dataclass(frozen=True, slots=True)
class TenderPaid:
    """One accepted tender; change only from cash."""

    tender: Tender
    change_fen: int = 0


@dataclass(frozen=True, slots=True)
class AcceptedTenders:
    """How a quote is paid: tenders in order, and what rounding down the cash let the customer off."""

    tenders: tuple[TenderPaid, ...]
    rounding_fen: int

    @property
    def taken_fen(self) -> int:
        """What was taken: all tenders but coupons."""
        return sum(paid.tender.fen for paid in self.tenders if paid.tender.kind is not TenderKind.COUPON)


@dataclass(frozen=True, slots=True)
class _Choice:
    """A candidate: `uses` times `benefit`, `fen` in all."""

    benefit: Benefit
    uses: int
    fen: int
    eligible: Mapping[int, int] = field(compare=False)


def price(
    lines: Sequence[BasketLine], light: LightOffer | None = None, items: Mapping[str, Item] | None = None
) -> Quote:
    """The quote for a basket. Pure: the same arguments give the same quote, on the screen and at payment.

    Flags of `items` (the chain's book) count beside those of the line, so that a till cannot discount tobacco by
    leaving a flag out. Raises Refused `line_invalid` for a quantity below 1 or a negative price.
    """
    flags: dict[int, frozenset[str]] = {}
    grosses: list[int] = []
    for line in lines:
        gross_fen = line.gross_fen
        if require_fen(line.quantity, "quantity") < 1 or require_fen(gross_fen, "gross_fen") < 0:
            raise Refused("line_invalid", f"line {line.line} has no possible price", "check quantity and price")
        flags[line.line] = _flags(line, items)
        grosses.append(gross_fen)
    if len(flags) != len(lines):
        raise Refused("line_invalid", "two lines have one number", "number the lines")
    choice = _best(lines, flags, light) if light else None
    uses = _uses(choice) if choice else ()
    off: dict[int, int] = dict.fromkeys(flags, 0)
    for use in uses:
        for number, fen in use.lines:
            off[number] += fen
    why = Text(zh=f"轻会员：{choice.benefit.name.zh}", en=f"light: {choice.benefit.name.en}") if choice else None
    gross = sum(grosses)
    discount = sum(off.values())
    return Quote(
        lines=tuple(_quoted(line, own, off[line.line], why) for line, own in zip(lines, grosses, strict=True)),
        gross_fen=gross,
        discount_fen=discount,
        due_fen=gross - discount,
        cash_due_fen=cash_rounded_fen(gross - discount),
        uses=uses,
        later_fen=later_fen(light, discount) if light else 0,
        agency_fen=sum(
            own - off[line.line] for line, own in zip(lines, grosses, strict=True) if Flag.AGENCY in flags[line.line]
        ),
        age_check=any(Flag.AGE_18 in those for those in flags.values()),
    )


def saves_now_fen(lines: Sequence[BasketLine], plan: Plan, items: Mapping[str, Item] | None = None) -> int:
    """What enrolling under `plan` would take off this basket at once, for the offer on the screen: the discount of
    `price` for somebody who has everything left. The lines were priced already.
    """
    flags = {line.line: _flags(line, items) for line in lines}
    choice = _best(lines, flags, LightOffer.fresh(plan))
    return choice.fen if choice else 0


def later_fen(light: LightOffer, fen: int) -> int:
    """How much using `fen` more raises the charge at the end: the change of min(F_eff, u)."""
    fee = light.plan.fee_fen if light.fee_eff_fen is None else light.fee_eff_fen
    return charging.charge_fen(fee, light.used_fen + fen) - charging.charge_fen(fee, light.used_fen)


def _flags(line: BasketLine, items: Mapping[str, Item] | None) -> frozenset[str]:
    item = items.get(line.code) if items else None
    return line.flags | item.flags if item else line.flags


def _quoted(line: BasketLine, gross_fen: int, off_fen: int, why: Text | None) -> QuoteLine:
    return QuoteLine(
        line.line,
        line.code,
        line.name,
        line.quantity,
        line.unit_fen,
        off_fen,
        gross_fen - off_fen,
        why if off_fen else None,
    )


def _best(lines: Sequence[BasketLine], flags: Mapping[int, frozenset[str]], light: LightOffer) -> _Choice | None:
    """The best candidate, or None when using nothing is at least as good."""
    candidates = [
        _Choice(benefit, uses, min(uses * benefit.value_fen, sum(eligible.values())), eligible)
        for benefit in light.plan.benefits
        for eligible in [_eligible(lines, flags, benefit)]
        for uses in range(1, min(light.uses_left.get(benefit.id, 0), benefit.uses_per_sale_max) + 1)
    ]
    best = min(
        candidates,
        key=lambda c: (later_fen(light, c.fen) - c.fen, -c.fen, c.uses, c.benefit.id),
        default=None,
    )
    return best if best is not None and best.fen else None


def _eligible(lines: Sequence[BasketLine], flags: Mapping[int, frozenset[str]], benefit: Benefit) -> dict[int, int]:
    return {line.line: line.gross_fen for line in lines if benefit.scope.covers(flags[line.line])}


def _uses(choice: _Choice) -> tuple[BenefitUse, ...]:
    """Each use of the choice with its allocation by largest remainder; together never above a line's price."""
    left = dict(choice.eligible)
    made: list[BenefitUse] = []
    for _ in range(choice.uses):
        fen = min(choice.benefit.value_fen, sum(left.values()))
        parts = allocate(fen, list(left.values()))
        shares = tuple((number, part) for number, part in zip(left, parts, strict=True) if part)
        made.append(BenefitUse(choice.benefit.id, fen, shares))
        for number, part in shares:
            left[number] -= part
    return tuple(made)


# ---------------------------------------------------------------- what a till or a customer sends


def check_total(lines: Sequence[BasketLine], total_fen: int) -> None:
    """Raises Refused `total_mismatch` unless `total_fen` is the sum of the lines."""
    summed = sum(line.gross_fen for line in lines)
    if summed != require_fen(total_fen, "total_fen"):
        raise Refused(
            "total_mismatch",
            f"the lines sum to {format_yuan(summed)}, the total says {format_yuan(total_fen)}",
            "send the basket again",
        )


def check_tenders(tenders: Sequence[Tender], quote: Quote, *, coupons: bool = False) -> AcceptedTenders:
    """How these tenders pay `quote`; raises Refused and changes nothing otherwise.

    Tenders other than coupon sum to due_fen, or to cash_due_fen when all of them are cash; a due of 0 takes none.
    `coupons`: the till takes no line adjustments, so coupon tenders must sum to discount_fen; from any other till
    there are none. Codes: `tender_invalid`, `tender_short` (less cash handed over than the tender says),
    `change_not_cash`, `coupon_mismatch`, `tender_mismatch`.
    """
    paid = tuple(_tender_paid(tender, quote) for tender in tenders)
    money = [tender for tender in tenders if tender.kind is not TenderKind.COUPON]
    coupon_fen = sum(tender.fen for tender in tenders if tender.kind is TenderKind.COUPON)
    wanted_coupon_fen = quote.discount_fen if coupons else 0
    if coupon_fen != wanted_coupon_fen:
        raise Refused(
            "coupon_mismatch",
            f"coupons of {format_yuan(coupon_fen)}, the discount to show is {format_yuan(wanted_coupon_fen)}",
            "send the screen's discount as coupons" if coupons else "send no coupon: the lines have it",
        )
    all_cash = bool(money) and all(tender.kind is TenderKind.CASH for tender in money)
    wanted_fen = quote.cash_due_fen if all_cash else quote.due_fen
    money_fen = sum(tender.fen for tender in money)
    if money_fen != wanted_fen:
        raise Refused(
            "tender_mismatch",
            f"tenders of {format_yuan(money_fen)}, due is {format_yuan(wanted_fen)}",
            "pay exactly what the screen shows",
        )
    return AcceptedTenders(paid, quote.due_fen - money_fen)


def _tender_paid(tender: Tender, quote: Quote) -> TenderPaid:
    # Less than a jiao in cash rounds down to nothing; the tender then says only how it was paid.
    free_cash = tender.kind is TenderKind.CASH and quote.cash_due_fen == 0 < quote.due_fen
    if require_fen(tender.fen, "fen") < 0 or (tender.fen == 0 and not free_cash):
        raise Refused("tender_invalid", f"a {tender.kind} tender of {tender.fen} fen", "send what was paid")
    if tender.tendered_fen is None:
        return TenderPaid(tender)
    if tender.kind is not TenderKind.CASH:
        raise Refused("change_not_cash", f"{tender.kind} gives no change", "send tendered_fen for cash only")
    if require_fen(tender.tendered_fen, "tendered_fen") < tender.fen:
        raise Refused(
            "tender_short",
            f"{format_yuan(tender.tendered_fen)} handed over for {format_yuan(tender.fen)}",
            "ask for the rest or use another tender",
        )
    return TenderPaid(tender, tender.tendered_fen - tender.fen)
