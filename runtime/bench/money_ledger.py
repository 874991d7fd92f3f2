"""The ledger side of settlement: a million due memberships in eight regions, closed on two cores.

Planted as rows (runtime.testing.due_memberships), settled by the runner of the product in processes of their own, one
region after another in each, with a provider that answers at once. The ledger side is everything but the asking: the
charge and the call rows, the claims, answers into rows, entries, CLOSED, the control totals. The baseline is one SQL
statement that writes the same rows in their last state, over a copy of the same database, in the same run. Whether
regions run beside each other is asked of two of them, over equal databases.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import psycopg

from models.domain.errors import NeedsOperator
from models.domain.ids import ChainId
from models.tables import migrate
from models.tables.plans import save_plan
from runtime.bench.form import Row, row
from runtime.settlement import SettlementLimits
from runtime.testing.due_memberships import plant_due

if TYPE_CHECKING:
    from runtime.bench.money import Advance, Ground

PLANTED_IN = 8
"""Parts of what is planted: after each is time to look at the clock."""
PLANTING_S_MAX = 150.0
"""A machine that cannot plant all of them in so long measures as many as it planted."""
STEPS = PLANTED_IN + 4
PAIRS = 3
PAIRED_MAX, PACED_MAX = 25_000, 2_000
"""Memberships of each of two regions: three pairs of runs in about a minute, and one at a provider's pace in half."""
REGIONS = tuple(f"r-{n}" for n in range(8))
CHAIN = "bench"
START = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
NOW = START + timedelta(days=40)
WORKER_S_MAX = 600.0
PLAN: dict[str, Any] = {
    "id": "light-10",
    "version": 1,
    "name": {"zh": "十元轻会员", "en": "Light membership 10"},
    "owner_entity": "chain",
    "rule": "FEE_MIN",
    "fee_fen": 1000,
    "benefits": [
        {"id": "coupon8", "name": {"zh": "券", "en": "coupon"}, "kind": "fixed_coupon", "value_fen": 800, "quota": 5}
    ],
    "period_days": 30,
    "grace_days": 1,
    "cutoff_hour": 0,
    "zone": "Asia/Shanghai",
    "dunning_attempts": 2,
    "dunning_days": [1, 3],
    "on_merchant_cancel": "prorate",
    "guarantees": ["huabei_hold"],
}

