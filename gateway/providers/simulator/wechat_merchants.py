"""WeChat merchants of the simulator: an app of its books, with the serials and the key that the v3 protocol needs."""

from __future__ import annotations

import secrets
import sqlite3
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.providers.signing import load_private_key, load_public_key
from gateway.providers.simulator.database import moment, one


@dataclass(frozen=True, slots=True)
class WechatMerchant:
    """A merchant with its keys, parsed once."""

    mchid: str
    appid: str
    serial_no: str
    platform_serial: str
    api_key: str
    service_id: str
    merchant_key: rsa.RSAPublicKey
    platform_key: rsa.RSAPrivateKey


def load(db: sqlite3.Connection, mchid: str) -> WechatMerchant | None:
    """A registered merchant."""
    row = one(db, "SELECT * FROM wechat_merchant JOIN app ON app_id = mchid WHERE mchid = ?", mchid)
    if row is None:
        return None
    names = ("mchid", "appid", "serial_no", "platform_serial", "api_key", "service_id")
    return WechatMerchant(
        **{name: str(row[name]) for name in names},
        merchant_key=load_public_key(str(row["merchant_public_pem"])),
        platform_key=load_private_key(str(row["provider_private_pem"])),
    )


def is_merchant(db: sqlite3.Connection, app_id: str) -> bool:
    """True when the app speaks WeChat's protocol."""
    return one(db, "SELECT 1 FROM wechat_merchant WHERE mchid = ?", app_id) is not None


def register(
    db: sqlite3.Connection,
    *,
    mchid: str,
    appid: str,
    name: str,
    serial_no: str,
    api_key: str,
    service_id: str,
    public_key_pem: str,
    fresh_private_pem: str,
    now: datetime,
) -> None:
    """Register, or replace what is the merchant's own of it; the platform's key and serial stay."""
    db.execute(
        "INSERT INTO app (app_id, seller_id, name, merchant_public_pem, provider_private_pem, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (app_id) DO UPDATE SET name = excluded.name, "
        "merchant_public_pem = excluded.merchant_public_pem",
        (mchid, appid, name, public_key_pem, fresh_private_pem, moment(now)),
    )
    db.execute(
        "INSERT INTO wechat_merchant (mchid, appid, serial_no, platform_serial, api_key, service_id) "
        "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (mchid) DO UPDATE SET serial_no = excluded.serial_no, "
        "api_key = excluded.api_key, service_id = excluded.service_id",
        (mchid, appid, serial_no, f"PUB_KEY_ID_{secrets.token_hex(16)}", api_key, service_id),
    )
