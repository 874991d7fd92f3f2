"""The ledger: append-only double entry, each transaction summing to zero per legal entity and book."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, UniqueConstraint
from sqlmodel import Field, SQLModel

from models.tables.base import fen_column, instant, small


class TransactionRow(SQLModel, table=True):
    """id = uuid5(request number, kind): the same request cannot be booked twice."""

    __tablename__ = "txn"
    __table_args__ = (UniqueConstraint("request_number", "kind"),)
    id: str = Field(primary_key=True)
    kind: str
    request_number: str
    memo: str = ""
    refers_to: str | None = None
    trace: str = ""
    booked_at: datetime = instant()


class EntryRow(SQLModel, table=True):
    """One leg. Debit positive, credit negative. `book` is posted, or pending (holds and memo accounts)."""

    __tablename__ = "entry"
    __table_args__ = (Index("entry_account", "entity", "account", "business_date"),)
    txn: str = Field(primary_key=True, foreign_key="txn.id")
    leg: int = small(primary_key=True)
    entity: str
    account: str
    amount_fen: int = fen_column()
    business_date: str = Field(max_length=10)
    book: str = "posted"
