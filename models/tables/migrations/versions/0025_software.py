"""Images of terminals' software, and the family that was registered while software makes a terminal another one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward only."""
    op.create_table(
        "software_image",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("number", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("profile", sa.String(), nullable=False),
        sa.Column("notes_zh", sa.String(), nullable=False),
        sa.Column("notes_en", sa.String(), nullable=False),
        sa.Column("added_by", sa.String(), nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("size_bytes > 0 AND length(sha256) = 64", name="software_image_formed"),
        sa.PrimaryKeyConstraint("name", "number"),
    )
    op.add_column("terminal", sa.Column("delivered_profile", sa.String(), nullable=False, server_default=""))
