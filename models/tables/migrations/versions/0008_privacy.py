"""Consents, erasure, retention, and the audit of what was done."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

GUARDS = (
    """
    CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'the audit is append-only: % of % refused', TG_OP, TG_TABLE_NAME
            USING ERRCODE = 'check_violation', CONSTRAINT = 'audit_is_append_only';
    END $$
    """,
    """
    CREATE TRIGGER audit_event_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_event
    FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only()
    """,
    """
    CREATE FUNCTION audit_event_follows() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        head record;
    BEGIN
        SELECT n, sha256 INTO head FROM audit_event ORDER BY n DESC LIMIT 1;
        IF NEW.n <> coalesce(head.n, 0) + 1 OR NEW.prev_sha256 <> coalesce(head.sha256, repeat('0', 64)) THEN
            RAISE EXCEPTION 'audit event % does not follow event %', NEW.n, coalesce(head.n, 0)
                USING ERRCODE = 'check_violation', CONSTRAINT = 'audit_event_follows';
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER audit_event_follows BEFORE INSERT ON audit_event
    FOR EACH ROW EXECUTE FUNCTION audit_event_follows()
    """,
)

# The last line of defence, whoever writes a template and however late its transaction comes: a template that was made
# just before its member withdrew, or of a child, is not stored. Nothing is raised: a host's whole batch hangs on it.
TEMPLATE_GUARD = (
    """
    CREATE FUNCTION face_template_is_permitted() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT 1 FROM member_age WHERE member = NEW.member AND guardian_consent = ''
                     AND (under_14 OR birth_year > extract(year FROM NEW.at) - 15))
           OR (EXISTS (SELECT 1 FROM member_consent WHERE member = NEW.member AND purpose = 'face_template')
               AND NOT EXISTS (SELECT 1 FROM member_consent WHERE member = NEW.member AND purpose = 'face_template'
                                 AND withdrawn_at IS NULL)) THEN
            RETURN NULL;
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER face_template_is_permitted BEFORE INSERT ON face_template
    FOR EACH ROW EXECUTE FUNCTION face_template_is_permitted()
    """,
)

# Templates that were made before standing consents had rows of their own.
STANDING = """
    INSERT INTO member_consent (id, member, chain, purpose, text, session, store, terminal, given_at, withdrawn_by)
    SELECT DISTINCT ON (member) consent || '/' || member, member, chain, 'face_template', '', '', store, '', at, ''
    FROM face_template ORDER BY member, n
"""


def upgrade() -> None:
    """Forward only."""
    instant = sa.DateTime(timezone=True)
    op.create_table(
        "audit_event",
        sa.Column("n", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", instant, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("detail", postgresql.JSONB(), nullable=False),
        sa.Column("prev_sha256", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("n"),
    )
    op.create_index("audit_event_subject", "audit_event", ["subject", "n"])
    op.create_index("audit_event_kind", "audit_event", ["kind", "n"])
    op.create_table(
        "member_consent",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("member", sa.String(), nullable=False),
        sa.Column("chain", sa.String(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("session", sa.String(), nullable=False),
        sa.Column("store", sa.String(), nullable=False),
        sa.Column("terminal", sa.String(), nullable=False),
        sa.Column("given_at", instant, nullable=False),
        sa.Column("withdrawn_at", instant, nullable=True),
        sa.Column("withdrawn_by", sa.String(), nullable=False),
    )
    op.create_index("member_consent_member", "member_consent", ["member"])
    op.create_index(
        "member_consent_live",
        "member_consent",
        ["member", "purpose"],
        unique=True,
        postgresql_where=sa.text("withdrawn_at IS NULL"),
    )
    op.create_table(
        "member_age",
        sa.Column("member", sa.String(), primary_key=True),
        sa.Column("birth_year", sa.Integer(), nullable=True),
        sa.Column("under_14", sa.Boolean(), nullable=False),
        sa.Column("guardian_consent", sa.String(), nullable=False),
        sa.Column("marked_by", sa.String(), nullable=False),
        sa.Column("marked_at", instant, nullable=False),
    )
    op.create_table(
        "privacy_request",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("chain", sa.String(), nullable=False),
        sa.Column("member", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("via", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("asked_by", sa.String(), nullable=False),
        sa.Column("asked_at", instant, nullable=False),
        sa.Column("approved_by", sa.String(), nullable=False),
        sa.Column("approved_at", instant, nullable=True),
        sa.Column("done_at", instant, nullable=True),
        sa.Column("result", postgresql.JSONB(), nullable=True),
    )
    op.create_index("privacy_request_state", "privacy_request", ["state", "asked_at"])
    op.create_index("privacy_request_member", "privacy_request", ["member"])
    op.create_index(
        "privacy_request_open",
        "privacy_request",
        ["member", "kind"],
        unique=True,
        postgresql_where=sa.text("state IN ('open', 'approved')"),
    )
    op.create_index("consent_member", "consent", ["member", "at"])
    op.create_index("consent_session", "consent", ["session"])
    op.create_index("face_decision_member", "face_decision", ["member", "at"])
    op.create_table(
        "face_decision_day",
        sa.Column("store", sa.String(), primary_key=True),
        sa.Column("day", sa.String(10), primary_key=True),
        sa.Column("outcome", sa.String(), primary_key=True),
        sa.Column("reason", sa.String(), primary_key=True),
        sa.Column("decisions", sa.BigInteger(), nullable=False),
    )
    for statement in (STANDING, *GUARDS, *TEMPLATE_GUARD):
        op.execute(statement)
