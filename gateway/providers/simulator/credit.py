"""Credit memberships (芝麻GO): zhima.credit.pe.zmgo.* and zhima.merchant.zmgo.cumulate.sync.

The provider keeps its own record of the uses, and collects at the end only what its merchant's sums agree with.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from datetime import datetime, timedelta

from gateway.providers.amounts import format_yuan
from gateway.providers.simulator import notices, settings
from gateway.providers.simulator.calls import BadArgument, BusinessFailure, Call, fresh_no, local_time
from gateway.providers.simulator.database import moment, one

SIGN_LIFE = timedelta(minutes=15)
SIGN_PATH = "/sim/credit/"
REFUSED_USERS = "refused"
"""A customer whose name begins so has no credit."""

Fields = dict[str, object]


def expire(db: sqlite3.Connection, now: datetime) -> None:
    """Forget what nobody signed in time; end what has run its time, and tell the merchant its plan's number."""
    db.execute("DELETE FROM credit WHERE status = 'TEMP' AND expires_at <= ?", (moment(now),))
    for row in db.execute(
        "SELECT * FROM credit WHERE status = 'Y' AND plan_no IS NULL AND expires_at <= ? LIMIT 100", (moment(now),)
    ).fetchall():
        lapse(db, row, now)


def lapse(db: sqlite3.Connection, row: sqlite3.Row, now: datetime) -> None:
    """The agreement's time is over: it may be settled now, under the number that the notification brings."""
    plan_no = f"ZMGO_WHD{fresh_no(now, '600')}"
    db.execute("UPDATE credit SET status = 'P', plan_no = ? WHERE agreement_id = ?", (plan_no, row["agreement_id"]))
    _announce(db, str(row["agreement_id"]), "expired", now, {"withhold_plan_no": plan_no})


def pre_consult(call: Call) -> Fields:
    """zhima.credit.pe.zmgo.pre.consult: would this customer be admitted?"""
    call.text("template_id", 64)
    call.check_payee("partner_id")
    user = call.optional("alipay_user_id", 64) or call.text("phone", 64)
    if call.forced is not None:
        raise BusinessFailure("SYSTEM_ERROR" if call.forced == "pending" else call.forced, "injected")
    return {"admittance": not user.removeprefix("2088").startswith(REFUSED_USERS), "alipay_user_id": user}


def sign_apply(call: Call) -> Fields:
    """zhima.credit.pe.zmgo.sign.apply: the address of the page where the customer signs."""
    call.check_payee("partner_id")
    number = call.worded("out_request_no")
    row = one(call.db, "SELECT * FROM credit WHERE app_id = ? AND out_request_no = ?", call.app_id, number)
    if row is None:
        life = call.period("timeout_express", SIGN_LIFE)
        call.db.execute(
            "INSERT INTO credit (agreement_id, app_id, out_request_no, template_id, status, code, created_at, "
            "expires_at) VALUES (?, ?, ?, ?, 'TEMP', ?, ?, ?)",
            (
                f"ZMGO_AGR{fresh_no(call.now, '500')}",
                call.app_id,
                number,
                call.text("template_id", 64),
                secrets.token_urlsafe(18),
                moment(call.now),
                moment(call.now + life),
            ),
        )
        row = one(call.db, "SELECT * FROM credit WHERE app_id = ? AND out_request_no = ?", call.app_id, number)
        assert row is not None
    return {"page": f"{call.base_url}{SIGN_PATH}{row['code']}"}


def sign(db: sqlite3.Connection, row: sqlite3.Row, user_id: str, now: datetime) -> None:
    """The customer signs: nothing is frozen. Raises BusinessFailure without credit, or when it is over."""
    if row["status"] == "Y" and row["user_id"] == user_id:
        return
    if row["status"] != "TEMP":
        raise BusinessFailure("AGREEMENT_INVALID", "this agreement waits for nobody any more")
    if user_id.startswith(REFUSED_USERS):
        raise BusinessFailure("ZMGO_RISK_REFUSED", "this customer has no credit")
    until = now + timedelta(days=settings.get(db, "credit_days"))
    db.execute(
        "UPDATE credit SET status = 'Y', user_id = ?, signed_at = ?, expires_at = ? WHERE agreement_id = ?",
        (user_id, moment(now), moment(until), row["agreement_id"]),
    )
    _announce(db, str(row["agreement_id"]), "signed", now, {})


def agreement_query(call: Call) -> Fields:
    """zhima.credit.pe.zmgo.agreement.query."""
    row = _existing(call)
    if call.forced is not None:
        raise BusinessFailure("SYSTEM_ERROR" if call.forced == "pending" else call.forced, "injected")
    return {
        "agreement_id": row["agreement_id"],
        "alipay_user_id": row["user_id"],
        "agreement_status": row["status"],
        "sign_time": local_time(str(row["signed_at"])),
    }


