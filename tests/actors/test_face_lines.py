"""Stores take turns by what they used; within one, first come first served by rank."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.face_lines import LOOK_UNITS, RANKS, UNITS, Asked, Lines, Verb
from models.domain.ids import StoreId

STORES = [StoreId(name) for name in ("a", "b", "c", "d")]
ASKS = st.lists(st.tuples(st.sampled_from(STORES), st.sampled_from(list(Verb))), min_size=1, max_size=80)


def asked(n: int, store: StoreId = STORES[0], verb: Verb = Verb.IDENTIFY) -> Asked:
    return Asked(f"q{n}", store, verb, 100.0, float(n))


def filled(asks: list[tuple[StoreId, Verb]]) -> tuple[Lines, list[Asked]]:
    lines, all_ = Lines(), [asked(n, *one) for n, one in enumerate(asks)]
    for one in all_:
        lines.put(one)
    return lines, all_


@settings(max_examples=40)
@given(ASKS)
def test_everybody_is_taken_once_and_in_order_within_store_and_rank(asks: list[tuple[StoreId, Verb]]) -> None:
    lines, all_ = filled(asks)
    assert (len(lines), len(list(lines))) == (len(all_), len(all_))
    taken = [lines.take() for _ in all_]
    assert sorted(taken, key=lambda one: one.at_s) == all_
    assert len(lines) == 0
    with pytest.raises(IndexError):
        lines.take()
    for store in STORES:
        mine = [one for one in taken if one.store == store]
        assert mine == sorted(mine, key=lambda one: (RANKS[one.verb], one.at_s))


@settings(max_examples=40)
@given(ASKS, st.lists(st.tuples(st.sampled_from(STORES), st.sampled_from(list(Verb))), max_size=40))
def test_two_stores_that_wait_are_never_apart_by_more_than_one_question_each(
    asks: list[tuple[StoreId, Verb]], later: list[tuple[StoreId, Verb]]
) -> None:
    lines, all_ = filled(asks)
    coming = [asked(1_000 + n, *one) for n, one in enumerate(later)]
    waits_since: dict[StoreId, Counter[StoreId]] = {}
    work: Counter[StoreId] = Counter()
    for _ in range(len(all_) + len(coming)):
        if coming:
            lines.put(coming.pop(0))
        for store in STORES:
            if not lines.waiting_of(store):
                waits_since.pop(store, None)
            else:
                waits_since.setdefault(store, Counter(work))
        one = lines.take()
        work[one.store] += one.units
        for mine, before in waits_since.items():
            if lines.waiting_of(mine):
                for other in STORES:
                    got, had = work[other] - before[other], work[mine] - before[mine]
                    assert got - had <= 2 * LOOK_UNITS, (mine, other)


@settings(max_examples=40)
@given(ASKS, st.sampled_from(STORES), st.sampled_from(list(Verb)))
def test_what_is_said_to_be_ahead_is_never_less_than_what_comes_first(
    asks: list[tuple[StoreId, Verb]], store: StoreId, verb: Verb
) -> None:
    lines, _ = filled(asks)
    said = lines.ahead_of(store, verb)
    newcomer = asked(5_000, store, verb)
    lines.put(newcomer)
    before = 0
    while (one := lines.take()) is not newcomer:
        before += one.units
    assert before <= said


@settings(max_examples=40)
@given(ASKS, st.data())
def test_who_left_is_not_taken_and_who_was_taken_in_vain_comes_first(
    asks: list[tuple[StoreId, Verb]], data: st.DataObject
) -> None:
    lines, all_ = filled(asks)
    gone = data.draw(st.sets(st.sampled_from(all_)))
    for one in gone:
        assert lines.drop(one)
        assert not lines.drop(one)
    left = [one for one in all_ if one not in gone]
    if left:
        first = lines.take()
        lines.put(first, again=True)
        assert lines.take() is first or len({one.store for one in left}) > 1
        lines.put(first, again=True)
    assert {lines.take().question for _ in left} == {one.question for one in left}
    assert len(lines) == 0


def test_a_quiet_store_waits_for_one_turn_of_a_storm() -> None:
    lines = Lines()
    for n in range(500):
        lines.put(asked(n, STORES[0]))
    for _ in range(100):
        lines.take()
    lines.put(asked(900, STORES[1], Verb.SHOOT))
    assert lines.ahead_of(STORES[1], Verb.SHOOT) <= 4 * LOOK_UNITS
    assert STORES[1] in {lines.take().store for _ in range(2)}


def test_who_had_more_is_not_served_first_after_a_pause() -> None:
    lines = Lines()
    lines.put(asked(0, STORES[1]))
    lines.put(asked(1, STORES[1]))
    lines.put(asked(2, STORES[0]))
    assert [lines.take().store for _ in range(2)] == [STORES[1], STORES[0]]
    lines.put(asked(3, STORES[0]))  # came back at once: the other one's turn
    assert [lines.take().store for _ in range(2)] == [STORES[1], STORES[0]]


def test_the_one_that_gives_way_is_the_newest_of_the_longest_line() -> None:
    lines = Lines()
    assert lines.last_of_longest() is None
    lines.put(asked(0, STORES[0]))
    for n in range(1, 4):
        lines.put(asked(n, STORES[1], Verb.IDENTIFY if n < 3 else Verb.RESCORE))
    assert lines.longest() == 3
    assert lines.last_of_longest() == asked(2, STORES[1])
    assert lines.oldest_s() == 0.0


def test_memory_does_not_grow_with_the_stores_that_came_by() -> None:
    lines = Lines()
    lines.put(asked(0))
    lines.put(asked(1))
    for n in range(5_000):
        lines.put(asked(n, StoreId(f"s{n}")))
        lines.take()
    assert len(lines._ahead) <= 100
    assert len(lines._settles) <= 100
    assert len(lines._order) <= 100


def test_newcomers_do_not_pass_for_ever_who_waits() -> None:
    lines = Lines()
    waits = [asked(0), asked(1)]
    for one in waits:
        lines.put(one)
    taken = []
    for n in range(20):
        lines.put(asked(10 + n, StoreId(f"s{n}")))
        taken.append(lines.take())
    assert taken.index(waits[1]) <= 8


def test_work_is_weighed() -> None:
    assert {UNITS[verb] for verb in (Verb.RESCORE, Verb.ENROL)} == {1}
    lines = Lines()
    for n in range(40):
        lines.put(asked(n, STORES[0], Verb.RESCORE))
        lines.put(asked(100 + n, STORES[1], Verb.IDENTIFY))
    taken = [lines.take() for _ in range(20)]
    assert sum(one.store == STORES[0] for one in taken) >= 16, "sixteen of the cheap ones for one that is dear"
