"""The provider's bill of a day: right to the fen, wrong on demand, and never believed when it is no bill."""

from __future__ import annotations

import io
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from gateway.providers.alipay import AlipayProvider
from gateway.providers.alipay_bill import DETAIL_COLUMNS, BillMalformed, open_bill
from gateway.providers.alipay_gateway import PROVIDER_ZONE, AlipayAccount
from gateway.providers.port import Scene
from gateway.providers.simulator import SimulatorAdmin, create_simulator_app
from models.domain.payments import Succeeded, Unknown
from models.domain.reconciliation import LineKind, StatementFile, StatementLine, totals_of
from tests.gateway.providers.conftest import MovableClock, RunningSimulator, open_account, serve_in_thread

QUERY = "alipay.data.dataservice.bill.downloadurl.query"
DAY = date(2026, 11, 22)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningSimulator]:
    """A provider of this test's own: a bill counts everything of its day."""
    clock = MovableClock()
    server, thread, url = serve_in_thread(create_simulator_app(tmp_path, clock=clock))
    yield RunningSimulator(url, clock, tmp_path)
    server.should_exit = True
    thread.join(30)


@pytest.fixture
async def account(running: RunningSimulator, admin: SimulatorAdmin) -> AlipayAccount:
    return replace(await open_account(admin, running.url), entity="franchisee-1")


async def pay(provider: AlipayProvider, admin: SimulatorAdmin, fen: int) -> str:
    order = f"P-{uuid.uuid4()}"
    answer = await provider.pay(
        number=order,
        amount_fen=fen,
        subject='咖啡, "大杯"',
        auth_code=await admin.payment_code("lin"),
        scene=Scene.PAYMENT_CODE,
    )
    assert isinstance(answer, Succeeded)
    return order


async def refund(provider: AlipayProvider, order: str, fen: int) -> str:
    number = f"R-{uuid.uuid4()}"
    answer = await provider.refund(number=number, payment_number=order, amount_fen=fen, reason="return")
    assert isinstance(answer, Succeeded)
    return number


async def statement(provider: AlipayProvider, day: date = DAY) -> StatementFile:
    answer = await provider.statement(day=day)
    assert isinstance(answer, Succeeded), answer
    return answer.result


def brief(line: StatementLine) -> tuple[LineKind, str, str, int, int, int]:
    return line.kind, line.order_no, line.request_no, line.gross_fen, line.receipt_fen, line.fee_fen


async def test_a_day_is_stated_with_its_fees_and_sums(
    provider: AlipayProvider, admin: SimulatorAdmin, running: RunningSimulator
) -> None:
    assert await provider.statement(day=DAY) == Unknown("not_ready", absent=True)
    first, second = await pay(provider, admin, 1250), await pay(provider, admin, 999)
    back = await refund(provider, first, 250)
    await provider.cancel(number=second)
    await admin.add_fault("alipay.trade.pay", "discount", value=50)
    third = await pay(provider, admin, 500)
    held = await provider.freeze(
        number="F1", amount_fen=1000, subject="m", auth_code=await admin.face_token("lin"), scene=Scene.FACE
    )
    assert isinstance(held, Succeeded)
    await provider.capture(number="S1", hold_no=held.result.hold_no, amount_fen=800, subject="settlement")
    running.clock.advance(timedelta(days=1))
    later = await pay(provider, admin, 7)
    found = await statement(provider)
    lines = list(found.lines)
    payment, refunded = LineKind.PAYMENT, LineKind.REFUND
    assert sorted(brief(line) for line in lines) == sorted(
        [
            (payment, first, "", 1250, 1250, 8),  # 0.6 % of 12.50 is 7.5 fen, rounded up
            (payment, second, "", 999, 999, 6),
            (refunded, first, back, 250, 250, -1),
            (refunded, second, "", 999, 999, -6),
            (payment, third, "", 500, 450, 3),
            (payment, "S1", "", 800, 800, 5),
        ]
    )
    assert list(found.lines) == lines, "read again from the beginning"
    assert found.totals == totals_of(lines)
    assert {(line.provider, line.account, line.business_date) for line in lines} == {("alipay", "franchisee-1", DAY)}
    assert all(line.at.astimezone(PROVIDER_ZONE).date() == DAY for line in lines)
    books = await admin.books()
    tomorrow = datetime(2026, 11, 24, tzinfo=UTC)
    running.clock.now = tomorrow
    next_day = await statement(provider, DAY + timedelta(days=1))
    assert [line.order_no for line in next_day.lines] == [later]
    assert found.totals.net_fen + next_day.totals.net_fen == books["net_fen"] - books["fees_fen"]


