"""One terminal: what its reports prove, which lies they betray, how it falls back and comes back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from models.domain.rollout import Artefact, Observed, Reason, TargetState
from models.domain.rollout_journal import Mark
from models.domain.rollout_plan import PlannedStore, PlannedTarget
from models.domain.rollout_target import UNSEEN, assess, assess_return, counts_of, restored
from tests.domain.rollouts import CONFIG, NOW, SOFTWARE, after, new, old, policy, release, rules, site

RULES = policy().stages[0].policy
BACK = policy().rollback
CHANGING = Mark(
    TargetState.ACTIVATING, NOW, previous="{}", asked_at=NOW, asked_gen=1, activated_at=NOW, boot_before="b1"
)
BOOTING = replace(CHANGING, previous=release("1.0"), previous_version="1.0")
RUNS_2 = old(gen=2, part=release("2.0"), software="2.0", boot="b2", applied_gen=2)


@pytest.mark.parametrize(
    ("mark", "artefact", "sight", "seconds", "state", "reason"),
    [
        (Mark(), CONFIG, old(online=False), 0, TargetState.OFFLINE, Reason.NONE),
        (Mark(TargetState.OFFLINE), CONFIG, old(), 0, TargetState.QUEUED, Reason.NONE),
        # configuration: the applied generation with the right hash
        (CHANGING, CONFIG, new(applied_gen=1, reported_hash="old"), 5, TargetState.ACTIVATING, Reason.NONE),
        (CHANGING, CONFIG, new(), 5, TargetState.SOAKING, Reason.NONE),
        (CHANGING, CONFIG, new(reported_hash="old"), 5, TargetState.LYING, Reason.WRONG_HASH),
        (CHANGING, CONFIG, new(applied_gen=9), 5, TargetState.LYING, Reason.WRONG_HASH),
        (CHANGING, CONFIG, new(healthy=False), 5, TargetState.ACTIVATING, Reason.NONE),
        (CHANGING, CONFIG, new(refused="no"), 5, TargetState.SOAKING, Reason.NONE),
        (CHANGING, CONFIG, old(refused="no"), 5, TargetState.FAILED, Reason.REFUSED_BY_TERMINAL),
        (CHANGING, CONFIG, old(), 600, TargetState.TIMED_OUT, Reason.ACTIVATE_DEADLINE),
        (CHANGING, CONFIG, UNSEEN, 600, TargetState.TIMED_OUT, Reason.ACTIVATE_DEADLINE),
        # software: the new version from a boot after the change
        (BOOTING, SOFTWARE, RUNS_2, 5, TargetState.SOAKING, Reason.NONE),
        (BOOTING, SOFTWARE, replace(RUNS_2, boot="b1"), 5, TargetState.LYING, Reason.OLD_BOOT),
        (BOOTING, SOFTWARE, replace(RUNS_2, software="1.0"), 5, TargetState.ACTIVATING, Reason.NONE),
        (
            BOOTING,
            SOFTWARE,
            replace(RUNS_2, software="1.0", said_done_at=after(5)),
            34,
            TargetState.ACTIVATING,
            Reason.NONE,
        ),
        (
            BOOTING,
            SOFTWARE,
            replace(RUNS_2, software="1.0", said_done_at=after(5)),
            35,
            TargetState.LYING,
            Reason.SAID_DONE,
        ),
        (
            BOOTING,
            SOFTWARE,
            replace(RUNS_2, software="1.0", said_done_at=after(5), online=False),
            99,
            TargetState.ACTIVATING,
            Reason.NONE,
        ),
        # somebody else's part
        (CHANGING, CONFIG, old(gen=3, part='{"volume":9}'), 5, TargetState.SUPERSEDED, Reason.CHANGED_ELSEWHERE),
    ],
)
def test_one_look(
    mark: Mark, artefact: Artefact, sight: Observed, seconds: int, state: TargetState, reason: Reason
) -> None:
    found = assess(mark, artefact, sight, after(seconds), RULES)
    assert (found.state, found.reason) == (state, reason)
    assert (found.error is not None) == state.error


def soaked(until: int = 60) -> Mark:
    mark = assess(CHANGING, CONFIG, new(), after(0), RULES)
    return assess(mark, CONFIG, new(), after(until), RULES)


def test_it_soaks_without_a_break() -> None:
    assert soaked(59).state is TargetState.SOAKING
    assert soaked(60).state is TargetState.SUCCEEDED


def test_being_away_while_soaking_begins_the_soak_anew_but_not_the_deadline() -> None:
    mark = assess(CHANGING, CONFIG, new(), after(0), RULES)
    away = assess(mark, CONFIG, new(online=False), after(50), RULES)
    assert (away.state, away.reason, away.fell) == (TargetState.ACTIVATING, Reason.WENT_OFFLINE, 0)
    back = assess(away, CONFIG, new(), after(70), RULES)
    assert assess(back, CONFIG, new(), after(129), RULES).state is TargetState.SOAKING
    assert assess(back, CONFIG, new(), after(130), RULES).state is TargetState.SUCCEEDED
    late = assess(away, CONFIG, new(online=False), after(600), RULES)
    assert (late.state, late.reason) == (TargetState.TIMED_OUT, Reason.SOAK_DEADLINE)


def test_a_later_regression_moves_a_success_back_and_twice_is_flapping() -> None:
    done = soaked()
    fell = assess(done, CONFIG, new(healthy=False), after(1_000), RULES)
    assert (fell.state, fell.reason, fell.fell) == (TargetState.ACTIVATING, Reason.UNHEALTHY, 1)
    again = assess(fell, CONFIG, new(), after(1_010), RULES)
    assert again.state is TargetState.SOAKING
    rebooted = assess(again, CONFIG, new(boot="b9"), after(1_020), RULES)
    assert (rebooted.state, rebooted.reason) == (TargetState.FAILED, Reason.FLAPPING)
    assert assess(rebooted, CONFIG, new(), after(9_000), RULES) is rebooted, "a failure is not forgiven by itself"


def test_a_shop_that_closes_for_the_night_has_not_lost_anything() -> None:
    done = soaked()
    assert assess(done, CONFIG, new(online=False), after(40_000), RULES) is done


def test_one_that_never_becomes_healthy_fails_at_the_soak_deadline() -> None:
    ill = assess(CHANGING, CONFIG, new(healthy=False), after(5), RULES)
    assert ill.proved_at == after(5)
    late = assess(ill, CONFIG, new(healthy=False), after(605), RULES)
    assert (late.state, late.reason) == (TargetState.FAILED, Reason.UNHEALTHY)


def test_a_later_change_of_something_else_takes_nothing_back() -> None:
    done = soaked()
    other = new(gen=3, config_hash="other")
    assert assess(done, CONFIG, other, after(100), RULES).state is TargetState.SUCCEEDED


def test_an_order_that_got_lost_is_no_take_over_until_ours_stood_there() -> None:
    assert assess(CHANGING, CONFIG, old(), after(5), RULES).state is TargetState.ACTIVATING
    assert assess(soaked(), CONFIG, old(gen=3, applied_gen=3), after(100), RULES).state is TargetState.SUPERSEDED


def test_software_that_is_fetched_waits_for_its_window_but_not_for_ever() -> None:
    mark = replace(BOOTING, state=TargetState.PREFETCHING, activated_at=None)
    sight = replace(RUNS_2, software="1.0", boot="b1")
    fetched = assess(mark, SOFTWARE, replace(sight, fetched="2.0"), after(100), RULES)
    assert fetched.fetched_at == after(100)
    assert assess(mark, SOFTWARE, sight, after(600), RULES).reason is Reason.PREFETCH_DEADLINE
    assert assess(fetched, SOFTWARE, sight, after(3_699), RULES).state is TargetState.PREFETCHING
    assert assess(fetched, SOFTWARE, sight, after(3_700), RULES).reason is Reason.WINDOW_MISSED


# ---------------------------------------------------------------- the way back


def test_back_is_what_was_applied_in_a_generation_after_the_asking() -> None:
    mark = replace(BOOTING, state=TargetState.ROLLING_BACK, restored_at=NOW)
    before = old(part=release("1.0"))
    assert not restored(mark, SOFTWARE, before), "our order may still be on its way to that generation"
    starting = old(gen=3, part=release("1.0"), online=False)
    assert not restored(mark, SOFTWARE, starting), "it may be starting the new version at this moment"
    assert restored(mark, SOFTWARE, replace(starting, applied_gen=3, online=True))
    assert not restored(mark, SOFTWARE, replace(starting, applied_gen=3, software="2.0"))


def test_one_that_answers_and_does_not_come_back_is_late() -> None:
    mark = replace(CHANGING, state=TargetState.ROLLING_BACK, restored_at=NOW)
    sight = new(gen=3, part="{}", config_hash="old")
    assert assess_return(mark, CONFIG, sight, after(599), BACK) is mark
    assert assess_return(mark, CONFIG, sight, after(600), BACK).reason is Reason.ROLLBACK_DEADLINE
    away = replace(sight, online=False)
    assert assess_return(mark, CONFIG, away, after(9_000), BACK) is mark
    back = replace(sight, applied_gen=3, reported_hash="old")
    assert assess_return(mark, CONFIG, back, after(5), BACK).state is TargetState.ROLLED_BACK


# ---------------------------------------------------------------- by store

GOOD = Mark(TargetState.SUCCEEDED, previous="{}")


@pytest.mark.parametrize(
    ("till", "face", "bucket"),
    [
        (GOOD, GOOD, "succeeded"),
        (GOOD, Mark(TargetState.SOAKING, previous="{}"), "soaking"),
        (GOOD, Mark(TargetState.ACTIVATING, previous="{}"), "in_progress"),
        (GOOD, Mark(TargetState.OFFLINE), "offline"),
        (Mark(), Mark(TargetState.OFFLINE), "queued"),
        (GOOD, Mark(TargetState.LYING, error=TargetState.LYING), "lying"),
        (GOOD, Mark(TargetState.ROLLED_BACK, error=TargetState.TIMED_OUT), "timed_out"),
        (Mark(TargetState.FAILED, error=TargetState.FAILED), Mark(TargetState.OFFLINE), "failed"),
    ],
)
def test_a_store_is_as_good_as_its_worst_mandatory_terminal(till: Mark, face: Mark, bucket: str) -> None:
    devices = site(1, terminals=3).terminals
    store = PlannedStore(
        site(1).store,
        site(1).region,
        "Asia/Shanghai",
        "gz",
        tuple(PlannedTarget(one.terminal, one.role, one.role != "screen") for one in devices),
    )
    marks = {devices[0].terminal: till, devices[1].terminal: face, devices[2].terminal: Mark(TargetState.FAILED)}
    counts = counts_of((store,), marks, queue_over=False)
    assert getattr(counts, bucket) == counts.stores == 1


def test_who_was_taken_over_is_not_counted() -> None:
    store = PlannedStore(
        site(1).store, site(1).region, "", "", (PlannedTarget(site(1).terminals[0].terminal, "till", True),)
    )
    marks = {site(1).terminals[0].terminal: Mark(TargetState.SUPERSEDED, previous="{}")}
    assert counts_of((store,), marks, queue_over=False).stores == 0


def test_the_rules_of_these_tests_are_those_that_they_say() -> None:
    assert (RULES.soak_s, RULES.claim_grace_s, RULES.flaps_max) == (60, 30, 1)
    assert rules()["in_progress_deadline_s"] == RULES.soak_deadline_s == BACK.deadline_s == 600
