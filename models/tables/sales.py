"""What happened at the counter: sales with their lines and tenders, voids, consents, incidents, face decisions."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Column, Index, UniqueConstraint, text
from sqlalchemy import true as sa_true
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from models.tables.base import blob, document, fen_column, instant, maybe_instant


class SaleRow(SQLModel, table=True):
    """A paid basket. Lines, tenders and uses are frozen in the documents; money columns are for sums."""

    __tablename__ = "sale"
    __table_args__ = (
        UniqueConstraint("store", "receipt"),
        Index("sale_store_date", "store", "business_date"),
        Index("sale_member", "member"),
    )
    id: str = Field(primary_key=True)
    receipt: str
    session: str
    store: str
    lane: str
    terminal: str
    clerk: str | None = None
    entity: str
    business_date: str = Field(max_length=10)
    at: datetime = instant()
    member: str | None = None
    membership: str | None = None
    gross_fen: int = fen_column()
    discount_fen: int = fen_column()
    due_fen: int = fen_column()
    rounding_fen: int = fen_column()
    suspense_fen: int = fen_column()
    agency_fen: int = fen_column()
    lines: list[dict[str, object]] = document()
    tenders: list[dict[str, object]] = document()
    uses: list[dict[str, object]] = document()
    vouchers: list[dict[str, object]] = Field(sa_column=Column(JSONB, nullable=False, server_default="[]"))
    till_txn: str = ""
    voided_at: datetime | None = maybe_instant()
    received_at: datetime | None = maybe_instant()
    chained: bool = Field(default=True, sa_column_kwargs={"server_default": sa_true()})
    """It has a receipt in the store's chain; false: it was booked before there was one."""


class VoidRow(SQLModel, table=True):
    """A sale undone: unique per sale."""

    __tablename__ = "sale_void"
    __table_args__ = (UniqueConstraint("sale"),)
    id: str = Field(primary_key=True)
    sale: str = Field(foreign_key="sale.id")
    store: str
    terminal: str
    business_date: str = Field(max_length=10)
    at: datetime = instant()
    chained: bool = Field(default=True, sa_column_kwargs={"server_default": sa_true()})


class ReturnRow(SQLModel, table=True):
    """Goods of a sale brought back: the sale's n-th return, from 0. What went back is in `tenders`."""

    __tablename__ = "sale_return"
    __table_args__ = (UniqueConstraint("sale", "n"), Index("sale_return_store_date", "store", "business_date"))
    id: str = Field(primary_key=True)
    sale: str = Field(foreign_key="sale.id")
    n: int
    store: str
    lane: str
    terminal: str
    clerk: str | None = None
    entity: str
    business_date: str = Field(max_length=10)
    at: datetime = instant()
    due_fen: int = fen_column()
    discount_fen: int = fen_column()
    rounding_fen: int = fen_column()
    suspense_fen: int = fen_column()
    lines: list[dict[str, object]] = document()
    tenders: list[dict[str, object]] = document()
    uses: list[dict[str, object]] = document()
    vouchers: list[dict[str, object]] = Field(sa_column=Column(JSONB, nullable=False, server_default="[]"))
    reason: str = ""
    chained: bool = Field(default=True, sa_column_kwargs={"server_default": sa_true()})


class ConsentRow(SQLModel, table=True):
    """A consent given or refused, one purpose each."""

    __tablename__ = "consent"
    __table_args__ = (Index("consent_member", "member", "at"), Index("consent_session", "session"))
    id: str = Field(primary_key=True)
    session: str
    store: str
    terminal: str
    purpose: str
    text: str
    granted: bool
    at: datetime = instant()
    member: str | None = None


class IncidentRow(SQLModel, table=True):
    """A complaint, a refused face, a failed payment."""

    __tablename__ = "incident"
    __table_args__ = (Index("incident_store_at", "store", "at"),)
    id: str = Field(primary_key=True)
    store: str
    terminal: str
    kind: str
    at: datetime = instant()
    detail: str = ""


class FaceDecisionRow(SQLModel, table=True):
    """Why a face was accepted or not, all that was weighed. Scores are cosines in millionths; never a frame."""

    __tablename__ = "face_decision"
    __table_args__ = (
        Index("face_decision_store_at", "store", "at"),
        Index("face_decision_at", "at"),
        Index("face_decision_session", "session"),
        Index("face_decision_member", "member", "at"),
    )
    id: str = Field(primary_key=True)
    session: str
    store: str
    at: datetime = instant()
    outcome: str
    member: str | None = None
    templates_searched: int
    threshold_ppm: int
    best_ppm: int
    second_ppm: int
    net_sha256: str
    reason: str
    scope: str
    looks: int
    floor_ppm: int
    margin_ppm: int
    liveness: str
    partial: bool
    digits_given: bool
    digits_required: bool
    amount_limited: bool
    elsewhere: bool
    calibration: str
    device_score: str = Field(default="none", sa_column_kwargs={"server_default": "none"})


class TemplateTableRow(SQLModel, table=True):
    """A sealed face template. What happens to its rows is a change in the gallery's feed (models.tables.templates).

    Stored in parts by the hash of its member (migration 0031).
    """

    __tablename__ = "face_template"
    __table_args__ = (
        Index("face_template_net", "chain", "net_sha256"),
        {"postgresql_partition_by": "HASH (member)"},
    )
    member: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    n: int | None = Field(
        default=None,
        sa_column=Column(BigInteger, server_default=text("nextval('face_template_order')"), nullable=False),
    )
    chain: str
    store: str
    net_sha256: str
    policy: str
    kind: str = Field(default="enrolment", sa_column_kwargs={"server_default": "enrolment"})
    consent: str
    ciphertext: bytes = blob()
    key_id: str
    at: datetime = instant()
