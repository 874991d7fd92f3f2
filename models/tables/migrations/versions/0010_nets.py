"""Templates of several nets and kinds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward only."""
    op.add_column("face_template", sa.Column("kind", sa.String(), server_default="enrolment", nullable=False))
    op.create_index("face_template_net", "face_template", ["chain", "net_sha256"])
