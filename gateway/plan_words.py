"""Plans and vouchers in words, in both languages: what a person asks of an offer before they read its fields."""

from __future__ import annotations

from models.domain.benefits import Benefit, BenefitKind
from models.domain.money import format_yuan
from models.domain.periods import Days, FixedDate, Months, Period
from models.domain.plans import Plan, Rule, Text
from models.domain.vouchers import Voucher, VoucherStage


def fee_words(plan: Plan) -> Text:
    """What the member pays at the end of the period."""
    fee = format_yuan(plan.fee_fen)
    least_zh = f"到期收取会费 {fee} 元与已享优惠中较低者"
    least_en = f"at the end the lower of the fee of {fee} and the benefits used"
    match plan.rule:
        case Rule.TASK_TIMES:
            zh, en = f"完成 {plan.task_target} 次购买：不收费", f"{plan.task_target} purchases made: nothing"
        case Rule.TASK_AMOUNT:
            target = format_yuan(plan.task_target or 0)
            zh, en = f"消费满 {target} 元：不收费", f"{target} spent: nothing"
        case Rule.CYCLE:
            return Text(f"{least_zh}，然后自动续期", f"{least_en}; then it renews by itself")
        case Rule.FEE_MIN:
            return Text(least_zh, least_en)
    return Text(f"{zh}；未完成：{least_zh}", f"{en}; else {least_en}")


def period_words(period: Period) -> Text:
    """How long a membership runs."""
    match period:
        case Days(days=days):
            return Text(f"{days} 天", f"{days} days")
        case FixedDate(last_day=last):
            return Text(f"至 {last.isoformat()}", f"until {last.isoformat()}")
        case Months(months=months):
            return Text(f"{months} 个月", f"{months} months")


def benefit_words(benefit: Benefit) -> Text:
    """What one use of a benefit gives."""
    value = format_yuan(benefit.value_fen)
    match benefit.kind:
        case BenefitKind.FIXED_COUPON:
            return Text(f"减 {value} 元", f"{value} off")
        case BenefitKind.PERCENT:
            off = percent(benefit.basis_points)
            return Text(f"减 {off}，最多 {value} 元", f"{off} off, {value} at most")
        case BenefitKind.NTH_ITEM:
            off = percent(benefit.basis_points)
            return Text(f"第 {benefit.nth} 件减 {off}", f"{off} off item number {benefit.nth}")
        case BenefitKind.FREE_DELIVERY:
            return Text(f"免配送费，最多 {value} 元", f"free delivery, {value} at most")
        case BenefitKind.TIER_PRICE:
            return Text(f"会员价，最多减 {value} 元", f"members' prices, {value} off at most")


def voucher_words(voucher: Voucher) -> Text:
    """What a voucher takes off, from what amount on, and with what it goes."""
    if voucher.basis_points:
        zh, en = f"减 {percent(voucher.basis_points)}", f"{percent(voucher.basis_points)} off"
    else:
        zh, en = f"减 {format_yuan(voucher.value_fen)} 元", f"{format_yuan(voucher.value_fen)} off"
    if voucher.stage is VoucherStage.LINE:
        zh, en = f"每件{zh}", f"{en} each piece" if voucher.value_fen else f"{en} each line"
    if voucher.threshold_fen:
        at = format_yuan(voucher.threshold_fen)
        zh, en = f"满 {at} 元{zh}", f"{en} from {at} on"
    if voucher.cap_fen is not None:
        cap = format_yuan(voucher.cap_fen)
        zh, en = f"{zh}，最多 {cap} 元", f"{en}, {cap} at most"
    if voucher.exclusive:
        return Text(f"{zh}；不与其他优惠同用", f"{en}; with no other discount")
    if voucher.group:
        return Text(f"{zh}；同类（{voucher.group}）限一张", f"{en}; one of its kind ({voucher.group})")
    return Text(zh, en)


def percent(basis_points: int) -> str:
    """1250 -> `12.5%`."""
    whole, rest = divmod(basis_points, 100)
    return f"{whole}.{rest:02d}".rstrip("0").rstrip(".") + "%"
