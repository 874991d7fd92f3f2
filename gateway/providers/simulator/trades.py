"""Orders of merchants: alipay.trade.*. One order number is paid at most once, and answers the same for ever."""

from __future__ import annotations

import secrets
import sqlite3
from datetime import datetime, timedelta
from typing import NoReturn

from gateway.providers.amounts import format_yuan
from gateway.providers.simulator import agreements, credit, holds, notices, settings, users
from gateway.providers.simulator.calls import BadArgument, BusinessFailure, Call, fresh_no, local_time
from gateway.providers.simulator.database import moment, one

PAY_LIFE = timedelta(minutes=90)
COLLECT_PATH = "/sim/collect/"

Fields = dict[str, object]


class Waiting(Exception):  # an answer of the protocol (10003), not an error of the program
    """Answered as code 10003: the customer, or the provider, has something left to do."""

    def __init__(self, fields: Fields) -> None:
        super().__init__("waiting")
        self.fields = fields


def expire(db: sqlite3.Connection, now: datetime) -> None:
    """Close orders that nobody paid in time, and tell their merchants."""
    closed = db.execute(
        "UPDATE trade SET status = 'TRADE_CLOSED' WHERE status = 'WAIT_BUYER_PAY' AND expires_at <= ? RETURNING *",
        (moment(now),),
    ).fetchall()
    for row in closed:
        notices.trade(db, row, now)


def pay(call: Call) -> Fields:
    """alipay.trade.pay: by the customer's code, from a hold (`auth_no`), or under an agreement."""
    auth_no, fen = call.optional("auth_no", 64), call.fen("total_amount")
    agreement_no = call.part("agreement_params").text("agreement_no", 64) if "agreement_params" in call.biz else None
    row = _find(call, fen, auth_no)
    if row is None:
        call.check_payee("seller_id")
        by_code = auth_no is None and agreement_no is None
        code, scene = (call.text("auth_code", 64), call.text("scene", 32)) if by_code else ("", "")
        complete = call.optional("auth_confirm_mode") == "COMPLETE"
        if auth_no is not None and call.bend[0] == "hold_lapses":
            holds.lapse(call.db, auth_no, call.now)
        kind = "capture" if auth_no else "pay"
        row = open_order(call, kind, fen, auth_no=auth_no, complete=complete, agreement_no=agreement_no)
        if call.forced not in {None, "pending"}:
            _refuse(call.db, row, str(call.forced), "injected")
        if not auth_no:
            user_id = _payer(call, row, agreement_no, fen, code, scene)
            call.db.execute("UPDATE trade SET user_id = ? WHERE trade_no = ?", (user_id, row["trade_no"]))
        if call.forced != "pending":
            complete_payment(call.db, str(row["trade_no"]), None, call.now)
        row = by_trade_no(call.db, str(row["trade_no"]))
    if row["status"] == "WAIT_BUYER_PAY":
        raise Waiting(_order(row))
    return _paid(call, row)


def _payer(call: Call, row: sqlite3.Row, agreement_no: str | None, fen: int, code: str, scene: str) -> str:
    """Whose money it is. A refusal closes the order under its number."""
    if agreement_no is not None:
        try:
            return agreements.payer(call, agreement_no, fen)
        except BusinessFailure as failure:
            _refuse(call.db, row, failure.sub_code, failure.sub_msg)
    user_id = users.redeem_code(call.db, code, scene, f"{call.app_id}:{row['trade_no']}", call.now)
    if user_id is None:
        _refuse(call.db, row, "ACQ.PAYMENT_AUTH_CODE_INVALID", "the code is wrong, used or expired")
    return user_id


def precreate(call: Call) -> Fields:
    """alipay.trade.precreate: an order behind a code that any customer may pay."""
    fen = call.fen("total_amount")
    row = _find(call, fen, None)
    if row is None:
        if call.forced is not None:
            raise BusinessFailure("ACQ.SYSTEM_ERROR" if call.forced == "pending" else call.forced, "injected")
        call.check_payee("seller_id")
        row = open_order(call, "precreate", fen, qr_code=secrets.token_urlsafe(18))
    if row["qr_code"] is None:
        raise BusinessFailure("ACQ.CONTEXT_INCONSISTENT", "the order was opened by another method")
    return {"out_trade_no": row["out_trade_no"], "qr_code": f"{call.base_url}{COLLECT_PATH}{row['qr_code']}"}


