"""A tick's orders within their limits, its decisions, and what people may tell it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actors.rollout_commands import conflict_with, receive
from actors.rollout_effects import (
    Approve,
    Attach,
    Decide,
    Halt,
    Journal,
    Observation,
    Pause,
    Promote,
    Publish,
    Restore,
    Resume,
    RollBack,
    SetDesired,
    Start,
    Supersede,
)
from models.domain.errors import Refused
from models.domain.ids import StoreId, TerminalId
from models.domain.rollout import (
    PersonId,
    RolloutId,
    RolloutState,
    Selector,
    StageState,
    TargetState,
)
from models.domain.rollout_gate import Way
from models.domain.rollout_journal import StageMoved, folded
from models.domain.rollout_plan import planned
from tests.actors.rollout_driver import AT_NIGHT, BY_NIGHT, Driver, driver
from tests.domain.rollouts import (
    AUTHOR,
    CONFIG,
    NOW,
    OTHER,
    SOFTWARE,
    after,
    new,
    old,
    policy,
    rollout,
    rules,
    site,
)

TWO = (
    {"name": "one", "stores": 1} | rules(following="approval", attachments=["privacy_assessment"]),
    {"name": "all", "stores": "all"} | rules(),
)
CHAIN = tuple(site(n) for n in range(4))


def to_approval(house: Driver) -> None:
    house.tick()
    [asked] = house.of(SetDesired)
    house.become(new(), asked.target)
    house.tick(after(1))
    house.tell(Attach(OTHER, "privacy_assessment", "doc-7"), after(2))
    house.tick(after(61))


# ---------------------------------------------------------------- the ladder


def test_one_stage_after_the_other_each_by_its_gate() -> None:
    house = driver(*CHAIN, stages=TWO)
    to_approval(house)
    assert house.rollout.stages[0].state is StageState.AWAITS_APPROVAL
    assert house.of(SetDesired) == []
    [decided] = house.of(Decide)
    assert (decided.gate.way, decided.counts.succeeded) == (Way.AWAIT_APPROVAL, 1)
    house.tell(Promote(OTHER), after(70))
    assert [one.state for one in house.rollout.stages] == [StageState.PASSED, StageState.OPEN]
    assert len(house.of(SetDesired)) == 3
    house.become(new())
    for seconds in (71, 131):
        house.tick(after(seconds))
    assert house.stands() is RolloutState.COMPLETED
    assert house.tick(after(999)).effects == ()


def test_the_author_cannot_approve_and_a_gate_is_never_skipped() -> None:
    house = driver(*CHAIN, stages=TWO)
    house.tick()
    with pytest.raises(Refused) as early:
        house.tell(Promote(OTHER))
    assert early.value.code == "not_waiting"
    house = driver(*CHAIN, stages=TWO)
    to_approval(house)
    with pytest.raises(Refused) as own:
        house.tell(Approve(AUTHOR), after(62))
    assert own.value.code == "own_rollout"
    with pytest.raises(Refused) as by_another_way:
        house.tell(Promote(PersonId(f"console:{AUTHOR}")), after(62))
    assert by_another_way.value.code == "own_rollout"
    with pytest.raises(Refused) as unseen:
        house.tell(Approve(OTHER, stage=1), after(62))
    assert unseen.value.code == "stage_moved"
    house.tell(Approve(OTHER, stage=0), after(62))
    assert house.tell(Approve(OTHER), after(63)).effects == (), "twice is once"


def test_an_approval_by_the_author_opens_nothing_even_if_it_is_in_the_journal() -> None:
    house = driver(*CHAIN, stages=TWO)
    to_approval(house)
    forged = StageMoved(after(62), 0, replace(house.rollout.stages[0], approved_by=AUTHOR, approved_at=after(62)))
    house.rollout = folded(house.rollout, (forged,))
    house.tick(after(63))
    assert house.rollout.stage == 0


def test_an_approval_is_void_when_what_was_approved_has_gone() -> None:
    house = driver(*CHAIN, stages=TWO)
    to_approval(house)
    house.tell(Approve(OTHER), after(62))
    first = house.rollout.plan.stages[0].stores[0].targets[0].terminal
    house.become(new(healthy=False), first)
    house.tick(after(63))
    assert house.rollout.stages[0].state is StageState.OPEN
    assert house.rollout.stages[0].approved_by is None


def test_without_its_attachment_a_stage_waits() -> None:
    house = driver(*CHAIN, stages=TWO)
    house.tick()
    house.become(new(), house.of(SetDesired)[0].target)
    house.tick(after(1))
    house.tick(after(61))
    assert house.last.why.en == "waits for: privacy_assessment is not attached yet"
    with pytest.raises(Refused):
        house.tell(Attach(OTHER, "holiday_photos", "x"), after(62))


def test_an_error_halts_and_brings_all_back_the_last_first() -> None:
    house = driver(*CHAIN, stages=(TWO[0] | {"following": "automatic", "attachments": []}, TWO[1]))
    house.tick()
    first = house.of(SetDesired)[0].target
    house.become(new(), first)
    house.tick(after(1))
    house.tick(after(61))
    asked = [one.target for one in house.of(SetDesired)]
    house.become(new(), *asked)
    house.become(new(reported_hash="old"), asked[1])
    house.tick(after(63))
    assert (house.stands(), house.rollout.halted_at) == (RolloutState.ROLLING_BACK, 1)
    order = [store.store for stage in house.rollout.plan.stages for store in stage.stores]
    assert [one.store for one in house.of(Restore)] == list(reversed(order))
    assert {one.part for one in house.of(Restore)} == {"{}"}
    for target in house.seen:
        house.become(old(gen=3, applied_gen=3), target)
    house.tick(after(64))
    assert house.stands() is RolloutState.ROLLED_BACK
    assert house.tick(after(65)).effects == ()


def test_a_store_that_fails_within_what_is_allowed_goes_back_alone_before_completion() -> None:
    loose = {"name": "all", "stores": "all"} | rules(
        success_percent_min=50, error_percent_max=50, error_stores_max=2, executed_min=4
    )
    house = driver(*CHAIN, stages=(loose,))
    house.tick()
    house.become(new())
    house.become(new(reported_hash="old"), "s-2-till")
    house.tick(after(1))
    assert [one.target for one in house.of(Restore)] == ["s-2-till"]
    house.tick(after(61))
    assert house.stands() is RolloutState.RUNNING
    assert "still on the way" in house.last.why.en
    house.become(old(gen=3, applied_gen=3), "s-2-till")
    house.tick(after(62))
    house.tick(after(63))
    assert house.stands() is RolloutState.COMPLETED
    assert house.states()["s-2-till"] is TargetState.ROLLED_BACK


def test_stores_of_an_earlier_stage_that_fall_back_stop_the_asking() -> None:
    first = {"name": "one", "stores": 1} | rules()
    house = driver(*CHAIN, stages=(first, {"name": "all", "stores": "all"} | rules(in_flight_stores_max=1)))
    house.tick()
    pilot = house.of(SetDesired)[0].target
    house.become(new(), pilot)
    house.tick(after(1))
    house.tick(after(61))
    second = house.of(SetDesired)
    house.become(new(), second[0].target)
    house.become(new(healthy=False), pilot)
    house.tick(after(63))
    house.tick(after(123))
    assert house.of(SetDesired) == []
    assert house.last.why.en.startswith("1 stores of stage one fell back")


# ---------------------------------------------------------------- limits


def test_in_flight_and_per_minute_limits() -> None:
    sites = tuple(site(n) for n in range(10))
    narrow = {"name": "all", "stores": "all"} | rules(in_flight_stores_max=4, starts_per_minute_max=3)
    house = driver(*sites, stages=(narrow,))
    house.tick()
    assert len(house.of(SetDesired)) == 3
    house.tick(after(30))
    assert [one for one in house.of(SetDesired) if one.target not in house.seen] == []
    assert sum(mark.asked for mark in house.rollout.marks.values()) == 3
    house.tick(after(60))
    assert sum(mark.asked for mark in house.rollout.marks.values()) == 4, "four in flight, whatever the minute allows"


def test_jitter_spreads_and_is_the_same_for_the_same_seed() -> None:
    sites = tuple(site(n) for n in range(20))
    spread = {"name": "all", "stores": "all"} | rules(jitter_s=600)
    house, again = driver(*sites, stages=(spread,)), driver(*sites, stages=(spread,))
    asked = []
    for seconds in range(0, 660, 60):
        house.tick(after(seconds))
        again.tick(after(seconds))
        assert house.last == again.last
        asked.append(sum(mark.asked for mark in house.rollout.marks.values()))
    assert asked[0] < 5
    assert asked[-1] == 20
    assert len(set(asked)) > 4


def test_configuration_changes_in_the_store_s_own_window() -> None:
    east = replace(site(2), zone="Asia/Tokyo")
    house = driver(site(1), east, stages=(BY_NIGHT,))
    house.tick()
    assert house.of(SetDesired) == []
    house.tick(after(AT_NIGHT - 3600))
    assert [one.store for one in house.of(SetDesired)] == ["s-2"], "an hour earlier in Tokyo"
    house.tick(after(AT_NIGHT))
    assert [one.store for one in house.of(SetDesired) if one.store == "s-1"] == ["s-1"]


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    night = [{"begins": "22:00", "until": "02:00", "weekdays": [1]}]  # Monday night
    stage = {"name": "all", "stores": "all"} | rules(windows=night, queue_deadline_s=700_000, jitter_s=0)
    for hours, opens in ((12, False), (13, True), (16, True), (17, False), (16 - 24, False), (13 + 24, False)):
        house = driver(site(1), stages=(stage,))
        house.tick(after(hours * 3600))
        assert bool(house.of(SetDesired)) is opens, hours


def test_a_lost_order_is_asked_again_under_the_same_id_until_it_stands() -> None:
    house = driver(site(1))
    house.tick()
    [first] = house.of(SetDesired)
    house.tick(after(1))
    assert house.of(SetDesired) == [first]
    house.become(new(applied_gen=1, reported_hash="old"))
    house.tick(after(2))
    assert house.of(SetDesired) == []


def test_who_does_not_answer_is_not_asked_and_halts_after_the_deadline_over_the_cap() -> None:
    house = driver(*CHAIN)
    house.become(old(online=False), "s-1-till")
    for seconds in (0, 1):
        house.tick(after(seconds))
    assert house.states()["s-1-till"] is TargetState.OFFLINE
    house.become(new(), "s-0-till", "s-2-till", "s-3-till")
    for seconds in (2, 62):
        house.tick(after(seconds))
    assert house.last.why.en == "waits for: 1 of 4 stores are offline, 0 % at most"
    house.tick(after(3600))
    assert house.stands() is RolloutState.ROLLING_BACK


# ---------------------------------------------------------------- people


def test_a_pause_asks_nobody_and_its_time_does_not_count() -> None:
    house = driver(
        *CHAIN,
        stages=({"name": "all", "stores": "all"} | rules(in_flight_stores_max=1, soak_s=900, soak_deadline_s=1800),),
    )
    house.tick()
    house.become(new(), house.of(SetDesired)[0].target)
    house.tell(Pause(OTHER, "lunch"), after(1))
    assert house.tell(Pause(OTHER), after(2)).effects == ()
    for seconds in (10, 950, 3000):
        house.tick(after(seconds))
        assert house.of(SetDesired) == []
    house.tell(Resume(OTHER), after(3500))
    assert house.tell(Resume(OTHER), after(3501)).effects == ()
    house.tick(after(3700))
    assert house.stands() is RolloutState.RUNNING, "nobody timed out while it was paused"
    assert len([one for one in house.states().values() if one is TargetState.ACTIVATING]) == 1


def test_a_pause_does_not_stop_the_judging() -> None:
    house = driver(*CHAIN)
    house.tick()
    house.tell(Pause(OTHER), after(1))
    house.become(new(reported_hash="old"))
    house.tick(after(2))
    assert house.stands() is RolloutState.ROLLING_BACK


def test_halt_and_roll_back_by_a_person_are_idempotent() -> None:
    house = driver(*CHAIN)
    house.tick()
    house.tell(Halt(OTHER, "wrong price"), after(1))
    assert house.tell(Halt(OTHER, "wrong price"), after(1)).effects == ()
    house.become(new())
    assert [one for one in house.tick(after(2)).effects if not isinstance(one, Journal | Publish)] == []
    with pytest.raises(Refused):
        house.tell(Resume(OTHER), after(2))
    house.tell(RollBack(OTHER, "wrong price"), after(3))
    assert house.tell(RollBack(OTHER, "again"), after(3)).effects == ()
    house.tick(after(4))
    assert len(house.of(Restore)) == 4


def test_a_completed_rollout_can_be_rolled_back() -> None:
    house = driver(*CHAIN)
    house.tick()
    house.become(new())
    for seconds in (1, 61):
        house.tick(after(seconds))
    assert house.stands() is RolloutState.COMPLETED
    house.tell(RollBack(OTHER, "regret"), after(99))
    house.tick(after(100))
    assert len(house.of(Restore)) == 4


def test_a_rollback_that_sticks_waits_for_an_operator_and_goes_on_when_told() -> None:
    house = driver(*CHAIN)
    house.tick()
    house.become(new())
    house.tell(RollBack(OTHER, "no"), after(1))
    house.tick(after(2))
    house.become(new(gen=3, part="{}", config_hash="old"))
    house.tick(after(602))
    house.tick(after(603))
    assert house.stands() is RolloutState.ROLLBACK_STUCK
    house.tell(RollBack(OTHER, "power is back"), after(700))
    assert house.stands() is RolloutState.ROLLING_BACK
    house.become(old(gen=3, applied_gen=3))
    house.tick(after(701))
    assert house.stands() is RolloutState.ROLLED_BACK


def test_who_is_superseded_touches_nothing_any_more() -> None:
    house = driver(*CHAIN)
    house.tick()
    house.tell(Supersede(OTHER, RolloutId("r-2")), after(1))
    assert house.tell(Supersede(OTHER, RolloutId("r-2")), after(1)).effects == ()
    assert house.tick(after(2)).effects == ()
    for told in (Resume(OTHER), RollBack(OTHER, "x"), Pause(OTHER), Start(OTHER)):
        with pytest.raises(Refused):
            house.tell(told, after(3))


def test_only_one_active_rollout_of_a_key_in_a_store() -> None:
    running = driver(*CHAIN).rollout
    rule = policy()
    assert conflict_with([running], rollout(rule, CHAIN[0], name="r-2")) == "r-1"
    assert conflict_with([running], rollout(rule, site(99), name="r-2")) is None
    assert conflict_with([running], rollout(rule, *CHAIN, artefact=SOFTWARE, name="r-2")) is None
    assert conflict_with([running], rollout(policy(tail=True), site(99), name="r-2")) == "r-1"
    assert conflict_with([replace(running, state=RolloutState.COMPLETED)], rollout(rule, *CHAIN, name="r-2")) is None


def test_a_changed_plan_or_artefact_does_not_start() -> None:
    draft = rollout(policy(), *CHAIN)
    for changed in (
        replace(draft, plan=replace(draft.plan, seed=8)),
        replace(draft, artefact=replace(CONFIG, sha256="")),
    ):
        with pytest.raises(Refused):
            receive(changed, Start(AUTHOR), Observation({}), NOW)


def test_stores_that_open_later_get_it_too() -> None:
    house = driver(*CHAIN, tail=True)
    house.tick()
    house.become(new())
    for seconds in (1, 61):
        house.tick(after(seconds))
    assert house.stands() is RolloutState.TAILING
    late = planned(site(50), Selector(all_stores=True), frozenset())
    assert late is not None
    house.arrivals = (late,)
    house.seen[TerminalId("s-50-till")] = old()
    house.tick(after(100))
    assert [one.store for one in house.of(SetDesired)] == [StoreId("s-50")]
    house.tick(after(101))
    assert len(house.rollout.tail) == 1
