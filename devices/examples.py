"""One example of each document of the terminal protocol: in the published contract, and tried by the tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ID = "0194d2a1-7c3e-7b1a-9f40-2d6e8c1b7a55"
_BOOT = "5f0c6a1e-2b47-4c1e-8f7d-3a9b6c5d4e21"
_CONN = "c8a7f1d2-0e4b-4d7c-9a63-71b2e5f04c19"
_SESSION = "0194d2a1-7c10-5e21-8a11-6f2d3b4c5e66"

_LINES: list[dict[str, Any]] = [
    {"line": 1, "code": "6901234561098", "name": "牛肉面", "quantity": 1, "unit_fen": 1590, "net_fen": 1590},
    {
        "line": 2,
        "code": "2012345000000",
        "name": "苹果",
        "quantity": 1,
        "unit_fen": 462,
        "net_fen": 462,
        "weight_g": 350,
    },
]
_CASH: dict[str, Any] = {"kind": "cash", "fen": 1590, "tendered_fen": 2000}

EVENT_BODIES: Mapping[str, Mapping[str, Any]] = {
    "session.open": {"till_txn": "T-20261122-0042"},
    "digits": {"tail": "1234"},
    "identify": {"by": "phone", "value": "13800001234"},
    "consent": {"purpose": "recognise", "text": "2026-10", "granted": True},
    "enrol": {
        "plan": "light-10",
        "guarantee": "huabei_hold",
        "phone": "13800001234",
        "auth": {"provider": "alipay", "token": "281234567890123456"},
    },
    "scan": {"code": "6901234561098", "quantity": 1},
    "remove": {"line": 2},
    "basket": {"till_txn": "T-20261122-0042", "rev": 4, "lines": _LINES, "total_fen": 2052},
    "amount": {"till_txn": "T-20261122-0042", "fen": 1250},
    "voucher": {"code": "V-7Q2K-93"},
    "claim": {"offer": "noodles-8"},
    "age_check": {"result": "ok"},
    "confirm": {"rev": 9, "tenders": [_CASH]},
    "paid": {"till_txn": "T-20261122-0042", "rev": 9, "tenders": [{"kind": "card", "fen": 1590}]},
    "lease": {"benefit": "coupon-8", "uses": 1},
    "lease.end": {"lease": "0194d2a1-9d00-5b77-8c21-5a6b7c8d9e01"},
    "cancel": {},
    "return": {"receipt": "S001-20261122-00017", "lines": [{"line": 1, "quantity": 1}], "reason": "damaged"},
    "void": {"receipt": "S001-20261122-00017"},
    "sale": {
        "lines": [_LINES[0]],
        "tenders": [_CASH],
        "total_fen": 1590,
        "benefits": [],
    },
    "complaint": {"about": "price"},
}
"""One body of each event type of version 1; a release publishes those of the types that it answers."""

_SCREEN: dict[str, Any] = {
    "v": 1,
    "session": _SESSION,
    "rev": 9,
    "basket_rev": 4,
    "state": "quoted",
    "member": {"name": "张*", "tier": ""},
    "lines": [
        {
            "line": 1,
            "code": "6901234561098",
            "name": "牛肉面",
            "quantity": 1,
            "unit_fen": 1590,
            "discount_fen": 800,
            "net_fen": 790,
            "why": "轻会员 8 元券",
        }
    ],
    "gross_fen": 1590,
    "discount_fen": 800,
    "due_fen": 790,
    "cash_due_fen": 790,
    "membership": {
        "plan": "先享后付 10 元包",
        "used_fen": 800,
        "fee_fen": 1000,
        "if_settled_now_fen": 800,
        "uses_left": 4,
        "expires": "2026-12-22",
    },
    "offers": [],
    "suggestions": [],
    "prompt": {"code": "ask_consent", "params": {}, "text": "请确认是否同意刷脸识别"},
    "actions": ["cancel", "confirm"],
    "receipt": None,
    "vouchers": [{"code": "SUN5", "name": "满20减5", "discount_fen": 0, "why": "还差 4.10 元"}],
}

DOCUMENTS: Mapping[str, Any] = {
    "PresenceBirth": {
        "v": 1,
        "online": True,
        "boot": _BOOT,
        "conn": _CONN,
        "software": "acme-pos 3.2.1",
        "profile": "till",
        "ts": "2026-11-22T04:00:00.123Z",
    },
    "PresenceDeath": {"v": 1, "online": False, "boot": _BOOT, "conn": _CONN},
    "ReportedDocument": {
        "v": 1,
        "applied_gen": 12,
        "config_hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "software": "acme-pos 3.2.1",
        "boot": _BOOT,
        "health": {"outbox_events": 0, "disk_free_mib": 812},
    },
    "FaceProperties": {"id": _ID, "boot": _BOOT, "seq": "18", "kind": "frame", "session": _SESSION},
    "Telemetry": {"v": 1, "cpu": 0.21, "temperature_c": 47},
    "ResponseDocument": {"v": 1, "status": "done", "detail": ""},
    "DesiredDocument": {
        "v": 1,
        "gen": 12,
        "config": {"consents": [{"purpose": "recognise", "version": "2026-10", "text": "刷脸识别同意书"}]},
        "software": None,
    },
    "ScreenDocument": _SCREEN,
    "ReplyDocument": {"v": 1, "id": _ID, "ok": True, "session": _SESSION},
    "CommandDocument": {"v": 1, "id": _ID, "verb": "resync", "args": {}},
}
"""One example of each document, by the name of its schema."""


def event(event_type: str, seq: int = 17) -> dict[str, Any]:
    """One whole `up/event` of a type. Each `seq` has an id of its own, as it must."""
    return {
        "v": 1,
        "id": f"{_ID[:-3]}{seq:03x}",
        "boot": _BOOT,
        "seq": seq,
        "ts": "2026-11-22T04:00:00.123Z",
        "mono_ms": 81_234,
        "type": event_type,
        "session": _SESSION,
        "clerk": None,
        "replay": False,
        "body": dict(EVENT_BODIES[event_type]),
    }
