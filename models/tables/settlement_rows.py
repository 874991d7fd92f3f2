"""Runs of settlement as people follow them, and the switch that pauses a region."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index
from sqlmodel import Field, SQLModel

from models.tables.base import document, instant, maybe_instant


class SettlementRunRow(SQLModel, table=True):
    """One run of a chain's region: how far it is, and its control totals when it ended.

    `at` is the business time that it settles, `business_date` the day of that by the region's stores. The other
    instants are wall time. `state`: running, paused, done, failed (`problem` says why). `due`: memberships that were
    due when it began, for a progress bar.
    """

    __tablename__ = "settlement_run"
    __table_args__ = (Index("settlement_run_started", "chain", "region", "started_at"),)
    id: str = Field(primary_key=True)
    chain: str
    region: str
    at: datetime = instant()
    business_date: str = Field(max_length=10)
    started_by: str
    dry: bool = False
    state: str = "running"
    step: str = ""
    due: int = Field(default=0, sa_type=BigInteger)
    expired: int = Field(default=0, sa_type=BigInteger)
    cut_off: int = Field(default=0, sa_type=BigInteger)
    woken: int = Field(default=0, sa_type=BigInteger)
    booked: int = Field(default=0, sa_type=BigInteger)
    reserved: int = Field(default=0, sa_type=BigInteger)
    open_calls: bool = False
    totals: dict[str, object] | None = document(nullable=True)
    problem: str = ""
    started_at: datetime = instant()
    seen_at: datetime = instant()
    ended_at: datetime | None = maybe_instant()


class SettlementSwitchRow(SQLModel, table=True):
    """Whether a region's settlement is paused, since when (wall time), by whom and why. No row: it is not."""

    __tablename__ = "settlement_switch"
    chain: str = Field(primary_key=True)
    region: str = Field(primary_key=True)
    paused: bool = False
    by: str = ""
    why: str = ""
    at: datetime = instant()