def complete_payment(db: sqlite3.Connection, trade_no: str, user_id: str | None, now: datetime) -> None:
    """Take the money of a waiting order, from its hold or its customer. Raises BusinessFailure, order closed."""
    row = by_trade_no(db, trade_no)
    if row["status"] != "WAIT_BUYER_PAY":
        raise BusinessFailure("ACQ.TRADE_HAS_CLOSE", "this order waits for nobody any more")
    fen = int(row["total_fen"])
    if row["auth_no"] is not None:
        try:
            payer = holds.capture(db, str(row["auth_no"]), str(row["app_id"]), fen, complete=bool(row["complete"]))
        except BusinessFailure as failure:
            _refuse(db, row, failure.sub_code, failure.sub_msg)
        channel = users.HUABEI
    else:
        payer = str(user_id or row["user_id"])
        taken = users.take(db, payer, fen - int(row["promotion_fen"]) - int(row["discount_fen"]))
        if taken is None and row["kind"] == "precreate":
            # Another customer, or the same with more money, may still pay this code.
            raise BusinessFailure("ACQ.BUYER_BALANCE_NOT_ENOUGH", "balance and credit line are too small")
        if taken is None:
            _refuse(db, row, "ACQ.BUYER_BALANCE_NOT_ENOUGH", "balance and credit line are too small")
        channel = taken
    db.execute(
        "UPDATE trade SET status = 'TRADE_SUCCESS', user_id = ?, channel = ?, paid_at = ?, fee_fen = ? "
        "WHERE trade_no = ?",
        (payer, channel, moment(now), settings.fee_fen(db, fen - int(row["discount_fen"])), trade_no),
    )
    row = by_trade_no(db, trade_no)
    credit.settled(db, row, now)
    notices.trade(db, row, now)


def query(call: Call) -> Fields:
    """alipay.trade.query."""
    row = _existing(call)
    if call.forced is not None:
        raise BusinessFailure("ACQ.SYSTEM_ERROR" if call.forced == "pending" else call.forced, "injected")
    fields = _order(row) | {"trade_status": row["status"], "seller_id": call.seller_id}
    return fields | _amounts(row) if row["paid_at"] else fields


def cancel(call: Call) -> Fields:
    """alipay.trade.cancel: closes, or gives the money back. A number not seen yet is closed for ever, too."""
    number = call.number("out_trade_no")
    if call.forced is not None:
        raise BusinessFailure("ACQ.SYSTEM_ERROR" if call.forced == "pending" else call.forced, "injected")
    row = _row(call, number)
    if row is None:
        row = open_order(call, "cancelled", 0)
    action = row["cancel_action"]
    if action is None:
        rest = int(row["total_fen"]) - int(row["refunded_fen"]) if row["paid_at"] else 0
        action = "refund" if row["paid_at"] else "close"
        if rest:
            _give_back(call.db, row, "cancel", rest, "reversal", call.now)
        call.db.execute(
            "UPDATE trade SET status = 'TRADE_CLOSED', cancel_action = ? WHERE trade_no = ?",
            (action, row["trade_no"]),
        )
    return {"trade_no": row["trade_no"], "out_trade_no": number, "retry_flag": "N", "action": action}


def close(call: Call) -> Fields:
    """alipay.trade.close: an order that nobody has paid."""
    row = _existing(call)
    if call.forced is not None:
        raise BusinessFailure("ACQ.SYSTEM_ERROR" if call.forced == "pending" else call.forced, "injected")
    if row["paid_at"]:
        raise BusinessFailure("ACQ.TRADE_STATUS_ERROR", "the order is paid")
    call.db.execute("UPDATE trade SET status = 'TRADE_CLOSED' WHERE trade_no = ?", (row["trade_no"],))
    return {"trade_no": row["trade_no"], "out_trade_no": row["out_trade_no"]}


def refund(call: Call) -> Fields:
    """alipay.trade.refund: a part or all; idempotent by out_request_no.

    A whole refund may leave the request's number out: it then is the order's own.
    """
    row, fen = _existing(call), call.fen("refund_amount")
    named = call.optional("out_request_no", 64) is not None
    if not named and fen != row["total_fen"]:
        raise BadArgument("isv.missing-out-request-no")
    fresh = give_back_part(call, row, call.number("out_request_no" if named else "out_trade_no"), fen)
    row = by_trade_no(call.db, str(row["trade_no"]))
    return _order(row) | {"refund_fee": format_yuan(int(row["refunded_fen"])), "fund_change": "Y" if fresh else "N"}


