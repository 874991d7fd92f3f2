"""Tables of terminals' twins; terminals.py writes and reads them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index
from sqlmodel import Field, SQLModel

from models.tables.base import document, instant, maybe_instant, small


class PresenceRow(SQLModel, table=True):
    """The last known state of each terminal, for pages; the truth of a turn is the entity's state.

    `known` is false when the broker lost its memory and the terminal did not answer since.
    """

    __tablename__ = "presence"
    __table_args__ = (Index("presence_store", "store"),)
    terminal: str = Field(primary_key=True)
    store: str
    online: bool
    known: bool = True
    software: str = ""
    boot: str = ""
    gen: int = 0
    applied_gen: int | None = None
    config_hash: str = ""
    sync: str = "unknown"
    behind_since: datetime | None = maybe_instant()
    skew_ms: int | None = Field(default=None, sa_type=BigInteger, nullable=True)
    skew_alarm: bool = False
    takeovers: int = 0
    takeover_at: datetime | None = maybe_instant()
    gaps: int = 0
    health: str = ""
    changed_at: datetime = instant()


class DesiredRow(SQLModel, table=True):
    """The newest desired document of each terminal, as it is published."""

    __tablename__ = "desired"
    terminal: str = Field(primary_key=True)
    gen: int
    config: str
    """Canonical JSON: `config_hash` is its SHA-256."""
    config_hash: str
    software: dict[str, object] | None = document(nullable=True)
    set_at: datetime = instant()


class CommandRow(SQLModel, table=True):
    """A command and what became of it. `late_status`: the answer that came after it had expired."""

    __tablename__ = "command"
    __table_args__ = (Index("command_terminal_asked", "terminal", "asked_at"), Index("command_asked", "asked_at"))
    id: str = Field(primary_key=True)
    terminal: str
    store: str
    verb: str
    args: dict[str, object] = document()
    asked_at: datetime = instant()
    deadline_at: datetime = instant()
    status: str
    detail: str = ""
    answered_at: datetime | None = maybe_instant()
    late_status: str | None = None


class TelemetryRow(SQLModel, table=True):
    """A ring of samples: minute of the hour, so that a terminal never has more than 60."""

    __tablename__ = "telemetry"
    terminal: str = Field(primary_key=True)
    minute: int = small(primary_key=True)
    at: datetime = instant()
    doc: dict[str, object] = document()
