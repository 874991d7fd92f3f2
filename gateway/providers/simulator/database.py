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
CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS agreement (
  agreement_no TEXT PRIMARY KEY, app_id TEXT NOT NULL REFERENCES app, external_no TEXT NOT NULL,
  what TEXT NOT NULL, status TEXT NOT NULL CHECK (status IN ('TEMP', 'NORMAL', 'STOP')),
  user_id TEXT REFERENCES user, code TEXT NOT NULL UNIQUE, notify_url TEXT NOT NULL,
  created_at TEXT NOT NULL, expires_at TEXT NOT NULL, signed_at TEXT, UNIQUE (app_id, external_no)
) STRICT;
CREATE TABLE IF NOT EXISTS credit (
  agreement_id TEXT PRIMARY KEY, app_id TEXT NOT NULL REFERENCES app, out_request_no TEXT NOT NULL,
  template_id TEXT NOT NULL, status TEXT NOT NULL CHECK (status IN ('TEMP', 'Y', 'P', 'N')),
  user_id TEXT REFERENCES user, code TEXT NOT NULL UNIQUE, plan_no TEXT UNIQUE, settle_trade_no TEXT,
  created_at TEXT NOT NULL, expires_at TEXT NOT NULL, signed_at TEXT, UNIQUE (app_id, out_request_no)
) STRICT;
CREATE TABLE IF NOT EXISTS credit_use (
  agreement_id TEXT NOT NULL REFERENCES credit, out_biz_no TEXT NOT NULL,
  action TEXT NOT NULL CHECK (action IN ('POSITIVE', 'REVERSE')), refers_to TEXT, discount_fen INTEGER NOT NULL,
  paid_fen INTEGER NOT NULL, tasks INTEGER NOT NULL, biz_time TEXT NOT NULL, at TEXT NOT NULL,
  PRIMARY KEY (agreement_id, out_biz_no)
) STRICT;
CREATE TABLE IF NOT EXISTS notice (
  id INTEGER PRIMARY KEY, notify_id TEXT NOT NULL UNIQUE, app_id TEXT NOT NULL REFERENCES app, url TEXT NOT NULL,
  kind TEXT NOT NULL, number TEXT NOT NULL, form TEXT NOT NULL, sends INTEGER NOT NULL DEFAULT 0,
  state TEXT NOT NULL CHECK (state IN ('waiting', 'accepted', 'given_up')), next_at TEXT NOT NULL,
  said TEXT NOT NULL DEFAULT '', created_at TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS notice_due ON notice (next_at) WHERE state = 'waiting';
CREATE TABLE IF NOT EXISTS bill_fault (
  id INTEGER PRIMARY KEY, app_id TEXT NOT NULL, day TEXT NOT NULL, kind TEXT NOT NULL, number TEXT NOT NULL,
  line INTEGER NOT NULL, fen INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS bill_url (
  token TEXT PRIMARY KEY, app_id TEXT NOT NULL REFERENCES app, day TEXT NOT NULL, expires_at TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS wechat_merchant (
  mchid TEXT PRIMARY KEY REFERENCES app (app_id), appid TEXT NOT NULL, serial_no TEXT NOT NULL,
  platform_serial TEXT NOT NULL UNIQUE, api_key TEXT NOT NULL, service_id TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS trade_paid ON trade (app_id, paid_at);
CREATE INDEX IF NOT EXISTS refund_at ON refund (at);
"""

_ADDED = (
    ("app", "notify_url", "TEXT NOT NULL DEFAULT ''"),
    ("trade", "agreement_no", "TEXT"),
    ("trade", "notify_url", "TEXT NOT NULL DEFAULT ''"),
    ("trade", "promotion_fen", "INTEGER NOT NULL DEFAULT 0"),
    ("trade", "discount_fen", "INTEGER NOT NULL DEFAULT 0"),
    ("trade", "fee_fen", "INTEGER NOT NULL DEFAULT 0"),
    ("refund", "receipt_fen", "INTEGER NOT NULL DEFAULT 0"),
    ("refund", "fee_fen", "INTEGER NOT NULL DEFAULT 0"),
    ("hold", "lapses_at", "TEXT"),
    ("hold", "notify_url", "TEXT NOT NULL DEFAULT ''"),
    ("trade", "attach", "TEXT NOT NULL DEFAULT ''"),
    ("hold", "attach", "TEXT NOT NULL DEFAULT ''"),
    ("hold", "note", "TEXT NOT NULL DEFAULT ''"),
    ("fault", "skip", "INTEGER NOT NULL DEFAULT 0"),
    ("fault", "value", "INTEGER NOT NULL DEFAULT 0"),
)
"""Columns that a file written by an earlier release has not: table, column, type."""


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
        self._add_columns()

    def _add_columns(self) -> None:
        with self.transaction() as db:
            for table, column, kind in _ADDED:
                known = {row["name"] for row in db.execute(f"PRAGMA table_info({table})")}
                if column not in known:
                    db.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
                    if (table, column) == ("refund", "receipt_fen"):
                        db.execute("UPDATE refund SET receipt_fen = fen")

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
