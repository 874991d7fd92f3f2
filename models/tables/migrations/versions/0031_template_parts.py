"""Templates in parts by their member, so that the part that held an erased one is written anew in a moment."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

PARTS = 16


def upgrade() -> None:
    """Forward only. Copies every template: about a minute for a million."""
    triggers = (
        op.get_bind()
        .exec_driver_sql(
            "SELECT pg_get_triggerdef(oid) FROM pg_trigger"
            " WHERE tgrelid = 'face_template'::regclass AND NOT tgisinternal ORDER BY tgname"
        )
        .scalars()
        .all()
    )
    op.execute("ALTER TABLE face_template RENAME TO face_template_whole")
    op.execute("CREATE SEQUENCE face_template_order")
    op.create_table(
        "face_template",
        sa.Column("n", sa.BigInteger(), server_default=sa.text("nextval('face_template_order')"), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("member", sa.String(), nullable=False),
        sa.Column("chain", sa.String(), nullable=False),
        sa.Column("store", sa.String(), nullable=False),
        sa.Column("net_sha256", sa.String(), nullable=False),
        sa.Column("policy", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), server_default="enrolment", nullable=False),
        sa.Column("consent", sa.String(), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("member", "id", name="face_template_parts_pkey"),
        postgresql_partition_by="HASH (member)",
    )
    op.execute("ALTER SEQUENCE face_template_order OWNED BY face_template.n")
    for part in range(PARTS):
        op.execute(
            f"CREATE TABLE face_template_{part} PARTITION OF face_template"
            f" FOR VALUES WITH (MODULUS {PARTS}, REMAINDER {part})"
        )
    columns = "n, id, member, chain, store, net_sha256, policy, kind, consent, ciphertext, key_id, at"
    # Before the triggers are there: nothing came or went.
    op.execute(f"INSERT INTO face_template ({columns}) SELECT {columns} FROM face_template_whole")
    op.execute("SELECT setval('face_template_order', max(n)) FROM face_template HAVING count(*) > 0")
    op.drop_table("face_template_whole")
    op.execute("ALTER TABLE face_template RENAME CONSTRAINT face_template_parts_pkey TO face_template_pkey")
    op.create_index("face_template_net", "face_template", ["chain", "net_sha256"])
    # As in 0007: what ANALYZE remembers of a column are values of it.
    op.execute("ALTER TABLE face_template ALTER COLUMN ciphertext SET STATISTICS 0")
    for trigger in triggers:
        op.execute(trigger)
