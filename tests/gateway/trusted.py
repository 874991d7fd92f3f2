"""A membership with a real plan, for tests of what may be done with one."""

from __future__ import annotations

import uuid

import psycopg
from psycopg.types.json import Jsonb

from tests.integration.money_shop import PLAN


def trusted_membership(database_url: str) -> str:
    """Active, admitted on trust (no provider is ever asked), nothing used of a fee of 10.00; and a second plan."""
    name, plan = f"ms-{uuid.uuid4().hex[:8]}", f"plan-{uuid.uuid4().hex[:8]}"
    document = PLAN | {"id": plan, "guarantees": ["merchant_trust"], "on_merchant_cancel": "zero"}
    with psycopg.connect(database_url, autocommit=True) as conn:
        for one in (plan, f"{plan}-b"):
            conn.execute(
                "INSERT INTO plan (id, version, chain, owner, doc) VALUES (%s, 1, 'chain', 'chain', %s)",
                (one, Jsonb(document | {"id": one})),
            )
        conn.execute(
            "INSERT INTO member (id, chain, region, home_store, name, phone_sha256, phone_tail, provider_user,"
            " joined_at) VALUES (%s, 'chain', 'local', 's-001', '王小明', %s, '4321', '', now())",
            (name, name),
        )
        conn.execute(
            "INSERT INTO membership (id, enrol_key, member, chain, region, store, terminal, session, plan,"
            " plan_version, owner, generation, state, fee_fen, fee_eff_fen, used_fen, guarantee, hold_order, hold_no,"
            " hold_fen, hold_state, enrolled_at, expires_at, cutoff_at, cancelled_by, paid_fen, refunded_fen,"
            " receivable_fen, captured_number, attempts, parked_why)"
            " VALUES (%(id)s, %(id)s, %(id)s, 'chain', 'local', 's-001', 't', '', %(plan)s, 1, 'chain', 1, 'ACTIVE',"
            " 1000, 1000, 0, 'merchant_trust', '', '', 0, 'none', now() - interval '5 days',"
            " now() + interval '25 days', now() + interval '26 days', '', 0, 0, 0, '', 0, '')",
            {"id": name, "plan": plan},
        )
    return name