def give_back_part(call: Call, row: sqlite3.Row, request_no: str, fen: int) -> bool:
    """A refund under its number; False when it was made before. Raises BusinessFailure."""
    done = _refund_row(call, row, request_no)
    if done is not None and done["fen"] != fen:
        raise BusinessFailure("ACQ.DISCORDANT_REPEAT_REQUEST", "the same refund number with another amount")
    if done is None:
        if call.forced is not None:
            raise BusinessFailure("ACQ.SYSTEM_ERROR" if call.forced == "pending" else call.forced, "injected")
        if not row["paid_at"]:
            raise BusinessFailure("ACQ.TRADE_STATUS_ERROR", "the order is not paid")
        if fen > int(row["total_fen"]) - int(row["refunded_fen"]):
            raise BusinessFailure("ACQ.REFUND_AMT_NOT_EQUAL_TOTAL", "more than is left of the payment")
        _give_back(call.db, row, request_no, fen, "refund", call.now)
    return done is None


def refund_query(call: Call) -> Fields:
    """alipay.trade.fastpay.refund.query: an unknown refund number is answered with success and no refund."""
    row, request_no = _existing(call), call.number("out_request_no")
    if call.forced is not None:
        raise BusinessFailure("ACQ.SYSTEM_ERROR" if call.forced == "pending" else call.forced, "injected")
    done = _refund_row(call, row, request_no)
    if done is None:
        return {}
    return {
        "trade_no": row["trade_no"],
        "out_trade_no": row["out_trade_no"],
        "out_request_no": request_no,
        "total_amount": format_yuan(int(row["total_fen"])),
        "refund_amount": format_yuan(int(done["fen"])),
        "refund_status": "REFUND_SUCCESS",
    }


def by_code(db: sqlite3.Connection, code: str) -> sqlite3.Row | None:
    """The order behind a collection code's text (its URL, or the last part of it)."""
    return one(db, "SELECT * FROM trade WHERE qr_code = ?", code.rsplit("/", 1)[-1])


def by_trade_no(db: sqlite3.Connection, trade_no: str) -> sqlite3.Row:
    """The order with this number of the provider's, which must exist."""
    row = one(db, "SELECT * FROM trade WHERE trade_no = ?", trade_no)
    assert row is not None
    return row


def by_number(call: Call, number: str) -> sqlite3.Row | None:
    """The app's order with the merchant's number."""
    return _row(call, number)


def _row(call: Call, number: str) -> sqlite3.Row | None:
    return one(call.db, "SELECT * FROM trade WHERE app_id = ? AND out_trade_no = ?", call.app_id, number)


def _existing(call: Call) -> sqlite3.Row:
    row = _row(call, call.number("out_trade_no"))
    if row is None or row["kind"] == "cancelled":
        raise BusinessFailure("ACQ.TRADE_NOT_EXIST", "no such order")
    return row


def _find(call: Call, fen: int, auth_no: str | None) -> sqlite3.Row | None:
    """The order of a repeated number, while it may still be answered; says no as the first time."""
    row = _row(call, call.number("out_trade_no"))
    if row is None:
        return None
    if row["failure"]:
        raise BusinessFailure(str(row["failure"]), "refused before, under the same number")
    if row["status"] == "TRADE_CLOSED" and not row["paid_at"]:
        raise BusinessFailure("ACQ.TRADE_HAS_CLOSE", "the order is closed")
    if row["total_fen"] != fen or row["auth_no"] != auth_no:
        raise BusinessFailure("ACQ.CONTEXT_INCONSISTENT", "the same number with other content")
    if row["paid_at"]:
        raise BusinessFailure("ACQ.TRADE_HAS_SUCCESS", "the order is paid")
    return row


def open_order(
    call: Call,
    kind: str,
    fen: int,
    *,
    number: str | None = None,
    auth_no: str | None = None,
    complete: bool = False,
    qr_code: str | None = None,
    agreement_no: str | None = None,
    user_id: str | None = None,
) -> sqlite3.Row:
    """A fresh order under its number; `cancelled` is one that can never be paid."""
    tombstone = kind == "cancelled"
    if kind == "capture" and call.text("product_code") not in {"PRE_AUTH", "PREAUTH_PAY"}:
        raise BadArgument("isv.invalid-product-code")
    life = PAY_LIFE if tombstone else call.period("timeout_express", PAY_LIFE)
    given = min(call.bend[1], fen) if auth_no is None else 0
    values = {
        "trade_no": fresh_no(call.now, "220"),
        "app_id": call.app_id,
        "out_trade_no": number or call.number("out_trade_no"),
        "kind": kind,
        "subject": "" if tombstone else call.optional("subject") or _needed_subject(call, number),
        "total_fen": fen,
        "status": "TRADE_CLOSED" if tombstone else "WAIT_BUYER_PAY",
        "auth_no": auth_no,
        "complete": int(complete),
        "qr_code": qr_code,
        "agreement_no": agreement_no,
        "user_id": user_id,
        "notify_url": call.notify_url,
        "attach": call.biz.get("attach", ""),
        "promotion_fen": given if call.bend[0] == "promotion" else 0,
        "discount_fen": given if call.bend[0] == "discount" else 0,
        "created_at": moment(call.now),
        "expires_at": moment(call.now + life),
    }
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    call.db.execute(f"INSERT INTO trade ({names}) VALUES ({marks})", tuple(values.values()))
    return by_trade_no(call.db, str(values["trade_no"]))


