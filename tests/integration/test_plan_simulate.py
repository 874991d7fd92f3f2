"""Receipts from CSV: what is right is read to the fen, what is wrong is said with its line."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb
from typer.testing import CliRunner

from models.domain.errors import NeedsOperator
from models.tables.past_sales import sold_lines
from runtime.__main__ import app
from runtime.plan_cli import read_plan
from runtime.receipts_csv import NEEDED, OPTIONAL, read_receipts, write_receipts

HEADER = ",".join([*NEEDED, *OPTIONAL])
GOOD = f"""\ufeff{HEADER}
r2,2026-11-22T12:30:00+08:00,s2,li,690,2,8.00,tea,,north
r1,2026-11-22T12:00:00,s1,li,691,1,12.50,rice,,
r2,2026-11-22T12:30:00+08:00,s2,li,692,1,30.00,smoke,tobacco age_18,north
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "receipts.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_receipts_are_read_in_the_order_of_their_time(tmp_path: Path) -> None:
    read = read_receipts(written(tmp_path, GOOD), "Asia/Shanghai")
    assert [one.number for one in read.receipts] == ["r1", "r2"]
    first, second = read.receipts
    assert first.at == datetime(2026, 11, 22, 4, tzinfo=UTC)  # without an offset: the plan's zone
    assert [(one.code, one.quantity, one.unit_fen, sorted(one.flags)) for one in second.lines] == [
        ("690", 2, 800, []),
        ("692", 1, 3000, ["age_18", "tobacco"]),
    ]
    assert (read.entities, read.lines) == ({"s2": "north"}, 3)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("r1,yesterday,s1,li,690,1,8.00,,,", "line 2: at is a time"),
        ("r1,2026-11-22,S 1,li,690,1,8.00,,,", "line 2: store must match"),
        ("r1,2026-11-22,s1,li,690,0,8.00,,,", "line 2: quantity is a whole number"),
        ("r1,2026-11-22,s1,li,690,1,8,,,", "line 2: unit_price"),
        ("r1,2026-11-22,s1,li,690,1,8.00,,vip,", "line 2: flags: unknown vip"),
        ("r1,2026-11-22,s1,li,,1,8.00,,,", "line 2: code is empty"),
        (",2026-11-22,s1,li,690,1,8.00,,,", "line 2: receipt is empty"),
        ("r1,2026-11-22,s1,li,690,1,8.00", "line 2: more or fewer cells"),
        ("r1,2026-11-22,s1,li,690,1,8.00,,,,,", "line 2: more or fewer cells"),
        ("r1,2026-11-22,s1,li,690,1,8.00,,,a\nr1,2026-11-22,s1,wu,690,1,8.00,,,a", "line 3: receipt r1 has another"),
        ("r1,2026-11-22,s1,li,690,1,8.00,,,a\nr2,2026-11-22,s1,li,690,1,8.00,,,b", "line 3: store s1 belongs to a"),
        ('r1,2026-11-22,s1,"li,690', "unexpected end of data"),
        ("", "no line below its header"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, row: str, said: str) -> None:
    with pytest.raises(NeedsOperator) as refused:
        read_receipts(written(tmp_path, f"{HEADER}\n{row}\n" if row else f"{HEADER}\n"), "Asia/Shanghai")
    assert said in refused.value.message


def test_another_header_and_other_bytes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NeedsOperator, match="without at, customer"):
        read_receipts(written(tmp_path, "receipt,store,code,quantity,unit_price\n"), "Asia/Shanghai")
    (tmp_path / "receipts.csv").write_bytes(f"{HEADER}\n".encode() + "r1,2026-11-22,s1,李".encode("gbk"))
    with pytest.raises(NeedsOperator, match="utf-8"):
        read_receipts(tmp_path / "receipts.csv", "Asia/Shanghai")


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    out = io.StringIO()
    row: dict[str, Any] = dict.fromkeys([*NEEDED, *OPTIONAL], "")
    row |= {"receipt": "r1", "at": "2026-11-22T04:00:00+00:00", "store": "s1", "code": "690", "quantity": 1}
    assert write_receipts([row | {"unit_price": "8.00"}], out) == 1
    read = read_receipts(written(tmp_path, out.getvalue()), "Asia/Shanghai")
    assert read.receipts[0].lines[0].gross_fen == 800


def test_the_verb_tells_members_use_income_and_cost(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    told = CliRunner().invoke(app, ["plan", "simulate", "light-10", "--receipts", str(path), "--json"])
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert (found["members"], found["uses"], found["given_fen"], found["charged_fen"]) == (1, 2, 1600, 1000)
    assert found["pay_the_fee"] == {"memberships": 1, "fen": 1000}
    assert [(one["store"], one["entity"], one["cost_fen"]) for one in found["stores"]] == [
        ("s1", "chain", 800),
        ("s2", "north", 800),
    ]


def test_a_plan_that_cannot_be_offered_is_named(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("id: x\n", encoding="utf-8")
    with pytest.raises(NeedsOperator, match="is missing"):
        read_plan(str(tmp_path / "plan.yaml"))
    with pytest.raises(NeedsOperator) as refused:
        read_plan("nobody")
    assert "light-10" in refused.value.do


def test_a_house_s_own_sales_come_back_as_receipts(migrated_database_url: str, tmp_path: Path) -> None:
    items = {"690": {"flags": ["tobacco"]}, "691": {"flags": []}}
    lines = [
        {
            "line": 1,
            "code": "690",
            "name": "smoke",
            "quantity": 2,
            "unit_fen": 1500,
            "discount_fen": 0,
            "net_fen": 3000,
        },
        {"line": 2, "code": "691", "name": "ham", "quantity": 1, "unit_fen": 999, "discount_fen": 300, "net_fen": 50},
    ]
    sale = (
        "INSERT INTO sale (id, receipt, session, store, lane, terminal, entity, business_date, at, member, gross_fen,"
        " discount_fen, due_fen, rounding_fen, suspense_fen, agency_fen, lines, tenders, uses, till_txn, voided_at)"
        " VALUES (%s, %s, 'v', 's1', 'l1', 't1', 'north', '2026-11-22', '2026-11-22T04:00:00Z', 'li', 3350, 300, 3050,"
        " 0, 0, 0, %s, '[]', '[]', '', %s)"
    )
    with psycopg.connect(migrated_database_url, autocommit=True) as conn:
        conn.execute(
            "INSERT INTO store (id, chain, region, shard, name_zh, name_en, zone, cutoff_hour, basket_owner, opened_at)"
            " VALUES ('s1', 'acme', 'north', 1, '', '', 'Asia/Shanghai', 0, 'pos', now())"
        )
        for code, doc in items.items():
            conn.execute("INSERT INTO item (chain, code, version, doc) VALUES ('acme', %s, 1, %s)", (code, Jsonb(doc)))
        conn.execute(sale, ("a", "r1", Jsonb(lines), None))
        conn.execute(sale, ("b", "r2", Jsonb(lines), datetime(2026, 11, 22, 5, tzinfo=UTC)))
    out = io.StringIO()
    assert write_receipts(sold_lines(migrated_database_url), out) == 2
    (receipt,) = read_receipts(written(tmp_path, out.getvalue()), "Asia/Shanghai").receipts
    assert (receipt.number, receipt.customer, receipt.store) == ("r1", "li", "s1")
    assert [(one.gross_fen, sorted(one.flags)) for one in receipt.lines] == [(3000, ["tobacco"]), (350, [])]
