"""What was written about one terminal of a rollout, or about none: pages read these out of a journal of thousands."""

from __future__ import annotations

from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward only."""
    op.create_index("rollout_journal_target", "rollout_journal", ["rollout", "target", "n"])
