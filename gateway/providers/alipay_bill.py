"""Alipay's daily bill: a zip with the day's movements and their summary, both as GBK csv. Read as a stream, bounded.

Layout (opendocs.alipay.com, "对账单", bill_type trade): `…_业务明细.csv` begins with `#` lines, then one header row,
one row a movement, and ends with `#` lines that state the sums of payments and of refunds; `…_业务明细(汇总).csv` has
a row a store and one row `合计`. Refunds have negative amounts. Of a fee (服务费) the sign is the account's: a fee that
was taken is negative.
"""

from __future__ import annotations

import csv
import io
import re
import weakref
import zipfile
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from typing import IO

from gateway.providers.alipay_calls import our_number
from models.domain.reconciliation import LineKind, StatementFile, StatementLine, StatementTotals

PROVIDER = "alipay"
ENCODING = "gb18030"
"""GBK and everything beyond it that a name may contain."""
ENTRIES_MAX = 8
LINE_BYTES_MAX = 16 * 1024
CSV_BYTES_MAX = 4 * 1024**3
"""What one csv may unpack to: some ten million movements."""
RATIO_MAX = 200
"""How far a csv may shrink in the zip before it is no bill: real ones shrink 5 to 30 times."""

DETAIL_COLUMNS = (
    "支付宝交易号",
    "商户订单号",
    "业务类型",
    "商品名称",
    "创建时间",
    "完成时间",
    "门店编号",
    "门店名称",
    "操作员",
    "终端号",
    "对方账户",
    "订单金额（元）",
    "商家实收（元）",
    "支付宝红包（元）",
    "集分宝（元）",
    "支付宝优惠（元）",
    "商家优惠（元）",
    "券核销金额（元）",
    "券名称",
    "商家红包消费金额（元）",
    "卡消费金额（元）",
    "退款批次号/请求号",
    "服务费（元）",
    "分润（元）",
    "备注",
)
SUMMARY_COLUMNS = (
    "门店编号",
    "门店名称",
    "交易订单总笔数",
    "退款订单总笔数",
    "订单金额（元）",
    "商家实收（元）",
    "支付宝优惠（元）",
    "商家优惠（元）",
    "卡消费金额（元）",
    "服务费（元）",
    "分润（元）",
    "实收净额（元）",
)
PAYMENT, REFUND, TOTAL = "交易", "退款", "合计"
_KINDS = {PAYMENT: LineKind.PAYMENT, REFUND: LineKind.REFUND}
_NEEDED = (
    "支付宝交易号",
    "商户订单号",
    "业务类型",
    "完成时间",
    "订单金额（元）",
    "商家实收（元）",
    "退款批次号/请求号",
    "服务费（元）",
)
_YUAN = re.compile(r"(-?)(\d{1,13})\.(\d{2})", re.ASCII)
_PAYMENTS_SUM = re.compile(r"#交易合计：(\d{1,12})笔，商家实收共(-?\d{1,13}\.\d{2})元")
_REFUNDS_SUM = re.compile(r"#退款合计：(\d{1,12})笔，商家实收退款共(-?\d{1,13}\.\d{2})元")
_ZONE = timezone(timedelta(hours=8))
"""The bill's times are Beijing's, which has had one offset since 1992."""


class BillMalformed(ValueError):
    """Not a bill that we understand: nothing of it may be believed."""


def open_bill(file: IO[bytes], *, account: str, day: date) -> StatementFile:
    """The bill in `file`, which is read to its end and checked; its lines are parsed while they are read.

    `file` is closed when the statement is forgotten. Raises BillMalformed. Takes seconds for a million lines: not on
    an event loop.
    """
    lines = _Lines(file, account, day)
    payments, payments_fen, refunds, refunds_fen = lines.tail()
    fee_fen, net_fen = _summary(file)
    totals = StatementTotals(payments, refunds, payments_fen, -refunds_fen, -fee_fen)
    if totals.net_fen != net_fen:
        raise BillMalformed("the bill's summary is not the sum of its own parts")
    return StatementFile(PROVIDER, account, day, totals, lines)


