"""What a basket costs, and how it may be paid. One function serves the screen and the charge: preview == charge.

Vouchers (models.domain.vouchers) and the light benefit compete: the set with the lowest effective price wins
(models.domain.best_set). Effective price = price + change of min(F, u), because using the benefit may raise the later
charge; ties go to the lower price, then fewer uses, then the lower id. Nothing here knows a clock or a store: what a
membership has left, and which vouchers count here and now, is handed in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from models.domain import charging
from models.domain.benefits import Goods, worth
from models.domain.best_set import BestSet, Candidate, Taken, best_set, evaluate
from models.domain.errors import Refused
from models.domain.events import Tender, TenderKind
from models.domain.ids import BenefitId, LegalEntityId, VoucherId
from models.domain.money import cash_rounded_fen, format_yuan, require_fen
from models.domain.plans import Benefit, BenefitKind, Plan, Rule, Text
from models.domain.vouchers import LIGHT_GROUP, FittedVoucher, NotTaken, Voucher, fit, why_not


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
    """An article of the chain's book. `unit_fen` is the price of one, or of one kilogram with flag `weight`.

    `tax` names its rate (models.domain.taxes). `later`: prices from an instant on, ascending; None: not sold then.
    """

    code: str
    name: Text
    unit_fen: int
    flags: frozenset[str] = frozenset()
    tax: str = ""
    later: tuple[tuple[datetime, int | None], ...] = ()

    def fen_at(self, moment: datetime) -> int | None:
        """The price at `moment`; None: it is not sold then."""
        fen: int | None = self.unit_fen
        for at, then in self.later:
            if at <= moment:
                fen = then
        return fen


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
    task_done: int = 0
    """What is done of the plan's task, if it has one, before this sale."""

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
class VoucherTaken:
    """A voucher in this sale: `fen` in all, and what of it fell on which line. `funder` bears it."""

    voucher: VoucherId
    code: str
    name: Text
    funder: LegalEntityId
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
    `agency_fen` of the due is not our revenue. `age_check` says that a clerk must look. `not_taken`: vouchers that
    were entered and take nothing off, with why. `optimal` False: the search for the best set was cut short.
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
    vouchers: tuple[VoucherTaken, ...] = ()
    not_taken: tuple[NotTaken, ...] = ()
    optimal: bool = True


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


def price(
    lines: Sequence[BasketLine],
    light: LightOffer | None = None,
    items: Mapping[str, Item] | None = None,
    vouchers: Sequence[Voucher] = (),
) -> Quote:
    """The quote for a basket. Pure: the same arguments give the same quote, on the screen and at payment.

    Flags of `items` (the chain's book) count beside those of the line, so that a till cannot discount tobacco by
    leaving a flag out. `vouchers`: those entered, each as often as it was. Raises Refused `line_invalid` for a
    quantity below 1 or a negative price.
    """
    flags, grosses = _checked(lines, items)
    goods = _goods(lines, flags) if light or vouchers else ()
    fitted = tuple(fit(voucher, goods) for voucher in vouchers)
    best = _best(grosses, fitted, _light_candidates(goods, light) if light else ())
    taken = tuple(_voucher_taken(one, lines) for one in best.taken if isinstance(one.candidate.discount, _Voucher))
    uses = _uses(lines, grosses, best)
    off = [sum(one.parts[n] for one in best.taken) for n in range(len(lines))]
    gross, discount = sum(grosses), sum(off)
    return Quote(
        lines=tuple(
            _quoted(line, own, fen, _why(best, n))
            for n, (line, own, fen) in enumerate(zip(lines, grosses, off, strict=True))
        ),
        gross_fen=gross,
        discount_fen=discount,
        due_fen=gross - discount,
        cash_due_fen=cash_rounded_fen(gross - discount),
        uses=uses,
        later_fen=best.effective_fen - best.price_fen,
        agency_fen=sum(
            own - fen for line, own, fen in zip(lines, grosses, off, strict=True) if Flag.AGENCY in flags[line.line]
        ),
        age_check=any(Flag.AGE_18 in those for those in flags.values()),
        vouchers=taken,
        not_taken=_not_taken(fitted, grosses, best),
        optimal=best.optimal,
    )


