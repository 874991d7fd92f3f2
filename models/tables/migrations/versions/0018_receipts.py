"""Points, receipts in a chain, articles in a table of their own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

RECEIPT_TRIGGERS = (
    """
    CREATE FUNCTION receipts_are_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'receipts are append-only' USING ERRCODE = 'integrity_constraint_violation';
    END $$
    """,
    """
    CREATE TRIGGER receipt_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON receipt
    FOR EACH STATEMENT EXECUTE FUNCTION receipts_are_append_only()
    """,
)

# What a book had of articles goes into their table: those that came or changed, and a null for each that went.
ITEMS_OUT_OF_BOOKS = (
    """
    WITH listed AS (
        SELECT b.chain, b.version, entry ->> 'code' AS code, entry - 'code' AS doc,
               (SELECT max(version) FROM book p WHERE p.chain = b.chain AND p.version < b.version) AS before
        FROM book b, LATERAL jsonb_array_elements(coalesce(b.doc -> 'items', '[]'::jsonb)) AS entry
    )
    INSERT INTO item (chain, code, version, doc)
    SELECT DISTINCT ON (l.chain, l.code, l.version) l.chain, l.code, l.version, l.doc FROM listed l
    LEFT JOIN listed p ON p.chain = l.chain AND p.code = l.code AND p.version = l.before
    WHERE p.doc IS DISTINCT FROM l.doc
    """,
    """
    INSERT INTO item (chain, code, version, doc)
    SELECT p.chain, p.code, b.version, NULL
    FROM book b
    JOIN LATERAL (SELECT max(version) AS version FROM book o WHERE o.chain = b.chain AND o.version < b.version) before
        ON before.version IS NOT NULL
    JOIN book was ON was.chain = b.chain AND was.version = before.version
    JOIN LATERAL (SELECT DISTINCT was.chain, entry ->> 'code' AS code
                  FROM jsonb_array_elements(coalesce(was.doc -> 'items', '[]'::jsonb)) AS entry) p ON true
    WHERE NOT EXISTS (SELECT 1 FROM jsonb_array_elements(coalesce(b.doc -> 'items', '[]'::jsonb)) AS entry
                      WHERE entry ->> 'code' = p.code)
    """,
    "UPDATE book SET doc = doc - 'items'",
)


def upgrade() -> None:
    """Forward only."""
    op.create_table(
        "item",
        sa.Column("chain", sa.String(), nullable=False),
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("doc", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.PrimaryKeyConstraint("chain", "code", "version"),
    )
    op.create_index("item_version", "item", ["chain", "version", "code"], unique=True)
    for statement in ITEMS_OUT_OF_BOOKS:
        op.execute(statement)
    op.create_table(
        "receipt",
        sa.Column("store", sa.String(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("store", "n"),
        sa.UniqueConstraint("id"),
    )
    for statement in RECEIPT_TRIGGERS:
        op.execute(statement)
    for table in ("sale", "sale_void", "sale_return"):
        # What was booked before has no receipt in the chain.
        op.add_column(table, sa.Column("chained", sa.Boolean(), server_default=sa.false(), nullable=False))
        op.alter_column(table, "chained", server_default=sa.true())
    op.create_table(
        "points_move",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("brand", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("member", sa.String(), nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False),
        sa.Column("sale", sa.String(), nullable=False),
        sa.Column("store", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lines", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.CheckConstraint("points >= 0", name="points_count_up"),
    )
    op.create_index("points_move_member", "points_move", ["member", "brand"], unique=False)
    op.create_index("points_move_sale", "points_move", ["sale"], unique=False)
    op.create_index("points_move_expires", "points_move", ["expires_at"], unique=False)
