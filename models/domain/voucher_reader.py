"""Reads a voucher's definition from plain data: a chain's file, or the row of a book.

Required: id, code, name{zh,en}, funder, and either value_fen or basis_points. Optional: stage (order), threshold_fen,
cap_fen, group, exclusive, scope (as a benefit's), flags, valid{from,until} (local dates, both included), quota,
member_quota, sale_quota (1), offered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

from models.domain.benefit_reader import read_scope
from models.domain.calendar import day_begins
from models.domain.ids import LegalEntityId, VoucherId
from models.domain.plan_reader import PlanError, Reader
from models.domain.vouchers import VOUCHERS_MAX, Voucher, VoucherStage

VOUCHERS_DEFINED_MAX = 2_000
"""Definitions that one chain's book holds."""

_FIELDS = (frozenset(field.name for field in fields(Voucher)) | {"valid"}) - {"valid_from", "valid_until"}
_FEN_MAX = 100_000_00
_USES_MAX = 1_000_000_000


def read_vouchers(entries: object, zone: str) -> dict[str, Voucher]:
    """All definitions of a book by their code, in capitals; raises PlanError naming the first wrong field."""
    if not isinstance(entries, list | tuple) or len(entries) > VOUCHERS_DEFINED_MAX:
        raise PlanError("vouchers", f"must be a list of at most {VOUCHERS_DEFINED_MAX} entries")
    made: dict[str, Voucher] = {}
    ids = set()
    for n, entry in enumerate(entries):
        voucher = read_voucher(entry, f"vouchers[{n}]", zone)
        if voucher.id in ids:
            raise PlanError(f"vouchers[{n}].id", f"{voucher.id!r} is used twice")
        if code_key(voucher.code) in made:
            raise PlanError(f"vouchers[{n}].code", f"{voucher.code!r} is used twice")
        ids.add(voucher.id)
        made[code_key(voucher.code)] = voucher
    return made


def code_key(code: str) -> str:
    """How a code is compared: typed with blanks or in small letters, it is the same."""
    return code.strip().upper()


def read_voucher(data: object, path: str, zone: str) -> Voucher:
    """The voucher that `data` describes, which stands at `path`; raises PlanError."""
    reader = Reader(data, path, _FIELDS)
    fixed = reader.has("value_fen")
    if fixed == reader.has("basis_points"):
        raise PlanError(path, "give either value_fen or basis_points")
    begins, ends = _valid(reader, zone)
    return Voucher(
        id=VoucherId(reader.slug("id")),
        code=reader.string("code").strip(),
        name=reader.text("name"),
        stage=reader.choice("stage", VoucherStage, default=VoucherStage.ORDER),
        funder=LegalEntityId(reader.slug("funder")),
        value_fen=reader.integer("value_fen", 1, _FEN_MAX) if fixed else 0,
        basis_points=0 if fixed else reader.integer("basis_points", 1, 10_000),
        threshold_fen=reader.integer("threshold_fen", 0, _FEN_MAX, default=0),
        cap_fen=reader.integer("cap_fen", 1, _FEN_MAX) if reader.has("cap_fen") else None,
        group=reader.string("group") if reader.has("group") else "",
        exclusive=_truth(reader, "exclusive"),
        scope=read_scope(reader),
        valid_from=begins,
        valid_until=ends,
        quota=reader.integer("quota", 1, _USES_MAX) if reader.has("quota") else None,
        member_quota=reader.integer("member_quota", 1, _USES_MAX) if reader.has("member_quota") else None,
        sale_quota=reader.integer("sale_quota", 1, VOUCHERS_MAX, default=1),
        offered=_truth(reader, "offered"),
        flags=reader.names("flags", 16, "flag names"),
    )


def _truth(reader: Reader, field: str) -> bool:
    value: Any = reader.data.get(field, False)
    if not isinstance(value, bool):
        raise PlanError(reader.path(field), f"must be true or false, got {value!r}")
    return value


def _valid(reader: Reader, zone: str) -> tuple[datetime | None, datetime | None]:
    """The instants from which and until which it counts: its local dates, the last one included."""
    if not reader.has("valid"):
        return None, None
    if not isinstance(reader.data["valid"], Mapping):
        raise PlanError(reader.path("valid"), "must be a mapping of from and until")
    inner = reader.inner("valid", frozenset({"from", "until"}))
    begins = day_begins(inner.day("from"), zone) if inner.has("from") else None
    ends = day_begins(inner.day("until") + timedelta(days=1), zone) if inner.has("until") else None
    if begins is not None and ends is not None and ends <= begins:
        raise PlanError(inner.path("until"), "lies before from")
    return begins, ends
