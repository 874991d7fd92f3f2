"""Price files: what is wrong is named by its line, and what they change is what becomes of the book."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.assortment import Assortment
from models.domain.plans import Text
from models.domain.price_file import (
    FAULTS_SHOWN_MAX,
    ITEMS_MAX,
    PriceFileError,
    difference,
    next_items,
    read_price_file,
)
from models.domain.pricing import Item
from models.domain.taxes import DEFAULT_TAXES, read_taxes, tax_of

HEADER = "code,name_zh,name_en,price,flags,tax,effective"
ZONE = "Asia/Shanghai"
NOW = datetime(2026, 11, 22, 4, tzinfo=UTC)
LATER = NOW + timedelta(days=10)


def rows(*lines: str, header: str = HEADER) -> list[str]:
    return [f"{line}\n" for line in (header, *lines)]


def faults(*lines: str, header: str = HEADER) -> tuple[str, ...]:
    with pytest.raises(PriceFileError) as wrong:
        read_price_file(rows(*lines, header=header), ZONE, DEFAULT_TAXES)
    return wrong.value.faults


def taken(*lines: str, header: str = HEADER) -> Mapping[str, object]:
    return read_price_file(rows(*lines, header=header), ZONE, DEFAULT_TAXES).rows


def item(code: str, fen: int, *later: tuple[datetime, int | None]) -> Item:
    return Item(code, Text(zh="茶", en="Tea"), fen, later=later)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("6901234567893,茶,Tea,1.00,,,", "check digit"),
        ("a b,茶,Tea,1.00,,,", "letters, digits"),
        (",茶,Tea,1.00,,,", "letters, digits"),
        ("tea,,Tea,1.00,,,", "name_zh"),
        (f"tea,茶,{'x' * 121},1.00,,,", "name_en"),
        ("tea,茶,Tea,1.0,,,", "two decimals"),
        ("tea,茶,Tea,-1.00,,,", "two decimals"),
        ("tea,茶,Tea,￥1.00,,,", "two decimals"),
        ("tea,茶,Tea,100000.01,,,", "at most"),
        ("tea,茶,Tea,1.00,cheap,,", "flag 'cheap'"),
        ("tea,茶,Tea,1.00,,17,", "tax '17'"),
        ("tea,茶,Tea,1.00,,,tomorrow", "effective"),
        ("tea,茶,Tea,1.00", "cells"),
        ("tea,茶,Tea,1.00,,,,more", "cells"),
    ],
)
def test_a_wrong_line_is_named(line: str, said: str) -> None:
    (fault,) = faults("6901234567892,可乐,Cola,3.00,,,", line)
    assert fault.startswith("line 3: ")
    assert said in fault


def test_codes_twice() -> None:
    assert faults("tea,茶,Tea,1.00,,,", "ham,腿,Ham,1.00,,,", "tea,茶,Tea,2.00,,,") == (
        "line 4: code tea is on line 2 already, with the same time",
    )
    assert "more than price" in faults("tea,茶,Tea,1.00,,,", "tea,绿茶,Tea,2.00,,,2026-12-01")[0]
    nine = [f"tea,茶,Tea,{n}.00,,,2027-01-{n:02}" for n in range(1, 10)]
    assert "more than 8 prices" in faults(*nine)[0]
    assert len(taken(*nine[:8])) == 1


def test_what_is_no_price_file() -> None:
    assert "columns are" in faults("x", header="code,price")[0]
    assert "columns are" in faults("x", header=HEADER + ",colour")[0]
    assert "columns are" in faults("x", header=HEADER + ",tax")[0]
    assert "no article" in faults()[0]
    assert len(faults(*(f"tea{n},,,1,,," for n in range(30)))) == FAULTS_SHOWN_MAX
    many = (f"t{n},茶,Tea,1.00,,,\n" for n in range(ITEMS_MAX + 1))
    with pytest.raises(PriceFileError, match="more than"):
        read_price_file(iter([HEADER + "\n", *many]), ZONE, DEFAULT_TAXES)


def test_a_right_file() -> None:
    heard: list[int] = []
    file = read_price_file(
        rows('6901234567892,"可乐, 罐",Cola,3.50,age_18 no_points,9,', "tea,茶,Tea,0.00,,,2026-12-01T06:00"),
        ZONE, DEFAULT_TAXES, heard.append,
    )  # fmt: skip
    assert (file.lines, heard) == (2, [2])
    items = next_items(file, {}, NOW, None)
    cola, tea = items["6901234567892"], items["tea"]
    assert (cola.name.zh, cola.unit_fen, cola.flags, cola.tax) == (
        "可乐, 罐",
        350,
        frozenset({"age_18", "no_points"}),
        "9",
    )
    begins = datetime(2026, 11, 30, 22, tzinfo=UTC)
    assert [tea.fen_at(at) for at in (NOW, begins - timedelta(seconds=1), begins)] == [None, None, 0]


def test_until_its_time_an_article_keeps_its_price() -> None:
    old = {"tea": item("tea", 100), "ham": item("ham", 500), "old": item("old", 700, (NOW - timedelta(days=1), 800))}
    file = read_price_file(
        rows("tea,茶,Tea,1.20,,,", "ham,腿,Ham,9.00,,,2026-11-23", "new,新,New,1.00,,,"), ZONE, DEFAULT_TAXES
    )
    new = next_items(file, old, NOW, LATER)
    assert [new["tea"].fen_at(at) for at in (NOW, LATER)] == [100, 120]
    assert [new["ham"].fen_at(at) for at in (NOW, NOW + timedelta(days=1))] == [500, 900]
    assert [new["new"].fen_at(at) for at in (NOW, LATER)] == [None, 100]
    assert [new["old"].fen_at(at) for at in (NOW, LATER)] == [800, None]
    assert "old" not in next_items(file, old, NOW, None)
    diff = difference(old, new, NOW)
    assert (diff.new, diff.changed, diff.gone, [jump.code for jump in diff.jumps]) == (1, 2, 1, ["ham"])


def test_jumps_are_measured_from_the_smaller_price() -> None:
    old = {"a": item("a", 100), "b": item("b", 100), "c": item("c", 0), "d": item("d", 150)}
    new = {"a": item("a", 150), "b": item("b", 151), "c": item("c", 1), "d": item("d", 100)}
    assert [jump.code for jump in difference(old, new, NOW).jumps] == ["b", "c"]
    assert [jump.code for jump in difference(old, new, NOW, 49).jumps] == ["a", "b", "c", "d"]
    assert difference(old, old, NOW).jumps == ()


PRICES = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 9), max_size=6)


@given(st.lists(PRICES, min_size=1, max_size=6))
def test_every_version_stays_what_it_was(versions: list[dict[str, int]]) -> None:
    assortment, before = Assortment(), dict[str, Item]()
    views = []
    for version, prices in enumerate(versions, 1):
        now = {code: item(code, fen) for code, fen in prices.items()}
        for code in {*before, *now}:
            if before.get(code) != now.get(code):
                assortment.put(version, code, now.get(code))
        views.append((assortment.at(version), now))
        before = now
        for view, then in views:
            assert dict(view) == then
            assert len(view) == len(then)
            assert [view.get(code) for code in "abcdef"] == [then.get(code) for code in "abcdef"]
            assert [code in view for code in "abcdef"] == [code in then for code in "abcdef"]


def test_taxes() -> None:
    assert read_taxes({"7": 700})["7"] == 700
    assert read_taxes({}) == DEFAULT_TAXES
    for wrong in ({"7": "700"}, {"7": True}, {"7": -1}, {"7": 5001}):
        with pytest.raises(ValueError, match="taxes"):
            read_taxes(wrong)
    assert tax_of([1130, 113, 0], 1300) == [130, 13, 0]
    assert sum(tax_of([1, 1, 1, 1, 5], 1300)) == 9 * 1300 // 11300
