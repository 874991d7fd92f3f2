"""What every table shares: column kinds with one meaning each."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, DateTime, LargeBinary, SmallInteger
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field


def instant(**column: Any) -> Any:
    """A point in time, stored as timestamptz."""
    return Field(sa_type=DateTime(timezone=True), **column)


def maybe_instant(**column: Any) -> Any:
    """A point in time or null."""
    return Field(default=None, sa_type=DateTime(timezone=True), nullable=True, **column)


def fen_column(default: Any = ..., **column: Any) -> Any:
    """Integer fen in a BIGINT: money is never a float."""
    return Field(default=default, sa_type=BigInteger, **column)


def maybe_fen_column() -> Any:
    """Integer fen or null."""
    return Field(default=None, sa_type=BigInteger, nullable=True)


def small(**column: Any) -> Any:
    """A small integer (a shard, a leg)."""
    return Field(sa_type=SmallInteger, **column)


def document(nullable: bool = False) -> Any:
    """A JSON document."""
    return Field(sa_column=Column(JSONB, nullable=nullable))


def blob() -> Any:
    """Bytes."""
    return Field(sa_column=Column(LargeBinary, nullable=False))


Instant = datetime
