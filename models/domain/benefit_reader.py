"""Reads one benefit of a plan from plain data: its kind decides which fields it has.

All: id, name{zh,en}, quota; kind (fixed_coupon), uses_per_sale_max (1), scope (everywhere). fixed_coupon: value_fen.
The others: cap_fen, the most that one use is worth. percent: basis_points. nth_item: nth, basis_points.
free_delivery: scope.items name the charge. tier_price: prices_fen {item code: fen}.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import time

from models.domain.benefits import ALWAYS_EXCLUDED, Benefit, BenefitKind, Scope, Window
from models.domain.ids import BenefitId
from models.domain.plan_reader import PlanError, Reader

_BENEFIT_FIELDS = frozenset(field.name for field in fields(Benefit))
_VALUE_FIELDS = frozenset({"value_fen", "cap_fen", "basis_points", "nth", "prices_fen"})
_VALUE_FIELDS_OF = {
    BenefitKind.FIXED_COUPON: frozenset({"value_fen"}),
    BenefitKind.PERCENT: frozenset({"basis_points", "cap_fen"}),
    BenefitKind.NTH_ITEM: frozenset({"nth", "basis_points", "cap_fen"}),
    BenefitKind.FREE_DELIVERY: frozenset({"cap_fen"}),
    BenefitKind.TIER_PRICE: frozenset({"prices_fen", "cap_fen"}),
}


def read_benefit(data: object, path: str) -> Benefit:
    """The benefit that `data` describes, which stands at `path` of its plan; raises PlanError."""
    every = _BENEFIT_FIELDS | _VALUE_FIELDS
    kind = Reader(data, path, every).choice("kind", BenefitKind, default=BenefitKind.FIXED_COUPON)
    reader = Reader(data, path, (every - _VALUE_FIELDS) | _VALUE_FIELDS_OF[kind])
    scope = read_scope(reader)
    if kind is BenefitKind.FREE_DELIVERY and not scope.items:
        raise PlanError(reader.path("scope.items"), "names the items that are the delivery charge")
    prices = _prices(reader) if kind is BenefitKind.TIER_PRICE else {}
    if prices and scope.items - set(prices):
        raise PlanError(reader.path("scope.items"), "names an item without a members' price")
    fields_of = _VALUE_FIELDS_OF[kind]
    return Benefit(
        id=BenefitId(reader.slug("id")),
        name=reader.text("name"),
        kind=kind,
        value_fen=reader.integer("value_fen" if "value_fen" in fields_of else "cap_fen", 1, 100_000_00),
        quota=reader.integer("quota", 1, 10_000),
        uses_per_sale_max=reader.integer("uses_per_sale_max", 1, 100, default=1),
        scope=scope,
        basis_points=reader.integer("basis_points", 1, 10_000) if "basis_points" in fields_of else 0,
        nth=reader.integer("nth", 2, 100) if "nth" in fields_of else 0,
        prices_fen=prices,
    )


def _prices(reader: Reader) -> Mapping[str, int]:
    codes = reader.data.get("prices_fen")
    if not isinstance(codes, Mapping) or not 1 <= len(codes) <= 1_000 or not all(isinstance(c, str) for c in codes):
        raise PlanError(reader.path("prices_fen"), "must map 1..1000 item codes, in quotes, to fen")
    inner = reader.inner("prices_fen", frozenset(codes))
    return {code: inner.integer(code, 0, 100_000_00) for code in sorted(codes)}


_SCOPE_FIELDS = frozenset({"excluded_flags", "items", "stores", "channels", "weekdays", "hours"})


def read_scope(reader: Reader) -> Scope:
    """Where a benefit or a voucher counts, from the field `scope`; without one: everywhere."""
    if not reader.has("scope"):
        return Scope()
    inner = reader.inner("scope", _SCOPE_FIELDS)
    flags = inner.items("excluded_flags", 0, 32) if inner.has("excluded_flags") else ()
    if not all(isinstance(flag, str) for flag in flags):
        raise PlanError(inner.path("excluded_flags"), "must be a list of flag names")
    days = inner.items("weekdays", 1, 7) if inner.has("weekdays") else ()
    if any(type(day) is not int or not 1 <= day <= 7 for day in days) or len(set(days)) != len(days):
        raise PlanError(inner.path("weekdays"), "must be a list of days, Monday 1 .. Sunday 7, each once")
    return Scope(
        excluded_flags=ALWAYS_EXCLUDED | frozenset(flags),
        items=inner.names("items", 1_000, "item codes in quotes"),
        stores=inner.names("stores", 10_000, "store ids"),
        channels=inner.names("channels", 16, "channel names"),
        weekdays=frozenset(days),
        hours=_window(inner) if inner.has("hours") else None,
    )


def _window(reader: Reader) -> Window:
    inner = reader.inner("hours", frozenset({"begins", "ends"}))
    return Window(_time(inner, "begins"), _time(inner, "ends"))


def _time(reader: Reader, name: str) -> time:
    value = reader.string(name)
    try:
        parsed = time.fromisoformat(value)
    except ValueError as error:
        raise PlanError(reader.path(name), f'must be a local time in quotes, as "22:00", got {value!r}') from error
    if parsed.tzinfo is not None:
        raise PlanError(reader.path(name), "is local to the store: no offset")
    return parsed
