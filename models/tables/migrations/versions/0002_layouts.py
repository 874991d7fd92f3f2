"""Layouts of a region's slots, and stores with a host of their own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward only. What ran before had its number of slots as the layout's number: it stays in force."""
    op.create_table(
        "layout",
        sa.Column("region", sa.String(), nullable=False),
        sa.Column("layout", sa.Integer(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("dedicated", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("region", "layout"),
    )
    op.create_index("layout_current", "layout", ["region"], unique=True, postgresql_where=sa.text("ended_at IS NULL"))
    op.create_table(
        "dedicated_store",
        sa.Column("store", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["store"], ["store.id"]),
        sa.PrimaryKeyConstraint("store"),
    )
    op.add_column("slot", sa.Column("drained", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("slot", sa.Column("restarts", sa.BigInteger(), nullable=False, server_default="0"))
    op.alter_column("slot", "drained", server_default=None)
    op.alter_column("slot", "restarts", server_default=None)
    op.execute(
        """INSERT INTO layout (region, layout, slots, dedicated, made_at)
           SELECT DISTINCT ON (region) region, layout, layout, '[]'::jsonb, coalesce(claimed_at, now())
           FROM slot ORDER BY region, claimed_at DESC NULLS LAST"""
    )
    op.execute(
        """INSERT INTO slot (region, layout, k, epoch, holder, drained, restarts)
           SELECT l.region, l.layout, k, 0, '', false, 0 FROM layout l, generate_series(0, l.slots - 1) AS k
           ON CONFLICT DO NOTHING"""
    )
