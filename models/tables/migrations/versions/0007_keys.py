"""Keys of members apart from what they seal, and their wrapping epochs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

PARTS = 8


def upgrade() -> None:
    """Forward only."""
    op.create_table(
        "face_key",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("member", sa.String(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        postgresql_partition_by="HASH (id)",
    )
    # In parts, so that the part which held an erased key is written anew in a moment, whatever all of them hold.
    for part in range(PARTS):
        op.execute(
            f"CREATE TABLE face_key_{part} PARTITION OF face_key FOR VALUES WITH (MODULUS {PARTS}, REMAINDER {part})"
        )
    op.create_index("face_key_member", "face_key", ["member"])
    # A key so far was bound to its template's id, and wrapped by the one master key there was: epoch 1.
    op.execute(
        "INSERT INTO face_key (id, member, epoch, wrapped, made_at)"
        " SELECT id, member, 1, wrapped_key, at FROM face_template"
    )
    op.add_column("face_template", sa.Column("key_id", sa.String(), nullable=True))
    op.execute("UPDATE face_template SET key_id = id")
    op.alter_column("face_template", "key_id", nullable=False)
    op.drop_column("face_template", "wrapped_key")
    # A dropped column stays in its rows until they are written again: this writes the table anew, without it.
    op.execute("ALTER TABLE face_template ALTER COLUMN ciphertext TYPE bytea USING ciphertext || ''::bytea")
    # What ANALYZE remembers of a column are values of it: of these nothing is to be kept elsewhere.
    op.execute("ALTER TABLE face_template ALTER COLUMN ciphertext SET STATISTICS 0")
    op.execute("ALTER TABLE face_key ALTER COLUMN wrapped SET STATISTICS 0")
