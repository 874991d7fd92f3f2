"""The daily bill: a zip of two GBK csv, behind an address that soon dies. Right by default, wrong on demand."""

from __future__ import annotations

import csv
import io
import secrets
import sqlite3
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import IO

from gateway.providers.alipay_bill import DETAIL_COLUMNS, PAYMENT, REFUND, SUMMARY_COLUMNS, TOTAL
from gateway.providers.alipay_gateway import PROVIDER_ZONE
from gateway.providers.simulator import faults, settings
from gateway.providers.simulator.calls import BadArgument, BusinessFailure, Call, fresh_no, local_time
from gateway.providers.simulator.database import moment, one
from gateway.providers.simulator.faults import BillFault

BILL_PATH = "/sim/bill/"
RULE = "-" * 40
Fields = dict[str, object]


@dataclass(frozen=True, slots=True)
class Movement:
    """One line of a bill: amounts with the account's signs."""

    trade_no: str
    order_no: str
    kind: str
    subject: str
    created: str
    done: str
    user: str
    gross_fen: int
    receipt_fen: int
    promotion_fen: int
    discount_fen: int
    request_no: str
    fee_fen: int

    @property
    def net_fen(self) -> int:
        """What the movement changed in the account."""
        return self.receipt_fen + self.fee_fen


def download_url(call: Call) -> Fields:
    """alipay.data.dataservice.bill.downloadurl.query: an address that lives for half a minute."""
    if call.text("bill_type", 32) != "trade":
        raise BadArgument("isv.invalid-bill-type")
    try:
        day = date.fromisoformat(call.text("bill_date", 10))
    except ValueError:
        raise BadArgument("isv.invalid-bill-date") from None
    if call.forced is not None:
        raise BusinessFailure("isp.unknow-error" if call.forced == "pending" else call.forced, "injected")
    if day >= call.now.astimezone(PROVIDER_ZONE).date():
        raise BusinessFailure("isp.bill_not_exist", "a bill comes on the day after its day")
    token = secrets.token_urlsafe(24)
    until = call.now + timedelta(seconds=settings.get(call.db, "bill_url_life_s"))
    call.db.execute("DELETE FROM bill_url WHERE expires_at < ?", (moment(call.now - timedelta(days=1)),))
    call.db.execute(
        "INSERT INTO bill_url (token, app_id, day, expires_at) VALUES (?, ?, ?, ?)",
        (token, call.app_id, day.isoformat(), moment(until)),
    )
    return {"bill_download_url": f"{call.base_url}{BILL_PATH}{token}"}


def behind(db: sqlite3.Connection, token: str, now: datetime) -> tuple[str, date] | None:
    """The app and the day of a bill's address, while it lives."""
    row = one(db, "SELECT * FROM bill_url WHERE token = ? AND expires_at > ?", token, moment(now))
    return None if row is None else (str(row["app_id"]), date.fromisoformat(row["day"]))


