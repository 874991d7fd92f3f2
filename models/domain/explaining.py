"""A charge in one sentence, and what the same baskets would have cost without the membership. Both languages."""

from __future__ import annotations

from dataclasses import dataclass

from models.domain.charging import charge_fen
from models.domain.money import format_yuan, require_fen
from models.domain.plans import Rule, Text


@dataclass(frozen=True, slots=True)
class Task:
    """What the member promised to do, and what was done of it: purchases, or fen spent."""

    rule: Rule
    target: int
    done: int

    @property
    def kept(self) -> bool:
        """Nothing is charged then."""
        return self.done >= self.target


def explain(
    fee_fen: int,
    used_fen: int,
    *,
    fee_eff_fen: int | None = None,
    refunded_fen: int = 0,
    settled: bool = True,
    task: Task | None = None,
) -> Text:
    """One sentence that says what a member pays and why, in both languages.

    `settled=False` words it as a preview. `refunded_fen` is what went back after the collection.
    """
    fee_eff = fee_fen if fee_eff_fen is None else fee_eff_fen
    pays = 0 if task and task.kept else charge_fen(fee_eff, used_fen)
    used, fee, paid = format_yuan(used_fen), format_yuan(fee_eff), format_yuan(pays)
    reduced_en = "reduced " if fee_eff != fee_fen else ""
    reduced_zh = "减免后的" if fee_eff != fee_fen else ""
    pay_en, pay_zh = ("you pay", "实付") if settled else ("ending now, you would pay", "若现在结算，应付")
    if used_fen == 0:
        en, zh = f"You enjoyed no benefit: {pay_en} 0.00", f"您没有使用优惠：{pay_zh} 0.00 元"
    elif task and task.kept:
        done_en, done_zh = _done(task)
        en = f"You enjoyed {used} and {done_en}, as agreed: {pay_en} 0.00"
        zh = f"您享受优惠 {used} 元，并已{done_zh}，完成约定：{pay_zh} 0.00 元"
    elif used_fen < fee_eff:
        en = f"You enjoyed {used}, less than the {reduced_en}fee of {fee}: {pay_en} {paid}"
        zh = f"您享受优惠 {used} 元，不足{reduced_zh}会费 {fee} 元：{pay_zh} {paid} 元"
    elif used_fen == fee_eff:
        en = f"You enjoyed {used}, exactly the {reduced_en}fee: {pay_en} {paid}"
        zh = f"您享受优惠 {used} 元，正好等于{reduced_zh}会费：{pay_zh} {paid} 元"
    else:
        saved = format_yuan(used_fen - pays)
        en = f"You enjoyed {used}, more than the {reduced_en}fee of {fee}: {pay_en} {paid} and save {saved}"
        zh = f"您享受优惠 {used} 元，超过{reduced_zh}会费 {fee} 元：{pay_zh} {paid} 元，省下 {saved} 元"
    if task and not task.kept and used_fen:
        missing_en, missing_zh = _missing(task)
        en, zh = f"{en} ({missing_en})", f"{zh}（{missing_zh}）"
    if refunded_fen:
        back = format_yuan(refunded_fen)
        en, zh = f"{en} ({back} was refunded)", f"{zh}（已退还 {back} 元）"
    return Text(zh=zh, en=en)


def without_membership(bought_fen: int, enjoyed_fen: int, pays_fen: int) -> Text:
    """The counterfactual: the same baskets without the membership's benefits.

    `bought_fen`: paid at the counter for what was bought as a member, returns taken off; `enjoyed_fen`: all benefits
    in it that were not reversed, the merchant's own among them; `pays_fen`: the charge. Never more with than without:
    pays <= u <= enjoyed.
    """
    for fen in (bought_fen, enjoyed_fen, pays_fen):
        if require_fen(fen) < 0:
            raise ValueError("amounts must not be negative")
    without, with_it = bought_fen + enjoyed_fen, bought_fen + pays_fen
    if not enjoyed_fen:
        same = format_yuan(with_it)
        return Text(
            zh=f"没有会员，同样的商品也是 {same} 元。", en=f"Without membership you would have paid the same, {same}."
        )
    counter, charge = format_yuan(bought_fen), format_yuan(pays_fen)
    saved = format_yuan(without - with_it)
    less_zh, less_en = (f"省 {saved} 元", f"{saved} less") if without > with_it else ("一分不多", "not a fen more")
    return Text(
        zh=(
            f"没有会员，同样的商品需付 {format_yuan(without)} 元；"
            f"有会员共付 {format_yuan(with_it)} 元（柜台 {counter} + 会费 {charge}），{less_zh}。"
        ),
        en=(
            f"Without membership you would have paid {format_yuan(without)} for the same goods;"
            f" with it you pay {format_yuan(with_it)} ({counter} at the counter and {charge} for the membership):"
            f" {less_en}."
        ),
    )


def _done(task: Task) -> tuple[str, str]:
    if task.rule is Rule.TASK_AMOUNT:
        return f"spent {format_yuan(task.done)}", f"消费 {format_yuan(task.done)} 元"
    return f"came {task.done} times", f"消费 {task.done} 次"


def _missing(task: Task) -> tuple[str, str]:
    if task.rule is Rule.TASK_AMOUNT:
        done, target = format_yuan(task.done), format_yuan(task.target)
        return f"{done} of the agreed {target} were spent", f"约定消费 {target} 元，实际 {done} 元"
    return f"{task.done} of the agreed {task.target} purchases", f"约定消费 {task.target} 次，实际 {task.done} 次"
