"""What stands beside settlement: a burst of enrolments, a million statement lines."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from actors.ports import EnrolMember
from gateway.providers.port import PaymentProvider
from models.domain.errors import NeedsOperator
from models.domain.ids import ChainId, LegalEntityId, PlanId, SessionId, StoreId, TerminalId
from models.domain.messages import EnrolAnswered
from models.tables import migrate
from models.tables.plans import save_plan
from runtime.bench import money_reconcile
from runtime.bench.form import Row, quantile, row
from runtime.bench.money import open_ground
from runtime.bench.money_ledger import CHAIN, PLAN, database
from runtime.memberships import Memberships
from runtime.plant import POOL_CONNECTIONS_MAX

if TYPE_CHECKING:
    from runtime.bench.money import Advance, Ground

STEPS = 2
ENROLMENTS_PER_S = 200
"""12,000 in a minute."""
ENROLMENTS = 12_000
WHOLE = 1_000_000
"""With so many memberships the parts below run at their full size too, with fewer in proportion."""
LINES_ONCE = 100_000
"""From so many statement lines on, one repetition says enough."""
LEAD_S = 2.0
"""Before the first moment: making the tasks of 12,000 takes hundreds of milliseconds, in which nothing else runs."""
STORE = StoreId("s-1")
ON_TRUST = {**PLAN, "id": "trust-10", "guarantees": ["merchant_trust"]}
"""An id of its own: a process keeps each plan version that it read, and other parts read PLAN."""


def measure(ground: Ground, advance: Advance) -> list[Row]:
    """The rows of this part."""
    with open_ground(ground.memberships) as alone:
        return list(_measured(alone, advance))


def _measured(ground: Ground, advance: Advance) -> Iterator[Row]:
    """On a server of their own: one that wrote a million settlements just before still writes them to the disk."""
    part = min(ground.memberships / WHOLE, 1.0)
    bare_ms, ours_ms = asyncio.run(_enrolments(_migrated(ground, "enrolments"), max(20, int(ENROLMENTS * part))))
    least = "one bare insert and commit of a row as long, p99"
    yield row(
        f"enrolments at {ENROLMENTS_PER_S}/s, p99", quantile(ours_ms, 99), "ms", least, quantile(bare_ms, 99), "<= 200"
    )
    advance("enrolments")
    lines = max(1_000, int(WHOLE * part))
    url = _migrated(ground, "statements")
    figures = asyncio.run(money_reconcile.measure(url, lines, repetitions=1 if lines >= LINES_ONCE else 3))
    yield row(
        f"reconciliation of {lines:,} lines", figures.total_s, "s", "a COPY and one bare join",
        figures.bare_copy_s + figures.bare_join_s, f"<= {money_reconcile.TARGET_S:.0f}",
    )  # fmt: skip
    advance("statement lines")


def _migrated(ground: Ground, name: str) -> str:
    url = database(ground, name)
    migrate.upgrade(url)
    return url


async def _enrolments(url: str, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds of `count` enrolments on trust, each begun at its moment, and of bare inserts before and after,
    through as many connections as one store host has.
    """
    began_at = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
    pool = AsyncConnectionPool[AsyncConnection[Any]](url, min_size=1, max_size=POOL_CONNECTIONS_MAX, open=False)
    async with pool:
        async with pool.connection() as conn, conn.cursor() as cur:
            await cur.execute("INSERT INTO legal_entity VALUES ('chain', %s, '', '', '')", (CHAIN,))
            await cur.execute(
                "INSERT INTO store (id, chain, region, shard, name_zh, name_en, zone, cutoff_hour, basket_owner,"
                " opened_at) VALUES (%s, %s, 'r-0', 0, '', '', 'Asia/Shanghai', 0, 'storeops', %s)",
                (STORE, CHAIN, began_at),
            )
            await cur.execute("INSERT INTO store_entity VALUES (%s, '2020-01-01', 'chain')", (STORE,))
            await cur.execute("CREATE TABLE bare (id text PRIMARY KEY, doc text)")
            await save_plan(cur, ChainId(CHAIN), ON_TRUST)
        memberships = Memberships(pool, _nobody, pepper=b"of the benchmark")
        numbers = itertools.count()

        async def enrol() -> None:
            asked = EnrolMember(
                session=SessionId(str(uuid.uuid4())), store=STORE, terminal=TerminalId("t-1"),
                plan=PlanId(ON_TRUST["id"]), guarantee="merchant_trust", at=began_at,
                phone=f"138{next(numbers):08d}", auth=None, member=None,
            )  # fmt: skip
            answer = await memberships.ask(str(uuid.uuid4()), asked)
            if not isinstance(answer, EnrolAnswered) or answer.member is None:
                raise NeedsOperator("bench_enrolment", f"refused: {answer}", "report it")

        async def insert() -> None:
            async with pool.connection() as conn:
                await conn.execute("INSERT INTO bare VALUES (%s, %s)", (str(uuid.uuid4()), "x" * 500))

        ours_ms: list[float] = []
        bare_ms: list[float] = []
        for work, took in ((insert, bare_ms), (enrol, ours_ms), (insert, bare_ms)):
            await _paced(work, count if work is enrol else -(-count // 8), took)
    return bare_ms, ours_ms


async def _paced(work: Any, count: int, took_ms: list[float]) -> None:
    """Each begins at its own moment, whether those before are done or not: a slow one delays nobody's start."""
    loop = asyncio.get_running_loop()
    start = loop.time() + LEAD_S

    async def one(at: float) -> None:
        await asyncio.sleep(max(0.0, at - loop.time()))
        await work()
        took_ms.append((time.monotonic() - at) * 1e3)

    await asyncio.gather(*(one(start + n / ENROLMENTS_PER_S) for n in range(count)))


def _nobody(_: LegalEntityId, _provider: str = "") -> PaymentProvider:
    raise NeedsOperator("bench_provider", "no provider is asked here", "report it")