async def test_a_day_without_business_is_an_empty_bill(
    provider: AlipayProvider, admin: SimulatorAdmin, running: RunningSimulator
) -> None:
    running.clock.advance(timedelta(days=1))
    found = await statement(provider)
    assert list(found.lines) == []
    assert found.totals == totals_of([])


async def test_every_wrong_bill_states_its_own_wrong_sums(
    provider: AlipayProvider, admin: SimulatorAdmin, running: RunningSimulator
) -> None:
    orders = [await pay(provider, admin, 1000 + n) for n in range(6)]
    for n, kind in enumerate(("missing_line", "wrong_amount", "wrong_fee", "duplicate", "other_date")):
        await admin.add_bill_fault(DAY, kind, number=orders[n].replace("-", "_"), fen=30)
    await admin.add_bill_fault(DAY, "extra_line", fen=77)
    running.clock.advance(timedelta(days=2))
    found = await statement(provider)
    lines = list(found.lines)
    assert found.totals == totals_of(lines), "wrong, but consistent: only our own books can tell"
    by_order: dict[str, list[StatementLine]] = {}
    for line in lines:
        by_order.setdefault(line.order_no, []).append(line)
    assert orders[0] not in by_order
    assert by_order[orders[1]][0].receipt_fen == 1031
    assert by_order[orders[2]][0].fee_fen == 6 + 30
    assert len(by_order[orders[3]]) == 2
    assert orders[4] not in by_order
    assert by_order[orders[5]][0].receipt_fen == 1005
    assert [line.receipt_fen for line in lines if line.order_no.startswith("X")] == [77]
    moved = list((await statement(provider, DAY + timedelta(days=1))).lines)
    assert [line.order_no for line in moved] == [orders[4]]
    assert moved[0].at.astimezone(PROVIDER_ZONE).date() == DAY


async def test_an_address_that_died_is_asked_for_again(
    provider: AlipayProvider, admin: SimulatorAdmin, running: RunningSimulator
) -> None:
    running.clock.advance(timedelta(days=1))
    await admin.set("bill_url_life_s", 0)
    assert await provider.statement(day=DAY) == Unknown("statement_not_fetched: http_status:403")
    await admin.set("bill_url_life_s", 30)
    assert isinstance(await provider.statement(day=DAY), Succeeded)
    await admin.add_fault(QUERY, "bad_signature")
    assert await provider.statement(day=DAY) == Unknown("answer_signature")


HEAD = ",".join(DETAIL_COLUMNS)
TAIL = (
    "#交易合计：0笔，商家实收共0.00元，商家优惠共0.00元\n#退款合计：0笔，商家实收退款共0.00元，商家优惠退款共0.00元\n"
)
SUMMARY = "门店编号,服务费（元）,实收净额（元）\n合计,0.00,0.00\n"


def bill(detail: bytes | str, summary: bytes | str = SUMMARY, *more: str) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in (("a_detail.csv", detail), ("a_汇总.csv", summary), *((name, "") for name in more)):
            archive.writestr(name, text if isinstance(text, bytes) else text.encode("gbk"))
    file.seek(0)
    return file


def opened(file: io.BytesIO) -> StatementFile:
    return open_bill(file, account="e", day=DAY)


def test_a_plain_bill_is_read_by_the_names_of_its_columns() -> None:
    found = opened(bill(f"#x\n{HEAD}\n{TAIL}"))
    assert list(found.lines) == []


@pytest.mark.parametrize(
    "file",
    [
        io.BytesIO(b"not a zip"),
        io.BytesIO(b""),
        bill(f"#x\n{HEAD}\n"),
        bill(f"#x\n{HEAD}\n{TAIL}", "门店编号,服务费（元）,实收净额（元）\n"),
        bill(f"#x\n{HEAD}\n{TAIL}", "a,b\n1,2\n"),
        bill(f"#x\n{HEAD}\n{TAIL}", SUMMARY.replace("0.00\n", "0.01\n")),
        bill(f"#x\n{HEAD}\n{TAIL}", SUMMARY, "b.csv"),
        bill(f"#x\n{HEAD}\n{TAIL}", SUMMARY, *(f"{n}.txt" for n in range(9))),
        bill(b"\xff\xff\xff\n"),
        bill(b"a" * 20_000),
        bill(b"#\n" * 5_000_000),
    ],
)
def test_what_is_no_bill_is_refused(file: io.BytesIO) -> None:
    with pytest.raises(BillMalformed):
        opened(file)


@pytest.mark.parametrize("row", ["1,2", "t,o,交易,,,2026-11-22 10:00:00,,,,,,1,1.00,,,,,,,,,,0.00,,"])
def test_a_line_that_is_none_stops_the_reading(row: str) -> None:
    found = opened(bill(f"#x\n{HEAD}\n{row}\n{TAIL}"))
    with pytest.raises(BillMalformed):
        list(found.lines)
