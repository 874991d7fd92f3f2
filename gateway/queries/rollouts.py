"""Rollouts as lists read them: all of them, the terminals of one, its journal. Live figures are the desk's
(gateway.rollouts); what stands here was written."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.edge import Edge
from gateway.paging import cut, decode_cursor, decode_instant, encode_cursor
from gateway.queries.ledger_pages import psycopg_of
from gateway.rollout_views import text_view
from gateway.views import Page, TextView, View
from models.domain.ids import ChainId, RegionId, StoreId, TerminalId
from models.domain.kill_switch import Place
from models.domain.plan_reader import Text
from models.domain.rollout import RolloutId, RolloutState, TargetState
from models.domain.rollout_journal import (
    UNTOUCHED,
    Attached,
    Entry,
    Mark,
    RolloutMoved,
    StageMoved,
    TailJoined,
    TargetMoved,
)
from models.domain.rollout_part import PATCHED, leaf_paths
from models.domain.rollout_words import ROLLOUT_STATES, in_short, in_words, standing
from models.tables import rollouts as table
from models.tables.rollout_sight import load_twins


class RolloutRowView(View):
    """A rollout in the list: stage `stage` of `stages`, 0 before the start; `why` as it was written last; `change` in
    a line."""

    id: str
    chain: str
    kind: str
    artefact: str
    version: str
    policy: str
    state: str
    stage: int
    stages: int
    stage_name: str
    stores: int
    author: str
    why: TextView
    created_at: datetime
    changed_at: datetime
    change: TextView


class TargetView(View):
    """One terminal of a plan and where it stands. Stage 1 is the first; stores that opened later have the last one's.

    `error`: the first failure, which stays through the way back. `asked_at` null: nothing was asked of it.
    """

    stage: int
    store: str
    region: str
    terminal: str
    role: str
    mandatory: bool
    state: str
    reason: str
    why: TextView
    since: datetime | None
    asked_at: datetime | None
    activated_at: datetime | None
    proved_at: datetime | None
    soak_since: datetime | None
    succeeded_at: datetime | None
    error: str | None
    fell: int


class EntryView(View):
    """One journal entry. `kind`: rollout, stage, target, attached or joined. `by` null: by the rules."""

    n: int
    at: datetime
    kind: str
    target: str | None
    state: str | None
    by: str | None
    words: TextView


class TwinView(View):
    """What a terminal is to have, and what it says it has."""

    online: bool
    desired_gen: int
    desired_hash: str
    desired_software: str
    applied_gen: int | None
    reported_hash: str
    software: str
    boot: str
    health: str


class TargetDetailView(View):
    """One terminal, whole. `previous`: the part that stood in its document when it was asked, null before that;
    `boot_before`: the boot that ran when it was told to start. `twin` null: nobody ever heard of it."""

    target: TargetView
    previous: str | None
    previous_version: str
    boot_before: str
    twin: TwinView | None
    journal: list[EntryView]


# ---------------------------------------------------------------- all of them


_ROWS = """
SELECT r.id, r.chain, r.artefact->>'kind', r.artefact_key, r.artefact->>'version', r.policy->>'name', r.state,
  open.stage + 1, ladder.stages, coalesce(ladder.names[open.stage + 1], ''), ladder.stores,
  r.author, said.why->>'zh', said.why->>'en', r.created_at, r.changed_at, r.artefact->>'payload'