class _Lines:
    """The movements, from the beginning at each iteration."""

    def __init__(self, file: IO[bytes], account: str, day: date) -> None:
        self._file = file
        self._account = account
        self._day = day
        weakref.finalize(self, file.close)

    def __iter__(self) -> Iterator[StatementLine]:
        rows = csv.reader(text for text in _texts(self._file, summary=False) if not text.startswith("#"))
        at = _columns(next(rows, []), _NEEDED)
        for row in rows:
            yield self._line(row, at)

    def tail(self) -> tuple[int, int, int, int]:
        """Payments, their receipts, refunds, their receipts (<= 0), as the bill's last lines state them."""
        payments = refunds = None
        for text in _texts(self._file, summary=False):
            if text.startswith("#"):
                payments = _PAYMENTS_SUM.match(text) or payments
                refunds = _REFUNDS_SUM.match(text) or refunds
        if payments is None or refunds is None:
            raise BillMalformed("the bill ends without its sums")
        return int(payments[1]), _fen(payments[2]), int(refunds[1]), _fen(refunds[2])

    def _line(self, row: list[str], at: tuple[int, ...]) -> StatementLine:
        try:
            trade_no, order_no, kind, done, gross, receipt, request_no, fee = (row[i].strip() for i in at)
            return StatementLine(
                provider=PROVIDER,
                account=self._account,
                kind=_KINDS[kind],
                order_no=our_number(order_no),
                request_no=our_number(request_no),
                trade_no=trade_no,
                gross_fen=abs(_fen(gross)),
                receipt_fen=abs(_fen(receipt)),
                fee_fen=-_fen(fee),
                at=datetime.fromisoformat(done).replace(tzinfo=_ZONE),
                business_date=self._day,
            )
        except (IndexError, KeyError, ValueError) as error:
            raise BillMalformed(f"a line of the bill: {error}") from error


def _summary(file: IO[bytes]) -> tuple[int, int]:
    """The day's fees and net, in fen with the account's signs."""
    rows = csv.reader(text for text in _texts(file, summary=True) if not text.startswith("#"))
    at = _columns(next(rows, []), ("门店编号", "服务费（元）", "实收净额（元）"))
    for row in rows:
        if len(row) > max(at) and row[at[0]].strip() == TOTAL:
            return _fen(row[at[1]]), _fen(row[at[2]])
    raise BillMalformed("the bill's summary has no total")


def _texts(file: IO[bytes], *, summary: bool) -> Iterator[str]:
    """The lines of one of the two csv, decoded one by one."""
    try:
        # Names come in GBK without the flag that says so.
        with zipfile.ZipFile(file, metadata_encoding="gbk") as archive:
            entry = _entry(archive, summary=summary)
            budget = min(CSV_BYTES_MAX, max(entry.compress_size, 1024) * RATIO_MAX)
            with archive.open(entry) as raw, io.BufferedReader(raw, 256 * 1024) as stream:  # type: ignore[type-var]
                while line := stream.readline(LINE_BYTES_MAX):
                    budget -= len(line)
                    if budget < 0 or (len(line) == LINE_BYTES_MAX and line[-1:] != b"\n"):
                        raise BillMalformed("the bill unpacks to more than a bill may")
                    yield line.decode(ENCODING)
    except (zipfile.BadZipFile, UnicodeDecodeError, EOFError, OSError, RuntimeError) as error:
        raise BillMalformed(f"the bill cannot be read: {error}") from error


def _entry(archive: zipfile.ZipFile, *, summary: bool) -> zipfile.ZipInfo:
    entries = archive.infolist()
    if len(entries) > ENTRIES_MAX:
        raise BillMalformed("too many files in the bill")
    found = [entry for entry in entries if entry.filename.endswith(".csv") and ("汇总" in entry.filename) is summary]
    if len(found) != 1:
        raise BillMalformed("the bill has not the two files of a bill")
    return found[0]


def _columns(header: list[str], names: tuple[str, ...]) -> tuple[int, ...]:
    """Where the columns stand: by name, for their order and number change."""
    places = {name.strip(): i for i, name in enumerate(header)}
    missing = [name for name in names if name not in places]
    if missing:
        raise BillMalformed(f"the bill has no column {missing[0]}")
    return tuple(places[name] for name in names)


def _fen(text: str) -> int:
    match = _YUAN.fullmatch(text.strip())
    if match is None:
        raise BillMalformed(f"not an amount: {text!r}")
    fen = int(match[2]) * 100 + int(match[3])
    return -fen if match[1] else fen
