"""All tables in one place, for migrations: importing this module fills `metadata`."""

from __future__ import annotations

import re

from sqlmodel import SQLModel

from models.tables import (
    books,
    claims,
    configuration,
    credentials,
    credit_records,
    drawers,
    entities,
    items,
    keys,
    kill_switches,
    member_money,
    members,
    notices,
    permissions,
    points,
    privacy,
    receipts,
    registry,
    rollouts,
    sales,
    settlement_rows,
    software,
    statements,
    templates,
    twins,
    vouchers,
)

metadata = SQLModel.metadata


def is_no_part(name: str | None, kind: str, parents: object) -> bool:
    """False for the parts of a partitioned table: they are as their whole is."""
    del parents
    return kind != "table" or name is None or re.fullmatch(r"face_(key|template)_\d+", name) is None


__all__ = [
    "books",
    "claims",
    "configuration",
    "credentials",
    "credit_records",
    "drawers",
    "entities",
    "items",
    "keys",
    "kill_switches",
    "member_money",
    "members",
    "metadata",
    "notices",
    "permissions",
    "points",
    "privacy",
    "receipts",
    "registry",
    "rollouts",
    "sales",
    "settlement_rows",
    "software",
    "statements",
    "templates",
    "twins",
    "vouchers",
]
