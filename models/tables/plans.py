"""Plans as they were configured: immutable by (id, version)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psycopg import AsyncCursor
from psycopg.types.json import Jsonb

from models.domain.errors import NeedsOperator
from models.domain.ids import ChainId, PlanId
from models.domain.plans import Plan, plan_from_dict

PLANS_CACHED_MAX = 1_000

_cache: dict[tuple[str, int], Plan] = {}


async def save_plan(cur: AsyncCursor[Any], chain: ChainId, document: Mapping[str, Any]) -> Plan:
    """Keep a plan version. Raises PlanError for a wrong one, NeedsOperator `plan_changed` when it is there already
    with other terms: members enrolled under those."""
    plan = plan_from_dict(document)
    await cur.execute(
        "INSERT INTO plan (id, version, chain, owner, doc) VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (plan.id, plan.version, chain, plan.owner_entity, Jsonb(dict(document))),
    )
    await cur.execute("SELECT chain, doc FROM plan WHERE id = %s AND version = %s", (plan.id, plan.version))
    row = await cur.fetchone()
    assert row is not None
    if row[0] != chain or plan_from_dict(row[1]) != plan:
        raise NeedsOperator(
            "plan_changed",
            f"plan {plan.id} version {plan.version} is in use with other terms",
            "give the changed plan the next version",
        )
    return plan


async def load_plan(cur: AsyncCursor[Any], plan: str, version: int) -> Plan:
    """One version of a plan. Versions never change, so each is parsed once per process."""
    key = (plan, version)
    if key not in _cache:
        await cur.execute("SELECT doc FROM plan WHERE id = %s AND version = %s", key)
        row = await cur.fetchone()
        assert row is not None, f"membership of unknown plan {key}"
        if len(_cache) >= PLANS_CACHED_MAX:
            _cache.clear()
        _cache[key] = plan_from_dict(row[0])
    return _cache[key]


async def latest_plan(cur: AsyncCursor[Any], chain: str, plan: PlanId, store: str = "") -> Plan | None:
    """The version of a plan that new members get, by the book that is pinned for the store where they join; None when
    the chain does not offer it. A version that only candidates have is nobody's else."""
    await cur.execute(
        """SELECT coalesce(
             (SELECT (p->>'version')::int
              FROM store_book s JOIN book b ON b.chain = %(chain)s AND b.version = s.version,
                jsonb_array_elements(b.doc->'plans') AS p WHERE s.store = %(store)s AND p->>'id' = %(plan)s),
             (SELECT max(n.version) FROM plan n WHERE n.id = %(plan)s AND n.chain = %(chain)s AND NOT (
                EXISTS (SELECT 1 FROM book b, jsonb_array_elements(b.doc->'plans') AS p WHERE b.chain = n.chain
                  AND b.candidate AND p->>'id' = n.id AND (p->>'version')::int = n.version)
                AND NOT EXISTS (SELECT 1 FROM book b, jsonb_array_elements(b.doc->'plans') AS p WHERE b.chain = n.chain
                  AND NOT b.candidate AND p->>'id' = n.id AND (p->>'version')::int = n.version))))""",
        {"chain": chain, "plan": plan, "store": store},
    )
    row = await cur.fetchone()
    return None if row is None or row[0] is None else await load_plan(cur, plan, row[0])
