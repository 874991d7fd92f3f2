"""A person's data as they receive it: one JSON document, or one page that a person may read. Streamed row by row."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from html import escape
from typing import Any

from models.tables.persons import SECTIONS

Rows = AsyncIterator[tuple[str, dict[str, Any]]]

TITLE = ("我们保存的关于您的信息", "What we keep about you")
NAMES: Mapping[str, tuple[str, str]] = {
    "profile": ("会员资料", "Profile"),
    "age": ("年龄信息", "Age"),
    "standing_consents": ("长期同意", "Standing consents"),
    "consents": ("到店时的同意", "Consents given at a visit"),
    "memberships": ("轻会员", "Light memberships"),
    "usage": ("优惠使用", "Benefits used"),
    "sales": ("购物记录", "Purchases"),
    "points": ("积分", "Loyalty points"),
    "balance": ("储值余额", "Stored value"),
    "agreements": ("免密代扣", "Withholding agreements"),
    "face_templates": ("人脸模板（仅说明是否保存，不含数据）", "Face templates (that one is stored, never its bytes)"),
    "face_decisions": ("识别记录", "Recognition decisions"),
    "requests": ("您的请求", "Your requests"),
    "audit": ("对您信息的操作记录", "What was done with your data"),
}
NOTHING = ("无", "nothing")
FORM = "storeops-person-1"


async def as_json(member: str, at: datetime, rows: Rows) -> AsyncIterator[bytes]:
    """`{"form", "member", "made_at", "<section>": [row, …], …}`: every section is there, also an empty one."""
    yield _text({"form": FORM, "member": member, "made_at": at.isoformat()})[:-1].encode()
    section, first, left = "", True, list(SECTIONS)
    async for name, row in rows:
        while section != name:
            if section:
                yield b"]"
            section, first = left.pop(0), True
            yield f",{_text(section)}:[".encode()
        yield (b"" if first else b",") + _text(row).encode()
        first = False
    if section:
        yield b"]"
    for name in left:
        yield f",{_text(name)}:[]".encode()
    yield b"}\n"


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


async def as_html(member: str, at: datetime, language: str, rows: Rows) -> AsyncIterator[bytes]:
    """The same as a page of its own: no script, no other file, nothing that leaves the machine that opens it."""
    index = 0 if language == "zh" else 1
    yield (
        f'<!doctype html><html lang="{"zh-CN" if language == "zh" else "en"}"><meta charset="utf-8">'
        f"<title>{escape(TITLE[index])}</title><style>body{{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;"
        "padding:0 1rem}table{border-collapse:collapse;width:100%;margin-bottom:1rem}td,th{border:1px solid #ccc;"
        "padding:.3rem .5rem;text-align:left;vertical-align:top;overflow-wrap:anywhere}th{width:14rem}</style>"
        f"<h1>{escape(TITLE[index])}</h1><p>{escape(member)} · {escape(at.isoformat())}</p>"
    ).encode()
    section, left = "", list(SECTIONS)
    async for name, row in rows:
        while section != name:
            section = left.pop(0)
            empty = section != name
            yield _heading(section, index, empty=empty)
        yield _table(row)
    for name in left:
        yield _heading(name, index, empty=True)
    yield b"</html>\n"


def _heading(section: str, index: int, *, empty: bool) -> bytes:
    nothing = f"<p>{escape(NOTHING[index])}</p>" if empty else ""
    return f"<h2>{escape(NAMES[section][index])}</h2>{nothing}".encode()


def _table(row: Mapping[str, Any]) -> bytes:
    lines = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value if isinstance(value, str) else _text(value))}</td></tr>"
        for name, value in row.items()
        if value is not None
    )
    return f"<table>{lines}</table>".encode()