def cumulate_sync(call: Call) -> Fields:
    """zhima.merchant.zmgo.cumulate.sync: one use, or what reverses one; idempotent by out_biz_no."""
    row = _existing(call)
    number, action = call.worded("out_biz_no"), call.text("biz_action", 16)
    data = call.part("times_type_sync_data")
    discount, paid, tasks = data.amount("discount_amount"), data.amount("task_amount"), data.count("task_times")
    refers_to = call.worded("refer_out_biz_no") if action == "REVERSE" else None
    if action not in {"POSITIVE", "REVERSE"} or call.text("sub_biz_action") != "ADD" or call.text("user_id") == "":
        raise BadArgument("isv.invalid-biz-action")
    done = _use(call, row, number)
    if done is not None:
        same = (done["action"], done["refers_to"], done["discount_fen"], done["paid_fen"], done["tasks"])
        if same != (action, refers_to, discount, paid, tasks):
            raise BusinessFailure("DISCORDANT_REPEAT_REQUEST", "the same number with other content")
    elif call.forced is not None:
        raise BusinessFailure("SYSTEM_ERROR" if call.forced == "pending" else call.forced, "injected")
    else:
        if row["settle_trade_no"] is not None or row["status"] == "N":
            raise BusinessFailure("AGREEMENT_INVALID", "the agreement is settled")
        if refers_to is not None:
            _check_reversal(call, row, refers_to, discount, paid, tasks)
        call.db.execute(
            "INSERT INTO credit_use (agreement_id, out_biz_no, action, refers_to, discount_fen, paid_fen, tasks, "
            "biz_time, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                row["agreement_id"],
                number,
                action,
                refers_to,
                discount,
                paid,
                tasks,
                call.text("biz_time", 32),
                moment(call.now),
            ),
        )
    return {"agreement_id": row["agreement_id"], "out_biz_no": number}


def sums(db: sqlite3.Connection, agreement_id: str) -> tuple[int, int, int]:
    """What the uses of an agreement add up to: discount, paid, tasks."""
    row = one(
        db,
        "SELECT coalesce(sum(s * discount_fen), 0) AS d, coalesce(sum(s * paid_fen), 0) AS p, "
        "coalesce(sum(s * tasks), 0) AS t FROM (SELECT *, CASE action WHEN 'REVERSE' THEN -1 ELSE 1 END AS s "
        "FROM credit_use WHERE agreement_id = ?)",
        agreement_id,
    )
    assert row is not None
    return int(row["d"]), int(row["p"]), int(row["t"])


def settled(db: sqlite3.Connection, trade: sqlite3.Row, now: datetime) -> None:
    """An order was paid: when it is a settlement's, its agreement is over."""
    row = one(db, "SELECT * FROM credit WHERE agreement_id = ?", trade["agreement_no"])
    if row is None:
        return
    db.execute(
        "UPDATE credit SET status = 'N', settle_trade_no = ? WHERE agreement_id = ?",
        (trade["trade_no"], row["agreement_id"]),
    )
    more: Fields = {
        "withhold_plan_no": row["plan_no"],
        "settle_request_no": trade["out_trade_no"],
        "settle_status": "Y",
        "pay_amount": format_yuan(int(trade["total_fen"])),
    }
    _announce(db, str(row["agreement_id"]), "settled", now, more)


def existing(call: Call) -> sqlite3.Row:
    """The agreement that a call names. Raises BusinessFailure."""
    return _existing(call)


def by_code(db: sqlite3.Connection, code: str) -> sqlite3.Row | None:
    """The agreement behind a signing page's address, or the last part of it."""
    return one(db, "SELECT * FROM credit WHERE code = ?", code.rsplit("/", 1)[-1])


def _check_reversal(call: Call, row: sqlite3.Row, refers_to: str, discount: int, paid: int, tasks: int) -> None:
    use = _use(call, row, refers_to)
    if use is None or use["action"] != "POSITIVE":
        raise BusinessFailure("CUMULATE_DATA_NOT_EXIST", "no such use to reverse")
    back = one(
        call.db,
        "SELECT coalesce(sum(discount_fen), 0) AS d, coalesce(sum(paid_fen), 0) AS p, coalesce(sum(tasks), 0) AS t "
        "FROM credit_use WHERE agreement_id = ? AND refers_to = ?",
        row["agreement_id"],
        refers_to,
    )
    assert back is not None
    if (
        back["d"] + discount > use["discount_fen"]
        or back["p"] + paid > use["paid_fen"]
        or back["t"] + tasks > use["tasks"]
    ):
        raise BusinessFailure("CUMULATE_AMOUNT_EXCEEDED", "more than was used")


def _existing(call: Call) -> sqlite3.Row:
    row = one(
        call.db,
        "SELECT * FROM credit WHERE app_id = ? AND agreement_id = ?",
        call.app_id,
        call.text("agreement_id", 64),
    )
    if row is None or row["status"] == "TEMP":
        raise BusinessFailure("AGREEMENT_NOT_EXIST", "no such agreement")
    named = call.optional("alipay_user_id", 64) or call.optional("user_id", 64)
    if named is not None and named != row["user_id"]:
        raise BusinessFailure("AGREEMENT_USER_NOT_MATCH", "the agreement is another customer's")
    return row


def _use(call: Call, row: sqlite3.Row, number: str) -> sqlite3.Row | None:
    return one(
        call.db, "SELECT * FROM credit_use WHERE agreement_id = ? AND out_biz_no = ?", row["agreement_id"], number
    )


def _announce(db: sqlite3.Connection, agreement_id: str, event: str, now: datetime, more: Fields) -> None:
    row = one(
        db, "SELECT c.*, a.notify_url FROM credit c JOIN app a USING (app_id) WHERE agreement_id = ?", agreement_id
    )
    assert row is not None
    content: Fields = {
        "agreement_id": agreement_id,
        "out_request_no": row["out_request_no"],
        "alipay_user_id": row["user_id"],
        "agreement_status": row["status"],
        "biz_time": local_time(moment(now)),
    }
    fields: Fields = {
        "msg_method": f"zhima.credit.pe.zmgo.agreement.{event}",
        "biz_content": json.dumps(content | more, ensure_ascii=False),
    }
    notices.announce(db, row["app_id"], row["notify_url"], f"zmgo_{event}", row["out_request_no"], fields, now)
