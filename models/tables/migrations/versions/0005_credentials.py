"""One-time enrolment codes, and credentials that overlap while they rotate."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward only."""
    instant = sa.DateTime(timezone=True)
    op.add_column("terminal", sa.Column("revoked_at", instant, nullable=True))
    op.create_table(
        "enrolment_code",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("terminal", sa.String(), nullable=False),
        sa.Column("code_hmac", sa.String(), nullable=False),
        sa.Column("rotates", sa.Boolean(), nullable=False),
        sa.Column("certificate", sa.Boolean(), nullable=False),
        sa.Column("command", sa.String(), nullable=False),
        sa.Column("made_at", instant, nullable=False),
        sa.Column("expires_at", instant, nullable=False),
        sa.Column("used_at", instant, nullable=True),
        sa.Column("answers", sa.Integer(), nullable=False),
        sa.Column("credential", sa.String(), nullable=False),
        sa.UniqueConstraint("code_hmac"),
    )
    op.create_index("enrolment_code_terminal", "enrolment_code", ["terminal"])
    op.create_table(
        "credential",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("terminal", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("secret_sha256", sa.String(), nullable=False),
        sa.Column("broker_hash", sa.String(), nullable=False),
        sa.Column("serial", sa.String(), nullable=False),
        sa.Column("certificate", sa.String(), nullable=False),
        sa.Column("key_sha256", sa.String(), nullable=False),
        sa.Column("made_at", instant, nullable=False),
        sa.Column("expires_at", instant, nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("in_force", sa.Boolean(), nullable=False),
        sa.Column("moved_at", instant, nullable=False),
        sa.Column("ended_at", instant, nullable=True),
    )
    op.create_index("credential_terminal", "credential", ["terminal"])
    op.create_index("credential_next", "credential", ["terminal"], postgresql_where=sa.text("state = 'next'"))
    op.create_table(
        "credential_event",
        sa.Column("id", sa.BigInteger(), primary_key=True),
        sa.Column("terminal", sa.String(), nullable=False),
        sa.Column("at", instant, nullable=False),
        sa.Column("what", sa.String(), nullable=False),
        sa.Column("detail", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
    )
    op.create_index("credential_event_terminal", "credential_event", ["terminal", "at"])
