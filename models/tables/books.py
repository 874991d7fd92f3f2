"""The ledger: append-only double entry, each transaction summing to zero per legal entity and book."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, Numeric, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from models.tables.base import fen_column, instant, small


class TransactionRow(SQLModel, table=True):
    """id = uuid5(request number, kind): the same request cannot be booked twice."""

    __tablename__ = "txn"
    __table_args__ = (
        UniqueConstraint("request_number", "kind"),
        Index("txn_xact", "xact"),
        CheckConstraint(
            "length(request_number) BETWEEN 1 AND 200 AND length(kind) BETWEEN 1 AND 40 AND length(memo) <= 400",
            name="txn_formed",
        ),
    )
    id: str = Field(primary_key=True)
    kind: str
    request_number: str
    memo: str = ""
    refers_to: str | None = None
    trace: str = ""
    booked_at: datetime = instant()
    xact: int | None = Field(
        default=None,
        sa_column=Column(BigInteger, nullable=False, server_default=text("pg_current_xact_id()::text::bigint")),
    )
    """The database transaction that wrote it, filled in by the database: where a snapshot ends."""


class EntryRow(SQLModel, table=True):
    """One leg. Debit positive, credit negative. `book` is posted, or pending (holds and memo accounts).

    That its transaction exists is the business of the trigger that checks all legs of a statement (migration 0013).
    """

    __tablename__ = "entry"
    __table_args__ = (
        Index("entry_account", "entity", "account", "business_date"),
        CheckConstraint(
            "amount_fen <> 0 AND amount_fen BETWEEN -1000000000000 AND 1000000000000 AND book IN ('posted', 'pending')",
            name="entry_bounded",
        ),
    )
    txn: str = Field(primary_key=True)
    leg: int = small(primary_key=True)
    entity: str
    account: str
    amount_fen: int = fen_column()
    business_date: str = Field(max_length=10)
    book: str = "posted"


class LedgerDayRow(SQLModel, table=True):
    """What one account moved on one business date, summed up to the snapshot's watermark."""

    __tablename__ = "ledger_day"
    entity: str = Field(primary_key=True)
    account: str = Field(primary_key=True)
    book: str = Field(primary_key=True)
    business_date: str = Field(primary_key=True, max_length=10)
    fen: int = fen_column()
    legs: int = fen_column()


class LedgerSnapshotRow(SQLModel, table=True):
    """The watermark: `ledger_day` holds every leg of transactions with xact < below_xact, and no other.

    `cluster` is the server's own identifier. In another one, after a restore from a dump, numbers of database
    transactions begin anew: then the snapshot counts for nothing and is taken again.
    """

    __tablename__ = "ledger_snapshot"
    __table_args__ = (CheckConstraint("id = 1", name="ledger_snapshot_one_row"),)
    id: int = Field(primary_key=True)
    cluster: int = fen_column()
    below_xact: int = fen_column()
    transactions: int = fen_column()
    legs: int = fen_column()
    digest: Decimal = Field(sa_type=Numeric)
    """Sum over these legs of the first 60 bits of sha256 of everything that was booked with each."""
    taken_at: datetime = instant()
