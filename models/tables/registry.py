"""Who exists: chains, regions, legal entities, stores, terminals, slots, and the business clock."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from models.tables.base import document, instant, maybe_instant, small


class LegalEntityRow(SQLModel, table=True):
    """A company that keeps its own books. `provider_app` is its merchant account with the payment provider."""

    __tablename__ = "legal_entity"
    id: str = Field(primary_key=True)
    chain: str
    name_zh: str
    name_en: str
    provider_app: str


class StoreRow(SQLModel, table=True):
    """A store. Its id is unique in a deployment; the shard follows from it (wire protocol, topics)."""

    __tablename__ = "store"
    id: str = Field(primary_key=True)
    chain: str
    region: str = Field(index=True)
    shard: int = small()
    name_zh: str
    name_en: str
    zone: str
    cutoff_hour: int = 0
    basket_owner: str = "storeops"
    opened_at: datetime = instant()
    labels: dict[str, str] = Field(
        default_factory=dict, sa_column=Column(JSONB, nullable=False, server_default=text("'{}'::jsonb"))
    )
    """What selectors of a rollout go by: city, district, format …"""


class StoreEntityRow(SQLModel, table=True):
    """Which legal entity a store belongs to, from a date on: stores change hands."""

    __tablename__ = "store_entity"
    store: str = Field(primary_key=True, foreign_key="store.id")
    from_date: str = Field(primary_key=True, max_length=10)
    entity: str = Field(foreign_key="legal_entity.id")


class TerminalRow(SQLModel, table=True):
    """A registered terminal: the lane that it stands in, its role there and its family."""

    __tablename__ = "terminal"
    id: str = Field(primary_key=True)
    store: str = Field(foreign_key="store.id", index=True)
    lane: str
    role: str
    profile: str
    delivered_profile: str = Field(default="", sa_column_kwargs={"server_default": ""})
    """What was registered, while the software makes it another family; "": `profile` is what was registered."""
    secret_sha256: str
    registered_at: datetime = instant()
    retired_at: datetime | None = maybe_instant()
    revoked_at: datetime | None = maybe_instant()
    """Its credentials count no more, and its hosts do not know it until it is enrolled again."""


class LivenessKeyRow(SQLModel, table=True):
    """A public Ed25519 key of a terminal's depth camera: it may sign the terminal's liveness scores until it ends."""

    __tablename__ = "liveness_key"
    __table_args__ = (
        Index("liveness_key_live", "public_key", unique=True, postgresql_where=text("ended_at IS NULL")),
        CheckConstraint("public_key ~ '^[0-9a-f]{64}$'", name="liveness_key_formed"),
    )
    terminal: str = Field(primary_key=True, foreign_key="terminal.id")
    fingerprint: str = Field(primary_key=True)
    public_key: str
    added_at: datetime = instant()
    added_by: str
    ended_at: datetime | None = maybe_instant()
    ended_by: str = Field(default="", sa_column_kwargs={"server_default": ""})


class LayoutRow(SQLModel, table=True):
    """One layout of a region's hosts; the current one has not ended. `dedicated`: stores in the order of their k."""

    __tablename__ = "layout"
    __table_args__ = (Index("layout_current", "region", unique=True, postgresql_where=text("ended_at IS NULL")),)
    region: str = Field(primary_key=True)
    layout: int = Field(primary_key=True)
    slots: int
    dedicated: list[str] = document()
    made_at: datetime = instant()
    ended_at: datetime | None = maybe_instant()


class DedicatedStoreRow(SQLModel, table=True):
    """A store that is to have a host of its own, from the next layout on."""

    __tablename__ = "dedicated_store"
    store: str = Field(primary_key=True, foreign_key="store.id")


class SlotRow(SQLModel, table=True):
    """A slot of a layout (layouts.py). `epoch` fences: claiming adds one. `restarts`: the holder before had not left
    in order. `drained`: nobody may claim it."""

    __tablename__ = "slot"
    region: str = Field(primary_key=True)
    layout: int = Field(primary_key=True)
    k: int = Field(primary_key=True)
    epoch: int = Field(default=0, sa_type=BigInteger)
    claimed_at: datetime | None = maybe_instant()
    holder: str = ""
    drained: bool = False
    restarts: int = Field(default=0, sa_type=BigInteger)


class ClockRow(SQLModel, table=True):
    """The business clock: wall time plus an offset, one row. `movable` is false in production."""

    __tablename__ = "business_clock"
    id: int = Field(primary_key=True)
    offset_us: int = Field(default=0, sa_type=BigInteger)
    movable: bool = False


class BookRow(SQLModel, table=True):
    """Prices, plans and policy of a chain, immutable by version; sessions pin the version they opened with."""

    __tablename__ = "book"
    chain: str = Field(primary_key=True)
    version: int = Field(primary_key=True)
    doc: dict[str, object] = document()
    created_at: datetime = instant()
    candidate: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})
    """In force only where a rollout pinned it. The chain's book is the highest version that is none."""


class StoreBookRow(SQLModel, table=True):
    """What rollouts made of a whole store; a store that none ever reached has no row.

    `version`: the pinned version of its chain's book, null: it follows the chain. `gen` rises with each order of a
    rollout to the store, and stands in its terminals' documents: so they prove that the host has read it.
    """

    __tablename__ = "store_book"
    __table_args__ = (CheckConstraint("gen >= 0 AND coalesce(version, 1) > 0", name="store_book_formed"),)
    store: str = Field(primary_key=True, foreign_key="store.id")
    version: int | None = None
    gen: int
    changed_at: datetime = instant()


class LoginRow(SQLModel, table=True):
    """One-time login links and console sessions, by SHA-256 of the secret: the secret itself is never stored."""

    __tablename__ = "login"
    __table_args__ = (UniqueConstraint("secret_sha256"),)
    id: str = Field(primary_key=True)
    kind: str
    secret_sha256: str
    expires_at: datetime = instant()
    used_at: datetime | None = maybe_instant()
    person: str = Field(default="", sa_column_kwargs={"server_default": ""})
    """Who signs in by it; "": nobody in particular."""
