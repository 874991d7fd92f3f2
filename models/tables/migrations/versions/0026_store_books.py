"""Candidates among a chain's books, and the version that a rollout pinned for a store."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward only."""
    op.add_column("book", sa.Column("candidate", sa.Boolean(), nullable=False, server_default=sa.text("false")))
    op.create_table(
        "store_book",
        sa.Column("store", sa.String(), sa.ForeignKey("store.id"), nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("gen", sa.Integer(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("gen >= 0 AND coalesce(version, 1) > 0", name="store_book_formed"),
        sa.PrimaryKeyConstraint("store"),
    )
