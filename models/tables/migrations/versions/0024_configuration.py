"""A chain's configuration in layers; labels of stores."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0024"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward only."""
    op.add_column("store", sa.Column("labels", JSONB(), nullable=False, server_default=sa.text("'{}'::jsonb")))
    op.create_table(
        "config_layer",
        sa.Column("chain", sa.String(), nullable=False),
        sa.Column("level", sa.String(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("region", sa.String(), nullable=False),
        sa.Column("patch", JSONB(), nullable=False),
        sa.Column("places", JSONB(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("chain", "level", "scope", "source"),
        sa.CheckConstraint(
            "level IN ('chain', 'region', 'store', 'terminal') AND source IN ('file', 'live') AND version > 0"
            " AND (level = 'chain') = (region = '')",
            name="config_layer_formed",
        ),
    )
    op.create_table(
        "config_change",
        sa.Column("chain", sa.String(), nullable=False),
        sa.Column("level", sa.String(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("change", JSONB(), nullable=False),
        sa.Column("layer", JSONB(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("chain", "level", "scope", "version"),
    )
