"""Holds on a customer's credit line: alipay.fund.auth.*. Never topped up; what is captured never exceeds one."""

from __future__ import annotations

import json
import secrets
import sqlite3
from datetime import datetime, timedelta

from gateway.providers.amounts import format_yuan
from gateway.providers.simulator import notices, settings, users
from gateway.providers.simulator.calls import BadArgument, BusinessFailure, Call, fresh_no, local_time
from gateway.providers.simulator.database import moment, one

AUTHORISE_LIFE = timedelta(minutes=15)
AUTHORISE_PATH = "/sim/authorise/"
CHANNEL = "PCREDIT_PAY"

Fields = dict[str, object]


def expire(db: sqlite3.Connection, now: datetime) -> None:
    """Close holds that nobody authorised in time; let go of those whose life is over."""
    db.execute("UPDATE hold SET status = 'CLOSED' WHERE status = 'INIT' AND expires_at <= ?", (moment(now),))
    over = "SELECT auth_no FROM hold WHERE status = 'AUTHORIZED' AND lapses_at <= ? LIMIT 100"
    for row in db.execute(over, (moment(now),)).fetchall():
        lapse(db, str(row["auth_no"]), now)


def lapse(db: sqlite3.Connection, auth_no: str, now: datetime) -> None:
    """The hold's life is over: what is left of it goes back to the customer."""
    row = one(db, "SELECT * FROM hold WHERE auth_no = ?", auth_no)
    rest = _rest(row) if row is not None else 0
    if row is not None and rest:
        release_part(db, row, rest)
        notices.hold(db, _by_auth_no(db, auth_no), "UNFREEZE", str(row["out_request_no"]), rest, now)


def freeze(call: Call) -> Fields:
    """alipay.fund.auth.order.freeze: with the customer's code, authorised at once."""
    auth_code, scene = call.text("auth_code", 64), call.optional("auth_code_type") or "bar_code"
    row = _find(call)
    if row is None:
        row = _open(call, code=None)
        if call.forced not in {None, "pending"}:
            _refuse(call, row, str(call.forced), "injected")
        user_id = users.redeem_code(call.db, auth_code, scene, f"{call.app_id}:{row['auth_no']}", call.now)
        if user_id is None:
            _refuse(call, row, "PAYMENT_AUTH_CODE_INVALID", "the code is wrong, used or expired")
        call.db.execute("UPDATE hold SET user_id = ? WHERE auth_no = ?", (user_id, row["auth_no"]))
        if call.forced != "pending":
            authorise(call.db, str(row["auth_no"]), str(user_id), call.now)
        row = _by_auth_no(call.db, str(row["auth_no"]))
    elif row["failure"]:
        raise BusinessFailure(str(row["failure"]), "refused before, under the same number")
    return _operation(row, "FREEZE", str(row["out_request_no"]), int(row["amount_fen"]), _freeze_status(row))


def voucher_create(call: Call) -> Fields:
    """alipay.fund.auth.order.voucher.create: a code that the customer scans and authorises."""
    row = _find(call)
    if row is None:
        if call.forced not in {None, "pending"}:
            raise BusinessFailure(str(call.forced), "injected")
        row = _open(call, code=secrets.token_urlsafe(18))
    if row["status"] == "CLOSED":
        raise BusinessFailure("ORDER_ALREADY_CLOSED", "the order was closed before")
    if row["status"] != "INIT":
        raise BusinessFailure("ORDER_ALREADY_AUTHORIZED", "the customer has authorised it already")
    url = f"{call.base_url}{AUTHORISE_PATH}{row['code']}"
    return {
        "out_order_no": row["out_order_no"],
        "out_request_no": row["out_request_no"],
        "code_type": "qrcode",
        "code_value": url,
        "code_url": url,
    }


def authorise(db: sqlite3.Connection, auth_no: str, user_id: str, now: datetime) -> None:
    """The customer agrees: the amount is held. Raises BusinessFailure when the line is too small."""
    row = _by_auth_no(db, auth_no)
    if row["status"] != "INIT":
        raise BusinessFailure("ORDER_ALREADY_CLOSED", "this hold waits for nobody any more")
    if not users.hold(db, user_id, int(row["amount_fen"])):
        db.execute(
            "UPDATE hold SET status = 'CLOSED', failure = 'PAYER_BALANCE_NOT_ENOUGH' WHERE auth_no = ?", (auth_no,)
        )
        raise BusinessFailure("PAYER_BALANCE_NOT_ENOUGH", "the credit line is too small")
    db.execute(
        "UPDATE hold SET status = 'AUTHORIZED', user_id = ?, frozen_at = ?, lapses_at = ? WHERE auth_no = ?",
        (user_id, moment(now), moment(now + timedelta(days=settings.get(db, "hold_life_days"))), auth_no),
    )
    notices.hold(db, _by_auth_no(db, auth_no), "FREEZE", str(row["out_request_no"]), int(row["amount_fen"]), now)


