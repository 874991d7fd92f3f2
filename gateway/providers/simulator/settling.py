"""Settling credit memberships: what the merchant asks for must agree with the provider's own record of the uses."""

from __future__ import annotations

import contextlib

from gateway.providers.amounts import format_yuan
from gateway.providers.simulator import credit, trades
from gateway.providers.simulator.calls import BusinessFailure, Call
from gateway.providers.simulator.database import one

Fields = dict[str, object]


def settle_apply(call: Call) -> Fields:
    """zhima.credit.pe.zmgo.settle.apply: status Y, P or N; the amount is fixed once it was accepted."""
    agreement = credit.existing(call)
    call.check_payee("partner_id")
    number, fen = call.worded("out_request_no"), call.fen("pay_amount")
    if agreement["plan_no"] is None or call.text("withhold_plan_no", 64) != agreement["plan_no"]:
        raise BusinessFailure("WITHHOLD_PLAN_NOT_EXIST", "no such plan: it comes with the expiry's notification")
    row = trades.by_number(call, number)
    if row is None:
        if agreement["settle_trade_no"] is not None:
            raise BusinessFailure("AGREEMENT_INVALID", "settled before, under another number")
        differs = _differs(call, str(agreement["agreement_id"]))
        if differs:
            return _answer(call, "N", differs)
        row = trades.open_order(
            call,
            "pay",
            fen,
            number=number,
            agreement_no=str(agreement["agreement_id"]),
            user_id=str(agreement["user_id"]),
        )
        if call.forced not in {None, "pending"}:
            trades.refuse(call.db, row, str(call.forced))
        elif call.forced is None:
            with contextlib.suppress(BusinessFailure):  # the order is closed with its reason, which is the answer
                trades.complete_payment(call.db, str(row["trade_no"]), None, call.now)
        row = trades.by_trade_no(call.db, str(row["trade_no"]))
    elif row["total_fen"] != fen:
        raise BusinessFailure("CONTEXT_INCONSISTENT", "the amount is fixed under this number")
    if row["paid_at"]:
        return _answer(call, "Y")
    if row["status"] == "WAIT_BUYER_PAY":
        return _answer(call, "P")
    return _answer(call, "N", str(row["failure"] or "TRADE_CLOSED").removeprefix("ACQ."))


def settle_refund(call: Call) -> Fields:
    """zhima.credit.pe.zmgo.settle.refund: a part of what was collected, or all; idempotent by its number."""
    agreement = credit.existing(call)
    if agreement["settle_trade_no"] is None or call.text("withhold_plan_no", 64) != agreement["plan_no"]:
        raise BusinessFailure("WITHHOLD_PLAN_NOT_EXIST", "nothing was collected under this plan")
    row = trades.by_trade_no(call.db, str(agreement["settle_trade_no"]))
    number, fen = call.worded("out_request_no"), call.fen("refund_amount")
    trades.give_back_part(call, row, number, fen)
    done = one(
        call.db,
        "SELECT id FROM refund WHERE trade_no = ? AND kind = 'refund' AND out_request_no = ?",
        row["trade_no"],
        number,
    )
    assert done is not None
    return {
        "out_request_no": number,
        "withhold_plan_no": agreement["plan_no"],
        "refund_amount": format_yuan(fen),
        "refund_opt_no": f"ZMGO_RFD{done['id']:016d}",
        "retry": False,
    }


def _differs(call: Call, agreement_id: str) -> str:
    """How the merchant's sums differ from ours; "" when they agree."""
    discount, paid, tasks = credit.sums(call.db, agreement_id)
    theirs = (
        call.amount("total_discount_amount"),
        call.amount("total_real_pay_amount"),
        call.count("total_task_count"),
    )
    if theirs == (discount, paid, tasks):
        return ""
    return f"CUMULATE_DATA_NOT_MATCH: {format_yuan(discount)} {format_yuan(paid)} {tasks}"


def _answer(call: Call, status: str, why: str = "") -> Fields:
    fields: Fields = {
        "agreement_id": call.text("agreement_id", 64),
        "out_request_no": call.worded("out_request_no"),
        "withhold_plan_no": call.text("withhold_plan_no", 64),
        "settle_status": status,
    }
    return fields | {"fail_reason": why} if why else fields
