"""When a store's payments were answered: evidence of rollouts reads it for a few stores out of all asks ever made."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward only."""
    op.create_index(
        "outbox_answered",
        "outbox",
        ["store", "created_at"],
        postgresql_where=sa.text("port = 'payments' AND done_at IS NOT NULL"),
    )
