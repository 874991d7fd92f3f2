"""Software in a rollout: fetched by day, started by night, and what a terminal answers to that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from actors.rollout_effects import (
    Activate,
    Pause,
    Resume,
    RollBack,
    SetDesired,
)
from models.domain.ids import TerminalId
from models.domain.rollout import (
    Reason,
    Site,
    TargetState,
)
from models.domain.rollout_target import CONTRADICTIONS_MAX
from models.domain.rollout_words import standing
from tests.actors.rollout_driver import AT_NIGHT, BY_NIGHT, Driver, driver
from tests.domain.rollouts import (
    OTHER,
    SOFTWARE,
    after,
    release,
    site,
)


def software(*sites: Site, **over: Any) -> Driver:
    house = driver(*sites, artefact=SOFTWARE, stages=(BY_NIGHT | over,))
    house.all(part=release("1.0"))
    return house


def test_software_is_fetched_by_day_and_starts_by_night_one_terminal_of_a_store_at_a_time() -> None:
    house = software(site(1, terminals=3), terminals_up_min=2)
    house.tick()
    assert len(house.of(SetDesired)) == 3
    house.all(gen=2, part=release("2.0"), fetched="2.0", applied_gen=2)
    house.tick(after(600))
    assert house.of(Activate) == []
    house.tick(after(AT_NIGHT))
    [first] = house.of(Activate)
    house.seen[first.target] = replace(house.seen[first.target], online=False)
    house.tick(after(AT_NIGHT + 10))
    assert house.of(Activate) == []
    house.seen[first.target] = replace(house.seen[first.target], online=True, software="2.0", boot="b2")
    house.tick(after(AT_NIGHT + 40))
    assert len(house.of(Activate)) == 1


def test_a_command_that_got_lost_is_told_again_after_a_minute() -> None:
    house = software(site(1))
    house.tick()
    house.all(gen=2, part=release("2.0"), fetched="2.0", applied_gen=2)
    house.tick(after(60))
    house.tick(after(AT_NIGHT))
    [first] = house.of(Activate)
    house.tick(after(AT_NIGHT + 59))
    assert house.of(Activate) == []
    house.tick(after(AT_NIGHT + 60))
    [second] = house.of(Activate)
    assert first.id != second.id


def ready(*sites: Site, **over: Any) -> Driver:
    """All have fetched the release, and it is night."""
    house = software(*sites, **over)
    house.tick()
    house.all(gen=2, part=release("2.0"), fetched="2.0", applied_gen=2)
    house.tick(after(60))
    house.tick(after(AT_NIGHT))
    return house


def test_who_is_busy_blocks_no_other_and_is_told_again_in_its_window_alone() -> None:
    house = ready(site(1, terminals=2), terminals_up_min=1)
    [first] = house.of(Activate)
    house.become(replace(house.seen[first.target], not_yet=Reason.BUSY), first.target)
    house.tick(after(AT_NIGHT + 2))
    mark = house.rollout.mark(first.target)
    assert (mark.state, mark.reason) == (TargetState.PREFETCHING, Reason.BUSY)
    assert standing(mark).en == "lies ready and waits for its next turn: it serves somebody"
    [second] = house.of(Activate)
    assert second.target != first.target, "who sells on is up: another one may start"
    house.become(replace(house.seen[second.target], software="2.0", boot="b2"), second.target)
    house.tick(after(AT_NIGHT + 19))
    assert house.of(Activate) == []
    for seconds, told in ((AT_NIGHT + 20, 1), (AT_NIGHT + 3 * 3600, 0), (AT_NIGHT + 24 * 3600, 1)):
        house.tick(after(seconds))
        assert [one.target for one in house.of(Activate)] == [first.target] * told
    house.tick(after(AT_NIGHT + 24 * 3600 + 2))
    house.tell(Pause(OTHER), after(AT_NIGHT + 24 * 3600 + 3))
    house.tick(after(AT_NIGHT + 24 * 3600 + 70))
    assert house.of(Activate) == [], "a pause restarts nobody who sells"
    house.tell(Resume(OTHER), after(AT_NIGHT + 24 * 3600 + 80))
    house.tick(after(AT_NIGHT + 200_100))
    assert house.rollout.mark(first.target).error_reason is Reason.WINDOW_MISSED, "not for ever"
    assert house.rollout.mark(first.target).answer == "busy"


def test_who_contradicts_its_own_report_again_and_again_has_failed() -> None:
    house = ready(site(1))
    [told] = house.of(Activate)
    numbers = {told.id}
    for n in range(1, 12):
        house.all(not_yet=Reason.NOT_FETCHED)
        house.tick(after(AT_NIGHT + 60 * n))
        numbers |= {one.id for one in house.of(Activate)}
        if house.rollout.mark(told.target).error:
            break
    mark = house.rollout.mark(told.target)
    assert (mark.error, mark.error_reason) == (TargetState.FAILED, Reason.NOT_FETCHED)
    assert len(numbers) == CONTRADICTIONS_MAX + 1


def test_who_does_not_answer_is_told_again_until_its_deadline_which_says_so() -> None:
    house = ready(site(1), in_progress_deadline_s=600)
    [told] = house.of(Activate)
    house.all(not_yet=Reason.NO_ANSWER)
    house.tick(after(AT_NIGHT + 31))
    assert house.rollout.mark(told.target).reason is Reason.NO_ANSWER
    again = 0
    for seconds in range(60, 660, 60):
        house.tick(after(AT_NIGHT + seconds))
        again += len(house.of(Activate))
    assert again == 9
    mark = house.rollout.mark(told.target)
    assert (mark.error, mark.error_reason, mark.answer) == (
        TargetState.TIMED_OUT,
        Reason.ACTIVATE_DEADLINE,
        "no_answer",
    )


def test_who_says_done_is_not_told_again_but_found_out() -> None:
    house = ready(site(1), claim_grace_s=300)
    house.all(said_done_at=after(AT_NIGHT + 3))
    for seconds in range(60, 300, 30):
        house.tick(after(AT_NIGHT + seconds))
        assert house.of(Activate) == [], "its next answer would begin the grace anew"
    house.tick(after(AT_NIGHT + 303))
    assert set(house.states().values()) == {TargetState.ROLLING_BACK}
    assert house.rollout.mark(TerminalId("s-1-till")).error is TargetState.LYING


def test_on_the_way_back_too_who_is_busy_blocks_no_other() -> None:
    house = ready(site(1, terminals=2), terminals_up_min=0)
    house.all(software="2.0", boot="b2")
    house.tick(after(AT_NIGHT + 30))
    house.rollout = replace(
        house.rollout,
        policy=replace(house.rollout.policy, rollback=replace(house.rollout.policy.rollback, terminals_up_min=1)),
    )
    house.tell(RollBack(OTHER, "no"), after(AT_NIGHT + 40))
    house.tick(after(AT_NIGHT + 41))
    house.all(gen=3, part=release("1.0"), fetched="1.0", applied_gen=3)
    house.tick(after(AT_NIGHT + 50))
    [first] = house.of(Activate)
    assert first.version == "1.0"
    house.become(replace(house.seen[first.target], not_yet=Reason.BUSY), first.target)
    house.tick(after(AT_NIGHT + 52))
    assert [one.target != first.target for one in house.of(Activate)] == [True]
    assert house.rollout.mark(first.target).reason is Reason.BUSY