FROM rollout r
CROSS JOIN LATERAL (
  SELECT count(*)::int AS stages, array_agg(s->>'name' ORDER BY n) AS names,
    sum(jsonb_array_length(s->'stores'))::int AS stores
  FROM jsonb_array_elements(r.plan->'stages') WITH ORDINALITY AS each (s, n)
) AS ladder
LEFT JOIN LATERAL (
  SELECT d.stage + (d.way = 'advance')::int AS stage, d.gate->'why' AS why FROM rollout_decision d
  WHERE d.rollout = r.id ORDER BY d.n DESC, d.stage DESC LIMIT 1
) AS decided ON true
CROSS JOIN LATERAL (
  SELECT CASE r.state WHEN 'draft' THEN -1
    ELSE least(coalesce(decided.stage, 0), ladder.stages - 1) END AS stage
) AS open
LEFT JOIN LATERAL (
  SELECT j.doc->'why' AS why FROM rollout_journal j
  WHERE r.state <> 'running' AND j.rollout = r.id AND j.target = '' AND j.kind = 'rollout' ORDER BY j.n DESC LIMIT 1
) AS moved ON true
CROSS JOIN LATERAL (SELECT CASE r.state WHEN 'running' THEN decided.why ELSE moved.why END AS why) AS said
WHERE (%(chain)s = '' OR r.chain = %(chain)s) AND (%(states)s::text[] IS NULL OR r.state = ANY(%(states)s))
  AND (%(at)s::timestamptz IS NULL OR (r.created_at, r.id) < (%(at)s, %(id)s))
ORDER BY r.created_at DESC, r.id DESC LIMIT %(limit)s
"""
"""Of the few decisions, not of a journal of thousands: a stage opens in the commit of the decision that let it. A plan
of thousands of terminals is taken apart once."""


def home_of(edge: Edge, chain: str) -> AsyncEngine:
    """The database in which a chain's rollouts are written: its first region's."""
    return edge.database_of(next((one.name for one in edge.settings.regions if one.chain == chain), ""))


def homes(edge: Edge) -> list[AsyncEngine]:
    """Every database that has rollouts, each once."""
    return list(dict.fromkeys(home_of(edge, one.chain) for one in edge.settings.regions))


async def list_rollouts(
    engines: Collection[AsyncEngine],
    limit: int,
    cursor: str | None = None,
    *,
    states: Sequence[RolloutState] = (),
    chain: str = "",
) -> Page[RolloutRowView]:
    """The newest first, over the databases given; no `states`: all of them."""
    key = decode_cursor(cursor, 2)
    wanted = {
        "chain": chain,
        "states": [str(one) for one in states] or None,
        "at": decode_instant(key[0]) if key else None,
        "id": key[1] if key else "",
        "limit": limit + 1,
    }
    found: list[RolloutRowView] = []
    for engine in engines:
        async with AsyncSession(engine) as session:
            rows = await (await psycopg_of(session)).execute(_ROWS, wanted)
            found += [_row(row) async for row in rows]
    found.sort(key=lambda one: (one.created_at, one.id), reverse=True)
    shown, more = cut(found, limit)
    last = encode_cursor([shown[-1].created_at.isoformat(), shown[-1].id]) if more else None
    return Page(items=shown, next=last)


def _row(row: Sequence[Any]) -> RolloutRowView:
    state = ROLLOUT_STATES[RolloutState(row[6])]
    why = Text(row[12] or state.zh, row[13] or state.en)
    change = text_view(in_short(row[2], row[4], row[16]))
    names = list(RolloutRowView.model_fields)
    values: dict[str, Any] = dict(zip(names, (*row[:12], text_view(why), *row[14:16], change), strict=True))
    return RolloutRowView(**values)


_KIN = """
SELECT o.id, o.author, o.artefact->>'kind', o.artefact->>'version', o.artefact->>'payload', r.artefact->>'payload'
FROM rollout r JOIN rollout o ON o.chain = r.chain AND o.artefact_key = r.artefact_key AND o.id <> r.id
WHERE r.id = %(id)s AND o.state = ANY(%(states)s) ORDER BY o.created_at DESC LIMIT %(limit)s
"""
KIN_MAX = 5


@dataclass(frozen=True, slots=True)
class Kin:
    """Another rollout of the same key: one that could take over, or be taken over."""

    id: str
    author: str
    change: Text


async def kin(session: AsyncSession, rollout: str, states: Sequence[RolloutState]) -> list[Kin]:
    """The newest of the chain that stand so and change the same, a few: actors.rollout_takeover says what that is."""
    wanted = {"id": rollout, "states": [str(one) for one in states], "limit": KIN_MAX}
    rows = await (await psycopg_of(session)).execute(_KIN, wanted)
    return [Kin(row[0], row[1], in_short(*row[2:5])) async for row in rows if _same(row[2], row[4], row[5])]


def _same(kind: str, one: str, other: str) -> bool:
    return kind not in PATCHED or set(leaf_paths(json.loads(one))) == set(leaf_paths(json.loads(other)))


async def chain_of(session: AsyncSession, rollout: str) -> str | None:
    """Whose rollout it is; None when there is none."""
    cursor = await (await psycopg_of(session)).execute("SELECT chain FROM rollout WHERE id = %s", (rollout,))
    row = await cursor.fetchone()
    return None if row is None else str(row[0])


async def places_of(session: AsyncSession, rollout: str) -> list[Place]:
    """Where a permission must hold, as `gateway.rollouts.reach` says, without reading what became of each terminal."""
    found = await (await psycopg_of(session)).execute(
        """SELECT chain, '', '' FROM rollout WHERE id = %(id)s AND (policy->>'tail')::bool
           UNION ALL SELECT r.chain, st->>'region', st->>'store'
           FROM rollout r, jsonb_array_elements(r.plan->'stages') AS sg, jsonb_array_elements(sg->'stores') AS st
           WHERE r.id = %(id)s""",
        {"id": rollout},
    )
    return [Place(ChainId(chain), RegionId(region), StoreId(store)) async for chain, region, store in found]


# ---------------------------------------------------------------- terminals


_TARGETS = """
WITH planned AS MATERIALIZED (
  SELECT sg.n::int AS stage, sg.st->>'store' AS store, sg.st->>'region' AS region, t
  FROM (
    SELECT sg.n, jsonb_array_elements(sg.s->'stores') AS st
    FROM rollout r, jsonb_array_elements(r.plan->'stages') WITH ORDINALITY AS sg (s, n) WHERE r.id = %(id)s
    UNION ALL
    SELECT jsonb_array_length(r.plan->'stages'), j.doc->'store' FROM rollout r
    JOIN rollout_journal j ON j.rollout = r.id AND j.kind = 'joined' WHERE r.id = %(id)s
  ) AS sg, jsonb_array_elements(sg.st->'targets') AS t
)
SELECT stage, store, region, t->>'terminal', t->>'role', (t->>'mandatory')::bool, newest.mark::text
FROM planned LEFT JOIN LATERAL (
  SELECT j.doc->'mark' AS mark FROM rollout_journal j
  WHERE j.rollout = %(id)s AND j.target = t->>'terminal' AND j.kind = 'target' ORDER BY j.n DESC LIMIT 1
) AS newest ON true
WHERE (%(states)s::text[] IS NULL OR coalesce(newest.mark->>'state', 'queued') = ANY(%(states)s))
  AND (%(stage)s::int IS NULL OR stage = %(stage)s) AND (%(store)s = '' OR store = %(store)s)
  AND (%(terminal)s = '' OR t->>'terminal' = %(terminal)s)
  AND (%(at)s::int IS NULL OR (stage, store, t->>'terminal') > (%(at)s, %(after_store)s, %(after)s))
