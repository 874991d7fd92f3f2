"""The provider's own books: what it took for a merchant and gave back, to hold against the merchant's ledger."""

from __future__ import annotations

import sqlite3
from typing import Any

from gateway.providers.simulator.database import one

LIST_LIMIT_MAX = 500


def books(db: sqlite3.Connection, app_id: str | None, after: int, limit: int) -> dict[str, Any]:
    """Totals over all orders of one app (None: of all apps), and one page of paid orders with id > `after`.

    captured_fen counts the receipts of every payment that was ever taken, captures from holds included; refunded_fen
    what went back, by refunds and by cancels; net_fen is the difference: what the merchant's clearing account must
    show before fees_fen, which the daily bills deduct.
    """
    taken = one(
        db,
        "SELECT coalesce(sum(total_fen - discount_fen), 0) AS fen, count(*) AS n, coalesce(sum(fee_fen), 0) AS fee, "
        "coalesce(sum(total_fen) FILTER (WHERE kind = 'capture'), 0) AS from_holds_fen, "
        "count(*) FILTER (WHERE kind = 'capture') AS from_holds "
        "FROM trade WHERE paid_at IS NOT NULL AND (app_id = ?1 OR ?1 IS NULL)",
        app_id,
    )
    back = one(
        db,
        "SELECT coalesce(sum(r.receipt_fen), 0) AS fen, count(*) AS n, coalesce(sum(r.fee_fen), 0) AS fee, "
        "coalesce(sum(r.receipt_fen) FILTER (WHERE r.kind = 'reversal'), 0) AS reversed_fen "
        "FROM refund r JOIN trade t USING (trade_no) WHERE t.app_id = ?1 OR ?1 IS NULL",
        app_id,
    )
    open_holds = one(
        db,
        "SELECT coalesce(sum(amount_fen - captured_fen - released_fen), 0) AS fen, count(*) AS n "
        "FROM hold WHERE status = 'AUTHORIZED' AND (app_id = ?1 OR ?1 IS NULL)",
        app_id,
    )
    assert taken is not None
    assert back is not None
    assert open_holds is not None
    page = db.execute(
        "SELECT * FROM trade WHERE paid_at IS NOT NULL AND (app_id = ?1 OR ?1 IS NULL) AND id > ?2 "
        "ORDER BY id LIMIT ?3",
        (app_id, after, limit),
    ).fetchall()
    return {
        "app_id": app_id,
        "captured_fen": taken["fen"],
        "captured_count": taken["n"],
        "captured_from_holds_fen": taken["from_holds_fen"],
        "captured_from_holds_count": taken["from_holds"],
        "refunded_fen": back["fen"],
        "refunded_count": back["n"],
        "reversed_fen": back["reversed_fen"],
        "net_fen": taken["fen"] - back["fen"],
        "fees_fen": taken["fee"] - back["fee"],
        "held_fen": open_holds["fen"],
        "held_count": open_holds["n"],
        "orders": [trade_view(row) for row in page],
        "next_after": page[-1]["id"] if limit and len(page) == limit else None,
    }


def trade_view(row: sqlite3.Row) -> dict[str, Any]:
    """One order as JSON."""
    names = ("id", "app_id", "out_trade_no", "trade_no", "kind", "subject", "status", "user_id", "channel")
    return {name: row[name] for name in names} | {
        "fen": row["total_fen"],
        "refunded_fen": row["refunded_fen"],
        "failure": row["failure"],
        "auth_no": row["auth_no"],
        "created_at": row["created_at"],
        "paid_at": row["paid_at"],
    }


def hold_view(row: sqlite3.Row) -> dict[str, Any]:
    """One hold as JSON."""
    names = ("id", "app_id", "out_order_no", "auth_no", "title", "status", "user_id", "failure", "created_at")
    rest = row["amount_fen"] - row["captured_fen"] - row["released_fen"] if row["status"] == "AUTHORIZED" else 0
    return {name: row[name] for name in names} | {
        "fen": row["amount_fen"],
        "captured_fen": row["captured_fen"],
        "released_fen": row["released_fen"],
        "remaining_fen": rest,
    }
