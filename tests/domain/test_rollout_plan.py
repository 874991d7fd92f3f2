"""The frozen plan: same seed, same plan; strata keep their shares; named stores first."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.domain.errors import Refused
from models.domain.ids import RegionId, StoreId, TerminalId
from models.domain.rollout import Selector, Site, Stage
from models.domain.rollout_plan import resolve, selected
from tests.domain.rollouts import policy, rules, site

ALL = Selector(all_stores=True)
RULES = policy({"name": "x", "stores": "all"} | rules()).stages[0].policy


def stages(*sizes: int, named: tuple[str, ...] = ()) -> list[Stage]:
    found = [Stage(f"n{n}", size, RULES) for n, size in enumerate(sizes)]
    found[0] = replace(found[0], named=tuple(StoreId(one) for one in named))
    return [*found, Stage("all", 0, RULES)]


CHAIN = [site(n, region="gz" if n % 10 < 6 else "sz" if n % 10 < 9 else "fs") for n in range(100)]


def test_the_same_seed_gives_the_same_plan_in_any_order_of_the_inventory() -> None:
    one = resolve(CHAIN, ALL, stages(2, 20), 7, stratify=("region",))
    other = resolve(reversed(CHAIN), ALL, stages(2, 20), 7, stratify=("region",))
    assert one == other
    assert one.intact
    assert not replace(one, seed=8).intact
    assert resolve(CHAIN, ALL, stages(2, 20), 8, stratify=("region",)).sha256 != one.sha256


def test_each_stage_keeps_the_shares() -> None:
    plan = resolve(CHAIN, ALL, stages(10, 20), 7, stratify=("region",))
    assert [len(stage.stores) for stage in plan.stages] == [10, 20, 70]
    for stage, shares in zip(plan.stages, ((6, 3, 1), (12, 6, 2), (42, 21, 7)), strict=True):
        found = Counter(one.region for one in stage.stores)
        assert (found[RegionId("gz")], found[RegionId("sz")], found[RegionId("fs")]) == shares


def test_named_stores_come_first_and_count_in_their_strata() -> None:
    plan = resolve(CHAIN, ALL, stages(10, named=("s-9", "s-19")), 7, stratify=("region",))
    first = plan.stages[0].stores
    assert [one.store for one in first[:2]] == ["s-9", "s-19"]
    assert Counter(one.region for one in first) == {"gz": 5, "sz": 3, "fs": 2}


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(0, 2**32), st.lists(st.sampled_from("abcd"), min_size=45, max_size=80))
def test_no_store_is_lost_or_asked_twice(size: int, seed: int, regions: list[str]) -> None:
    chain = [site(n, region) for n, region in enumerate(regions)]
    plan = resolve(chain, ALL, stages(size), seed, stratify=("region",))
    asked = [one.store for stage in plan.stages for one in stage.stores]
    assert sorted(asked) == sorted(one.store for one in chain)
    for region, there in Counter(regions).items():
        share = size * there / len(regions)
        got = sum(one.region == region for one in plan.stages[0].stores)
        assert share - 1 < got < share + 1


@pytest.mark.parametrize(
    ("chain", "selector", "sizes", "named", "code"),
    [
        (CHAIN, Selector(), (2,), (), "nothing_selected"),
        ([], ALL, (2,), (), "nothing_selected"),
        (CHAIN, ALL, (2,), ("s-999",), "named_store_unknown"),
        (CHAIN[:2], ALL, (3,), (), "too_few_stores"),
        (CHAIN[:2], ALL, (2,), (), "too_few_stores"),
        (CHAIN, replace(ALL, excluded_stores=frozenset({StoreId("s-0O1")})), (2,), (), "unknown_selected"),
        (CHAIN, replace(ALL, excluded_labels={"format": frozenset({"stret"})}), (2,), (), "unknown_selected"),
        (CHAIN, replace(ALL, roles=frozenset({"cook"})), (2,), (), "unknown_selected"),
    ],
)
def test_what_cannot_be_resolved_is_refused(
    chain: list[Site], selector: Selector, sizes: tuple[int, ...], named: tuple[str, ...], code: str
) -> None:
    with pytest.raises(Refused) as refused:
        resolve(chain, selector, stages(*sizes, named=named), 7)
    assert refused.value.code == code


def test_a_last_stage_that_does_not_take_all_leaves_stores_over() -> None:
    with pytest.raises(Refused, match="in no stage"):
        resolve(CHAIN, ALL, [Stage("few", 2, RULES)], 7)


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        (ALL, True),
        (Selector(), False),
        (Selector(regions=frozenset({RegionId("gz")})), True),
        (Selector(regions=frozenset({RegionId("sz")})), False),
        (Selector(stores=frozenset({StoreId("s-1")})), True),
        (Selector(labels={"format": frozenset({"street"})}), True),
        (Selector(all_stores=True, labels={"format": frozenset({"office"})}), False),
        (Selector(all_stores=True, excluded_regions=frozenset({RegionId("gz")})), False),
        (Selector(stores=frozenset({StoreId("s-1")}), excluded_stores=frozenset({StoreId("s-1")})), False),
        (Selector(all_stores=True, excluded_labels={"format": frozenset({"street"})}), False),
    ],
)
def test_a_selector_says_whom_it_means_and_exclusions_win(selector: Selector, found: bool) -> None:
    assert selected(selector, site(1, format="street")) is found


def test_terminals_are_narrowed_and_without_a_mandatory_role_each_is() -> None:
    chain = [site(1, terminals=3), site(2, terminals=1)]
    plan = resolve(chain, ALL, stages(1), 7, mandatory_roles=frozenset({"face"}))
    by_store = {one.store: one for stage in plan.stages for one in stage.stores}
    assert {one.role: one.mandatory for one in by_store[StoreId("s-1")].targets} == {
        "till": False,
        "face": True,
        "screen": False,
    }
    assert [one.mandatory for one in by_store[StoreId("s-2")].targets] == [True]
    narrow = replace(ALL, roles=frozenset({"face"}), excluded_terminals=frozenset({TerminalId("s-9-face")}))
    with pytest.raises(Refused):
        resolve([site(9, terminals=3)], narrow, stages(1), 7)
