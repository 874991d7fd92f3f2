"""Captures a second against the provider's simulator: settlement through the real adapter, over HTTP, signed.

The simulator is a process of its own with a database that is durable for each call. The baseline is the adapter alone:
as many captures of as many holds, as many in flight, with nobody claiming, booking or looking at totals. How much of
the asking process's CPU is signing comes from the speed of the same signature in the same process.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from gateway.providers.alipay import AlipayProvider
from gateway.providers.alipay_gateway import AlipayAccount, AlipayGateway
from gateway.providers.port import PaymentProvider
from gateway.providers.signing import generate_private_key, load_public_key, public_key_pem
from gateway.providers.simulator import SimulatorAdmin
from gateway.providers.simulator.database import Database, moment
from gateway.providers.simulator.users import ensure_user
from models.domain.errors import NeedsOperator
from models.domain.ids import ChainId, RegionId
from models.domain.payments import PayResult, Succeeded
from runtime.bench.form import Row, row
from runtime.bench.money_ledger import CHAIN, NOW, REGIONS, database, plant
from runtime.bench.money_signing import measure_signing
from runtime.ports import accepts, free_port, listens
from runtime.processes import ChildProcess, ProcessSpec
from runtime.settlement import SettlementLimits, SettlementRunner

if TYPE_CHECKING:
    from runtime.bench.money import Advance, Ground

STEPS = 2
MEMBERSHIPS_MAX = 1_000
"""Eight of ten are captured, one is released; some seconds at what a simulator on two cores answers."""
IN_FLIGHT = 16
APP_ID, SELLER_ID, USER = "2026000000000009", "2088000000000009", "bench-payer"
HOLD_FEN, CAPTURE_FEN = 1_000, 800
READY_S_MAX = 30.0
LIMITS = SettlementLimits(calls_in_flight_max=IN_FLIGHT, calls_per_s_max=1e6)


@dataclass(frozen=True, slots=True)
class Captures:
    """One way of capturing: how many calls and captures there were, wall seconds, CPU seconds of who asked."""

    calls: int
    captures: int
    wall_s: float
    cpu_s: float

    @property
    def per_s(self) -> float:
        """Captures a second."""
        return self.captures / self.wall_s


def measure(ground: Ground, advance: Advance) -> list[Row]:
    """The rows of this part. Raises NeedsOperator when the simulator does not come up or refuses a capture."""
    count = max(20, min(MEMBERSHIPS_MAX, ground.memberships // 50))
    url = database(ground, "captures")
    asyncio.run(plant(url, count, REGIONS[:1]))
    with psycopg.connect(url) as conn:
        held = [str(one[0]) for one in conn.execute("SELECT hold_no FROM membership WHERE hold_no <> ''")]
    with _simulator(ground.folder / "provider") as address:
        alone, settled = asyncio.run(_both(address, ground.folder / "provider", url, held, count * 8 // 10))
    advance("captures over HTTP")
    signing = measure_signing(rounds=3)
    advance("signatures of the captures")
    return rows(alone, settled, signing.signatures_a_core)


def rows(alone: Captures, settled: Captures, signatures_a_core: float) -> list[Row]:
    """What is told of them."""
    call_us, sign_us = settled.cpu_s / settled.calls * 1e6, 1e6 / signatures_a_core
    return [
        row("captures settled against the simulator", settled.per_s, "/s", "the adapter's captures alone", alone.per_s),
        row("of a settled call, signing the request", sign_us, "us CPU", "all that its worker does", call_us),
    ]


async def _both(address: str, data: Path, url: str, held: Sequence[str], captures: int) -> tuple[Captures, Captures]:
    """The adapter alone first, then settlement; both on the same connections, each warmed by its own first calls."""
    extra = [f"X{n}" for n in range(captures)]
    account = await _account(address)
    _authorised(data, [*held, *extra])
    provider = AlipayProvider(AlipayGateway(account, connections_max=IN_FLIGHT))
    async with aclosing(provider):
        return await _alone(provider, extra), await _settled(provider, url, captures)


async def _alone(provider: PaymentProvider, holds: Sequence[str]) -> Captures:
    turns = asyncio.Semaphore(IN_FLIGHT)

    async def capture(hold_no: str) -> None:
        async with turns:
            answer = await provider.capture(
                number=f"S{hold_no}", hold_no=hold_no, amount_fen=CAPTURE_FEN, subject="bench", complete=True
            )
        if not isinstance(answer, Succeeded) or not isinstance(answer.result, PayResult):
            raise NeedsOperator("bench_capture", f"{hold_no}: {answer}", "report it")

    began, cpu_s = time.monotonic(), time.process_time()
    await asyncio.gather(*map(capture, holds))
    return Captures(len(holds), len(holds), time.monotonic() - began, time.process_time() - cpu_s)


async def _settled(provider: PaymentProvider, url: str, captures: int) -> Captures:
    async with AsyncConnectionPool[AsyncConnection[Any]](url, min_size=1, max_size=1, open=False) as pool:
        await pool.wait()
        runner = SettlementRunner(ChainId(CHAIN), RegionId(REGIONS[0]), pool, lambda *_: provider, LIMITS)
        began, cpu_s = time.monotonic(), time.process_time()
        report = await runner.run(NOW)
        wall_s, cpu_s = time.monotonic() - began, time.process_time() - cpu_s
        if not report.ok or report.open_calls or report.totals.posted != captures:
            raise NeedsOperator("bench_settlement", f"{report}", "report it")
        return Captures(report.booked, captures, wall_s, cpu_s)


# ---------------------------------------------------------------- the simulator


@contextmanager
def _simulator(data: Path) -> Iterator[str]:
    """`storeops provider-sim` on a free port; its address."""
    port = free_port()
    argv = (sys.executable, "-m", "runtime", "provider-sim", "--data", str(data), "--port", str(port))
    child = ChildProcess(ProcessSpec("provider", argv, data.parent / "provider.log"))
    pid = child.start()
    try:
        child.wait_ready(lambda: accepts(port) and listens(pid, port), READY_S_MAX)
        yield f"http://127.0.0.1:{port}"
    finally:
        child.stop()


async def _account(address: str) -> AlipayAccount:
    key = generate_private_key()
    async with SimulatorAdmin(address) as admin:
        pem = await admin.register_app(
            app_id=APP_ID, seller_id=SELLER_ID, public_key_pem=public_key_pem(key.public_key())
        )
    return AlipayAccount(f"{address}/gateway.do", APP_ID, SELLER_ID, key, load_public_key(pem))


def _authorised(data: Path, holds: Sequence[str]) -> None:
    """Holds as the simulator has them after `freeze` and the customer's consent, without asking it for each."""
    now = datetime.now(UTC)
    at, later = moment(now), moment(now + timedelta(days=30))
    held_fen = HOLD_FEN * len(holds)
    store = Database(data)
    try:
        with store.transaction() as db:
            ensure_user(db, USER, now, huabei_limit_fen=held_fen)
            db.execute("UPDATE user SET huabei_held_fen = ? WHERE user_id = ?", (held_fen, USER))
            db.executemany(
                "INSERT INTO hold (auth_no, app_id, out_order_no, out_request_no, title, amount_fen, status, user_id,"
                " created_at, expires_at, frozen_at, lapses_at)"
                " VALUES (?, ?, ?, ?, '', ?, 'AUTHORIZED', ?, ?, ?, ?, ?)",
                [(one, APP_ID, f"H{one}", f"H{one}", HOLD_FEN, USER, at, later, at, later) for one in holds],
            )
    finally:
        store.close()
