"""`storeops bench rollouts`: what driving a rollout of 1,000 stores x 3 terminals costs, tick by tick.

The rows are in a database of their own, the last stage is open and everybody soaks: nothing happens, which is what
nearly every tick finds. A whole tick reads the journal's end, the terminals that changed and the answers, and decides;
the rules alone decide on what was seen before. The baseline is a bare SELECT of the same 3,000 rows over the same
connection, fetched and thrown away. CPU is this process's; the database's own shows in the wall time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import md5
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import psycopg
from psycopg.types.json import Jsonb
from rich.console import Console

from actors.rollout import tick
from actors.rollout_effects import Start
from actors.terminal import Terminal
from models.domain.ids import ChainId, RegionId, StoreId, TerminalId, shard_of
from models.domain.rollout import PersonId, RolloutId, RolloutPolicy, Selector, StageState, TargetState
from models.domain.rollout_journal import Entry, Mark, Rollout, StageMark, StageMoved, TargetMoved, folded
from models.domain.rollout_part import patch_artefact
from models.domain.twin import Desired
from models.tables import migrate
from models.tables import rollouts as table
from runtime.bench.form import Report, Row, load_now, machine, report, row
from runtime.bench.yard import scratch_postgres
from runtime.plant import Plant
from runtime.rehearsal import rehearse
from runtime.rollout_databases import Databases
from runtime.rollout_desk import RolloutDesk
from runtime.rollout_files import policy_path, read_policy
from runtime.rollouts import RolloutDriver

NAME = "rollouts"
STORES = 1_000
ROLES = ("till", "face", "screen")
ROUNDS = 40
REHEARSALS = 3
MOVED = 30
"""Terminals that report something between two ticks of the lively kind."""
CHAIN, REGION = ChainId("bench"), RegionId("south")
AUTHOR = PersonId("bench")
NOW = datetime(2026, 3, 2, 2, 0, tzinfo=UTC)
PATCH = {"sound": {"volume_percent": 40}}
BARE = "SELECT id, version, state::text FROM entity WHERE region = ANY(%s) AND store = ANY(%s) AND kind = 'terminal'"


@dataclass(slots=True)
class Times:
    """Of one thing that was repeated: milliseconds."""

    cpu_ms: list[float] = field(default_factory=list)
    wall_ms: list[float] = field(default_factory=list)

    async def of(self, work: Callable[[], Awaitable[object]]) -> None:
        """Do it once more."""
        wall, cpu = time.perf_counter(), time.process_time()
        await work()
        self.cpu_ms.append((time.process_time() - cpu) * 1e3)
        self.wall_ms.append((time.perf_counter() - wall) * 1e3)


@dataclass(frozen=True, slots=True)
class Measured:
    """Everything of one run."""

    still: Times
    """Whole ticks in which nothing happened."""
    lively: Times
    """Whole ticks after MOVED terminals had reported."""
    first: Times
    """The first tick of a driver: the whole journal, every row."""
    rules: Times
    bare: Times
    rehearsed_s: list[float]


def run(console: Console, stores: int = STORES) -> Report:
    """Measure; about a minute at 1,000 stores."""
    load_before = load_now()
    with scratch_postgres() as (_, server):
        with console.status("planting"):
            migrate.upgrade(server.url)
            plant(server.url, stores)
        with console.status("ticks"):
            measured = asyncio.run(measure(server.url, ROUNDS))
    with console.status("rehearsals"):
        policy = read_policy(policy_path("software"))
        for seed in range(REHEARSALS):
            began = time.perf_counter()
            rehearse(policy, stores=stores, seed=seed, good=True)
            measured.rehearsed_s.append(time.perf_counter() - began)
    return report(NAME, machine(load_before), rows(measured, stores))


def rows(found: Measured, stores: int) -> list[Row]:
    """The promises: a tick within 100 ms, a rehearsal within 30 s."""
    targets = stores * len(ROLES)
    bare = f"a bare SELECT of the {targets} rows"
    cpu, wall = median(found.bare.cpu_ms), median(found.bare.wall_ms)

    def times(what: str, of: Times, target: str | None) -> list[Row]:
        return [
            row(f"{what}, CPU", median(of.cpu_ms), "ms", f"{bare}, CPU", cpu, target),
            row(what, median(of.wall_ms), "ms", bare, wall, target),
        ]

    return [
        *times(f"whole tick over {targets} targets", found.still, "<= 100"),
        *times(f"whole tick, {MOVED} of them reported", found.lively, "<= 100"),
        *times("a driver's first tick", found.first, None),
        row("the rules alone, CPU", median(found.rules.cpu_ms), "ms", f"{bare}, CPU", cpu, "<= 100"),
        row(
            f"rehearsal of {stores} stores, all three stages",
            median(found.rehearsed_s),
            "s",
            "a whole tick",
            median(found.still.wall_ms) / 1e3,
            "<= 30",
        ),
    ]


# ---------------------------------------------------------------- measured


async def measure(url: str, rounds: int) -> Measured:
    """Whole ticks, rules and bare reads in turns, over what `plant` put there."""
    databases = Databases([Plant(Path("/nowhere"), CHAIN, REGION, database_url=url)])
    await databases.open()
    try:
        return await _measured(databases, await soaking(databases), rounds)
    finally:
        await databases.close()


async def _measured(databases: Databases, number: RolloutId, rounds: int) -> Measured:
    found = Measured(Times(), Times(), Times(), Times(), Times(), [])
    hosts: Any = None  # nobody is ordered anything
    clock = [NOW + timedelta(minutes=1)]
    driver = RolloutDriver(databases, hosts, lambda: clock[0])
    rollout, seen = await driver.look(number)
    stores = [store.store for stage in rollout.plan.stages for store in stage.stores]
    terminals = [target.terminal for stage in rollout.plan.stages for store in stage.stores for target in store.targets]

    async def whole() -> None:
        await driver.tick(number)

    async def first() -> None:
        await RolloutDriver(databases, hosts, lambda: clock[0]).tick(number)

    async def rules() -> None:
        tick(rollout, seen, clock[0])

    async def bare() -> None:
        async with databases.at() as conn:
            await (await conn.execute(BARE, ([REGION], stores))).fetchall()

    for n in range(rounds):
        clock[0] += timedelta(seconds=2)
        await found.still.of(whole)
        await found.bare.of(bare)
        await found.rules.of(rules)
        await _report(databases, [terminals[(n * MOVED + one) % len(terminals)] for one in range(MOVED)])
        await found.lively.of(whole)
        if n % 8 == 0:
            await found.first.of(first)
    return found


async def _report(databases: Databases, terminals: Sequence[TerminalId]) -> None:
    async with databases.at() as conn:
        await conn.execute(
            "UPDATE entity SET version = version + 1, changed_at = now(),"
            " state = jsonb_set(state, '{health}', to_jsonb('{\"outbox_events\":' || version || '}'))"
            " WHERE id = ANY(%s)",
            (list(terminals),),
        )


# ---------------------------------------------------------------- planted


def plant(url: str, stores: int) -> None:
    """Stores with three terminals each, all connected, with the change applied and reported."""
    own = msgspec.json.encode(PATCH).decode()
    hashed = "5f" * 32
    twin = Terminal(
        online=True,
        software="1.0",
        profile="dragonfly-1",
        applied_gen=7,
        config_hash=hashed,
        health='{"outbox_bytes":0,"outbox_events":0,"restarted":"power"}',
        desired=Desired(gen=7, base_hash=hashed, config_hash=hashed, overrides=own),
    )
    names = [f"s-{n:04d}" for n in range(stores)]
    shards = [shard_of(StoreId(name)) for name in names]
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(
            "INSERT INTO store (id, chain, region, shard, name_zh, name_en, zone, cutoff_hour, basket_owner, opened_at)"
            " SELECT id, %s, %s, shard, '', '', 'Asia/Shanghai', 0, 'storeops', '2025-01-01'"
            " FROM unnest(%s::text[], %s::smallint[]) AS one (id, shard)",
            (CHAIN, REGION, names, shards),
        )
        conn.execute(
            "INSERT INTO terminal (id, store, lane, role, profile, secret_sha256, registered_at)"
            " SELECT s || '-' || r, s, 'one', r, 'dragonfly-1', '', now()"
            " FROM unnest(%s::text[]) s, unnest(%s::text[]) r",
            (names, list(ROLES)),
        )
        conn.execute(
            "INSERT INTO entity SELECT s.region, s.id, 'terminal', t.id, s.shard,"
            " jsonb_set(%s, '{boot}', to_jsonb(md5(t.id))), 1, now() FROM store s JOIN terminal t ON t.store = s.id",
            (Jsonb(msgspec.to_builtins(twin)),),
        )
        conn.execute("ANALYZE")


def _policy() -> RolloutPolicy:
    """As shipped, without evidence: its looks are once in weeks."""
    policy, day = read_policy(policy_path("configuration")), 86_400
    stages = tuple(
        replace(
            one,
            policy=replace(one.policy, evidence=None, soak_s=day, soak_deadline_s=2 * day, queue_deadline_s=7 * day),
        )
        for one in policy.stages
    )
    return replace(policy, stages=stages)


async def soaking(databases: Databases) -> RolloutId:
    """A rollout whose last stage is open: two stages have succeeded, and all others soak."""
    desk = RolloutDesk(databases, lambda: NOW)
    made = await desk.plan(_policy(), patch_artefact(PATCH), Selector(all_stores=True), AUTHOR)
    before = (await desk.tell(made.rollout.id, Start(AUTHOR))).rollout
    entries = _entries(before)
    after = folded(before, entries)
    async with databases.at() as conn, conn.transaction():
        await table.append(conn, before, after, entries, (), NOW)
    return before.id


def _entries(rollout: Rollout) -> list[Entry]:
    found: list[Entry] = []
    last = len(rollout.plan.stages) - 1
    for number, stage in enumerate(rollout.plan.stages):
        found.append(StageMoved(NOW, number, StageMark(StageState.OPEN, opened_at=NOW, queue_since=NOW)))
        for store in stage.stores:
            for target in store.targets:
                done = number < last
                mark = Mark(
                    state=TargetState.SUCCEEDED if done else TargetState.SOAKING,
                    since=NOW,
                    previous="",
                    asked_at=NOW,
                    asked_gen=6,
                    activated_at=NOW,
                    proved_at=NOW,
                    proved_gen=7,
                    soak_since=NOW,
                    soak_boot=md5(target.terminal.encode(), usedforsecurity=False).hexdigest(),
                    succeeded_at=NOW if done else None,
                )
                found.append(TargetMoved(NOW, target.terminal, mark))
    return found
