"""Snapshots, dated owners, subsidies."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# One AFTER INSERT trigger per statement, over its transition table, says everything that a leg must be:
# * legs of a transaction are numbered 0, 1, 2 … within the statement that adds them. A second statement for the same
#   transaction would have to bring a leg 0 again, which the primary key refuses: no late legs, from any connection.
# * the transaction's row was written by the same database transaction (`xact`): this replaces the foreign key, whose
#   check runs once per row, and it lets a snapshot end at a database transaction.
# * accounts, entities and dates have their form (no {1,64} in the patterns: bounded repetition takes PostgreSQL a
#   second to compile). Patterns are dear and a chunk of legs has few names: OFFSET 0 keeps the planner from asking
#   for the pattern of each leg before it makes them distinct.
# Hash and merge joins are off inside: the plan is kept for the session, and must not read a ledger that grew.
GUARD_ENTRIES = """
    CREATE OR REPLACE FUNCTION ledger_entries_balance() RETURNS trigger LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
    DECLARE
        wrong record;
        own bigint := pg_current_xact_id()::text::bigint;
    BEGIN
        SELECT txn, entity, book, sum(amount_fen) AS fen INTO wrong
        FROM added GROUP BY txn, entity, book HAVING sum(amount_fen) <> 0 LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'transaction % leaves % fen in the % book of %',
                wrong.txn, wrong.fen, wrong.book, wrong.entity
                USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_entries_balance';
        END IF;
        SELECT a.txn, t.xact IS NULL AS absent, t.xact <> own AS late INTO wrong
        FROM (SELECT txn, count(*) AS legs, min(leg) AS first_leg, max(leg) AS last_leg FROM added GROUP BY txn) AS a
        LEFT JOIN txn t ON t.id = a.txn
        WHERE t.xact IS DISTINCT FROM own OR a.first_leg <> 0 OR a.last_leg <> a.legs - 1 LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'legs of transaction %: %', wrong.txn,
                CASE WHEN wrong.absent THEN 'there is no such transaction'
                     WHEN wrong.late THEN 'it was booked before, legs are never added later'
                     ELSE 'they are not numbered 0, 1, 2 and so on in one statement' END
                USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_legs_whole';
        END IF;
        SELECT account, entity, business_date INTO wrong
        FROM (SELECT DISTINCT account, entity, business_date FROM added OFFSET 0) AS names
        WHERE account !~ '^[a-z][a-z0-9_]*(:[A-Za-z0-9._-]+)?(:[A-Za-z0-9._-]+)?$' OR length(account) > 160
           OR entity !~ '^[A-Za-z0-9._-]+$' OR length(entity) > 64
           OR business_date !~ '^[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]$'
           OR NOT pg_input_is_valid(business_date, 'date') LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'no account, legal entity or business date looks like %, %, %',
                wrong.account, wrong.entity, wrong.business_date
                USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_names_formed';
        END IF;
        RETURN NULL;
    END $$
"""

GUARD_ALWAYS = (
    "ALTER TABLE entry ENABLE ALWAYS TRIGGER entry_balances",
    "ALTER TABLE entry ENABLE ALWAYS TRIGGER entry_append_only",
    "ALTER TABLE txn ENABLE ALWAYS TRIGGER txn_append_only",
)


def upgrade() -> None:
    """Forward only. What was booked before counts as booked by this migration's database transaction."""
    op.add_column(
        "txn",
        sa.Column(
            "xact", sa.BigInteger(), nullable=False, server_default=sa.text("pg_current_xact_id()::text::bigint")
        ),
    )
    op.create_index("txn_xact", "txn", ["xact"], unique=False)
    op.create_check_constraint(
        "txn_formed",
        "txn",
        "length(request_number) BETWEEN 1 AND 200 AND length(kind) BETWEEN 1 AND 40 AND length(memo) <= 400",
    )
    op.drop_constraint("entry_txn_fkey", "entry", type_="foreignkey")
    op.create_check_constraint(
        "entry_bounded",
        "entry",
        "amount_fen <> 0 AND amount_fen BETWEEN -1000000000000 AND 1000000000000 AND book IN ('posted', 'pending')",
    )
    op.execute(GUARD_ENTRIES)
    for statement in GUARD_ALWAYS:
        op.execute(statement)
    op.create_table(
        "ledger_day",
        sa.Column("entity", sa.String(), nullable=False),
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("book", sa.String(), nullable=False),
        sa.Column("business_date", sa.String(10), nullable=False),
        sa.Column("fen", sa.BigInteger(), nullable=False),
        sa.Column("legs", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("entity", "account", "book", "business_date"),
    )
    op.create_table(
        "ledger_snapshot",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("cluster", sa.BigInteger(), nullable=False),
        sa.Column("below_xact", sa.BigInteger(), nullable=False),
        sa.Column("transactions", sa.BigInteger(), nullable=False),
        sa.Column("legs", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.Numeric(), nullable=False),
        sa.Column("taken_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.CheckConstraint("id = 1", name="ledger_snapshot_one_row"),
    )
