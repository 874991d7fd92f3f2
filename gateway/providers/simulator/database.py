"""The simulator's own durable database: one SQLite file in WAL mode, written by one connection on one thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

FILE_NAME = "provider.sqlite3"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS app (
  app_id TEXT PRIMARY KEY, seller_id TEXT NOT NULL, name TEXT NOT NULL,
  merchant_public_pem TEXT NOT NULL, provider_private_pem TEXT NOT NULL, created_at TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS user (
  user_id TEXT PRIMARY KEY, balance_fen INTEGER NOT NULL CHECK (balance_fen >= 0),
  huabei_limit_fen INTEGER NOT NULL CHECK (huabei_limit_fen >= 0),
  huabei_used_fen INTEGER NOT NULL DEFAULT 0 CHECK (huabei_used_fen >= 0),
  huabei_held_fen INTEGER NOT NULL DEFAULT 0 CHECK (huabei_held_fen >= 0),
  created_at TEXT NOT NULL,
  CHECK (huabei_used_fen + huabei_held_fen <= huabei_limit_fen)
) STRICT;
CREATE TABLE IF NOT EXISTS code (
  code TEXT PRIMARY KEY, kind TEXT NOT NULL CHECK (kind IN ('face', 'payment')),
  user_id TEXT NOT NULL REFERENCES user, expires_at TEXT NOT NULL, used_by TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS trade (
  id INTEGER PRIMARY KEY, trade_no TEXT NOT NULL UNIQUE, app_id TEXT NOT NULL REFERENCES app,
  out_trade_no TEXT NOT NULL, kind TEXT NOT NULL CHECK (kind IN ('pay', 'precreate', 'capture', 'cancelled')),
  subject TEXT NOT NULL, total_fen INTEGER NOT NULL CHECK (total_fen >= 0),
  status TEXT NOT NULL CHECK (status IN ('WAIT_BUYER_PAY', 'TRADE_SUCCESS', 'TRADE_CLOSED')),
  failure TEXT, user_id TEXT REFERENCES user, channel TEXT, auth_no TEXT, complete INTEGER NOT NULL DEFAULT 0,
  qr_code TEXT UNIQUE, refunded_fen INTEGER NOT NULL DEFAULT 0, cancel_action TEXT,
  created_at TEXT NOT NULL, expires_at TEXT NOT NULL, paid_at TEXT,
  UNIQUE (app_id, out_trade_no), CHECK (refunded_fen BETWEEN 0 AND total_fen)
) STRICT;
CREATE INDEX IF NOT EXISTS trade_waiting ON trade (expires_at) WHERE status = 'WAIT_BUYER_PAY';
CREATE TABLE IF NOT EXISTS refund (
  id INTEGER PRIMARY KEY, trade_no TEXT NOT NULL REFERENCES trade (trade_no), out_request_no TEXT NOT NULL,
  fen INTEGER NOT NULL CHECK (fen > 0), kind TEXT NOT NULL CHECK (kind IN ('refund', 'reversal')),
  at TEXT NOT NULL, UNIQUE (trade_no, kind, out_request_no)
) STRICT;
CREATE TABLE IF NOT EXISTS hold (
  id INTEGER PRIMARY KEY, auth_no TEXT NOT NULL UNIQUE, app_id TEXT NOT NULL REFERENCES app,
  out_order_no TEXT NOT NULL, out_request_no TEXT NOT NULL, title TEXT NOT NULL,
  amount_fen INTEGER NOT NULL CHECK (amount_fen >= 0),
  status TEXT NOT NULL CHECK (status IN ('INIT', 'AUTHORIZED', 'FINISH', 'CLOSED')),
  failure TEXT, user_id TEXT REFERENCES user, code TEXT UNIQUE,
  captured_fen INTEGER NOT NULL DEFAULT 0 CHECK (captured_fen >= 0),
  released_fen INTEGER NOT NULL DEFAULT 0 CHECK (released_fen >= 0),
  cancel_action TEXT, created_at TEXT NOT NULL, expires_at TEXT NOT NULL, frozen_at TEXT,
  UNIQUE (app_id, out_order_no), CHECK (captured_fen + released_fen <= amount_fen)
) STRICT;
CREATE INDEX IF NOT EXISTS hold_waiting ON hold (expires_at) WHERE status = 'INIT';
CREATE TABLE IF NOT EXISTS release (
  auth_no TEXT NOT NULL REFERENCES hold (auth_no), out_request_no TEXT NOT NULL,
  fen INTEGER NOT NULL CHECK (fen > 0), at TEXT NOT NULL, PRIMARY KEY (auth_no, out_request_no)
) STRICT;
CREATE TABLE IF NOT EXISTS fault (
  id INTEGER PRIMARY KEY, method TEXT NOT NULL, kind TEXT NOT NULL, number TEXT NOT NULL,
  sub_code TEXT NOT NULL, times_left INTEGER NOT NULL CHECK (times_left >= 0)
) STRICT;
"""


def moment(at: datetime) -> str:
    """A moment as stored: UTC, one fixed width, so that text order is time order."""
    return at.isoformat(timespec="milliseconds")


class Database:
    """Opened once by the process that owns the folder. All use is on the event loop's thread, one at a time."""

    def __init__(self, data_dir: Path) -> None:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = data_dir / FILE_NAME
        path.touch(mode=0o600)
        # isolation_level None: transactions are begun and ended here, by name.
        self.connection = sqlite3.connect(path, isolation_level=None, timeout=5.0)
        self.connection.row_factory = sqlite3.Row
        self.connection.execute("PRAGMA journal_mode = WAL")
        # FULL: an answered payment survives a power cut too, as a provider's would.
        self.connection.execute("PRAGMA synchronous = FULL")
        self.connection.execute("PRAGMA foreign_keys = ON")
        self.connection.executescript(_SCHEMA)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; durable when the block has ended."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield self.connection
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    def close(self) -> None:
        """Close; a later open finds everything that was committed."""
        self.connection.close()


def one(db: sqlite3.Connection, sql: str, *values: object) -> sqlite3.Row | None:
    """The first row of a query, or None."""
    row: sqlite3.Row | None = db.execute(sql, values).fetchone()
    return row
