"""Codes under bars: check digits, element strings, labels of scales, and what a scan makes of them."""

from __future__ import annotations

import string
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.barcode import (
    FNC1,
    InStoreLayout,
    Measure,
    check_digit,
    gs1_date,
    is_gtin,
    read,
    read_elements,
    read_layouts,
    spellings,
    value_check_digit,
    weighed_fen,
    write_elements,
)
from models.domain.errors import Refused

TODAY = date(2026, 11, 22)
PRICED = InStoreLayout(frozenset({"21"}))
WEIGHED = InStoreLayout(frozenset({"22", "23"}), (2, 4), (7, 5), Measure.WEIGHT, value_check=6)
JIAO = InStoreLayout(frozenset({"28"}), (2, 6), (8, 4), step=10)


def digits(length: int) -> st.SearchStrategy[str]:
    return st.text(alphabet="0123456789", min_size=length, max_size=length)


def gtin(length: int) -> st.SearchStrategy[str]:
    return digits(length - 1).map(lambda body: body + str(check_digit(body)))


ANY_GTIN = st.sampled_from([8, 12, 13, 14]).flatmap(gtin)


@pytest.mark.parametrize(("value", "digit"), [("2875", 9), ("14685", 6), ("0000", 0), ("00000", 0)])
def test_the_check_digits_of_prices_are_those_of_the_specification(value: str, digit: int) -> None:
    assert value_check_digit(value) == digit  # the first two: GS1 General Specifications, 7.9.3 and 7.9.4


@given(ANY_GTIN, st.data())
def test_one_wrong_digit_is_always_seen(code: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(code) - 1))
    other = data.draw(st.sampled_from("0123456789").filter(lambda digit: digit != code[place]))
    assert is_gtin(code)
    assert not is_gtin(code[:place] + other + code[place + 1 :])


@given(st.sampled_from([4, 5]).flatmap(digits), st.data())
def test_one_wrong_digit_of_a_price_is_always_seen(value: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(value) - 1))
    other = data.draw(st.sampled_from("0123456789").filter(lambda digit: digit != value[place]))
    assert value_check_digit(value) != value_check_digit(value[:place] + other + value[place + 1 :])


@given(ANY_GTIN)
def test_the_spellings_of_a_gtin_are_the_same_article(code: str) -> None:
    made = spellings(code)
    assert made[0] == code
    assert all(is_gtin(one) and one.lstrip("0") == code.lstrip("0") for one in made)
    assert all(set(spellings(one)) == set(made) for one in made)


@given(
    st.sampled_from([PRICED, WEIGHED, JIAO]).flatmap(
        lambda layout: st.tuples(
            st.just(layout),
            st.sampled_from(sorted(layout.prefixes)),
            digits(layout.item[1]),
            st.integers(0, 10 ** layout.value[1] - 1).map(lambda n: n * layout.step),
        )
    )
)
def test_what_a_scale_prints_is_read_back(label: tuple[InStoreLayout, str, str, int]) -> None:
    layout, prefix, item, value = label
    code = layout.write(prefix, item, value)
    assert is_gtin(code)
    assert layout.read(code) == (item, value)
    scanned = read(code, [PRICED, WEIGHED, JIAO], TODAY)
    assert scanned.codes == (prefix + item, item)
    assert (scanned.weight_g, scanned.price_fen) == (
        (value, None) if layout.measure is Measure.WEIGHT else (None, value)
    )


def test_a_value_whose_own_check_digit_does_not_fit_is_refused() -> None:
    code = WEIGHED.write("22", "1234", 350)
    body = code[:6] + str((int(code[6]) + 1) % 10) + code[7:12]
    with pytest.raises(Refused, match="check digit") as refused:
        read(body + str(check_digit(body)), [WEIGHED], TODAY)
    assert refused.value.code == "code_misread"


TEXT = st.text(alphabet=string.ascii_letters + string.digits + "-/.", min_size=1, max_size=20)
DATES = st.dates(date(2000, 1, 1), date(2049, 12, 31)).map(lambda day: f"{day:%y%m%d}")
ELEMENTS = st.fixed_dictionaries(
    {"01": gtin(14)},
    optional={
        "10": TEXT,
        "17": DATES,
        "15": DATES,
        "3103": digits(6),
        "3922": st.text(alphabet="0123456789", min_size=1, max_size=15),
        "21": TEXT,
    },
)


