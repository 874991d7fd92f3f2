"""Twins and commands of terminals: presence in full, desired documents, commands, telemetry."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Forward only."""
    for column, default in (
        (sa.Column("known", sa.Boolean(), nullable=False), "true"),
        (sa.Column("boot", sa.String(), nullable=False), "''"),
        (sa.Column("gen", sa.Integer(), nullable=False), "0"),
        (sa.Column("config_hash", sa.String(), nullable=False), "''"),
        (sa.Column("sync", sa.String(), nullable=False), "'unknown'"),
        (sa.Column("skew_alarm", sa.Boolean(), nullable=False), "false"),
        (sa.Column("takeovers", sa.Integer(), nullable=False), "0"),
        (sa.Column("gaps", sa.Integer(), nullable=False), "0"),
        (sa.Column("health", sa.String(), nullable=False), "''"),
    ):
        column.server_default = sa.DefaultClause(sa.text(default))
        op.add_column("presence", column)
        op.alter_column("presence", column.name, server_default=None)
    op.add_column("presence", sa.Column("applied_gen", sa.Integer(), nullable=True))
    op.add_column("presence", sa.Column("behind_since", INSTANT, nullable=True))
    op.add_column("presence", sa.Column("skew_ms", sa.BigInteger(), nullable=True))
    op.add_column("presence", sa.Column("takeover_at", INSTANT, nullable=True))
    op.create_table(
        "desired",
        sa.Column("terminal", sa.String(), primary_key=True),
        sa.Column("gen", sa.Integer(), nullable=False),
        sa.Column("config", sa.String(), nullable=False),
        sa.Column("config_hash", sa.String(), nullable=False),
        sa.Column("software", JSONB(), nullable=True),
        sa.Column("set_at", INSTANT, nullable=False),
    )
    op.create_table(
        "command",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("terminal", sa.String(), nullable=False),
        sa.Column("store", sa.String(), nullable=False),
        sa.Column("verb", sa.String(), nullable=False),
        sa.Column("args", JSONB(), nullable=False),
        sa.Column("asked_at", INSTANT, nullable=False),
        sa.Column("deadline_at", INSTANT, nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("detail", sa.String(), nullable=False),
        sa.Column("answered_at", INSTANT, nullable=True),
        sa.Column("late_status", sa.String(), nullable=True),
    )
    op.create_index("command_terminal_asked", "command", ["terminal", "asked_at"])
    op.create_index("command_asked", "command", ["asked_at"])
    op.create_table(
        "telemetry",
        sa.Column("terminal", sa.String(), primary_key=True),
        sa.Column("minute", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("doc", JSONB(), nullable=False),
    )
