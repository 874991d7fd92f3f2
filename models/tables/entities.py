"""What a host commits once per batch: entity rows, inbox, outbox, timers, dead letters."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from models.tables.base import document, instant, maybe_instant, small


class EntityRow(SQLModel, table=True):
    """One entity's state. `version` rises by one per commit that changed it."""

    __tablename__ = "entity"
    region: str = Field(primary_key=True)
    store: str = Field(primary_key=True)
    kind: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    shard: int = small(index=True)
    state: dict[str, object] = document()
    version: int = Field(sa_type=BigInteger)
    changed_at: datetime = instant()


class InboxRow(SQLModel, table=True):
    """Each message once: dedupe is read before the turn, and a duplicate gets the same reply."""

    __tablename__ = "inbox"
    __table_args__ = (
        UniqueConstraint("terminal", "boot", "seq"),
        UniqueConstraint("terminal", "id"),
        Index("inbox_received", "received_at"),
    )
    n: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": True})
    terminal: str
    boot: str
    seq: int = Field(sa_type=BigInteger)
    id: str
    shard: int = small()
    type: str
    received_at: datetime = instant()
    reply: dict[str, object] | None = document(nullable=True)


class InboxMarkRow(SQLModel, table=True):
    """The inbox up to which messages of a boot were forgotten: anything at or below was processed."""

    __tablename__ = "inbox_mark"
    __table_args__ = (Index("inbox_mark_moved", "moved_at"),)
    terminal: str = Field(primary_key=True)
    boot: str = Field(primary_key=True)
    seq: int = Field(sa_type=BigInteger)
    moved_at: datetime = instant()


class OutboxRow(SQLModel, table=True):
    """An ask with an outside effect. Dispatched after the commit, swept when its lease runs out."""

    __tablename__ = "outbox"
    __table_args__ = (
        UniqueConstraint("idempotency_key"),
        Index("outbox_open", "shard", "not_before", postgresql_where=text("done_at IS NULL")),
        Index(
            "outbox_answered",
            "store",
            "created_at",
            postgresql_where=text("port = 'payments' AND done_at IS NOT NULL"),
        ),
    )
    id: str = Field(primary_key=True)
    region: str
    shard: int = small()
    store: str
    entity_kind: str
    entity_id: str
    port: str
    verb: str
    request: dict[str, object] = document()
    idempotency_key: str
    not_before: datetime = instant()
    attempts: int = 0
    lease_until: datetime | None = maybe_instant()
    lease_epoch: int | None = Field(default=None, sa_type=BigInteger, nullable=True)
    answer: dict[str, object] | None = document(nullable=True)
    created_at: datetime = instant()
    done_at: datetime | None = maybe_instant()


class TimerRow(SQLModel, table=True):
    """A wake that a turn asked for. Deleted in the commit of the turn that it caused."""

    __tablename__ = "timer"
    __table_args__ = (
        UniqueConstraint("region", "store", "entity_kind", "entity_id", "clock", "kind", "ref"),
        Index("timer_due", "clock", "due_at", "shard"),
        Index("timer_poll", "ref", postgresql_where=text("kind = 'poll'")),
    )
    n: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": True})
    region: str
    shard: int = small()
    store: str
    entity_kind: str
    entity_id: str
    clock: str
    kind: str
    ref: str
    due_at: datetime = instant()


class DeadLetterRow(SQLModel, table=True):
    """A message whose turn raised: kept with its error, never retried by itself. Ids are unique per terminal only."""

    __tablename__ = "dead_letter"
    terminal: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    region: str
    store: str
    entity_kind: str
    entity_id: str
    message: dict[str, object] = document()
    error: str
    at: datetime = instant()
