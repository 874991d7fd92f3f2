"""Notifications of payment providers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward only."""
    op.create_table(
        "provider_notice",
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("number", sa.String(), nullable=False),
        sa.Column("request_no", sa.String(), nullable=False),
        sa.Column("provider_no", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("fen", sa.BigInteger(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("agreement", JSONB(), nullable=True),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("repeats", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("hastened", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.PrimaryKeyConstraint("provider", "id"),
    )
    op.create_index("provider_notice_number", "provider_notice", ["number"])
    op.create_index("provider_notice_received", "provider_notice", ["received_at"])
    # A poll is hastened by its order's number, which begins its reference.
    op.create_index("timer_poll", "timer", ["ref"], postgresql_where=sa.text("kind = 'poll'"))
