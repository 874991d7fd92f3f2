"""Who holds and collects for a membership; what members' balances and deposits hold."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward only."""
    op.add_column("membership", _provider("provider"))
    op.add_column("membership_request", _provider("hold_provider"))
    op.add_column("membership_request", _provider("release_provider"))
    op.create_table(
        "balance_hold",
        sa.Column("number", sa.String(), primary_key=True),
        sa.Column("member", sa.String(), nullable=False),
        sa.Column("entity", sa.String(), nullable=False),
        sa.Column("store", sa.String(), nullable=False),
        sa.Column("fen", sa.BigInteger(), nullable=False),
        sa.Column("taken_fen", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("fen > 0 AND taken_fen >= 0 AND taken_fen <= fen", name="balance_hold_covers"),
        sa.CheckConstraint("state IN ('held', 'over')", name="balance_hold_formed"),
    )
    op.create_index("balance_hold_held", "balance_hold", ["member"], postgresql_where=sa.text("state = 'held'"))


def _provider(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=False, server_default="alipay")
