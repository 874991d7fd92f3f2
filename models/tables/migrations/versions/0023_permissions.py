"""Who may do what where; as whom a session was signed in."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward only."""
    op.add_column("login", sa.Column("person", sa.String(), nullable=False, server_default=""))
    op.create_table(
        "permission_grant",
        sa.Column("person", sa.String(), nullable=False),
        sa.Column("permission", sa.String(), nullable=False),
        sa.Column("scope_kind", sa.String(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("granted_by", sa.String(), nullable=False),
        sa.Column("granted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("person", "permission", "scope_kind", "scope"),
    )
