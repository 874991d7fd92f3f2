"""What a rollout sees: the stores of a chain with their terminals, how those stand, and what they answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from models.domain.ids import ChainId, MessageId, RegionId, StoreId, TerminalId
from models.domain.rollout import Device, Site

Connection = AsyncConnection[Any]


@dataclass(frozen=True, slots=True)
class Twin:
    """One terminal as its host committed it last. `overrides`: canonical JSON."""

    gen: int
    config_hash: str
    overrides: str
    software_wanted: Mapping[str, Any] | None
    online: bool
    applied_gen: int | None
    reported_hash: str
    software: str
    boot: str
    health: str
    store_gen: int = 0
    """Of its desired document: which order to its whole store the host had read."""
    retired: bool = False


@dataclass(frozen=True, slots=True)
class CommandAnswer:
    """What a terminal said to a command, so far."""

    status: str
    detail: str
    answered_at: datetime | None


async def load_sites(conn: Connection, chain: ChainId, regions: Sequence[RegionId]) -> list[Site]:
    """The chain's stores in these regions with their terminals in service, in the order of their ids."""
    cursor = await conn.execute(
        """SELECT s.id, s.region, s.zone, s.labels, array_agg(t.id ORDER BY t.id), array_agg(t.role ORDER BY t.id),
             array_agg(t.profile ORDER BY t.id)
           FROM store s JOIN terminal t ON t.store = s.id AND t.retired_at IS NULL AND t.revoked_at IS NULL
           WHERE s.chain = %s AND s.region = ANY(%s) GROUP BY s.id ORDER BY s.id""",
        (chain, list(regions)),
    )
    return [
        Site(
            StoreId(store),
            RegionId(region),
            zone,
            tuple(
                Device(TerminalId(one), role, profile) for one, role, profile in zip(ids, roles, profiles, strict=True)
            ),
            labels,
        )
        for store, region, zone, labels, ids, roles, profiles in await cursor.fetchall()
    ]


@dataclass(frozen=True, slots=True)
class LaneMember:
    """A terminal in service in its lane. `delivered_profile`: what it was registered as, "" when it is that."""

    terminal: TerminalId
    store: StoreId
    lane: str
    role: str
    profile: str
    delivered_profile: str


async def load_lanes(conn: Connection, regions: Sequence[RegionId], stores: Sequence[StoreId]) -> list[LaneMember]:
    """Every terminal in service of these stores."""
    cursor = await conn.execute(
        """SELECT t.id, t.store, t.lane, t.role, t.profile, t.delivered_profile
           FROM terminal t JOIN store s ON s.id = t.store
           WHERE s.region = ANY(%s) AND t.store = ANY(%s) AND t.retired_at IS NULL ORDER BY t.id""",
        (list(regions), list(stores)),
    )
    return [LaneMember(*row) for row in await cursor.fetchall()]


async def load_twins(
    conn: Connection, regions: Sequence[RegionId], stores: Sequence[StoreId]
) -> dict[TerminalId, Twin]:
    """Every terminal of these stores that was ever heard of, in one query."""
    cursor = await conn.execute(
        """SELECT e.id, coalesce((d->>'gen')::int, 0), coalesce(d->>'config_hash', ''), coalesce(d->>'overrides', '{}'),
             nullif(d->'software', 'null'::jsonb),
             (e.state->>'online')::bool AND (e.state->>'known')::bool, (e.state->>'applied_gen')::int,
             e.state->>'config_hash', e.state->>'software', e.state->>'boot', e.state->>'health',
             coalesce((d->>'store_gen')::int, 0), t.retired_at IS NOT NULL
           FROM entity e CROSS JOIN LATERAL (SELECT e.state->'desired' AS d) AS wanted
             LEFT JOIN terminal t ON t.id = e.id
           WHERE e.region = ANY(%s) AND e.store = ANY(%s) AND e.kind = 'terminal'""",
        (list(regions), list(stores)),
    )
    return {TerminalId(row[0]): Twin(*row[1:]) for row in await cursor.fetchall()}


async def load_answers(conn: Connection, commands: Iterable[MessageId]) -> dict[MessageId, CommandAnswer]:
    """What became of these commands; one that nobody knows is missing."""
    wanted = list(commands)
    if not wanted:
        return {}
    cursor = await conn.execute(
        "SELECT id, coalesce(late_status, status), detail, answered_at FROM command WHERE id = ANY(%s)", (wanted,)
    )
    return {MessageId(row[0]): CommandAnswer(row[1], row[2], row[3]) for row in await cursor.fetchall()}