def saves_now_fen(
    lines: Sequence[BasketLine],
    plan: Plan,
    items: Mapping[str, Item] | None = None,
    vouchers: Sequence[Voucher] = (),
) -> int:
    """What enrolling under `plan` would take off this basket at once, for the offer on the screen: what `price` takes
    off for somebody who has everything left, less what it takes off now. Below 0 where the plan's benefit takes a
    voucher's place for a later gain. The lines were priced already.
    """
    flags, grosses = _checked(lines, items)
    goods = _goods(lines, flags)
    fitted = tuple(fit(voucher, goods) for voucher in vouchers)
    with_plan = _best(grosses, fitted, _light_candidates(goods, LightOffer.fresh(plan)))
    now_fen = _best(grosses, fitted, ()).price_fen if vouchers else sum(grosses)
    return now_fen - with_plan.price_fen


def later_fen(light: LightOffer, fen: int) -> int:
    """How much using `fen` more raises the charge at the end: the change of min(F_eff, u); 0 once a task is kept.

    A sale with a use is one of the purchases of TASK_TIMES. A task that is not kept yet counts as missed: the offer
    never promises what the member has still to do. What this sale pays towards TASK_AMOUNT is known after it.
    """
    plan = light.plan
    fee = plan.fee_fen if light.fee_eff_fen is None else light.fee_eff_fen
    done = light.task_done + (1 if fen and plan.rule is Rule.TASK_TIMES else 0)
    if plan.task_target is not None and done >= plan.task_target:
        return 0
    return charging.charge_fen(fee, light.used_fen + fen) - charging.charge_fen(fee, light.used_fen)


def _checked(
    lines: Sequence[BasketLine], items: Mapping[str, Item] | None
) -> tuple[dict[int, frozenset[str]], list[int]]:
    """Each line's flags by its number, and its gross."""
    flags: dict[int, frozenset[str]] = {}
    grosses: list[int] = []
    for line in lines:
        gross_fen = line.gross_fen
        if require_fen(line.quantity, "quantity") < 1 or require_fen(gross_fen, "gross_fen") < 0:
            raise Refused("line_invalid", f"line {line.line} has no possible price", "check quantity and price")
        item = items.get(line.code) if items else None
        flags[line.line] = line.flags | item.flags if item else line.flags
        grosses.append(gross_fen)
    if len(flags) != len(lines):
        raise Refused("line_invalid", "two lines have one number", "number the lines")
    return flags, grosses


# ---------------------------------------------------------------- candidates


@dataclass(frozen=True, slots=True)
class _Voucher:
    """A voucher that competes: nothing is charged later because of it."""

    fitted: FittedVoucher

    def worth_fen(self, nets: Sequence[int]) -> int:
        return self.fitted.worth_fen(nets)

    def parts(self, nets: Sequence[int]) -> tuple[int, ...]:
        return self.fitted.parts(nets)

    def later_fen(self, fen: int) -> int:
        del fen
        return 0