def write_bill(db: sqlite3.Connection, app_id: str, day: date) -> IO[bytes]:
    """The zip, from its beginning, in a file without a name that the caller closes."""
    app = one(db, "SELECT seller_id FROM app WHERE app_id = ?", app_id)
    assert app is not None
    seller, file = str(app["seller_id"]), tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    name = f"{seller}0156_{day:%Y%m%d}"
    head = [f"#账号：[{seller}0156]", f"#起始日期：[{_local(day)}]   终止日期：[{_local(day + timedelta(days=1))}]"]
    sums = _Sums()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open(_entry(f"{name}_业务明细.csv"), "w") as raw:
            out = io.TextIOWrapper(raw, "gb18030", newline="")
            rows = csv.writer(out, lineterminator="\r\n")
            out.write("\r\n".join(["#支付宝业务明细查询", *head, f"#{RULE}业务明细列表{RULE}", ""]))
            rows.writerow(DETAIL_COLUMNS)
            for movement in movements(db, app_id, day):
                sums.add(movement)
                rows.writerow(_cells(movement))
            out.write(f"#{RULE}业务明细列表结束{RULE}\r\n")
            out.write(f"#交易合计：{sums.payments}笔，商家实收共{_yuan(sums.payments_fen)}元，商家优惠共0.00元\r\n")
            out.write(
                f"#退款合计：{sums.refunds}笔，商家实收退款共{_yuan(sums.refunds_fen)}元，商家优惠退款共0.00元\r\n"
            )
            out.flush()
            out.detach()
        summary = io.StringIO(newline="")
        rows = csv.writer(summary, lineterminator="\r\n")
        summary.write("\r\n".join(["#支付宝业务汇总查询", *head, f"#{RULE}业务汇总列表{RULE}", ""]))
        rows.writerow(SUMMARY_COLUMNS)
        rows.writerow(sums.cells())
        summary.write(f"#{RULE}业务汇总列表结束{RULE}\r\n")
        archive.writestr(_entry(f"{name}_业务明细(汇总).csv"), summary.getvalue().encode("gb18030"))
    file.seek(0)
    return file


class _GbkName(zipfile.ZipInfo):
    """An entry named in GBK without the flag that says so: as the real bills are."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802 - the name is zipfile's
        return self.filename.encode("gbk"), self.flag_bits & ~0x800


def _entry(name: str) -> zipfile.ZipInfo:
    entry = _GbkName(name, (2026, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o600 << 16
    return entry


def movements(db: sqlite3.Connection, app_id: str, day: date) -> Iterator[Movement]:
    """The lines of a day's bill, faults included."""
    wrong = faults.bill_faults(db, app_id, day)
    late = [row for row in faults.bill_faults(db, app_id, day - timedelta(days=1)) if row["kind"] == "other_date"]
    for number, movement in enumerate(_booked(db, app_id, day)):
        struck = [row for row in wrong if _strikes(row, number, movement)]
        yield from _bent(movement, [(BillFault(row["kind"]), int(row["fen"])) for row in struck])
    for row in wrong:
        if row["kind"] == BillFault.EXTRA_LINE:
            yield _strange(day, int(row["fen"]), int(row["id"]))
    if late:
        for number, movement in enumerate(_booked(db, app_id, day - timedelta(days=1))):
            if any(_strikes(row, number, movement) for row in late):
                yield movement


def _strikes(row: sqlite3.Row, number: int, movement: Movement) -> bool:
    if row["kind"] == BillFault.EXTRA_LINE:
        return False
    if row["number"]:
        return row["number"] in {movement.order_no, movement.request_no}
    return bool(row["line"] == number)


def _bent(movement: Movement, wrong: list[tuple[BillFault, int]]) -> Iterator[Movement]:
    copies = 1
    for kind, fen in wrong:
        match kind:
            case BillFault.MISSING_LINE | BillFault.OTHER_DATE:
                copies = 0
            case BillFault.DUPLICATE:
                copies = 2
            case BillFault.WRONG_AMOUNT:
                sign = 1 if movement.kind == PAYMENT else -1
                movement = replace(
                    movement,
                    gross_fen=movement.gross_fen + sign * fen,
                    receipt_fen=movement.receipt_fen + sign * fen,
                )
            case BillFault.WRONG_FEE:
                movement = replace(movement, fee_fen=movement.fee_fen - fen)
            case BillFault.EXTRA_LINE:
                pass
    yield from [movement] * copies


def _strange(day: date, fen: int, number: int) -> Movement:
    noon = f"{day.isoformat()} 12:00:00"
    trade_no = fresh_no(datetime(day.year, day.month, day.day, tzinfo=PROVIDER_ZONE), "220")[:12] + f"{number:016d}"
    return Movement(trade_no, f"X{number:08d}", PAYMENT, "?", noon, noon, "", fen, fen, 0, 0, "", 0)


