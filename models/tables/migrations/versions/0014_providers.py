"""Notifications of payment providers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward only."""
    op.create_table(
        "provider_notice",
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("number", sa.String(), nullable=False),
        sa.Column("request_no", sa.String(), nullable=False),
        sa.Column("provider_no", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("fen", sa.BigInteger(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("agreement", JSONB(), nullable=True),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("repeats", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("hastened", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.PrimaryKeyConstraint("provider", "id"),
    )
    op.create_index("provider_notice_number", "provider_notice", ["number"])
    op.create_index("provider_notice_received", "provider_notice", ["received_at"])
    # A poll is hastened by its order's number, which begins its reference.
    op.create_index("timer_poll", "timer", ["ref"], postgresql_where=sa.text("kind = 'poll'"))
    _balances()
    _agreements()


def _balances() -> None:
    op.create_table(
        "member_balance",
        sa.Column("member", sa.String(), nullable=False),
        sa.Column("chain", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("fen", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("member"),
        sa.CheckConstraint("fen >= 0", name="member_balance_not_negative"),
    )
    op.create_table(
        "balance_move",
        sa.Column("number", sa.String(), nullable=False),
        sa.Column("member", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("fen", sa.BigInteger(), nullable=False),
        sa.Column("left_fen", sa.BigInteger(), nullable=False),
        sa.Column("order", sa.String(), nullable=False),
        sa.Column("store", sa.String(), nullable=False),
        sa.Column("entity", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("number"),
        sa.CheckConstraint("fen >= 0 AND left_fen >= 0", name="balance_move_counts_up"),
    )
    op.create_index("balance_move_member", "balance_move", ["member", "at"])
    op.create_index("balance_move_order", "balance_move", ["order"], postgresql_where=sa.text("\"order\" <> ''"))


def _agreements() -> None:
    op.create_table(
        "member_agreement",
        sa.Column("number", sa.String(length=32), nullable=False),
        sa.Column("chain", sa.String(), nullable=False),
        sa.Column("member", sa.String(), nullable=False),
        sa.Column("entity", sa.String(), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("agreement_no", sa.String(), nullable=False),
        sa.Column("payer", sa.String(), nullable=False),
        sa.Column("payment_fen_max", sa.BigInteger(), nullable=False),
        sa.Column("day_fen_max", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("code_text", sa.String(), nullable=False),
        sa.Column("look_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("asked_by", sa.String(), nullable=False),
        sa.Column("signed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("number"),
        sa.CheckConstraint("payment_fen_max > 0 AND day_fen_max >= payment_fen_max", name="member_agreement_limits"),
    )
    op.create_index(
        "member_agreement_live",
        "member_agreement",
        ["member", "entity", "provider"],
        unique=True,
        postgresql_where=sa.text("state IN ('signing', 'active')"),
    )
    op.create_index(
        "member_agreement_signing", "member_agreement", ["look_at"], postgresql_where=sa.text("state = 'signing'")
    )
    op.create_table(
        "agreement_payment",
        sa.Column("order", sa.String(), nullable=False),
        sa.Column("agreement", sa.String(), nullable=False),
        sa.Column("fen", sa.BigInteger(), nullable=False),
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("freed", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.PrimaryKeyConstraint("order"),
    )
    op.create_index("agreement_payment_day", "agreement_payment", ["agreement", "day"])