@dataclass(frozen=True, slots=True)
class _LightUse:
    """So many uses of one benefit, which compete as one more voucher. Nets are what others left of `goods`."""

    light: LightOffer
    benefit: Benefit
    uses: int
    goods: tuple[Goods, ...]

    def worth_fen(self, nets: Sequence[int]) -> int:
        if self.benefit.kind is not BenefitKind.FIXED_COUPON:
            return sum(map(sum, self.each(nets)))
        # A search asks this of every set it prices.
        scope = self.benefit.scope
        left = sum(net for line, net in zip(self.goods, nets, strict=True) if scope.covers(line.flags, line.code))
        return min(self.uses * self.benefit.value_fen, left)

    def parts(self, nets: Sequence[int]) -> tuple[int, ...]:
        return tuple(sum(parts) for parts in zip(*self.each(nets), strict=True)) or (0,) * len(nets)

    def later_fen(self, fen: int) -> int:
        return later_fen(self.light, fen)

    def each(self, nets: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """Use by use, what it takes off each line; fewer than `uses` where the rest would be worth nothing."""
        goods = [
            line if line.left_fen == net else replace(line, left_fen=net)
            for line, net in zip(self.goods, nets, strict=True)
        ]
        return worth(self.benefit, goods, self.uses)


def _goods(lines: Sequence[BasketLine], flags: Mapping[int, frozenset[str]]) -> tuple[Goods, ...]:
    return tuple(
        Goods(line.code, line.quantity, line.unit_fen, line.gross_fen, line.gross_fen, flags[line.line])
        for line in lines
    )


def voucher_candidates(fitted: Sequence[FittedVoucher]) -> list[Candidate]:
    """One each; the second entry of a voucher is a candidate of its own, after the first."""
    seen: dict[str, int] = {}
    made = []
    for one in fitted:
        voucher = one.voucher
        n = seen[voucher.id] = seen.get(voucher.id, 0) + 1
        name = voucher.id if n == 1 else f"{voucher.id}#{n}"
        stage, kind, _ = voucher.order
        made.append(Candidate(name, (stage, kind, name), _Voucher(one), voucher.group, voucher.exclusive))
    return made


def _light_candidates(goods: tuple[Goods, ...], light: LightOffer) -> list[Candidate]:
    """Each benefit with each number of uses that is left; of all of them a sale takes one, after the vouchers."""
    made = []
    for benefit in light.plan.benefits:
        for uses in range(1, min(light.uses_left.get(benefit.id, 0), benefit.uses_per_sale_max) + 1):
            order = (2, 0, f"{benefit.id}#{uses:03}")
            made.append(Candidate(benefit.id, order, _LightUse(light, benefit, uses, goods), LIGHT_GROUP, uses=uses))
    return made


def _best(grosses: Sequence[int], fitted: Sequence[FittedVoucher], light: Sequence[Candidate]) -> BestSet:
    if fitted:
        return best_set(grosses, [*voucher_candidates(fitted), *light])
    # Most baskets: one choice at most, no search.
    found = min((evaluate(grosses, chosen) for chosen in [(), *((one,) for one in light)]), key=lambda one: one[0])
    score, taken = found
    return BestSet(taken, score.price_fen, score.effective_fen, True, len(light) + 1)


# ---------------------------------------------------------------- what the quote says


def _numbered(lines: Sequence[BasketLine], parts: Sequence[int]) -> tuple[tuple[int, int], ...]:
    return tuple((line.line, part) for line, part in zip(lines, parts, strict=True) if part)


def _voucher_taken(one: Taken, lines: Sequence[BasketLine]) -> VoucherTaken:
    assert isinstance(one.candidate.discount, _Voucher)
    voucher = one.candidate.discount.fitted.voucher
    shares = _numbered(lines, one.parts)
    return VoucherTaken(voucher.id, voucher.code, voucher.name, voucher.funder, sum(one.parts), shares)


def _uses(lines: Sequence[BasketLine], grosses: Sequence[int], best: BestSet) -> tuple[BenefitUse, ...]:
    """The light benefit's uses: it comes last, so what it found is what all the others left."""
    light = next((one for one in best.taken if isinstance(one.candidate.discount, _LightUse)), None)
    if light is None:
        return ()
    use = light.candidate.discount
    assert isinstance(use, _LightUse)
    others = [one.parts for one in best.taken if one is not light]
    left = [gross - sum(part[n] for part in others) for n, gross in enumerate(grosses)]
    return tuple(BenefitUse(use.benefit.id, sum(parts), _numbered(lines, parts)) for parts in use.each(left))


def _why(best: BestSet, n: int) -> Text | None:
    """Why the n-th line costs less, in the order in which the discounts were taken."""
    names = [_name(one) for one in best.taken if one.parts[n]]
    return Text(zh="；".join(name.zh for name in names), en="; ".join(name.en for name in names)) if names else None


def _name(one: Taken) -> Text:
    discount = one.candidate.discount
    if isinstance(discount, _LightUse):
        name = discount.benefit.name
        return Text(zh=f"轻会员：{name.zh}", en=f"light: {name.en}")
    assert isinstance(discount, _Voucher)
    name = discount.fitted.voucher.name
    return Text(zh=f"券：{name.zh}", en=f"voucher: {name.en}")


def _not_taken(fitted: Sequence[FittedVoucher], grosses: Sequence[int], best: BestSet) -> tuple[NotTaken, ...]:
    taken = [one.candidate.discount.fitted for one in best.taken if isinstance(one.candidate.discount, _Voucher)]
    vouchers = [one.voucher for one in taken]
    left = list(taken)
    missing = []
    for one in fitted:
        if one in left:
            left.remove(one)
        else:
            missing.append(why_not(one, grosses, vouchers))
    return tuple(missing)


def _quoted(line: BasketLine, gross_fen: int, off_fen: int, why: Text | None) -> QuoteLine:
    return QuoteLine(
        line.line,
        line.code,
        line.name,
        line.quantity,
        line.unit_fen,
        off_fen,
        gross_fen - off_fen,
        why,
    )


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