def _needed_subject(call: Call, number: str | None) -> str:
    return call.text("subject") if number is None else "membership"


def refuse(db: sqlite3.Connection, row: sqlite3.Row, sub_code: str) -> None:
    """Close the order under its number, so that a repetition hears the same."""
    db.execute("UPDATE trade SET status = 'TRADE_CLOSED', failure = ? WHERE trade_no = ?", (sub_code, row["trade_no"]))


def _refuse(db: sqlite3.Connection, row: sqlite3.Row, sub_code: str, message: str) -> NoReturn:
    """Close the order under its number, and say no."""
    refuse(db, row, sub_code)
    raise BusinessFailure(sub_code, message)


def _give_back(db: sqlite3.Connection, row: sqlite3.Row, request_no: str, fen: int, kind: str, now: datetime) -> None:
    """Each who gave a part gets its share of a refund back: cumulative, so that the shares sum exactly."""
    before, after = int(row["refunded_fen"]), int(row["refunded_fen"]) + fen
    payer, receipt, fee = (_share(row, part, after) - _share(row, part, before) for part in ("payer", "receipt", "fee"))
    users.give_back(db, str(row["user_id"]), str(row["channel"]), payer)
    db.execute(
        "INSERT INTO refund (trade_no, out_request_no, fen, kind, at, receipt_fen, fee_fen) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (row["trade_no"], request_no, fen, kind, moment(now), receipt, fee),
    )
    db.execute(
        "UPDATE trade SET refunded_fen = refunded_fen + ?, "
        "status = CASE WHEN refunded_fen + ? = total_fen THEN 'TRADE_CLOSED' ELSE status END WHERE trade_no = ?",
        (fen, fen, row["trade_no"]),
    )
    made = one(db, "SELECT * FROM refund WHERE trade_no = ? ORDER BY id DESC LIMIT 1", row["trade_no"])
    notices.trade(db, by_trade_no(db, str(row["trade_no"])), now, made)


def _share(row: sqlite3.Row, part: str, refunded_fen: int) -> int:
    total, given = int(row["total_fen"]), int(row["promotion_fen"]) + int(row["discount_fen"])
    whole = {"payer": total - given, "receipt": total - int(row["discount_fen"]), "fee": int(row["fee_fen"])}[part]
    return whole * refunded_fen // total


def _refund_row(call: Call, row: sqlite3.Row, request_no: str) -> sqlite3.Row | None:
    return one(
        call.db,
        "SELECT * FROM refund WHERE trade_no = ? AND kind = 'refund' AND out_request_no = ?",
        row["trade_no"],
        request_no,
    )


def _order(row: sqlite3.Row) -> Fields:
    fields: Fields = {
        "trade_no": row["trade_no"],
        "out_trade_no": row["out_trade_no"],
        "total_amount": format_yuan(int(row["total_fen"])),
    }
    if row["user_id"]:
        fields["buyer_user_id"] = row["user_id"]
    return fields


def _amounts(row: sqlite3.Row) -> Fields:
    total, promotion, discount = int(row["total_fen"]), int(row["promotion_fen"]), int(row["discount_fen"])
    payer, paid_at = format_yuan(total - promotion - discount), local_time(str(row["paid_at"]))
    bills = [{"fund_channel": row["channel"], "amount": payer}]
    bills += [{"fund_channel": "COUPON", "amount": format_yuan(promotion)}] if promotion else []
    bills += [{"fund_channel": "MCOUPON", "amount": format_yuan(discount)}] if discount else []
    return {
        "receipt_amount": format_yuan(total - discount),
        "buyer_pay_amount": payer,
        "invoice_amount": payer,
        "point_amount": "0.00",
        "send_pay_date": paid_at,
        "gmt_payment": paid_at,
        "fund_bill_list": bills,
    }


def _paid(call: Call, row: sqlite3.Row) -> Fields:
    return _order(row) | _amounts(row) | {"seller_id": call.seller_id}
