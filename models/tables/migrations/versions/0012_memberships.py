"""What the system keeps of a membership's life: its task, whether it renews, and what was asked to be done with it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward only."""
    op.add_column("membership", sa.Column("task_target", sa.BigInteger(), nullable=True))
    op.add_column("membership", sa.Column("task_done", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("membership", sa.Column("renews", sa.Boolean(), nullable=False, server_default="false"))
    op.add_column("membership", sa.Column("first_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("membership", sa.Column("cycle", sa.Integer(), nullable=False, server_default="1"))
    op.create_index(
        "membership_renewal", "membership", ["chain", "region", "state"], postgresql_where=sa.text("renews")
    )
    op.create_index(
        "membership_renews", "membership", ["chain", "region", "expires_at"], postgresql_where=sa.text("renews")
    )
    op.create_table(
        "membership_request",
        sa.Column("number", sa.String(), nullable=False),
        sa.Column("membership", sa.String(), nullable=False),
        sa.Column("chain", sa.String(), nullable=False),
        sa.Column("region", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("action", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("hold_order", sa.String(), nullable=False),
        sa.Column("hold_no", sa.String(), nullable=False),
        sa.Column("hold_fen", sa.BigInteger(), nullable=False),
        sa.Column("code_text", sa.String(), nullable=False),
        sa.Column("release_order", sa.String(), nullable=False),
        sa.Column("release_no", sa.String(), nullable=False),
        sa.Column("release_fen", sa.BigInteger(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["membership"], ["membership.id"]),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_index("membership_request_membership", "membership_request", ["membership"])
    op.create_index(
        "membership_request_open",
        "membership_request",
        ["chain", "region", "state_until"],
        postgresql_where=sa.text("state IN ('pending', 'releasing')"),
    )
    _credits()


def _credits() -> None:
    op.create_table(
        "credit_agreement",
        sa.Column("membership", sa.String(), nullable=False),
        sa.Column("number", sa.String(), nullable=False),
        sa.Column("code_text", sa.String(), nullable=False),
        sa.Column("agreement_no", sa.String(), nullable=False),
        sa.Column("payer", sa.String(), nullable=False),
        sa.Column("settlement_no", sa.String(), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["membership"], ["membership.id"]),
        sa.PrimaryKeyConstraint("membership"),
    )
    op.create_index("credit_agreement_number", "credit_agreement", ["number"], unique=True)
    op.create_table(
        "credit_use",
        sa.Column("n", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("number", sa.String(), nullable=False),
        sa.Column("membership", sa.String(), nullable=False),
        sa.Column("chain", sa.String(), nullable=False),
        sa.Column("region", sa.String(), nullable=False),
        sa.Column("usage", sa.String(), nullable=False),
        sa.Column("reverses", sa.String(), nullable=False),
        sa.Column("discount_fen", sa.BigInteger(), nullable=False),
        sa.Column("paid_fen", sa.BigInteger(), nullable=False),
        sa.Column("tasks", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["membership"], ["membership.id"]),
        sa.PrimaryKeyConstraint("n"),
        sa.UniqueConstraint("number"),
    )
    op.create_index("credit_use_membership", "credit_use", ["membership"])
    op.create_index("credit_use_usage", "credit_use", ["usage"])
    op.create_index(
        "credit_use_open", "credit_use", ["chain", "region", "not_before"], postgresql_where=sa.text("state = 'open'")
    )
    op.create_index(
        "credit_use_failed", "credit_use", ["chain", "region"], postgresql_where=sa.text("state = 'failed'")
    )