def unfreeze(call: Call) -> Fields:
    """alipay.fund.auth.order.unfreeze: gives back a part; idempotent by out_request_no."""
    row, request_no, fen = _of_app(call), call.number("out_request_no"), call.fen("amount")
    done = _release(call, row, request_no)
    if done is not None:
        if done["fen"] != fen:
            raise BusinessFailure("CONTEXT_INCONSISTENT", "the same number with another amount")
    elif call.forced not in {None, "pending"}:
        raise BusinessFailure(str(call.forced), "injected")
    else:
        _require_rest(row, fen)
        release_part(call.db, row, fen)
        call.db.execute(
            "INSERT INTO release (auth_no, out_request_no, fen, at) VALUES (?, ?, ?, ?)",
            (row["auth_no"], request_no, fen, moment(call.now)),
        )
        notices.hold(call.db, _by_auth_no(call.db, str(row["auth_no"])), "UNFREEZE", request_no, fen, call.now)
    return _operation(row, "UNFREEZE", request_no, fen, "SUCCESS")


def capture(db: sqlite3.Connection, auth_no: str, app_id: str, fen: int, *, complete: bool) -> str:
    """Turn a part of a hold into a payment; the paying customer. `complete` gives the rest back."""
    row = one(db, "SELECT * FROM hold WHERE auth_no = ? AND app_id = ?", auth_no, app_id)
    if row is None:
        raise BusinessFailure("ACQ.AUTH_ORDER_NOT_EXIST", "no such hold")
    _require_rest(row, fen)
    users.unhold(db, str(row["user_id"]), fen, captured=True)
    db.execute("UPDATE hold SET captured_fen = captured_fen + ? WHERE auth_no = ?", (fen, auth_no))
    rest = _rest(row) - fen
    if complete and rest:
        release_part(db, row, rest)
    if complete or not rest:
        db.execute("UPDATE hold SET status = 'FINISH' WHERE auth_no = ?", (auth_no,))
    return str(row["user_id"])


def release_part(db: sqlite3.Connection, row: sqlite3.Row, fen: int) -> None:
    """Give a part of an authorised hold back; the last part ends it."""
    users.unhold(db, str(row["user_id"]), fen, captured=False)
    db.execute(
        "UPDATE hold SET released_fen = released_fen + ?, "
        "status = CASE WHEN captured_fen + released_fen + ? = amount_fen THEN 'FINISH' ELSE status END "
        "WHERE auth_no = ?",
        (fen, fen, row["auth_no"]),
    )


def detail_query(call: Call) -> Fields:
    """alipay.fund.auth.operation.detail.query: one FREEZE or UNFREEZE and the hold's present rest."""
    row = _of_app(call)
    kind, request_no = call.optional("operation_type") or "FREEZE", call.number("out_request_no")
    if call.forced is not None:
        raise BusinessFailure("SYSTEM_ERROR" if call.forced == "pending" else call.forced, "injected")
    if kind == "FREEZE" and request_no == row["out_request_no"]:
        operation = _operation(row, kind, request_no, int(row["amount_fen"]), _freeze_status(row))
    elif kind == "UNFREEZE" and (done := _release(call, row, request_no)) is not None:
        operation = _operation(row, kind, request_no, int(done["fen"]), "SUCCESS")
    else:
        raise BusinessFailure("AUTH_OPERATION_NOT_EXIST", "no such operation")
    return operation | {
        "order_status": row["status"],
        "order_title": row["title"],
        "total_freeze_amount": format_yuan(int(row["amount_fen"]) if row["frozen_at"] else 0),
        "rest_amount": format_yuan(_rest(row)),
        "total_pay_amount": format_yuan(int(row["captured_fen"])),
    }


def operation_cancel(call: Call) -> Fields:
    """alipay.fund.auth.operation.cancel: ends a freeze. An unknown number is closed for ever, too."""
    row = _find_by_number(call)
    if call.forced is not None:
        raise BusinessFailure("SYSTEM_ERROR" if call.forced == "pending" else call.forced, "injected")
    if row is None:
        row = _open(call, code=None, tombstone=True)
    action = row["cancel_action"]
    if action is None:
        if row["captured_fen"]:
            raise BusinessFailure("AUTH_ORDER_HAS_FINISHED", "a part was captured: refund it instead")
        action = "unfreeze" if row["status"] in {"AUTHORIZED", "FINISH"} else "close"
        if row["status"] == "AUTHORIZED":
            release_part(call.db, row, _rest(row))
        call.db.execute(
            "UPDATE hold SET status = 'CLOSED', cancel_action = ? WHERE auth_no = ?", (action, row["auth_no"])
        )
    return {
        "auth_no": row["auth_no"],
        "out_order_no": row["out_order_no"],
        "out_request_no": row["out_request_no"],
        "action": action,
    }


