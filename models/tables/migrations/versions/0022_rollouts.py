"""Rollouts: frozen plans, their journal, decisions and evidence."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0022"
down_revision = "0023"
branch_labels = None
depends_on = None

GUARDS = (
    """
    CREATE FUNCTION rollout_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'what a rollout did is append-only: % of % refused', TG_OP, TG_TABLE_NAME
            USING ERRCODE = 'check_violation', CONSTRAINT = 'rollout_is_append_only';
    END $$
    """,
    *(
        f"""
        CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
        FOR EACH STATEMENT EXECUTE FUNCTION rollout_is_append_only()
        """
        for table in ("rollout_journal", "rollout_decision", "rollout_verdict")
    ),
    """
    CREATE FUNCTION rollout_is_frozen() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF (NEW.id, NEW.chain, NEW.artefact, NEW.selector, NEW.policy, NEW.plan, NEW.plan_sha256, NEW.outlooks,
            NEW.author, NEW.artefact_key, NEW.scope) IS DISTINCT FROM
           (OLD.id, OLD.chain, OLD.artefact, OLD.selector, OLD.policy, OLD.plan, OLD.plan_sha256, OLD.outlooks,
            OLD.author, OLD.artefact_key, OLD.scope) OR NEW.entries < OLD.entries THEN
            RAISE EXCEPTION 'rollout % is frozen', OLD.id
                USING ERRCODE = 'check_violation', CONSTRAINT = 'rollout_is_frozen';
        END IF;
        RETURN NEW;
    END $$
    """,
    "CREATE TRIGGER rollout_frozen BEFORE UPDATE ON rollout FOR EACH ROW EXECUTE FUNCTION rollout_is_frozen()",
)
ACTIVE = "state IN ('running', 'paused', 'halted', 'rolling_back', 'rollback_stuck', 'tailing')"


def upgrade() -> None:
    """Forward only."""
    op.create_table(
        "rollout",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("chain", sa.String(), nullable=False),
        sa.Column("artefact_key", sa.String(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("artefact", JSONB(), nullable=False),
        sa.Column("selector", JSONB(), nullable=False),
        sa.Column("policy", JSONB(), nullable=False),
        sa.Column("plan", JSONB(), nullable=False),
        sa.Column("plan_sha256", sa.String(), nullable=False),
        sa.Column("outlooks", JSONB(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("entries", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("entries >= 0", name="rollout_formed"),
    )
    op.create_index(
        "rollout_active",
        "rollout",
        ["chain", "artefact_key", "scope"],
        unique=True,
        postgresql_where=sa.text(ACTIVE),
    )
    op.create_index("rollout_created", "rollout", ["created_at"])
    op.create_table(
        "rollout_journal",
        sa.Column("rollout", sa.String(), sa.ForeignKey("rollout.id"), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("doc", JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", "n"),
    )
    op.create_table(
        "rollout_decision",
        sa.Column("rollout", sa.String(), sa.ForeignKey("rollout.id"), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("way", sa.String(), nullable=False),
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("gate", JSONB(), nullable=False),
        sa.Column("counts", JSONB(), nullable=False),
        sa.Column("verdict", JSONB(), nullable=True),
        sa.PrimaryKeyConstraint("rollout", "n", "stage"),
    )
    op.create_table(
        "rollout_verdict",
        sa.Column("rollout", sa.String(), sa.ForeignKey("rollout.id"), nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("look", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("verdict", JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", "stage", "look"),
    )
    for guard in GUARDS:
        op.execute(guard)
