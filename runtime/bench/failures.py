"""What dies, and how long nobody serves then: a host under load, a whole node, a host that was frozen and thaws.

Each function works on a running house and returns plain figures; `rows` puts them beside their targets.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

import psutil
import ray
from psycopg import AsyncConnection

from models.domain.errors import NeedsOperator
from models.domain.ids import StoreId
from runtime import hosting
from runtime.bench.asker import Asker
from runtime.bench.form import Row, quantile, row
from runtime.plant import Plant
from runtime.processes import wait_ended

RATE_HZ = 200.0
PAUSE_S = (0.3, 1.5)
"""Between a host that serves again and its next end: drawn from this range."""
SECOND_HOST_S_MAX = 60.0
THAWED_S_MAX = 10.0
FROZEN_AFTER_S = 0.5
WATCHED_TABLES = ("inbox", "inbox_mark", "entity", "timer", "outbox", "sale", "usage", "txn", "entry", "slot")


@dataclass(frozen=True, slots=True)
class Kills:
    """`outages_s`: from the kill to the reply of a question asked after it. Everything else must be 0."""

    outages_s: tuple[float, ...]
    questions: int
    lost: int
    doubled: int
    contradictions: int


@dataclass(frozen=True, slots=True)
class Thaw:
    """What a host did between its thaw and its end, while another held its slot."""

    rows_changed: int
    messages_sent: int
    heard: int
    """Messages to terminals before the thaw: the ear works."""
    ended_s: float
    epochs: tuple[int, int]
    """Of the slot: before the thaw, and when the thawed process had ended."""


async def hosts_killed(
    plant: Plant, stores: Sequence[StoreId], kills: int, *, seed: int = 1, rate_hz: float = RATE_HZ
) -> Kills:
    """SIGKILL the host of slot 0 so many times, at random moments of a steady load. `stores`: of that slot."""
    chance = random.Random(seed)  # noqa: S311 - which moment, not a secret
    outages: list[float] = []
    async with Asker(plant, stores).open() as asker:
        await asker.ask()
        async with asker.asking(rate_hz):
            for _ in range(kills):
                await asyncio.sleep(chance.uniform(*PAUSE_S))
                victim = await host_pid(plant)
                os.kill(victim, signal.SIGKILL)
                killed_at = time.monotonic()
                question = await asker.ask()
                outages.append(question.answered_at - killed_at)
        held = await asker.rows()
        return Kills(
            tuple(outages),
            asker.asked,
            lost=max(0, asker.asked - held),
            doubled=max(0, held - asker.asked),
            contradictions=asker.contradictions,
        )


async def host_thawed(plant: Plant, stores: Sequence[StoreId], *, rate_hz: float = RATE_HZ) -> Thaw:
    """Freeze the host of slot 0 under load, let a second one serve and leave, thaw the first. `stores`: of that slot.

    Ray starts the thawed host's process again once it has ended; what that one does then is not counted.
    """
    frozen = psutil.Process(await host_pid(plant))
    async with Asker(plant, stores).open() as asker:
        await asker.ask()
        try:
            async with AsyncExitStack() as stack, asker.asking(rate_hz):
                await asyncio.sleep(FROZEN_AFTER_S)
                frozen.suspend()
                await stack.enter_async_context(second_host(plant, 0))
                await asker.ask()
                # Every question is answered: the second host may leave.
        finally:
            thaw = await watch_thaw(plant, asker, frozen, [frozen])
    return thaw


async def watch_thaw(plant: Plant, asker: Asker, host: psutil.Process, family: Sequence[psutil.Process]) -> Thaw:
    """Wake a frozen host (and its node's family); what moves until it has ended. Nobody else holds the slot now."""
    bait = await _bait(plant, asker.stores[0])
    before, epoch, heard = await _digests(plant), await _epoch(plant), asker.heard
    thawed_at = time.monotonic()
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.resume()
    await asyncio.to_thread(wait_ended, [host], THAWED_S_MAX)
    ended_s = time.monotonic() - thawed_at
    after, heard_after, epoch_after = await _digests(plant), asker.heard, await _epoch(plant)
    await _take_away(plant, bait)
    changed = sum(1 for name in before if before[name] != after[name])
    return Thaw(changed, heard_after - heard, heard, ended_s, (epoch, epoch_after))


@asynccontextmanager
async def second_host(plant: Plant, k: int) -> AsyncIterator[None]:
    """A second host for a slot while the body runs: it has claimed it and serves. Raises NeedsOperator."""
    arguments = ("-m", "runtime.bench.second_host", str(plant.data_dir), plant.region, str(k))
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(SECOND_HOST_S_MAX):
            said = await process.stdout.readline()
        if not said.startswith(b"ready"):
            raise NeedsOperator("second_host", f"it said {said!r}", "see its standard error")
        yield
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(SECOND_HOST_S_MAX):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def host_pid(plant: Plant, k: int = 0) -> int:
    """The process that holds a slot of the layout in force."""
    async with await AsyncConnection.connect(plant.database_url, autocommit=True) as conn:
        cursor = await conn.execute(
            """SELECT s.holder FROM slot s JOIN layout l USING (region, layout)
               WHERE l.ended_at IS NULL AND s.region = %s AND s.k = %s""",
            (plant.region, k),
        )
        row = await cursor.fetchone()
    if row is None or not row[0]:
        raise NeedsOperator("no_host", f"nobody holds slot {plant.region}/{k}", "start it: storeops hosts resume")
    return int(str(row[0]).removeprefix("pid "))


async def _epoch(plant: Plant) -> int:
    async with await AsyncConnection.connect(plant.database_url, autocommit=True) as conn:
        cursor = await conn.execute("SELECT max(epoch) FROM slot WHERE region = %s", (plant.region,))
        row = await cursor.fetchone()
    return 0 if row is None else int(row[0] or 0)


async def _digests(plant: Plant) -> dict[str, str]:
    """Each watched table as it stands, row versions included."""
    found: dict[str, str] = {}
    async with await AsyncConnection.connect(plant.database_url, autocommit=True) as conn:
        for name in WATCHED_TABLES:
            cursor = await conn.execute(f"SELECT ctid::text || t::text FROM {name} t ORDER BY 1")
            digest = hashlib.sha256()
            for row in await cursor.fetchall():
                digest.update(str(row[0]).encode())
            found[name] = digest.hexdigest()
    return found


async def _bait(plant: Plant, store: StoreId) -> str:
    """An ask that the next sweep of whoever holds the slot takes: a release of nothing."""
    bait = f"bait-{time.monotonic_ns()}"
    async with await AsyncConnection.connect(plant.database_url, autocommit=True) as conn:
        await conn.execute(
            """INSERT INTO outbox (id, region, store, entity_kind, entity_id, shard, port, verb, request,
                 idempotency_key, not_before, attempts, created_at)
               SELECT %s, region, id, 'session', 'bait', shard, 'memberships', 'ReleaseUses',
                 '{"session": "bait", "uses": []}', %s, now(), 0, now() FROM store WHERE id = %s""",
            (bait, bait, store),
        )
    return bait


async def _take_away(plant: Plant, bait: str) -> None:
    async with await AsyncConnection.connect(plant.database_url, autocommit=True) as conn:
        await conn.execute("DELETE FROM outbox WHERE id = %s", (bait,))


def bare_restart_s() -> float:
    """From the SIGKILL of a bare Ray actor to its next answer: nothing can be faster here."""
    actor = hosting.start_bare()
    os.kill(ray.get(actor.pid.remote()), signal.SIGKILL)
    killed_at = time.monotonic()
    while True:
        try:
            ray.get(actor.pid.remote())
        except ray.exceptions.RayError:
            time.sleep(0.01)
        else:
            ray.kill(actor)
            return time.monotonic() - killed_at


def rows(kills: Kills, thaw: Thaw, bare_s: float) -> list[Row]:
    """The figures beside their targets; `bare_s` of `bare_restart_s` in the same run."""
    times = len(kills.outages_s)
    wrong = kills.lost + kills.doubled + kills.contradictions
    bare, asked = "a bare Ray actor killed: answers again", "questions asked"
    return [
        row(
            f"host killed {times} times under load: outage p95",
            quantile(kills.outages_s, 95),
            "s",
            bare,
            bare_s,
            "<= 3",
        ),
        row(f"host killed {times} times: outage p50", quantile(kills.outages_s, 50), "s", bare, bare_s),
        row("questions lost, doubled or answered in two ways", wrong, "questions", asked, kills.questions, "<= 0"),
        row("thawed host: tables changed", thaw.rows_changed, "tables", "tables watched", len(WATCHED_TABLES), "<= 0"),
        row("thawed host: messages sent", thaw.messages_sent, "messages", "messages before", thaw.heard, "<= 0"),
    ]
