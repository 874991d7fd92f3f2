"""Kill switches."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward only."""
    op.create_table(
        "kill_switch",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("switch", sa.String(), nullable=False),
        sa.Column("scope_kind", sa.String(), nullable=False),
        sa.Column("scope_name", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lifted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lifted_by", sa.String(), nullable=False),
        sa.Column("lifted_reason", sa.String(), nullable=False),
        sa.CheckConstraint(
            "switch IN ('face', 'benefits', 'offers') AND scope_kind IN ('store', 'region', 'chain')"
            " AND length(reason) BETWEEN 1 AND 400 AND length(lifted_reason) <= 400",
            name="kill_switch_formed",
        ),
    )
    op.create_index(
        "kill_switch_standing",
        "kill_switch",
        ["switch", "scope_kind", "scope_name"],
        unique=True,
        postgresql_where=sa.text("lifted_at IS NULL"),
    )
    op.create_index("kill_switch_at", "kill_switch", ["at"])
