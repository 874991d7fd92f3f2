"""Drawers, shifts, returns across stores."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

CASH_SO_FAR = """
INSERT INTO drawer_cash (txn, store, drawer, fen, at)
SELECT t.id, split_part(e.account, ':', 2), substr(e.account, length('till:' || split_part(e.account, ':', 2)) + 2),
       sum(e.amount_fen), min(t.booked_at)
FROM entry e JOIN txn t ON t.id = e.txn WHERE starts_with(e.account, 'till:') GROUP BY 1, 2, 3
"""
"""What lies in drawers already belongs to their first count."""


def upgrade() -> None:
    """Forward only."""
    op.create_table(
        "sale_claim",
        sa.Column("sale", sa.String(), primary_key=True),
        sa.Column("store", sa.String(), nullable=False),
        sa.Column("lane", sa.String(), nullable=False),
        sa.Column("question", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )
    _shifts()
    op.create_table(
        "drawer_move",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("shift", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("fen", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("fen > 0 AND kind IN ('paid-in', 'paid-out', 'drop')", name="drawer_move_formed"),
    )
    op.create_index("drawer_move_shift", "drawer_move", ["shift"])
    op.create_table(
        "drawer_cash",
        sa.Column("txn", sa.String(), nullable=False),
        sa.Column("store", sa.String(), nullable=False),
        sa.Column("drawer", sa.String(), nullable=False),
        sa.Column("fen", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("shift", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("txn", "store", "drawer"),
    )
    op.create_index(
        "drawer_cash_uncounted", "drawer_cash", ["store", "drawer"], postgresql_where=sa.text("shift IS NULL")
    )
    op.create_index("drawer_cash_shift", "drawer_cash", ["shift"])
    op.create_table(
        "drawer_request",
        sa.Column("number", sa.String(), primary_key=True),
        sa.Column("what", sa.String(), nullable=False),
        sa.Column("shift", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )
    op.execute(CASH_SO_FAR)


def _shifts() -> None:
    op.create_table(
        "drawer_shift",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("store", sa.String(), nullable=False),
        sa.Column("drawer", sa.String(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("entity", sa.String(), nullable=False),
        sa.Column("business_date", sa.String(10), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("float_fen", sa.BigInteger(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("opened_by", sa.String(), nullable=False),
        sa.Column("counted_fen", sa.BigInteger(), nullable=True),
        sa.Column("expected_fen", sa.BigInteger(), nullable=True),
        sa.Column("counted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("counted_by", sa.String(), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_by", sa.String(), nullable=False),
        sa.Column("next_shift", sa.String(), nullable=False),
        sa.UniqueConstraint("store", "drawer", "n"),
        sa.CheckConstraint(
            "state IN ('open', 'counted', 'ended') AND float_fen >= 0 AND (counted_fen IS NULL) = (state = 'open')",
            name="drawer_shift_formed",
        ),
    )
    op.create_index(
        "drawer_shift_current",
        "drawer_shift",
        ["store", "drawer"],
        unique=True,
        postgresql_where=sa.text("state IN ('open', 'counted')"),
    )
    op.create_index("drawer_shift_date", "drawer_shift", ["store", "business_date"])
