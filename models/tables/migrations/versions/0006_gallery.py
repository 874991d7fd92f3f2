"""The gallery's change feed, written by the database itself."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_TEMPLATES_CHANGED = """
CREATE FUNCTION gallery_templates_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO gallery_change (chain, member, template, kind) SELECT chain, member, id, 'upsert' FROM came;
    ELSE
        INSERT INTO gallery_change (chain, member, template, kind) SELECT chain, member, id, 'removal' FROM went;
    END IF;
    RETURN NULL;
END $$
"""
_MEMBER_MOVED = """
CREATE FUNCTION gallery_member_moved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO gallery_change (chain, member, template, kind)
    SELECT chain, member, id, 'upsert' FROM face_template WHERE member = NEW.id;
    RETURN NULL;
END $$
"""
TRIGGERS = (
    _TEMPLATES_CHANGED,
    """CREATE TRIGGER gallery_templates_came AFTER INSERT ON face_template REFERENCING NEW TABLE AS came
       FOR EACH STATEMENT EXECUTE FUNCTION gallery_templates_changed()""",
    """CREATE TRIGGER gallery_templates_went AFTER DELETE ON face_template REFERENCING OLD TABLE AS went
       FOR EACH STATEMENT EXECUTE FUNCTION gallery_templates_changed()""",
    _MEMBER_MOVED,
    """CREATE TRIGGER gallery_member_moved AFTER UPDATE OF phone_tail, home_store, region ON member FOR EACH ROW
       WHEN ((OLD.phone_tail, OLD.home_store, OLD.region) IS DISTINCT FROM
             (NEW.phone_tail, NEW.home_store, NEW.region)) EXECUTE FUNCTION gallery_member_moved()""",
)


def upgrade() -> None:
    """Forward only."""
    op.create_table(
        "gallery_change",
        sa.Column("n", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("chain", sa.String(), nullable=False),
        sa.Column("member", sa.String(), nullable=False),
        sa.Column("template", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("n"),
    )
    op.create_index("gallery_change_chain", "gallery_change", ["chain", "n"])
    op.execute(
        "INSERT INTO gallery_change (chain, member, template, kind)"
        " SELECT chain, member, id, 'upsert' FROM face_template ORDER BY n"
    )
    for statement in TRIGGERS:
        op.execute(statement)