def _booked(db: sqlite3.Connection, app_id: str, day: date) -> Iterator[Movement]:
    """What happened on the day, oldest first; a payment before its refunds."""
    begin = datetime(day.year, day.month, day.day, tzinfo=PROVIDER_ZONE)
    since, until = moment(_utc(begin)), moment(_utc(begin + timedelta(days=1, milliseconds=-1)))
    cursor = db.execute(
        "SELECT t.*, paid_at AS moved_at, NULL AS request_no, 0 AS back_fen, 0 AS back_receipt, 0 AS back_fee, "
        "t.id AS nth, '' AS back_kind, 0 AS is_refund FROM trade t WHERE app_id = ?1 AND paid_at BETWEEN ?2 AND ?3 "
        "UNION ALL SELECT t.*, r.at, r.out_request_no, r.fen, r.receipt_fen, r.fee_fen, r.id, r.kind, 1 "
        "FROM refund r JOIN trade t USING (trade_no) WHERE app_id = ?1 AND r.at BETWEEN ?2 AND ?3 "
        "ORDER BY moved_at, is_refund, nth",
        (app_id, since, until),
    )
    for row in cursor:
        payment = not row["is_refund"]
        total, promotion, discount = int(row["total_fen"]), int(row["promotion_fen"]), int(row["discount_fen"])
        yield Movement(
            trade_no=str(row["trade_no"]),
            order_no=str(row["out_trade_no"]),
            kind=PAYMENT if payment else REFUND,
            subject=str(row["subject"]),
            created=local_time(str(row["created_at"])),
            done=local_time(str(row["moved_at"])),
            user=str(row["user_id"]),
            gross_fen=total if payment else -int(row["back_fen"]),
            receipt_fen=total - discount if payment else -int(row["back_receipt"]),
            promotion_fen=promotion if payment else 0,
            discount_fen=discount if payment else 0,
            request_no="" if payment or row["back_kind"] == "reversal" else str(row["request_no"]),
            fee_fen=-int(row["fee_fen"]) if payment else int(row["back_fee"]),
        )


class _Sums:
    """What a bill adds up to."""

    def __init__(self) -> None:
        self.payments = self.refunds = self.payments_fen = self.refunds_fen = self.fee_fen = self.gross_fen = 0

    def add(self, movement: Movement) -> None:
        """Count one line."""
        self.gross_fen += movement.gross_fen
        self.fee_fen += movement.fee_fen
        if movement.kind == PAYMENT:
            self.payments += 1
            self.payments_fen += movement.receipt_fen
        else:
            self.refunds += 1
            self.refunds_fen += movement.receipt_fen

    def cells(self) -> list[str]:
        """The summary's total row."""
        receipts = self.payments_fen + self.refunds_fen
        amounts = (self.gross_fen, receipts, 0, 0, 0, self.fee_fen, 0, receipts + self.fee_fen)
        return [TOTAL, "", str(self.payments), str(self.refunds), *(_yuan(fen) for fen in amounts)]


def _cells(m: Movement) -> list[str]:
    # The real bills put a tab after what a spreadsheet would take for a number.
    given = (0, 0, m.promotion_fen, m.discount_fen, 0)
    return [
        f"{m.trade_no}\t",
        f"{m.order_no}\t",
        f"{m.kind}\t",
        m.subject,
        m.created,
        m.done,
        "\t",
        "\t",
        "\t",
        "\t",
        m.user,
        _yuan(m.gross_fen),
        _yuan(m.receipt_fen),
        *(_yuan(fen) for fen in given),
        "",
        "0.00\t",
        "0.00",
        f"{m.request_no}\t",
        _yuan(m.fee_fen),
        "0.00",
        "",
    ]


def _yuan(fen: int) -> str:
    return f"{'-' if fen < 0 else ''}{abs(fen) // 100}.{abs(fen) % 100:02d}"


def _local(day: date) -> str:
    return f"{day:%Y年%m月%d日} 00:00:00"


def _utc(at: datetime) -> datetime:
    return at.astimezone(UTC)
