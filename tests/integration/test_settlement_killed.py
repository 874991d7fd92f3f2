"""SIGKILL of the settling process, at random moments, on PostgreSQL and the provider over HTTP: every fen once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import uuid
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from gateway.providers.signing import private_key_pem, public_key_pem
from gateway.providers.simulator import SimulatorAdmin
from gateway.providers.simulator.database import FILE_NAME, moment
from models.domain.settlement import CALL_LEASE
from models.tables.control import control_totals
from models.tables.ledger_faults import verify
from runtime.testing.due_memberships import plant_due
from tests.gateway.providers.conftest import KEY
from tests.integration.money_shop import CHAIN, FRANCHISED, OWN, REGION, START, running_simulator, seed
from tests.integration.settlement_worker import NOW, Nursery

CUSTOMER = "everybody"
RUNS_MAX = 2_000
_HOLD = """
INSERT INTO hold (auth_no, app_id, out_order_no, out_request_no, title, amount_fen, status, user_id, created_at,
                  expires_at, frozen_at)
VALUES (?, ?, ?, ?, 'light', ?, 'AUTHORIZED', ?, ?, ?, ?)
"""


def freeze_all(data_dir: Path, app: str, holds: list[tuple[str, str, int]]) -> None:
    """The provider's side of the planted holds: (its number, ours, fen)."""
    at, far = moment(datetime.now(UTC)), moment(datetime.now(UTC) + timedelta(days=300))
    total = sum(fen for _, _, fen in holds)
    with closing(sqlite3.connect(data_dir / FILE_NAME, timeout=30)) as db, db:
        db.execute(
            "INSERT INTO user (user_id, balance_fen, huabei_limit_fen, huabei_held_fen, created_at)"
            " VALUES (?, 0, ?, ?, ?)",
            (CUSTOMER, total, total, at),
        )
        db.executemany(_HOLD, [(no, app, ours, ours, fen, CUSTOMER, at, far, at) for no, ours, fen in holds])


async def settled_under_kills(database_url: str, folder: Path, memberships: int, kills: int, rng: random.Random) -> int:
    """Settles that many while the worker is killed so often, then lets it end. Returns how many kills hit one."""
    app = f"2026{uuid.uuid4().int % 10**12:012d}"
    with running_simulator(folder) as simulator:
        async with (
            AsyncConnectionPool[AsyncConnection[Any]](database_url, min_size=1, max_size=2, open=False) as pool,
            SimulatorAdmin(simulator.url) as admin,
        ):
            await seed(pool)
            async with pool.connection() as conn, conn.cursor() as cur:
                await plant_due(
                    cur, chain=CHAIN, region=REGION, plan="light-10", owner="chain", own_store=OWN,
                    other_entity="north", other_store=FRANCHISED, count=memberships, seed=app, enrolled_at=START,
                    expires_at=NOW - timedelta(days=9), cutoff_at=NOW - timedelta(days=8),
                )  # fmt: skip
                await cur.execute("SELECT hold_no, hold_order, hold_fen FROM membership WHERE hold_fen > 0")
                holds = await cur.fetchall()
            pem = await admin.register_app(
                app_id=app, seller_id="2088", public_key_pem=public_key_pem(KEY.public_key()), name="shop"
            )
            freeze_all(simulator.data_dir, app, holds)
            nursery = Nursery(
                {
                    "database": database_url, "gateway": f"{simulator.url}/gateway.do", "app": app, "seller": "2088",
                    "key": private_key_pem(KEY), "pem": pem,
                }
            )  # fmt: skip
            try:
                hits = await _kill(nursery, kills, rng)
            finally:
                nursery.end()
            await _check(pool, admin, app, memberships)
    return hits


async def _kill(nursery: Nursery, kills: int, rng: random.Random) -> int:
    hits = 0
    for run in range(RUNS_MAX):
        pid = await asyncio.to_thread(nursery.start, run * CALL_LEASE.total_seconds())
        ended = asyncio.ensure_future(asyncio.to_thread(nursery.line))
        if hits < kills:
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(ended), rng.uniform(0.02, 0.6))
            if not ended.done():
                os.kill(pid, signal.SIGKILL)
        status = int(await ended)
        assert status in {0, -signal.SIGKILL}, f"a worker ended with {status}"
        hits += status != 0
        if status == 0:
            return hits
    raise AssertionError("it never ends")


async def _check(pool: AsyncConnectionPool[AsyncConnection[Any]], admin: SimulatorAdmin, app: str, count: int) -> None:
    async with pool.connection() as conn, conn.cursor() as cur:
        await cur.execute("SELECT state, hold_state = 'held', count(*) FROM membership GROUP BY 1, 2")
        assert await cur.fetchall() == [("CLOSED", False, count)]
        await cur.execute("SELECT state, count(*) FROM settlement_call GROUP BY state")
        assert [row[0] for row in await cur.fetchall()] == ["POSTED"]
        await cur.execute("SELECT id FROM membership WHERE paid_fen <> least(fee_eff_fen, used_fen)")
        assert await cur.fetchall() == []
        totals = await control_totals(cur, CHAIN, REGION, NOW)
        await cur.execute("SELECT sum(amount_fen) FROM entry WHERE account = 'provider_clearing:alipay'")
        [(clearing_fen,)] = await cur.fetchall()
    assert totals.agree
    assert (totals.memberships, totals.posted) == (count, totals.charges)
    books = await admin.books(app)
    assert (books["captured_count"], books["captured_fen"]) == (totals.posted, totals.captured_fen)
    assert (books["net_fen"], books["held_fen"]) == (clearing_fen, 0), "the provider's books differ from ours"
    assert isinstance(pool.conninfo, str)
    async with await AsyncConnection.connect(pool.conninfo, autocommit=True) as conn:
        verified = await verify(conn)
    assert verified.ok, [fault for fault in verified.faults if fault.count]
    async with pool.connection() as conn, conn.cursor() as cur:
        await cur.execute("SELECT sum(amount_fen) FROM entry WHERE account = 'hold:alipay'")
        assert await cur.fetchall() == [(0,)], "what was held is held no more"


@pytest.mark.timeout(300)
async def test_three_kills_of_the_settling_process(migrated_database_url: str, tmp_path: Path) -> None:
    hits = await settled_under_kills(migrated_database_url, tmp_path, 150, 3, random.Random(7))
    assert hits == 3, "it had settled before it was killed"


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("number", range(3))
async def test_a_hundred_kills_of_the_settling_process(migrated_database_url: str, tmp_path: Path, number: int) -> None:
    hits = await settled_under_kills(migrated_database_url, tmp_path, 2_000, 100, random.Random(number))
    assert hits == 100, "it had settled before it was killed so often"