BARE = """
WITH due AS MATERIALIZED (
    SELECT id FROM membership WHERE due_at <= %(now)s AND cutoff_at <= %(now)s FOR UPDATE
), moved AS (
    UPDATE membership m SET state = 'CLOSED', settled_at = %(now)s,
        charge_fen = least(m.fee_eff_fen, m.used_fen), paid_fen = least(m.fee_eff_fen, m.used_fen),
        branch = CASE WHEN m.used_fen = 0 THEN NULL WHEN m.used_fen >= m.fee_eff_fen THEN 'FEE' ELSE 'CLAWBACK' END,
        captured_number = CASE WHEN m.used_fen > 0 THEN 'S' || m.id || 'G' || m.generation ELSE '' END,
        attempts = (m.used_fen > 0)::int,
        hold_state = CASE WHEN m.hold_state = 'held' THEN 'ended' ELSE m.hold_state END
    FROM due WHERE m.id = due.id
    RETURNING m.id, m.chain, m.region, m.owner, m.generation, m.charge_fen, m.branch, m.hold_fen, m.hold_state,
              m.hold_order, md5('settled' || m.id)::uuid::text AS settled_id,
              md5('ended' || m.hold_order)::uuid::text AS ended_id, CASE WHEN m.charge_fen > 0 THEN 'S' ELSE 'U' END
              || m.id || 'G' || m.generation AS number
), calls AS (
    INSERT INTO settlement_call (membership, chain, region, owner, kind, request_number, fen, state, attempt, tries,
                                 not_before, answer, answered_at, posted_at)
    SELECT id, chain, region, owner, CASE WHEN charge_fen > 0 THEN 'capture' ELSE 'release' END, number,
           CASE WHEN charge_fen > 0 THEN charge_fen ELSE hold_fen END, 'POSTED', 0, 1, %(now)s,
           jsonb_build_object('answer', 'succeeded', 'kind', 'pay', 'total_fen', charge_fen, 'payer_fen', charge_fen,
               'receipt_fen', charge_fen, 'invoiceable_fen', charge_fen, 'funding', '[]'::jsonb, 'provider_trade_no',
               'T' || id), %(now)s, %(now)s
    FROM moved WHERE charge_fen > 0 OR hold_state = 'ended'
), txns AS (
    INSERT INTO txn (id, kind, request_number, memo, refers_to, trace, booked_at)
    SELECT settled_id, 'settled', number, id, NULL, 'settlement', %(now)s FROM moved WHERE charge_fen > 0
    UNION ALL
    SELECT ended_id, 'hold_ended', hold_order, '', md5('placed' || hold_order)::uuid::text, 'settlement', %(now)s
    FROM moved WHERE hold_state = 'ended'
), shares AS (
    SELECT p.settled_id, p.owner, u.store, u.entity, sum(u.fen - u.reversed_fen)::bigint AS fen,
           coalesce(sum(CASE WHEN u.entity = p.owner THEN 2 ELSE 4 END) OVER (
               PARTITION BY p.settled_id ORDER BY u.store, u.entity ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
           ), 0) AS leg
    FROM moved p JOIN usage u ON u.membership = p.id AND u.class = 'REGULAR'
    WHERE p.branch = 'CLAWBACK' GROUP BY p.settled_id, p.owner, u.store, u.entity
)
INSERT INTO entry (txn, leg, entity, account, amount_fen, business_date, book)
SELECT settled_id, l.leg, owner, l.account, l.fen, '2026-04-10', 'posted'
FROM moved, LATERAL (VALUES (0, 'provider_clearing:alipay', charge_fen), (1, 'membership_fee_income', -charge_fen))
    AS l(leg, account, fen)
WHERE branch = 'FEE'
UNION ALL
SELECT settled_id, s.leg + l.leg, l.entity, l.account, l.fen, '2026-04-10', 'posted'
FROM shares s, LATERAL (
    SELECT * FROM (VALUES (0, owner, 'provider_clearing:alipay', fen), (1, owner, 'discount_given:' || store, -fen))
        AS own(leg, entity, account, fen) WHERE s.entity = s.owner
    UNION ALL
    SELECT * FROM (VALUES (0, owner, 'provider_clearing:alipay', fen), (1, owner, 'due_to:' || s.entity, -fen),
                          (2, s.entity, 'due_from:' || owner, fen), (3, s.entity, 'discount_given:' || store, -fen))
        AS theirs(leg, entity, account, fen) WHERE s.entity <> s.owner
) AS l
UNION ALL
SELECT ended_id, l.leg, owner, l.account, l.fen, '2026-04-10', 'pending'
FROM moved, LATERAL (VALUES (0, 'hold:alipay', -hold_fen), (1, 'hold_contra', hold_fen)) AS l(leg, account, fen)
WHERE hold_state = 'ended'
"""
"""Everything at once, in its last state: nothing of it could be repaired after a crash between provider and ledger."""


@dataclass(frozen=True, slots=True)
class Side:
    """What one way of settling took. Seconds of wall time, and of CPU in all its processes and backends."""

    memberships: int
    wall_s: float
    cpu_s: float
    asking_s: float = 0.0

    @property
    def per_s(self) -> float:
        """Memberships a second."""
        return self.memberships / self.wall_s

    @property
    def asked_per_s(self) -> float:
        """The same with the time that the provider was asked."""
        return self.memberships / (self.wall_s + self.asking_s)


