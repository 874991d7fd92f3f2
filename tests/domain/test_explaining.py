"""Every charge in one sentence, in both languages; and what it would have been without."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.charging import charge_fen
from models.domain.explaining import Task, explain, without_membership
from models.domain.plans import Rule


@pytest.mark.parametrize(
    ("used", "en", "zh"),
    [
        (0, "You enjoyed no benefit: you pay 0.00", "您没有使用优惠：实付 0.00 元"),
        (
            800,
            "You enjoyed 8.00, less than the fee of 10.00: you pay 8.00",
            "您享受优惠 8.00 元，不足会费 10.00 元：实付 8.00 元",
        ),
        (1000, "You enjoyed 10.00, exactly the fee: you pay 10.00", "您享受优惠 10.00 元，正好等于会费：实付 10.00 元"),
        (
            4000,
            "You enjoyed 40.00, more than the fee of 10.00: you pay 10.00 and save 30.00",
            "您享受优惠 40.00 元，超过会费 10.00 元：实付 10.00 元，省下 30.00 元",
        ),
    ],
)
def test_a_charge_in_one_sentence(used: int, en: str, zh: str) -> None:
    assert (explain(1000, used).en, explain(1000, used).zh) == (en, zh)


def test_previews_reductions_and_refunds_are_said() -> None:
    assert explain(1000, 800, settled=False).en == (
        "You enjoyed 8.00, less than the fee of 10.00: ending now, you would pay 8.00"
    )
    reduced = explain(1000, 800, fee_eff_fen=322)
    assert reduced.en == "You enjoyed 8.00, more than the reduced fee of 3.22: you pay 3.22 and save 4.78"
    assert reduced.zh == "您享受优惠 8.00 元，超过减免后的会费 3.22 元：实付 3.22 元，省下 4.78 元"
    assert explain(1000, 800, refunded_fen=200).en.endswith("you pay 8.00 (2.00 was refunded)")
    assert explain(1000, 800, refunded_fen=200).zh.endswith("（已退还 2.00 元）")


def test_a_task_that_was_kept_costs_nothing_and_one_that_was_missed_says_what_is_missing() -> None:
    kept = explain(1000, 1600, task=Task(Rule.TASK_TIMES, 4, 5))
    assert kept.en == "You enjoyed 16.00 and came 5 times, as agreed: you pay 0.00"
    assert kept.zh == "您享受优惠 16.00 元，并已消费 5 次，完成约定：实付 0.00 元"
    missed = explain(1000, 800, task=Task(Rule.TASK_AMOUNT, 10_000, 9_999), settled=False)
    assert missed.en.endswith("ending now, you would pay 8.00 (99.99 of the agreed 100.00 were spent)")
    assert missed.zh.endswith("若现在结算，应付 8.00 元（约定消费 100.00 元，实际 99.99 元）")


def test_without_membership() -> None:
    said = without_membership(bought_fen=790, enjoyed_fen=1600, pays_fen=1000)
    assert said.en == (
        "Without membership you would have paid 23.90 for the same goods; with it you pay 17.90"
        " (7.90 at the counter and 10.00 for the membership): 6.00 less."
    )
    assert said.zh == "没有会员，同样的商品需付 23.90 元；有会员共付 17.90 元（柜台 7.90 + 会费 10.00），省 6.00 元。"
    assert without_membership(450, 800, 800).en.endswith("8.00 for the membership): not a fen more.")
    assert without_membership(790, 0, 0).en == "Without membership you would have paid the same, 7.90."


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_nobody_is_told_to_have_lost(fee: int, used: int, absorbed: int, bought: int) -> None:
    said = without_membership(bought, used + absorbed, charge_fen(fee, used))
    assert "-" not in said.en.replace("-yuan", "")