@given(ELEMENTS, st.randoms(use_true_random=False), st.sampled_from(["]C1", "]d2", FNC1, ""]))
def test_an_element_string_is_read_back_in_any_order(elements: dict[str, str], rng: object, head: str) -> None:
    pairs = list(elements.items())
    rng.shuffle(pairs)  # type: ignore[attr-defined]
    text = write_elements(dict(pairs))
    assert read_elements(head + text) == elements
    assert read_elements("".join(f"({ai}){value}" for ai, value in pairs)) == elements


def test_a_label_of_the_specification() -> None:
    said = read(f"]C10106901234567892172612311 0AB-1{FNC1}3103001250".replace(" ", ""), [], TODAY)
    assert said.codes[:2] == ("06901234567892", "6901234567892")
    assert (said.weight_g, said.use_by, said.lot) == (1250, date(2026, 12, 31), "AB-1")
    priced = read("(01)06901234567892(3922)1234(15)270100", [], TODAY)
    assert (priced.price_fen, priced.best_before) == (1234, date(2027, 1, 31))
    assert read("(01)06901234567892(3920)12", [], TODAY).price_fen == 1200
    assert read("(01)06901234567892(3105)123456", [], TODAY).weight_g == 1234


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("6901234567893", "code_misread"),
        ("]E06901234567893", "code_misread"),
        ("(01)06901234567893", "code_unreadable"),
        ("(10)AB", "code_unreadable"),
        ("]C1", "code_unreadable"),
        ("]C10106901234567892" + "99X", "code_unreadable"),
        ("]C1010690123456789", "code_unreadable"),
        ("(01)06901234567892(17)261332", "code_unreadable"),
        ("(01)06901234567892x", "code_unreadable"),
        ("(01)06901234567892(10)A(10)B", "code_unreadable"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(code: str, problem: str) -> None:
    with pytest.raises(Refused) as refused:
        read(code, [PRICED], TODAY)
    assert refused.value.code == problem


def test_codes_of_the_chains_own_are_left_as_they_are() -> None:
    assert read("tea-1", [PRICED], TODAY).codes == ("tea-1",)
    assert read("12345", [PRICED], TODAY).codes == ("12345",)
    assert read("]E06901234567892", [], TODAY).codes[0] == "6901234567892"


@pytest.mark.parametrize(
    ("text", "today", "day"),
    [
        ("260200", TODAY, date(2026, 2, 28)),
        ("991231", TODAY, date(1999, 12, 31)),
        ("770101", TODAY, date(1977, 1, 1)),
        ("760101", TODAY, date(2076, 1, 1)),
        ("000101", date(2090, 1, 1), date(2100, 1, 1)),
    ],
)
def test_the_century_of_a_date_is_the_nearest(text: str, today: date, day: date) -> None:
    assert gs1_date(text, today) == day


def test_layouts_of_a_file() -> None:
    (made,) = read_layouts([{"prefixes": [22], "item": [2, 4], "value": [7, 5], "measure": "weight", "value_check": 6}])
    assert made == InStoreLayout(frozenset({"22"}), (2, 4), (7, 5), Measure.WEIGHT, value_check=6)
    many: tuple[list[dict[str, object]], ...] = (
        [{"prefixes": []}],
        [{"prefixes": ["19"]}],
        [{"prefixes": ["21"], "item": [2, 6]}],
        [{"prefixes": ["21"], "colour": 1}],
        [{"prefixes": ["21"], "value": [9, 3], "item": [2, 5], "value_check": 8}],
        [{"prefixes": ["21"]}, {"prefixes": ["21", "22"]}],
    )
    for wrong in many:
        with pytest.raises(ValueError, match="codes"):
            read_layouts(wrong)


def test_weighed_goods_are_rounded_for_the_customer() -> None:
    assert [weighed_fen(1999, grams) for grams in (0, 1, 350, 1000)] == [0, 1, 699, 1999]