def measure(ground: Ground, advance: Advance) -> list[Row]:
    """The rows of this part. Raises NeedsOperator when a worker fails or the books do not agree."""
    url = database(ground, "planted")
    count = asyncio.run(plant(url, max(1, ground.memberships // len(REGIONS)), advance=advance))
    bare = _bare(_copy(ground, "bare"), count * len(REGIONS))
    books = _books(ground.postgres.url_for("bare"))
    _drop(ground, "bare")
    advance("one bare statement")
    url = _copy(ground, "two")
    two = _settle(url, [REGIONS[::2], REGIONS[1::2]], count)
    if _books(url) != books:
        raise NeedsOperator("bench_books", "settlement and the bare statement do not book the same", "report it")
    _drop(ground, "two")
    advance("two workers")
    _drop(ground, "planted")
    pair = _two_regions(ground, min(count, PAIRED_MAX), PAIRS)
    advance("two regions, beside and one after another")
    at_pace = _two_regions(ground, min(count, PACED_MAX), 1, paced=True)
    advance("the same at a provider's pace")
    return rows(bare, two, pair, at_pace)


def rows(bare: Side, two: Side, pair: tuple[Side, Side], at_pace: tuple[Side, Side]) -> list[Row]:
    """The promises, from what was measured. A pair is the same two regions, beside and one after another."""
    million = 1e6
    least = "one bare SQL statement over the same rows"
    us, bare_us = two.cpu_s / two.memberships * million, bare.cpu_s / bare.memberships * million
    return [
        row(f"ledger side of a million, from {two.memberships:,} in 8 regions, 2 workers", million / two.per_s, "s",
            least, million / bare.per_s, "<= 30"),
        row("memberships settled, ledger side", two.per_s, "/s", least, bare.per_s, ">= 0.5 x"),
        row("CPU of the ledger side, workers and database", us, "us a membership", least, bare_us),
        row("two regions in parallel, ledger side", pair[0].per_s, "/s", "the same two, one after another",
            pair[1].per_s, ">= 1.6 x"),
        row(f"two regions in parallel, {SettlementLimits().calls_per_s_max:.0f} calls/s each", at_pace[0].asked_per_s,
            "/s", "the same two, one after another", at_pace[1].asked_per_s, ">= 1.6 x"),
    ]  # fmt: skip


def _two_regions(ground: Ground, count: int, pairs: int, *, paced: bool = False) -> tuple[Side, Side]:
    """Two regions settled by a worker each, and the same two by one worker; medians of interleaved runs."""
    count = asyncio.run(plant(database(ground, "planted"), count, REGIONS[:2]))
    beside: list[Side] = []
    after: list[Side] = []
    for _ in range(pairs):
        for sides, shares in ((beside, [REGIONS[:1], REGIONS[1:2]]), (after, [REGIONS[:2]])):
            sides.append(_settle(_copy(ground, "pair"), shares, count, paced=paced))
            _drop(ground, "pair")
    _drop(ground, "planted")
    middle = [sorted(sides, key=lambda side: side.wall_s)[pairs // 2] for sides in (beside, after)]
    return middle[0], middle[1]


# ---------------------------------------------------------------- databases


def database(ground: Ground, name: str, template: str = "") -> str:
    """A new database of the ground's server, empty or a copy; its URL."""
    with psycopg.connect(ground.postgres.url, autocommit=True) as conn:
        copied = f" TEMPLATE {template} STRATEGY file_copy" if template else ""
        conn.execute(f"CREATE DATABASE {name}{copied}")
    return ground.postgres.url_for(name)


def _copy(ground: Ground, name: str) -> str:
    """A copy of what was planted, on disk, statistics known."""
    url = database(ground, name, "planted")
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("CHECKPOINT")
    return url


def _drop(ground: Ground, name: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        with psycopg.connect(ground.postgres.url, autocommit=True) as conn, suppress(psycopg.errors.ObjectInUse):
            conn.execute(f"DROP DATABASE {name}")
            return
        if time.monotonic() > deadline:
            raise NeedsOperator("bench_database", f"{name} is still in use", "try again")
        time.sleep(0.2)  # a vacuum's worker leaves by itself


async def plant(
    url: str, count: int, regions: Sequence[str] = REGIONS, advance: Callable[[str], None] = lambda _: None
) -> int:
    """Migrate an empty database and plant `count` due memberships in each of these regions, or as many as
    PLANTING_S_MAX allows; returns how many there are in each. `advance` is called PLANTED_IN times.
    """
    migrate.upgrade(url)
    size = -(-count // (10 * PLANTED_IN)) * 10  # tens: of each ten, every kind of membership is one
    planted, began = 0, time.monotonic()
    async with await psycopg.AsyncConnection.connect(url) as conn, conn.cursor() as cur:
        await cur.execute(
            "INSERT INTO legal_entity (id, chain, name_zh, name_en, provider_app)"
            " VALUES ('chain', %(chain)s, '', '', ''), ('north', %(chain)s, '', '', '')",
            {"chain": CHAIN},
        )
        await save_plan(cur, ChainId(CHAIN), PLAN)
        for part in range(PLANTED_IN):
            wanted = min(size, count - planted)
            if wanted and (not planted or time.monotonic() - began < PLANTING_S_MAX):
                for region in regions:
                    await plant_due(
                        cur, chain=CHAIN, region=region, plan="light-10", owner="chain", own_store=f"own-{region}",
                        other_entity="north", other_store=f"north-{region}", count=wanted, seed=f"bench-{part}",
                        enrolled_at=START, expires_at=NOW - timedelta(days=9), cutoff_at=NOW - timedelta(days=8),
                        holds_booked=False,
                    )  # fmt: skip
                    await conn.commit()
                planted += wanted
            advance("memberships planted")
    with psycopg.connect(url, autocommit=True) as done:
        done.execute("VACUUM ANALYZE")
    return planted


def _books(url: str) -> list[tuple[Any, ...]]:
    """The accounts, and how memberships and calls stand: equal whoever settled."""
    with psycopg.connect(url) as conn:
        return conn.execute(
            "SELECT entity || ' ' || account || ' ' || book, sum(amount_fen), count(*) FROM entry GROUP BY 1"
            " UNION ALL SELECT 'membership ' || state, sum(paid_fen), count(*) FROM membership GROUP BY 1"
            " UNION ALL SELECT 'call ' || state, sum(fen), count(*) FROM settlement_call GROUP BY 1 ORDER BY 1"
        ).fetchall()


# ---------------------------------------------------------------- the two ways


def _bare(url: str, count: int) -> Side:
    with psycopg.connect(url) as conn:
        cpu_s, began = backend_cpu_s([conn.info.backend_pid]), time.monotonic()
        conn.execute(BARE, {"now": NOW})
        conn.commit()
        return Side(count, time.monotonic() - began, backend_cpu_s([conn.info.backend_pid]) - cpu_s)


def _settle(url: str, shares: Sequence[Sequence[str]], count: int, *, paced: bool = False) -> Side:
    """One worker for each share, its regions one after another; all begin at the same moment. `paced`: it asks no
    faster than a merchant account may by default.
    """
    root = Path(__file__).resolve().parents[2]
    workers = [
        subprocess.Popen(
            (sys.executable, "-m", "runtime.bench.money_worker"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root,
        )
        for _ in shares
    ]  # fmt: skip
    try:
        for worker, regions in zip(workers, shares, strict=True):
            assert worker.stdin is not None
            task = {"url": url, "chain": CHAIN, "regions": list(regions), "now": NOW.isoformat(), "paced": paced}
            worker.stdin.write(json.dumps(task) + "\n")
            worker.stdin.flush()
        for worker in workers:
            assert worker.stdout is not None
            worker.stdout.readline()  # it is connected
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        done = [worker.communicate(timeout=WORKER_S_MAX) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    figures = []
    for worker, (out, problem) in zip(workers, done, strict=True):
        if worker.returncode:
            raise NeedsOperator("bench_worker", problem[-500:], "run `storeops doctor`")
        figures.append(json.loads(out.splitlines()[-1]))
    return Side(
        count * sum(map(len, shares)),
        max(one["wall_s"] - one["asking_s"] for one in figures),
        sum(one["cpu_s"] for one in figures),
        max(one["asking_s"] for one in figures),
    )


def backend_cpu_s(pids: Sequence[int]) -> float:
    """CPU seconds, user and system, that these processes of the database have used."""
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(one.user + one.system for one in times)
