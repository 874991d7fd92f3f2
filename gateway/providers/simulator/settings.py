"""What the simulator's operator may set; kept in its database."""

from __future__ import annotations

import sqlite3

from gateway.providers.simulator.database import one

DEFAULTS = {
    "fee_bps": 60,
    "agreement_limit_fen": 200_000,
    "hold_life_days": 365,
    "credit_days": 30,
    "bill_url_life_s": 30,
    "clock_offset_s": 0,
}
"""Fee on receipts in basis points (0.6 %); most that one payment under an agreement may take; how long a hold lives;
how long a credit agreement runs; how long the address of a bill lives; how far the clock is ahead."""
LIMITS = {
    "fee_bps": 1_000,
    "agreement_limit_fen": 10**9,
    "hold_life_days": 3_650,
    "credit_days": 3_650,
    "bill_url_life_s": 86_400,
    "clock_offset_s": 10 * 366 * 86_400,
}


def get(db: sqlite3.Connection, name: str) -> int:
    """A setting, or its default."""
    row = one(db, "SELECT value FROM setting WHERE name = ?", name)
    return DEFAULTS[name] if row is None else int(row["value"])


def put(db: sqlite3.Connection, name: str, value: int) -> None:
    """Raises ValueError for an unknown name or a value outside 0 to its limit."""
    if not 0 <= value <= LIMITS.get(name, -1):
        raise ValueError(name)
    db.execute(
        "INSERT INTO setting (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name, str(value)),
    )


def fee_fen(db: sqlite3.Connection, receipt_fen: int) -> int:
    """The provider's fee on a receipt, half a fen rounded up."""
    return (receipt_fen * get(db, "fee_bps") + 5_000) // 10_000
