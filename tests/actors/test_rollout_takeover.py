"""One rollout takes over from another: whatever both changed is undone to what stood before the first; and the tail."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest

from actors.rollout_effects import Journal, Restore, RollBack, RolloutTurn, SetDesired
from actors.rollout_takeover import TAKEOVERS_MAX, take_over
from models.domain.errors import Refused
from models.domain.ids import StoreId, TerminalId
from models.domain.rollout import Artefact, Observed, RolloutId, RolloutState, Selector, TargetState, digest_of
from models.domain.rollout_journal import Rollout, folded
from models.domain.rollout_plan import planned
from tests.actors.rollout_driver import Driver, driver
from tests.actors.test_rollout import CHAIN
from tests.domain.rollouts import CONFIG, OTHER, SOFTWARE, after, new, old, policy, rollout, rules, site

PAYLOAD = '{"volume":3}'
NEXT = replace(CONFIG, version="c3", payload=PAYLOAD, sha256=digest_of(PAYLOAD))
ONE_BY_ONE = (
    {"name": "one", "stores": 1} | rules(),
    {"name": "two", "stores": 1} | rules(),
    {"name": "all", "stores": "all"} | rules(),
)
EVERYBODY = frozenset(one.terminal for place in CHAIN for one in place.terminals)


def draft(*sites: Any, artefact: Artefact = NEXT, name: str = "r-2", **over: Any) -> Rollout:
    rule = policy(*over.pop("stages", ONE_BY_ONE), **over)
    return rollout(rule, *(sites or CHAIN), artefact=artefact, name=name)


def under_way() -> Driver:
    """The first rollout changed every store: two have it, two were only asked."""
    house = driver(*CHAIN)
    house.tick()
    house.become(new(), "s-0-till", "s-1-till")
    house.tick(after(1))
    house.tick(after(61))
    return house


def taken(
    house: Driver, successor: Rollout, in_service: Collection[TerminalId] = EVERYBODY, at: int = 70
) -> tuple[RolloutTurn, Driver]:
    ended, begun = take_over(house.rollout, successor, OTHER, in_service, after(at))
    entries = [one.entry for one in begun.effects if isinstance(one, Journal)]
    assert folded(successor, entries) == begun.rollout
    after_it = Driver(begun.rollout, CHAIN)
    after_it.seen = dict(house.seen)
    return ended, after_it


def back(house: Driver, gen: int = 9) -> None:
    """Terminals carry out every restore they were given."""
    for one in house.of(Restore):
        hashed = f"h-{one.part}"
        house.seen[one.target] = old(
            gen=gen, applied_gen=gen, part=one.part, config_hash=hashed, reported_hash=hashed, online=True
        )


def test_what_the_first_changed_is_the_seconds_with_what_stood_before_both() -> None:
    ended, second = taken(under_way(), draft())
    assert (ended.rollout.state, ended.rollout.superseded_by) == (RolloutState.SUPERSEDED, "r-2")
    assert (second.rollout.state, second.rollout.supersedes) == (RolloutState.RUNNING, "r-1")
    marks = second.rollout.marks
    assert {mark.state for mark in marks.values()} == {TargetState.QUEUED}
    assert {mark.previous for mark in marks.values()} == {"{}"}
    second.tick(after(71))
    [asked] = second.of(SetDesired)
    assert asked.part == PAYLOAD, "one store at a time, by its own stages"
    assert second.rollout.mark(asked.target).previous == "{}", "not what the first had put there"


@pytest.mark.parametrize("asked_first", [False, True])
def test_a_rollback_of_the_second_reaches_stages_that_it_had_not_opened(asked_first: bool) -> None:
    _, second = taken(under_way(), draft())
    if asked_first:
        second.tick(after(71))
    second.tell(RollBack(OTHER, "neither"), after(72))
    second.tick(after(73))
    assert {one.part for one in second.of(Restore)} == {"{}"}
    assert len(second.of(Restore)) == 4
    assert second.stands() is RolloutState.ROLLING_BACK
    back(second)
    second.tick(after(74))
    assert second.stands() is RolloutState.ROLLED_BACK
    assert {mark.state for mark in second.rollout.marks.values()} == {TargetState.ROLLED_BACK}


def test_an_order_of_the_first_that_comes_late_is_nobody_elses_change() -> None:
    house = under_way()
    _, second = taken(house, draft())
    late = TerminalId("s-2-till")
    assert second.seen[late].part == "{}"
    second.tick(after(71))
    second.become(new(gen=2), late)
    second.tell(RollBack(OTHER, "neither"), after(72))
    second.tick(after(73))
    assert second.rollout.mark(late).state is TargetState.ROLLING_BACK
    second.become(replace(second.seen[late], part='{"volume":9}', gen=3), late)
    second.tick(after(74))
    assert second.rollout.mark(late).state is TargetState.SUPERSEDED, "that is somebody else's"


def test_the_second_goes_through_its_stages_to_its_end() -> None:
    _, second = taken(under_way(), draft())
    for n in range(8):
        second.tick(after(71 + 61 * n))
        for one in second.of(SetDesired):
            second.become(
                Observed(3, PAYLOAD, "h3", True, 3, "h3", "1.0", "b1"),
                one.target,
            )
    assert second.stands() is RolloutState.COMPLETED
    assert not any(mark.inherited for mark in second.rollout.marks.values())


def test_a_third_still_knows_what_stood_before_the_first() -> None:
    _, second = taken(under_way(), draft())
    second.tick(after(71))
    third_part = '{"volume":4}'
    third = draft(artefact=replace(NEXT, version="c4", payload=third_part, sha256=digest_of(third_part)), name="r-3")
    _, begun = take_over(second.rollout, third, OTHER, EVERYBODY, after(80))
    marks = begun.rollout.marks.values()
    assert {mark.previous for mark in marks} == {"{}"}
    assert {mark.earlier for mark in marks} == {(CONFIG.sha256, NEXT.sha256)}


def refused(house: Driver, successor: Rollout, in_service: Collection[TerminalId] = EVERYBODY) -> str:
    with pytest.raises(Refused) as found:
        take_over(house.rollout, successor, OTHER, in_service, after(70))
    return found.value.code


def test_what_does_not_fit_is_refused() -> None:
    house = under_way()
    assert refused(house, draft(*CHAIN[1:])) == "supersede_misfit", "it leaves a changed store alone"
    take_over(house.rollout, draft(*CHAIN[1:]), OTHER, EVERYBODY - {TerminalId("s-0-till")}, after(70))
    assert refused(house, draft(artefact=SOFTWARE)) == "supersede_misfit"
    other = '{"brightness":3}'
    apart = replace(NEXT, payload=other, sha256=digest_of(other))
    assert refused(house, draft(artefact=apart)) == "supersede_misfit", "what it does not name nobody would put back"
    house.rollout = replace(house.rollout, state=RolloutState.COMPLETED)
    assert refused(house, draft()) == "already_over"
    house.rollout = replace(house.rollout, state=RolloutState.DRAFT)
    assert refused(house, draft()) == "not_running"


def test_takeovers_have_an_end() -> None:
    house = under_way()
    many = tuple(digest_of(str(n)) for n in range(TAKEOVERS_MAX))
    marks = {target: replace(mark, earlier=many) for target, mark in house.rollout.marks.items()}
    house.rollout = replace(house.rollout, marks=marks)
    assert refused(house, draft()) == "supersede_misfit"


def test_twice_is_once_and_who_is_back_is_not_taken_over() -> None:
    house = under_way()
    marks = dict(house.rollout.marks)
    marks[TerminalId("s-3-till")] = replace(marks[TerminalId("s-3-till")], state=TargetState.ROLLED_BACK)
    house.rollout = replace(house.rollout, marks=marks)
    ended, second = taken(house, draft())
    assert TerminalId("s-3-till") not in second.rollout.marks
    again = take_over(ended.rollout, second.rollout, OTHER, EVERYBODY, after(99))
    assert [one.effects for one in again] == [(), ()]


# ---------------------------------------------------------------- who was offline at the end, and who opens later

LOOSE = {"name": "all", "stores": "all"} | rules(success_percent_min=50, offline_percent_max=50, executed_min=2)


def all_but_one(**over: Any) -> Driver:
    house = driver(*CHAIN, stages=(LOOSE,), **over)
    house.become(old(online=False), "s-1-till")
    house.tick()
    house.become(new(), "s-0-till", "s-2-till", "s-3-till")
    for seconds in (1, 61):
        house.tick(after(seconds))
    return house


def test_without_a_tail_who_was_offline_keeps_what_it_had_and_the_end_says_so() -> None:
    house = all_but_one()
    assert house.stands() is RolloutState.COMPLETED
    assert house.rollout.why.en.endswith("1 offline stores keep what they had: another rollout has to reach them")
    assert house.rollout.why.zh.endswith("1 家离线门店保留原有内容，此后不再更新")
    house.become(old(), "s-1-till")
    assert house.tick(after(99)).effects == ()


def test_with_a_tail_who_was_offline_follows_and_so_does_who_opens_later() -> None:
    house = all_but_one(tail=True)
    assert house.stands() is RolloutState.TAILING
    assert house.rollout.why.en.endswith("1 offline stores follow when they answer")
    house.become(old(), "s-1-till")
    late = planned(site(50), Selector(all_stores=True), frozenset())
    assert late is not None
    house.arrivals = (late,)
    house.seen[TerminalId("s-50-till")] = old()
    house.tick(after(99))
    house.tick(after(100))
    asked = {target for target, mark in house.rollout.marks.items() if mark.on_the_way}
    assert asked == {"s-1-till", "s-50-till"}
    house.become(new(), "s-1-till", "s-50-till")
    house.tick(after(101))
    house.tick(after(161))
    assert set(house.states().values()) == {TargetState.SUCCEEDED}
    assert house.stands() is RolloutState.TAILING
    assert [one.store for one in house.rollout.tail] == [StoreId("s-50")]
    assert house.rollout.id == RolloutId("r-1")
