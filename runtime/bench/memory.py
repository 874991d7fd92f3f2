"""What 100,000 entities cost a host's memory: a real StoreHost over a database that holds them.

A third each: stores, terminals, and visits in progress with four lines in the basket. The empty host runs the same
program over the same servers. What is measured is what only its process holds (unique set size) once it serves:
states, screens, tiles of the wall, and its copy of the registry.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from psycopg import AsyncConnection

from actors import session as session_actor
from actors.store import Store
from actors.terminal import Terminal
from actors.visit import Session
from models.domain.errors import NeedsOperator
from models.domain.events import Event, EventBody, Scan, SessionOpen
from models.domain.ids import LaneId, MessageId, TerminalId
from runtime.bench.form import Row, row
from runtime.bench.visits import ITEMS
from runtime.bench.yard import REGION, Yard, open_yard
from runtime.directory import Directory

ENTITIES = 100_000
LANES = ENTITIES // 3 + 1
START = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)


def measure(seconds: float, advance: Callable[[str], None]) -> list[Row]:
    """Two starts of a host. Raises NeedsOperator `bench_entities` when the second does not hold them all."""
    del seconds  # nothing runs
    with tempfile.TemporaryDirectory(prefix="so-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the database's user walks through it when we are root
        with open_yard(folder, 1) as yard:
            with yard.host("real") as host:
                host.command("health")
                empty_mib = host.memory_mib()
            state_mib = asyncio.run(_fill(yard))
            advance("entities made")
            with yard.host("real") as host:
                held = int(msgspec.json.decode(host.command("health"))["entities"])
                full_mib = host.memory_mib()
    if held < ENTITIES:
        raise NeedsOperator("bench_entities", f"the host holds {held} entities of {ENTITIES}", "see the host's log")
    advance("entities held")
    what = f"{ENTITIES:,} entities in one host, above the empty host"
    return [row(what, full_mib - empty_mib, "MiB", "their states as JSON", state_mib, "<= 150")]


async def _fill(yard: Yard) -> float:
    """Stores, terminals and live visits in the tables; returns the MiB of the states as text."""
    async with await AsyncConnection.connect(yard.plant.database_url) as conn:
        visit = await _visit(conn, yard)
        await conn.execute(
            """INSERT INTO store
                 (id, chain, region, shard, name_zh, name_en, zone, cutoff_hour, basket_owner, opened_at)
               SELECT 'm' || n, chain, region, get_byte(sha256(convert_to('m' || n, 'UTF8')), 0), name_zh, name_en,
                 zone, cutoff_hour, basket_owner, opened_at FROM store, generate_series(1, %s) AS n WHERE id = %s""",
            (LANES, yard.stores[0]),
        )
        await conn.execute(
            """INSERT INTO store_entity (store, from_date, entity)
               SELECT 'm' || n, from_date, entity FROM store_entity, generate_series(1, %s) AS n WHERE store = %s""",
            (LANES, yard.stores[0]),
        )
        await conn.execute(
            """INSERT INTO terminal (id, store, lane, role, profile, secret_sha256, registered_at)
               SELECT 'm' || n || '-t0', 'm' || n, lane, role, profile, secret_sha256, registered_at
               FROM terminal, generate_series(1, %s) AS n WHERE store = %s""",
            (LANES, yard.stores[0]),
        )
        for kind, id_of, state in (
            ("store", "''", Store()),
            ("terminal", "'-t0'", replace(Terminal(), online=True, software="1.0", profile="dragonfly-2")),
        ):
            await conn.execute(
                f"""INSERT INTO entity (region, store, kind, id, shard, state, version, changed_at)
                    SELECT region, id, %s, id || {id_of}, shard, %s::jsonb, 1, now() FROM store WHERE id LIKE 'm%%'""",
                (kind, msgspec.json.encode(state).decode()),
            )
        await conn.execute(
            """INSERT INTO entity (region, store, kind, id, shard, state, version, changed_at)
               SELECT region, id, 'session', 'l1', shard,
                 jsonb_set(%s::jsonb, '{id}', to_jsonb(gen_random_uuid()::text)), 1, now()
               FROM store WHERE id LIKE 'm%%'""",
            (msgspec.json.encode(visit).decode(),),
        )
        cursor = await conn.execute("SELECT sum(length(state::text)) FROM entity")
        found = await cursor.fetchone()
        assert found is not None
        return float(found[0]) / 2**20


async def _visit(conn: AsyncConnection[Any], yard: Yard) -> Session:
    """A customer with four articles in the basket, as the turns make one."""
    directory = Directory(REGION)
    await directory.load(conn)
    book = directory.book_of(yard.stores[0], 0)
    session = Session(lane=LaneId("l1"))
    bodies: list[EventBody] = [SessionOpen(), *(Scan(code.decode(), 1) for code, _ in ITEMS)]
    for n, body in enumerate(bodies):
        event = Event(
            MessageId(f"{n:08d}-0000-7000-8000-000000000000"),
            "boot",
            n + 1,
            START,
            TerminalId(f"{yard.stores[0]}-t0"),
            "face",
            None,
            None,
            replay=False,
            body=body,
        )
        session = session_actor.receive(session, event, event.id, START, book).state
    return session