ORDER BY stage, store, t->>'terminal' LIMIT %(limit)s
"""
"""Each terminal's last entry by its index: a join on what comes out of a document is a guess to the planner."""


async def list_targets(
    session: AsyncSession,
    rollout: str,
    limit: int,
    cursor: str | None = None,
    *,
    states: Sequence[TargetState] = (),
    stage: int | None = None,
    store: str = "",
) -> Page[TargetView]:
    """Terminals by stage, store and id; no `states`: in any. `stage` counts from 1."""
    key = decode_cursor(cursor, 3)
    rows = await _targets(session, rollout, limit + 1, key, states, stage, store, "")
    found, more = cut([_target(row) for row in rows], limit)
    last = [str(found[-1].stage), found[-1].store, found[-1].terminal] if more else None
    return Page(items=found, next=encode_cursor(last) if last else None)


async def _targets(
    session: AsyncSession,
    rollout: str,
    limit: int,
    key: tuple[str, ...] | None,
    states: Sequence[TargetState],
    stage: int | None,
    store: str,
    terminal: str,
) -> list[Sequence[Any]]:
    at, after_store, after = key or (None, "", "")
    wanted = {
        "id": rollout,
        "states": [str(one) for one in states] or None,
        "stage": stage,
        "store": store,
        "terminal": terminal,
        "at": int(at) if at is not None and at.isdecimal() else None,
        "after_store": after_store,
        "after": after,
        "limit": limit,
    }
    cursor = await (await psycopg_of(session)).execute(_TARGETS, wanted)
    return list(await cursor.fetchall())


