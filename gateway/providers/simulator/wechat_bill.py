"""WeChat's trade bill of a day: the same movements as every bill here, in its csv, behind an address that soon dies."""

from __future__ import annotations

import gzip
import hashlib
import secrets
import sqlite3
import tempfile
from datetime import date, timedelta
from typing import IO

from gateway.providers.alipay_bill import PAYMENT
from gateway.providers.simulator import bill, settings
from gateway.providers.simulator.bill import Movement
from gateway.providers.simulator.calls import BadArgument, BusinessFailure
from gateway.providers.simulator.database import moment, one
from gateway.providers.simulator.wechat_calls import WechatCall
from gateway.providers.simulator.wechat_times import BEIJING
from gateway.providers.wechat_bill import DETAIL_COLUMNS, REFUND, REVOKED, SUMMARY_COLUMNS
from gateway.providers.wechat_bill import PAYMENT as SUCCESS

DOWNLOAD_PATH = "/wechat/v3/billdownload/file"
Fields = dict[str, object]


def trade_bill(call: WechatCall) -> Fields:
    """GET /v3/bill/tradebill: an address, and the SHA-1 of what it leads to, unpacked."""
    if call.optional("bill_type") not in {None, "ALL"}:
        raise BadArgument("bill_type")
    packed = call.optional("tar_type")
    if packed not in {None, "GZIP"}:
        raise BadArgument("tar_type")
    try:
        day = date.fromisoformat(call.text("bill_date", 10))
    except ValueError:
        raise BadArgument("bill_date") from None
    if call.forced is not None:
        raise BusinessFailure("ACQ.SYSTEM_ERROR" if call.forced == "pending" else call.forced, "injected")
    if day >= call.now.astimezone(BEIJING).date():
        raise BusinessFailure("isp.bill_not_exist", "a bill comes on the day after its day")
    token = secrets.token_urlsafe(24) + ("" if packed is None else "z")
    until = call.now + timedelta(seconds=settings.get(call.db, "bill_url_life_s"))
    call.db.execute(
        "INSERT INTO bill_url (token, app_id, day, expires_at) VALUES (?, ?, ?, ?)",
        (token, call.app_id, day.isoformat(), moment(until)),
    )
    with write_bill(call.db, call.app_id, day) as file:
        sha1 = hashlib.sha1(usedforsecurity=False)
        while chunk := file.read(256 * 1024):
            sha1.update(chunk)
    return {
        "hash_type": "SHA1",
        "hash_value": sha1.hexdigest(),
        "download_url": f"{call.base_url}{DOWNLOAD_PATH}?token={token}",
    }


def behind(call: WechatCall) -> IO[bytes] | None:
    """The file of an address, while it lives and only for its merchant; the caller closes it."""
    token = call.text("token", 64)
    found = bill.behind(call.db, token, call.now)
    if found is None or found[0] != call.app_id:
        return None
    plain = write_bill(call.db, *found)
    if not token.endswith("z"):
        return plain
    packed = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    with plain, gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1, mtime=0) as out:
        while chunk := plain.read(256 * 1024):
            out.write(chunk)
    packed.seek(0)
    return packed


def write_bill(db: sqlite3.Connection, mchid: str, day: date) -> IO[bytes]:
    """The plain csv, from its beginning, in a file without a name that the caller closes."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    file.write(("\ufeff" + ",".join(DETAIL_COLUMNS) + "\r\n").encode())
    count = receipts = backs = fees = gross = asked = 0
    merchant = one(db, "SELECT appid FROM wechat_merchant WHERE mchid = ?", mchid)
    assert merchant is not None
    for m in bill.movements(db, mchid, day):
        count += 1
        fees -= m.fee_fen
        if m.kind == PAYMENT:
            receipts, gross = receipts + m.receipt_fen, gross + m.gross_fen
        else:
            backs, asked = backs - m.receipt_fen, asked - m.gross_fen
        file.write(_row(_cells(m, mchid, str(merchant["appid"]), _attach(db, mchid, m))))
    file.write((",".join(SUMMARY_COLUMNS) + "\r\n").encode())
    file.write(_row([str(count), *(_yuan(fen) for fen in (receipts, backs, 0, fees, gross, asked))]))
    file.seek(0)
    return file


def _cells(m: Movement, mchid: str, appid: str, attach: str) -> list[str]:
    paid = m.kind == PAYMENT
    state = SUCCESS if paid else REFUND if m.request_no else REVOKED
    zero = "0.00"
    return [
        m.done,
        appid,
        mchid,
        "0",
        "",
        m.trade_no,
        m.order_no,
        m.user,
        "MICROPAY",
        state,
        "OTHERS",
        "CNY",
        _yuan(m.receipt_fen) if paid else zero,
        _yuan(m.promotion_fen),
        "0" if paid else f"5{m.trade_no[-27:]}",
        "0" if paid else m.request_no or m.order_no,
        zero if paid else _yuan(-m.receipt_fen),
        zero,
        "" if paid else "ORIGINAL",
        "" if paid else "SUCCESS",
        m.subject.replace("`", " "),
        attach,
        f"{_yuan(-m.fee_fen)}000",
        "0.60%",
        _yuan(m.gross_fen) if paid else zero,
        zero if paid else _yuan(-m.gross_fen),
        "",
    ]


def _attach(db: sqlite3.Connection, mchid: str, m: Movement) -> str:
    row = one(db, "SELECT attach FROM trade WHERE app_id = ? AND out_trade_no = ?", mchid, m.order_no)
    return "" if row is None else str(row["attach"])


def _row(cells: list[str]) -> bytes:
    return (",".join(f"`{cell}" for cell in cells) + "\r\n").encode()


def _yuan(fen: int) -> str:
    return f"{'-' if fen < 0 else ''}{abs(fen) // 100}.{abs(fen) % 100:02d}"
