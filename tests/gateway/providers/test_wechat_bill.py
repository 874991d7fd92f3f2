"""WeChat's bill: read by its columns' names, held against its own sums and its hash; anything else is no bill."""

from __future__ import annotations

import gzip
import hashlib
import io
from collections.abc import Callable
from datetime import date

import pytest

from gateway.providers.wechat_bill import DETAIL_COLUMNS, LINE_BYTES_MAX, SUMMARY_COLUMNS, BillMalformed, open_bill
from gateway.providers.wechat_statements import _unpack
from models.domain.reconciliation import LineKind

DAY = date(2026, 11, 22)
NUMBER = "P0123456789abcdef0123456789abcdef"


def row(**values: str) -> str:
    cells = dict.fromkeys(DETAIL_COLUMNS, "") | {
        "交易时间": "2026-11-22 12:00:00",
        "微信订单号": "42000001",
        "商户订单号": "*0a1b",
        "交易状态": "SUCCESS",
        "应结订单金额": "7.90",
        "商户退款单号": "0",
        "退款金额": "0.00",
        "商品名称": "茶, 绿",
        "商户数据包": NUMBER,
        "手续费": "0.05000",
        "订单金额": "8.00",
        "申请退款金额": "0.00",
    }
    return ",".join(f"`{cell}" for cell in (cells | values).values())


BACK = {"交易状态": "REFUND", "应结订单金额": "0.00", "商户退款单号": "R1", "退款金额": "1.00", "手续费": "-0.01000"}
SUMS = "`2,`7.90,`1.00,`0.00,`0.04000,`8.00,`1.00"


def bill(*rows: str, sums: str = SUMS) -> bytes:
    lines = ["\ufeff" + ",".join(DETAIL_COLUMNS), *rows, ",".join(SUMMARY_COLUMNS), sums, ""]
    return "\r\n".join(lines).encode()


GOOD = bill(row(), row(**BACK, 申请退款金额="1.00", 订单金额="0.00"))


def test_a_bill_is_read_with_our_own_numbers() -> None:
    file = open_bill(io.BytesIO(GOOD), account="chain", day=DAY)
    paid, back = file.lines
    assert (paid.kind, paid.order_no, paid.gross_fen, paid.receipt_fen, paid.fee_fen) == (
        LineKind.PAYMENT,
        NUMBER,
        800,
        790,
        5,
    )
    assert (back.kind, back.order_no, back.request_no, back.receipt_fen, back.fee_fen) == (
        LineKind.REFUND,
        NUMBER,
        "R1",
        100,
        -1,
    )
    assert file.totals.net_fen == paid.net_fen + back.net_fen == 790 - 100 - 5 + 1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda text: text.replace(b"`2,`7.90", b"`3,`7.90"), "sum of its lines"),
        (lambda text: text.replace(b"`7.90,`1.00,`0.00", b"`7.91,`1.00,`0.00"), "sum of its lines"),
        (lambda text: text.replace(b"`0.04000", b"`0.05000"), "sum of its lines"),
        (lambda text: text[: text.index("总交易单数".encode())], "without its sums"),
        (lambda text: text.replace(SUMS.encode(), b""), "cut off"),
        (lambda text: text.replace("手续费,".encode(), "费,".encode(), 1), "no column 手续费"),
        (lambda text: text.replace(b"`SUCCESS", b"`NEW"), "a line of the bill"),
        (lambda text: text.replace(b"`0.05000", b"`0.05001"), "not an amount"),
        (lambda text: text.replace(b"12:00:00", b"noon"), "a line of the bill"),
        (lambda text: text.replace("茶".encode(), b"\xff"), "cannot be read"),
        (lambda text: text.replace("茶".encode(), b"t" * LINE_BYTES_MAX), "longer than"),
        (lambda _: b"", "no column"),
    ],
)
def test_what_is_no_bill_is_not_believed(change: Callable[[bytes], bytes], why: str) -> None:
    changed = change(GOOD)
    assert changed != GOOD
    with pytest.raises(BillMalformed, match=why):
        open_bill(io.BytesIO(changed), account="chain", day=DAY)


def test_the_hash_is_of_the_unpacked_file_and_proves_it() -> None:
    packed, digest = gzip.compress(GOOD), hashlib.sha1(GOOD, usedforsecurity=False).hexdigest()
    plain = _unpack(io.BytesIO(packed), digest)
    assert not isinstance(plain, str)
    assert plain.read() == GOOD
    plain.close()
    assert _unpack(io.BytesIO(gzip.compress(GOOD + b" ")), digest) == "hash"
    assert _unpack(io.BytesIO(packed[:-20]), digest) == "hash"
    assert _unpack(io.BytesIO(GOOD), digest) == "not_gzip"
    assert _unpack(io.BytesIO(gzip.compress(b"0" * 50_000_000)), digest) == "too_large"
