"""Providers' statements as they came, what differed from our books, and which days are closed."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from models.tables.base import fen_column, instant, maybe_fen_column, maybe_instant, small


class StatementFileRow(SQLModel, table=True):
    """One statement: a provider, a merchant account (legal entity), a day of the provider. Totals are receipts."""

    __tablename__ = "statement_file"
    __table_args__ = (UniqueConstraint("provider", "account", "day"),)
    n: int | None = Field(default=None, primary_key=True)
    provider: str
    account: str
    day: str = Field(max_length=10)
    payments: int
    refunds: int
    payments_fen: int = fen_column()
    refunds_fen: int = fen_column()
    fee_fen: int = fen_column()
    fetched_at: datetime = instant()


class StatementLineRow(SQLModel, table=True):
    """One line, never changed. `occurrence` counts lines of the same numbers within the file, from 1."""

    __tablename__ = "statement_line"
    file: int = Field(primary_key=True)
    n: int = Field(primary_key=True)
    kind: str
    order_no: str
    request_no: str
    trade_no: str
    gross_fen: int = fen_column()
    receipt_fen: int = fen_column()
    fee_fen: int = fen_column()
    at: datetime = instant()
    occurrence: int = small(sa_column_kwargs={"server_default": "1"})


class ReconciliationDayRow(SQLModel, table=True):
    """The last run over one account and day. `difference_fen` = statement's net - change of the clearing account.

    `statement_fen` is null as long as there is no statement. `fee_fen` is what was booked as the provider's fee.
    """

    __tablename__ = "reconciliation_day"
    provider: str = Field(primary_key=True)
    account: str = Field(primary_key=True)
    day: str = Field(primary_key=True, max_length=10)
    statement_lines: int
    matched: int
    statement_fen: int | None = maybe_fen_column()
    ledger_fen: int = fen_column()
    fee_fen: int = fen_column()
    difference_fen: int = fen_column()
    runs: int
    run_at: datetime = instant()


class ReconciliationLineRow(SQLModel, table=True):
    """A line that is not simply matched. `state`: open, posted (moved to `posted_to`), explained.

    difference = provider_fen - ours_fen. While `posted_to` is empty it stands in the clearing account.
    """

    __tablename__ = "reconciliation_line"
    __table_args__ = (
        Index("reconciliation_line_day", "account", "provider", "day"),
        Index("reconciliation_line_order", "order_no"),
        Index("reconciliation_line_open", "account", "day", postgresql_where=text("state = 'open'")),
    )
    id: str = Field(primary_key=True)
    provider: str
    account: str
    day: str = Field(max_length=10)
    verdict: str
    kind: str
    order_no: str
    request_no: str
    occurrence: int = small()
    trade_no: str
    txn: str
    store: str
    provider_fen: int = fen_column()
    ours_fen: int = fen_column()
    hold_fen: int = fen_column()
    pair_day: str | None = Field(default=None, max_length=10)
    state: str
    posted_to: str
    reason: str
    by: str
    found_at: datetime = instant()
    decided_at: datetime | None = maybe_instant()


class BusinessDayRow(SQLModel, table=True):
    """A business day of a legal entity that was closed, or opened again. `state`: closing, closed, open."""

    __tablename__ = "business_day"
    entity: str = Field(primary_key=True)
    day: str = Field(primary_key=True, max_length=10)
    state: str
    changed_at: datetime = instant()
    by: str
    reason: str


class ClosedThroughRow(SQLModel, table=True):
    """The last closed day of an entity: what would be booked on it or before goes to the day after it."""

    __tablename__ = "closed_through"
    entity: str = Field(primary_key=True)
    day: str = Field(max_length=10)
    next_day: str = Field(max_length=10)
