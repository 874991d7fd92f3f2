"""Lists as columns: whatever psycopg's own dumper stores, ours stores too."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg import DataError

from models.tables.columns import quick_columns

pytestmark = pytest.mark.integration

HARD = [
    "",
    "NULL",
    "null",
    '"',
    "\\",
    '\\"',
    "a,b",
    "{}",
    " ",
    "\n",
    "\x01",
    "矿泉水",
    '{"a": "b\\n\\u4e2d"}',
    "'",
    "\u2028",
]


@pytest.mark.parametrize(
    ("cast", "values"),
    [
        ("text[]", HARD),
        ("text[]", [None, *HARD, None]),
        ("text[]", [None, None]),
        ("text[]", []),
        ("jsonb[]", ['{"a": [1, "x\\"y"]}', "null", "[]"]),
        ("bigint[]", [0, -1, 2**62]),
        ("bool[]", [True, False]),
        ("float8[]", [0.5, -1e30, 1e-7]),
        ("timestamptz[]", [datetime(2026, 5, 1, 2, 0, tzinfo=UTC)]),
        ("bigint[]", [1, None]),
    ],
)
async def test_what_comes_back_is_what_went_in(module_database_url: str, cast: str, values: list[Any]) -> None:
    async with await psycopg.AsyncConnection.connect(module_database_url, autocommit=True) as conn:
        theirs = await (await conn.execute(f"SELECT %s::{cast}", (values,))).fetchone()
        quick_columns(conn)
        for _ in range(7):  # prepared from the sixth on
            ours = await (await conn.execute(f"SELECT %s::{cast}", (values,))).fetchone()
            assert ours == theirs
            assert ours is not None
            assert len(ours[0]) == len(values)


@pytest.mark.parametrize("values", [["a", "b\x00c"], ["\x00"], [None, "\x00"]])
async def test_a_nul_is_refused_and_shifts_nothing(module_database_url: str, values: list[str | None]) -> None:
    async with await psycopg.AsyncConnection.connect(module_database_url, autocommit=True) as conn:
        quick_columns(conn)
        with pytest.raises(DataError):
            await conn.execute("SELECT %s::text[]", (values,))
