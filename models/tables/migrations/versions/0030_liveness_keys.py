"""Keys of terminals that sign their liveness scores; what became of a score, beside each decision."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward only."""
    op.create_table(
        "liveness_key",
        sa.Column("terminal", sa.String(), sa.ForeignKey("terminal.id"), primary_key=True),
        sa.Column("fingerprint", sa.String(), primary_key=True),
        sa.Column("public_key", sa.String(), nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("added_by", sa.String(), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_by", sa.String(), nullable=False, server_default=""),
        sa.CheckConstraint("public_key ~ '^[0-9a-f]{64}$'", name="liveness_key_formed"),
    )
    op.create_index(
        "liveness_key_live",
        "liveness_key",
        ["public_key"],
        unique=True,
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.add_column("face_decision", sa.Column("device_score", sa.String(), nullable=False, server_default="none"))