def _mark(row: Sequence[Any]) -> Mark:
    return UNTOUCHED if row[6] is None else msgspec.json.decode(row[6], type=Mark)


def _target(row: Sequence[Any]) -> TargetView:
    stage, store, region, terminal, role, mandatory = row[:6]
    mark = _mark(row)
    return TargetView(
        stage=stage,
        store=store,
        region=region,
        terminal=terminal,
        role=role,
        mandatory=mandatory,
        state=mark.state,
        reason=mark.reason,
        why=text_view(standing(mark)),
        since=mark.since,
        asked_at=mark.asked_at,
        activated_at=mark.activated_at,
        proved_at=mark.proved_at,
        soak_since=mark.soak_since,
        succeeded_at=mark.succeeded_at,
        error=mark.error,
        fell=mark.fell,
    )


async def target(edge: Edge, session: AsyncSession, rollout: str, terminal: str, limit: int) -> TargetDetailView | None:
    """One terminal with its first entries; None: it is not of this rollout. Its twin is read where it lives."""
    rows = await _targets(session, rollout, 1, None, (), None, "", terminal)
    if not rows:
        return None
    mark, view = _mark(rows[0]), _target(rows[0])
    async with AsyncSession(edge.database_of(view.region)) as there:
        twins = await load_twins(await psycopg_of(there), [RegionId(view.region)], [StoreId(view.store)])
    twin = twins.get(TerminalId(terminal))
    entries = await journal(session, rollout, limit, terminal=terminal)
    return TargetDetailView(
        target=view,
        previous=mark.previous,
        previous_version=mark.previous_version,
        boot_before=mark.boot_before,
        twin=None
        if twin is None
        else TwinView(
            online=twin.online,
            desired_gen=twin.gen,
            desired_hash=twin.config_hash,
            desired_software=str((twin.software_wanted or {}).get("version", "")),
            applied_gen=twin.applied_gen,
            reported_hash=twin.reported_hash,
            software=twin.software,
            boot=twin.boot,
            health=twin.health,
        ),
        journal=entries.items,
    )


# ---------------------------------------------------------------- journal


_KIND = {
    RolloutMoved: "rollout",
    StageMoved: "stage",
    TargetMoved: "target",
    Attached: "attached",
    TailJoined: "joined",
}


async def journal(
    session: AsyncSession, rollout: str, limit: int, cursor: str | None = None, *, terminal: str | None = None
) -> Page[EntryView]:
    """Entries in their order; `terminal` "": those about no terminal."""
    key = decode_cursor(cursor, 1)
    since = int(key[0]) if key and key[0].isdecimal() else 0
    found = await table.journal(
        await psycopg_of(session), RolloutId(rollout), since=since, target=terminal, limit=limit + 1
    )
    rows, more = cut(found, limit)
    return Page(items=[_entry(n, one) for n, one in rows], next=encode_cursor([str(rows[-1][0])]) if more else None)


def _entry(n: int, entry: Entry) -> EntryView:
    state: str | None
    by: str | None
    about: str | None = None
    match entry:
        case RolloutMoved():
            state, by = str(entry.state), entry.by
        case StageMoved():
            state, by = str(entry.mark.state), entry.mark.approved_by
        case TargetMoved():
            state, by, about = str(entry.mark.state), None, str(entry.target)
        case Attached():
            state, by = None, entry.by
        case TailJoined():
            state, by = None, None
    return EntryView(
        n=n, at=entry.at, kind=_KIND[type(entry)], target=about, state=state, by=by, words=text_view(in_words(entry))
    )
