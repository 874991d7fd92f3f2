"""Simulated customers: a balance, a Huabei credit line, and single-use codes that authorise one request."""

from __future__ import annotations

import re
import secrets
import sqlite3
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.providers.simulator.calls import BusinessFailure
from gateway.providers.simulator.database import moment, one

BALANCE_FEN_DEFAULT = 1_000_000_00
HUABEI_LIMIT_FEN_DEFAULT = 100_000_00
CODE_LIFE = timedelta(minutes=2)
BALANCE, HUABEI = "ALIPAYACCOUNT", "PCREDIT"
WECHAT_SCENE = "wechat_code"
_SCENES = {"security_code": "face", "bar_code": "payment", WECHAT_SCENE: "payment"}
_PREFIXES = {"alipay": "28", "wechat": "13"}
"""Payment codes look like the real ones, 18 digits; whose they are shows in the first two."""
USER_PATTERN = r"^[A-Za-z0-9_.-]{1,64}$"
_USER = re.compile(USER_PATTERN[1:-1])

NOT_ENOUGH = BusinessFailure("ACQ.BUYER_BALANCE_NOT_ENOUGH", "balance and credit line are too small")


@dataclass(frozen=True, slots=True)
class AuthCode:
    """What a customer shows instead of a password: valid once, for two minutes."""

    code: str
    user_id: str
    expires_at: datetime


def ensure_user(
    db: sqlite3.Connection,
    user_id: str,
    now: datetime,
    balance_fen: int = BALANCE_FEN_DEFAULT,
    huabei_limit_fen: int = HUABEI_LIMIT_FEN_DEFAULT,
) -> None:
    """Create the customer on first use; an existing one is left as it is."""
    if _USER.fullmatch(user_id) is None:
        raise ValueError("a user id is 1 to 64 letters, digits, dots, hyphens and underscores")
    db.execute(
        "INSERT INTO user (user_id, balance_fen, huabei_limit_fen, created_at) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (user_id) DO NOTHING",
        (user_id, balance_fen, huabei_limit_fen, moment(now)),
    )


def issue_code(db: sqlite3.Connection, user_id: str, kind: str, now: datetime, provider: str = "alipay") -> AuthCode:
    """A fresh face token or payment code of one provider. Codes that died a day ago are forgotten here."""
    ensure_user(db, user_id, now)
    db.execute("DELETE FROM code WHERE expires_at < ?", (moment(now - timedelta(days=1)),))
    prefix = _PREFIXES[provider]
    code = f"fp{secrets.token_hex(16)}" if kind == "face" else f"{prefix}{secrets.randbelow(10**16):016d}"
    expires_at = now + CODE_LIFE
    db.execute(
        "INSERT INTO code (code, kind, user_id, expires_at) VALUES (?, ?, ?, ?)",
        (code, kind, user_id, moment(expires_at)),
    )
    return AuthCode(code, user_id, expires_at)


def redeem_code(db: sqlite3.Connection, code: str, scene: str, used_by: str, now: datetime) -> str | None:
    """The code's customer, and the code is used up; None when it is unknown, used, expired or of another kind."""
    kind = _SCENES.get(scene)
    if code.startswith(_PREFIXES["wechat"]) is not (scene == WECHAT_SCENE):
        return None
    row = one(
        db,
        "UPDATE code SET used_by = ? WHERE code = ? AND kind = ? AND used_by IS NULL AND expires_at > ? "
        "RETURNING user_id",
        used_by,
        code,
        kind,
        moment(now),
    )
    return None if row is None else str(row["user_id"])


def take(db: sqlite3.Connection, user_id: str, fen: int) -> str | None:
    """Take from the balance, else from the credit line; the channel used, or None when neither suffices."""
    if db.execute(
        "UPDATE user SET balance_fen = balance_fen - ? WHERE user_id = ? AND balance_fen >= ?",
        (fen, user_id, fen),
    ).rowcount:
        return BALANCE
    if db.execute(
        "UPDATE user SET huabei_used_fen = huabei_used_fen + ? "
        "WHERE user_id = ? AND huabei_limit_fen - huabei_used_fen - huabei_held_fen >= ?",
        (fen, user_id, fen),
    ).rowcount:
        return HUABEI
    return None


def give_back(db: sqlite3.Connection, user_id: str, channel: str, fen: int) -> None:
    """Return money to where it came from."""
    if channel == BALANCE:
        db.execute("UPDATE user SET balance_fen = balance_fen + ? WHERE user_id = ?", (fen, user_id))
    else:
        db.execute("UPDATE user SET huabei_used_fen = huabei_used_fen - ? WHERE user_id = ?", (fen, user_id))


def hold(db: sqlite3.Connection, user_id: str, fen: int) -> bool:
    """Hold a part of the credit line; False when too little of it is free."""
    return bool(
        db.execute(
            "UPDATE user SET huabei_held_fen = huabei_held_fen + ? "
            "WHERE user_id = ? AND huabei_limit_fen - huabei_used_fen - huabei_held_fen >= ?",
            (fen, user_id, fen),
        ).rowcount
    )


def unhold(db: sqlite3.Connection, user_id: str, fen: int, *, captured: bool) -> None:
    """End a part of a hold: given back, or turned into credit used."""
    db.execute(
        "UPDATE user SET huabei_held_fen = huabei_held_fen - ?, huabei_used_fen = huabei_used_fen + ? "
        "WHERE user_id = ?",
        (fen, fen if captured else 0, user_id),
    )