def by_code(db: sqlite3.Connection, code: str) -> sqlite3.Row | None:
    """The hold behind a code's text (its URL, or the last part of it)."""
    return one(db, "SELECT * FROM hold WHERE code = ?", code.rsplit("/", 1)[-1])


def _open(call: Call, code: str | None, *, tombstone: bool = False) -> sqlite3.Row:
    title, fen, life = "", 0, AUTHORISE_LIFE
    if not tombstone:
        call.check_payee("payee_user_id")
        if call.text("product_code") != "PRE_AUTH":
            raise BadArgument("isv.invalid-product-code")
        if not _is_huabei(call.text("enable_pay_channels")):
            raise BusinessFailure("ACCESS_FORBIDDEN", "only the Huabei channel is open to this merchant")
        title, fen, life = call.text("order_title"), call.fen("amount"), call.period("pay_timeout", AUTHORISE_LIFE)
    auth_no = fresh_no(call.now, "100")
    call.db.execute(
        "INSERT INTO hold (auth_no, app_id, out_order_no, out_request_no, title, amount_fen, status, code, "
        "created_at, expires_at, notify_url) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            auth_no,
            call.app_id,
            call.number("out_order_no"),
            call.number("out_request_no"),
            title,
            fen,
            "CLOSED" if tombstone else "INIT",
            code,
            moment(call.now),
            moment(call.now + life),
            call.notify_url,
        ),
    )
    return _by_auth_no(call.db, auth_no)


def _is_huabei(channels: str) -> bool:
    try:
        return bool(json.loads(channels) == [{"payChannelType": CHANNEL}])
    except ValueError:
        return False


def _find_by_number(call: Call) -> sqlite3.Row | None:
    return one(
        call.db,
        "SELECT * FROM hold WHERE app_id = ? AND out_order_no = ?",
        call.app_id,
        call.number("out_order_no"),
    )


def _find(call: Call) -> sqlite3.Row | None:
    row = _find_by_number(call)
    if row is None or row["failure"]:
        return row
    if row["cancel_action"]:
        raise BusinessFailure("ORDER_ALREADY_CLOSED", "the order was cancelled")
    if row["out_request_no"] != call.number("out_request_no") or row["amount_fen"] != call.fen("amount"):
        raise BusinessFailure("CONTEXT_INCONSISTENT", "the same number with other content")
    return row


def _of_app(call: Call) -> sqlite3.Row:
    auth_no = call.optional("auth_no", 64)
    if auth_no is None:
        row = _find_by_number(call)
    else:
        row = one(call.db, "SELECT * FROM hold WHERE app_id = ? AND auth_no = ?", call.app_id, auth_no)
    if row is None:
        raise BusinessFailure("AUTH_ORDER_NOT_EXIST", "no such hold")
    return row


def _by_auth_no(db: sqlite3.Connection, auth_no: str) -> sqlite3.Row:
    row = one(db, "SELECT * FROM hold WHERE auth_no = ?", auth_no)
    assert row is not None
    return row


def _release(call: Call, row: sqlite3.Row, request_no: str) -> sqlite3.Row | None:
    return one(call.db, "SELECT * FROM release WHERE auth_no = ? AND out_request_no = ?", row["auth_no"], request_no)


def _refuse(call: Call, row: sqlite3.Row, sub_code: str, message: str) -> None:
    """Close the order under its number, so that a repetition hears the same, and say no."""
    call.db.execute("UPDATE hold SET status = 'CLOSED', failure = ? WHERE auth_no = ?", (sub_code, row["auth_no"]))
    raise BusinessFailure(sub_code, message)


def _rest(row: sqlite3.Row) -> int:
    if row["status"] != "AUTHORIZED":
        return 0
    return int(row["amount_fen"]) - int(row["captured_fen"]) - int(row["released_fen"])


def _require_rest(row: sqlite3.Row, fen: int) -> None:
    if row["status"] != "AUTHORIZED":
        raise BusinessFailure("ACQ.AUTH_ORDER_HAS_FINISHED", f"the hold is {row['status']}")
    if fen > _rest(row):
        raise BusinessFailure("ACQ.AUTH_AMOUNT_NOT_ENOUGH", "more than the hold has left")


def _freeze_status(row: sqlite3.Row) -> str:
    if row["status"] == "INIT":
        return "INIT"
    return "SUCCESS" if row["frozen_at"] and not row["cancel_action"] else "CLOSED"


def _operation(row: sqlite3.Row, kind: str, request_no: str, fen: int, status: str) -> Fields:
    fields: Fields = {
        "auth_no": row["auth_no"],
        "out_order_no": row["out_order_no"],
        "operation_id": f"{row['auth_no']}{kind[0]}",
        "out_request_no": request_no,
        "operation_type": kind,
        "amount": format_yuan(fen),
        "status": status,
        "gmt_create": local_time(str(row["created_at"])),
    }
    if row["user_id"]:
        fields["payer_user_id"] = row["user_id"]
    return fields
