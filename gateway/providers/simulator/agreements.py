"""Withholding agreements: alipay.user.agreement.*. Signed on the customer's phone, used without asking again."""

from __future__ import annotations

import re
import secrets
import sqlite3
from datetime import datetime, timedelta

from gateway.providers.simulator import notices, settings
from gateway.providers.simulator.calls import BadArgument, BusinessFailure, Call, fresh_no, local_time
from gateway.providers.simulator.database import moment, one

SIGN_LIFE = timedelta(minutes=15)
SIGN_PATH = "/sim/sign/"
PERSONAL_PRODUCT = "GENERAL_WITHHOLDING_P"
_EXTERNAL = re.compile(r"[A-Za-z0-9]{1,32}")

Fields = dict[str, object]


def expire(db: sqlite3.Connection, now: datetime) -> None:
    """Forget what nobody signed in time."""
    db.execute("DELETE FROM agreement WHERE status = 'TEMP' AND expires_at <= ?", (moment(now),))


def page_sign(call: Call) -> Fields:
    """alipay.user.agreement.page.sign: the address of the page where the customer signs."""
    if call.text("personal_product_code") != PERSONAL_PRODUCT:
        raise BadArgument("isv.invalid-personal-product-code")
    row = _find(call)
    if row is None:
        what = call.part("sub_merchant").optional("sub_merchant_service_description") or ""
        call.db.execute(
            "INSERT INTO agreement (agreement_no, app_id, external_no, what, status, code, notify_url, created_at, "
            "expires_at) VALUES (?, ?, ?, ?, 'TEMP', ?, ?, ?, ?)",
            (
                fresh_no(call.now, "700"),
                call.app_id,
                _external(call),
                what,
                secrets.token_urlsafe(18),
                call.notify_url,
                moment(call.now),
                moment(call.now + SIGN_LIFE),
            ),
        )
        row = _find(call)
        assert row is not None
    return {"page": f"{call.base_url}{SIGN_PATH}{row['code']}"}


def query(call: Call) -> Fields:
    """alipay.user.agreement.query: by our number, or the provider's."""
    row = _existing(call)
    if call.forced is not None:
        raise BusinessFailure("SYSTEM_ERROR" if call.forced == "pending" else call.forced, "injected")
    if row["status"] == "TEMP":
        raise BusinessFailure("USER_AGREEMENT_NOT_EXIST", "nobody has signed it")
    return {
        "agreement_no": row["agreement_no"],
        "external_agreement_no": row["external_no"],
        "principal_type": "CARD",
        "principal_id": row["user_id"],
        "personal_product_code": PERSONAL_PRODUCT,
        "sign_scene": call.optional("sign_scene") or "",
        "status": row["status"],
        "sign_time": local_time(str(row["signed_at"])),
        "valid_time": local_time(str(row["signed_at"])),
        "invalid_time": "2115-02-01 00:00:00",
    }


def unsign(call: Call) -> Fields:
    """alipay.user.agreement.unsign."""
    row = _existing(call)
    if call.forced is not None:
        raise BusinessFailure("SYSTEM_ERROR" if call.forced == "pending" else call.forced, "injected")
    if row["status"] == "NORMAL":
        end(call.db, row, call.now)
    return {}


def sign(db: sqlite3.Connection, row: sqlite3.Row, user_id: str, now: datetime) -> None:
    """The customer signs. Raises BusinessFailure when it is another's, or over."""
    if row["status"] == "NORMAL" and row["user_id"] == user_id:
        return
    if row["status"] != "TEMP":
        raise BusinessFailure("USER_AGREEMENT_NOT_EXIST", "this agreement waits for nobody any more")
    db.execute(
        "UPDATE agreement SET status = 'NORMAL', user_id = ?, signed_at = ? WHERE agreement_no = ?",
        (user_id, moment(now), row["agreement_no"]),
    )
    _announce(db, str(row["agreement_no"]), "dut_user_sign", now)


def end(db: sqlite3.Connection, row: sqlite3.Row, now: datetime) -> None:
    """The customer or the merchant ends it."""
    db.execute("UPDATE agreement SET status = 'STOP' WHERE agreement_no = ?", (row["agreement_no"],))
    _announce(db, str(row["agreement_no"]), "dut_user_unsign", now)


def payer(call: Call, agreement_no: str, fen: int) -> str:
    """Who pays under this agreement. Raises BusinessFailure when it is gone, or the amount is above its limit."""
    row = one(call.db, "SELECT * FROM agreement WHERE agreement_no = ? AND app_id = ?", agreement_no, call.app_id)
    if row is None or row["status"] == "TEMP":
        raise BusinessFailure("ACQ.AGREEMENT_NOT_EXIST", "no such agreement")
    if row["status"] != "NORMAL":
        raise BusinessFailure("ACQ.AGREEMENT_INVALID", "the agreement has ended")
    if fen > settings.get(call.db, "agreement_limit_fen"):
        raise BusinessFailure("ACQ.BEYOND_PER_RECEIPT_SINGLE_RESTRICTION", "more than the customer agreed to")
    return str(row["user_id"])


def by_code(db: sqlite3.Connection, code: str) -> sqlite3.Row | None:
    """The agreement behind a signing page's address, or the last part of it."""
    return one(db, "SELECT * FROM agreement WHERE code = ?", code.rsplit("/", 1)[-1])


def _announce(db: sqlite3.Connection, agreement_no: str, kind: str, now: datetime) -> None:
    row = one(db, "SELECT * FROM agreement WHERE agreement_no = ?", agreement_no)
    assert row is not None
    fields: Fields = {
        "agreement_no": agreement_no,
        "external_agreement_no": row["external_no"],
        "alipay_user_id": row["user_id"],
        "personal_product_code": PERSONAL_PRODUCT,
        "status": "NORMAL" if kind == "dut_user_sign" else "UNSIGN",
        "sign_time": local_time(str(row["signed_at"])),
    }
    notices.announce(db, row["app_id"], row["notify_url"], kind, row["external_no"], fields, now)


def _find(call: Call) -> sqlite3.Row | None:
    return one(call.db, "SELECT * FROM agreement WHERE app_id = ? AND external_no = ?", call.app_id, _external(call))


def _existing(call: Call) -> sqlite3.Row:
    number = call.optional("agreement_no", 64)
    row = _find(call) if number is None else None
    if number is not None:
        row = one(call.db, "SELECT * FROM agreement WHERE app_id = ? AND agreement_no = ?", call.app_id, number)
    if row is None:
        raise BusinessFailure("USER_AGREEMENT_NOT_EXIST", "no such agreement")
    return row


def _external(call: Call) -> str:
    text = call.text("external_agreement_no", 32)
    if _EXTERNAL.fullmatch(text) is None:
        raise BadArgument("isv.invalid-external-agreement-no")
    return text
