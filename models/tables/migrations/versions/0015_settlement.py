"""Runs of settlement that people start, pause and follow; rows of memberships that closing does not index again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

DUE_AT = (
    """CASE state WHEN 'ACTIVE' THEN expires_at WHEN 'SUSPENDED' THEN expires_at WHEN 'EXPIRED' THEN cutoff_at END"""
)
STAGE = """CASE WHEN state = 'ADMITTING' OR state = 'HOLD_PENDING' THEN 'pending'
    WHEN state = 'ACTIVE' OR state = 'SUSPENDED' THEN 'live'
    WHEN state = 'DUNNING' OR state = 'WRITTEN_OFF' THEN 'owing'
    WHEN state = 'PARKED' THEN 'parked'
    WHEN state = 'CLOSED' AND renews THEN 'renewal' END"""

# The foreign key asked for each row, and locked the membership's row once more; calls are only ever made of rows.
GUARD_CALLS = """
    CREATE FUNCTION settlement_calls_of_memberships() RETURNS trigger LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
    DECLARE
        wrong record;
    BEGIN
        SELECT a.request_number, a.membership INTO wrong
        FROM added a LEFT JOIN membership m ON m.id = a.membership WHERE m.id IS NULL LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'call % is of no membership: %', wrong.request_number, wrong.membership
                USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'settlement_call_membership_fkey';
        END IF;
        RETURN NULL;
    END $$
"""


def upgrade() -> None:
    """Forward only. Half of each page stays free, so that a row that closes is rewritten where it is."""
    op.execute("ALTER TABLE membership SET (fillfactor = 50)")
    for index in ("membership_due", "membership_cutoff", "membership_live", "membership_renewal"):
        op.drop_index(index, "membership")
    op.execute(
        f"ALTER TABLE membership ADD due_at timestamptz GENERATED ALWAYS AS ({DUE_AT}) STORED,"
        f" ADD stage varchar GENERATED ALWAYS AS ({STAGE}) STORED"
    )
    op.create_index(
        "membership_due",
        "membership",
        ["chain", "region", "due_at", "id"],
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index(
        "membership_stage",
        "membership",
        ["chain", "region", "stage"],
        postgresql_where=sa.text("stage IN ('pending', 'owing', 'parked', 'renewal')"),
    )
    op.create_index(
        "membership_live",
        "membership",
        ["member", "plan"],
        unique=True,
        postgresql_where=sa.text("stage IN ('pending', 'live')"),
    )
    _calls()
    _runs()


def _calls() -> None:
    op.drop_index("settlement_call_open", "settlement_call")
    op.execute(
        "ALTER TABLE settlement_call SET (fillfactor = 60), DROP CONSTRAINT settlement_call_pkey,"
        " DROP CONSTRAINT settlement_call_request_number_key, DROP CONSTRAINT settlement_call_membership_fkey"
    )
    op.execute("ALTER TABLE settlement_call DROP COLUMN id, ADD PRIMARY KEY (request_number)")
    op.create_index(
        "settlement_call_open",
        "settlement_call",
        ["chain", "region", "not_before", "request_number"],
        postgresql_where=sa.text("state <> 'POSTED'"),
    )
    op.execute(GUARD_CALLS)
    op.execute(
        "CREATE TRIGGER settlement_calls_of_memberships AFTER INSERT ON settlement_call REFERENCING NEW TABLE AS added"
        " FOR EACH STATEMENT EXECUTE FUNCTION settlement_calls_of_memberships()"
    )


def _runs() -> None:
    op.create_table(
        "settlement_run",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("chain", sa.String(), nullable=False),
        sa.Column("region", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("business_date", sa.String(10), nullable=False),
        sa.Column("started_by", sa.String(), nullable=False),
        sa.Column("dry", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("step", sa.String(), nullable=False),
        sa.Column("due", sa.BigInteger(), nullable=False),
        sa.Column("expired", sa.BigInteger(), nullable=False),
        sa.Column("cut_off", sa.BigInteger(), nullable=False),
        sa.Column("woken", sa.BigInteger(), nullable=False),
        sa.Column("booked", sa.BigInteger(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=False),
        sa.Column("open_calls", sa.Boolean(), nullable=False),
        sa.Column("totals", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("problem", sa.String(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("settlement_run_started", "settlement_run", ["chain", "region", "started_at"])
    op.create_table(
        "settlement_switch",
        sa.Column("chain", sa.String(), nullable=False),
        sa.Column("region", sa.String(), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("chain", "region"),
    )
