"""Vouchers: quotas and uses, and what of a sale or a return was theirs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward only."""
    op.create_table(
        "voucher",
        sa.Column("chain", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("quota", sa.BigInteger(), nullable=True),
        sa.Column("member_quota", sa.BigInteger(), nullable=True),
        sa.Column("taken", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("chain", "id"),
        sa.CheckConstraint("taken >= 0", name="voucher_not_below_none"),
    )
    op.create_table(
        "voucher_use",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("chain", sa.String(), nullable=False),
        sa.Column("voucher", sa.String(), nullable=False),
        sa.Column("member", sa.String(), nullable=True),
        sa.Column("session", sa.String(), nullable=False),
        sa.Column("store", sa.String(), nullable=False),
        sa.Column("sale", sa.String(), nullable=False),
        sa.Column("terminal", sa.String(), nullable=False),
        sa.Column("fen", sa.BigInteger(), nullable=False),
        sa.Column("returned_fen", sa.BigInteger(), nullable=False),
        sa.Column("funder", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("over", sa.Boolean(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["chain", "voucher"], ["voucher.chain", "voucher.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.CheckConstraint("returned_fen >= 0 AND returned_fen <= fen", name="voucher_returns_no_more"),
    )
    op.create_index("voucher_use_member", "voucher_use", ["chain", "voucher", "member", "state"], unique=False)
    op.create_table(
        "voucher_return",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("use", sa.String(), nullable=False),
        sa.Column("fen", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_voucher_return_use", "voucher_return", ["use"], unique=False)
    for table in ("sale", "sale_return"):
        op.add_column(
            table, sa.Column("vouchers", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False)
        )
