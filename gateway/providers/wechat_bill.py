"""WeChat Pay's trade bill of a day (bill_type ALL): one csv in UTF-8, each value behind a backtick. Read as a stream.

Layout (pay.weixin.qq.com, "交易账单文件格式说明"): a header row, a row a movement, a summary's header, one summary row.
Refunds stand as rows of their own, with what went back in columns of their own; amounts are yuan and not negative, but
for a fee that comes back. A payment that was reversed (撤销) has a second row with the state REVOKED.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from typing import IO

from gateway.providers.wechat_calls import our_number
from models.domain.payments import is_request_number
from models.domain.reconciliation import LineKind, StatementFile, StatementLine, StatementTotals

PROVIDER = "wechat"
LINE_BYTES_MAX = 16 * 1024
DETAIL_COLUMNS = (
    "交易时间",
    "公众账号ID",
    "商户号",
    "特约商户号",
    "设备号",
    "微信订单号",
    "商户订单号",
    "用户标识",
    "交易类型",
    "交易状态",
    "付款银行",
    "货币种类",
    "应结订单金额",
    "代金券金额",
    "微信退款单号",
    "商户退款单号",
    "退款金额",
    "充值券退款金额",
    "退款类型",
    "退款状态",
    "商品名称",
    "商户数据包",
    "手续费",
    "费率",
    "订单金额",
    "申请退款金额",
    "费率备注",
)
SUMMARY_COLUMNS = (
    "总交易单数",
    "应结订单总金额",
    "退款总金额",
    "充值券退款总金额",
    "手续费总金额",
    "订单总金额",
    "申请退款总金额",
)
PAYMENT, REFUND, REVOKED = "SUCCESS", "REFUND", "REVOKED"
_KINDS = {PAYMENT: LineKind.PAYMENT, REFUND: LineKind.REFUND, REVOKED: LineKind.REFUND}
_NEEDED = (
    "交易时间",
    "微信订单号",
    "商户订单号",
    "交易状态",
    "应结订单金额",
    "商户退款单号",
    "退款金额",
    "商户数据包",
    "手续费",
    "订单金额",
    "申请退款金额",
)
_YUAN = re.compile(r"(-?)(\d{1,13})\.(\d{2})0*", re.ASCII)
_ZONE = timezone(timedelta(hours=8))
"""The bill's times are Beijing's, which has had one offset since 1992."""


class BillMalformed(ValueError):
    """Not a bill that we understand: nothing of it may be believed."""


def open_bill(file: IO[bytes], *, account: str, day: date) -> StatementFile:
    """The bill in `file` (plain), which is read to its end and held against its own summary.

    `file` is closed when the statement is forgotten. Raises BillMalformed. Takes seconds for a million lines: not on
    an event loop.
    """
    lines = _Lines(file, account, day)
    counts = {LineKind.PAYMENT: 0, LineKind.REFUND: 0}
    receipts = {LineKind.PAYMENT: 0, LineKind.REFUND: 0}
    fee_fen = 0
    for line in lines:
        counts[line.kind] += 1
        receipts[line.kind] += line.receipt_fen
        fee_fen += line.fee_fen
    stated = lines.summary
    if stated is None:
        raise BillMalformed("the bill ends without its sums")
    found = (sum(counts.values()), receipts[LineKind.PAYMENT], receipts[LineKind.REFUND], fee_fen)
    if stated != found:
        raise BillMalformed("the bill's summary is not the sum of its lines")
    totals = StatementTotals(
        counts[LineKind.PAYMENT],
        counts[LineKind.REFUND],
        receipts[LineKind.PAYMENT],
        receipts[LineKind.REFUND],
        fee_fen,
    )
    return StatementFile(PROVIDER, account, day, totals, lines)


class _Lines:
    """The movements, from the beginning at each iteration; after one to the end, `summary` is known."""

    def __init__(self, file: IO[bytes], account: str, day: date) -> None:
        self._file = file
        self._account = account
        self._day = day
        self.summary: tuple[int, int, int, int] | None = None
        weakref.finalize(self, file.close)

    def __iter__(self) -> Iterator[StatementLine]:
        self.summary = None
        self._file.seek(0)
        texts = self._texts()
        at = _columns(next(texts, "").lstrip("\ufeff").split(","), _NEEDED)
        for text in texts:
            if not text.startswith("`"):
                self._close_with(text, next(texts, ""))
                return
            yield self._line(_values(text), at)

    def _texts(self) -> Iterator[str]:
        try:
            while line := self._file.readline(LINE_BYTES_MAX):
                if line[-1:] != b"\n" and len(line) == LINE_BYTES_MAX:
                    raise BillMalformed("a line of the bill is longer than a line may be")
                text = line.decode("utf-8").rstrip("\r\n")
                if text:
                    yield text
        except (UnicodeDecodeError, OSError, ValueError) as error:
            raise BillMalformed(f"the bill cannot be read: {error}") from error

    def _close_with(self, header: str, sums: str) -> None:
        at = _columns(header.split(","), SUMMARY_COLUMNS[:5])
        values = _values(sums)
        if len(values) <= max(at) or not values[at[0]].isascii() or not values[at[0]].isdigit():
            raise BillMalformed("the bill's summary is cut off")
        self.summary = (int(values[at[0]]), _fen(values[at[1]]), _fen(values[at[2]]), _fen(values[at[4]]))

    def _line(self, row: list[str], at: tuple[int, ...]) -> StatementLine:
        try:
            done, trade_no, order, state, receipt, refund_no, back, attach, fee, gross, asked = (row[i] for i in at)
            kind = _KINDS[state]
            paid = kind is LineKind.PAYMENT
            return StatementLine(
                provider=PROVIDER,
                account=self._account,
                kind=kind,
                order_no=our_number(attach, order) or order,
                request_no=refund_no if state == REFUND and is_request_number(refund_no) else "",
                trade_no=trade_no,
                gross_fen=_fen(gross if paid else asked),
                receipt_fen=_fen(receipt if paid else back),
                fee_fen=_fen(fee),
                at=datetime.fromisoformat(done).replace(tzinfo=_ZONE),
                business_date=self._day,
            )
        except (IndexError, KeyError, ValueError) as error:
            raise BillMalformed(f"a line of the bill: {error}") from error


def _values(text: str) -> list[str]:
    """The values of a row: a backtick stands before each, so that commas inside them do no harm."""
    return text.removeprefix("`").split(",`")


def _columns(header: list[str], names: tuple[str, ...]) -> tuple[int, ...]:
    """Where the columns stand: by name, for their order and number change."""
    places = {name.strip().removeprefix("`"): i for i, name in enumerate(header)}
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
