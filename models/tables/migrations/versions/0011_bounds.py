"""Bounds of hosts, and what a resize carries over."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward only."""
    op.add_column("dead_letter", sa.Column("terminal", sa.String(), nullable=False, server_default=""))
    op.alter_column("dead_letter", "terminal", server_default=None)
    op.drop_constraint("dead_letter_pkey", "dead_letter", type_="primary")
    op.create_primary_key("dead_letter_pkey", "dead_letter", ["terminal", "id"])
    # As if they had moved just now: nothing is forgotten sooner than it is for those of today.
    op.add_column(
        "inbox_mark", sa.Column("moved_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now())
    )
    op.alter_column("inbox_mark", "moved_at", server_default=None)
    op.create_index("inbox_mark_moved", "inbox_mark", ["moved_at"])
