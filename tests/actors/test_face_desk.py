"""The face desk: nothing is lost, nothing answered twice, nobody starves, the number of workers stays in its bounds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import face_desk
from actors.face_desk import Busy, DeskPolicy, FaceDesk, Lost, Send, Start, Stop, Why
from actors.face_lines import Verb
from actors.face_scaling import Scaling
from models.domain.ids import StoreId
from tests.actors.face_world import World

ONE = DeskPolicy()
SHOP = StoreId("a")


def running(policy: DeskPolicy = ONE, **more: float) -> World:
    world = World(policy, **more)
    world.run(world.start_s + 0.05)
    return world


def between(least: int, most: int, **more: float) -> DeskPolicy:
    return DeskPolicy(Scaling(least, most, **more))


# ---------------------------------------------------------------- any history

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 3), st.sampled_from(list(Verb))),
        st.tuples(st.just("storm"), st.integers(0, 3), st.sampled_from(list(Verb))),
        st.tuples(st.just("again"), st.integers(0, 30), st.just(Verb.IDENTIFY)),
        st.tuples(st.just("die"), st.integers(0, 3), st.just(Verb.IDENTIFY)),
        st.tuples(st.just("freeze"), st.integers(0, 3), st.just(Verb.IDENTIFY)),
        st.tuples(st.just("time"), st.integers(1, 60), st.just(Verb.IDENTIFY)),
    ),
    max_size=30,
)


@settings(max_examples=60)
@given(STEPS, st.integers(1, 2), st.integers(0, 2), st.sampled_from([0.005, 0.02, 0.4]), st.sampled_from([None, 1, 2]))
def test_whatever_happens_every_question_ends_once_and_in_time(
    steps: list[tuple[str, int, Verb]], least: int, more: int, look_s: float, cores: int | None
) -> None:
    hasty = Scaling(least, least + more, up_hold_s=0.1, up_pause_s=0.2, down_hold_s=0.5, window_s=0.1)
    world = World(DeskPolicy(hasty, start_s_max=2.0, stuck_s_max=1.0), look_s, start_s=0.3)
    world.cores = None if cores is None else max(cores, least)
    for at, (what, n, verb) in enumerate(steps):
        match what:
            case "ask":
                world.ask(f"q{at}", f"s{n}", verb)
            case "storm":
                for each in range(40):
                    world.ask(f"q{at}.{each}", f"s{n}", verb)
            case "again":
                world.ask(f"q{n}", "s0") if f"q{n}" in world.asked.keys() - world.ends else None
            case "die":
                world.die(n)
            case "freeze":
                world.freeze(n)
            case _:
                world.run(n / 20, 0.05)
    world.settle()
    world.check_ended()
    assert all(times <= 1 + world.desk.counts.redispatched for times in world.sent.values())


# ---------------------------------------------------------------- workers that die


def test_a_worker_that_dies_loses_nothing() -> None:
    world = running(between(2, 2))
    for n in range(60):
        world.ask(f"q{n}", f"s{n % 3}")
    world.run(0.1)
    world.die(0)
    world.run(0.05)
    world.die(1)
    world.settle()
    world.check_ended()
    assert world.outcomes() == {"answered": 60}
    assert world.desk.counts.redispatched >= 3


def test_with_every_worker_away_a_question_waits_for_one_to_come_back() -> None:
    world = running()
    world.ask("q", "a")
    world.die(0)
    world.ask("p", "b")
    world.run(0.9)
    assert not world.ends
    world.settle()
    assert world.outcomes() == {"answered": 2}


def test_a_question_that_kills_its_workers_is_not_asked_a_third_time() -> None:
    world = running(between(2, 2))
    world.ask("poison", "a")
    world.ask("other", "a")
    world.ask("beside", "a")
    world.die(0)
    assert world.sent["poison"] == 2, "on its way to the other worker"
    for _ in range(100):
        victim = next((n for n, one in world.processes.items() if one.queue and one.queue[0][0] == "poison"), None)
        if victim is not None:
            world.die(victim)
        world.run(0.005, 0.005)
    world.settle()
    world.check_ended()
    assert world.outcomes() == {"lost": 1, "answered": 2}


def test_a_worker_that_is_stuck_is_ended_and_its_questions_go_on() -> None:
    world = running(DeskPolicy(Scaling(2, 2), stuck_s_max=0.5))
    for n in range(4):
        world.ask(f"q{n}", "a")
    world.freeze(0)
    world.settle()
    world.check_ended()
    assert (world.outcomes(), world.desk.counts.stuck) == ({"answered": 4}, 1)


def test_what_is_heard_of_an_earlier_life_is_nothing() -> None:
    desk = FaceDesk(ONE, 0.0)
    assert desk.tick(0.0) == [Start(0, spare=False)]
    first = desk.life_of(0)
    assert first is not None
    assert desk.ready(0, first, 1.0) == []
    assert desk.ask("q", SHOP, Verb.IDENTIFY, 4.0, 1.0) == [Send("q", 0, first)]
    assert desk.lost(0, first, 1.1) == []
    assert desk.answered(0, first, "q", 1.2) == []
    assert desk.is_open("q")
    assert desk.lost(0, first, 1.2) == []
    second = desk.life_of(0)
    assert second is not None
    assert desk.ready(0, first, 1.3) == []
    assert desk.ready(0, second, 1.3) == [Send("q", 0, second)]
    assert desk.ask("q", SHOP, Verb.IDENTIFY, 4.0, 1.3) == [], "it is open already"
    desk.answered(0, second, "q", 1.4)
    assert not desk.is_open("q")


def test_workers_of_an_earlier_desk_are_taken_over() -> None:
    desk = FaceDesk(between(1, 3), 0.0, found=(0, 2))
    assert desk.tick(0.0) == []
    life = desk.life_of(2)
    assert life is not None
    desk.ready(2, life, 0.1)
    assert desk.ask("q", SHOP, Verb.IDENTIFY, 3.0, 0.1) == [Send("q", 2, life)]


# ---------------------------------------------------------------- too many at once


def test_a_storm_is_told_at_once_and_a_quiet_store_has_its_turn() -> None:
    world = running()
    for second in range(40):
        for n in range(20):
            world.ask(f"storm{second}.{n}", "storm")
        world.ask(f"quiet{second}", "quiet", Verb.SHOOT if second % 2 else Verb.IDENTIFY)
        world.run(0.1)
    world.settle()
    world.check_ended()
    assert world.outcomes("quiet") == {"answered": 40}
    assert max(world.waits_ms("quiet", "answered")) <= 150
    shed, answered = world.outcomes("storm")["shed"], world.outcomes("storm")["answered"]
    assert shed > 400
    assert answered >= 250, "50 a second, less the quiet store's, and most of what waited when the storm ended"
    assert max(world.waits_ms("storm", "shed")) == 0


def test_what_needs_no_picture_is_not_behind_pictures() -> None:
    world = running()
    for n in range(100):
        world.ask(f"storm{n}", "a")
    world.ask("rescore", "a", Verb.RESCORE)
    world.ask("shot", "b", Verb.SHOOT)
    world.run(0.2)
    assert {"rescore", "shot"} <= set(world.ends)
    assert world.outcomes()["answered"] < 15


def test_a_full_desk_lets_the_longest_line_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face_desk, "WAITING_MAX", 20)
    desk = FaceDesk(ONE, 0.0)
    desk.tick(0.0)
    for n in range(19):
        assert desk.ask(f"q{n}", SHOP, Verb.IDENTIFY, 3.0, 0.0) == []
    assert desk.ask("b0", StoreId("b"), Verb.IDENTIFY, 3.0, 0.0) == []
    assert desk.ask("b1", StoreId("b"), Verb.IDENTIFY, 3.0, 0.0) == [Busy("q18", Why.SHED)]
    assert desk.ask("q19", SHOP, Verb.IDENTIFY, 3.0, 0.0) == [Busy("q19", Why.SHED)]


def test_one_store_has_a_bound_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face_desk, "WAITING_OF_A_STORE_MAX", 3)
    desk = FaceDesk(ONE, 0.0)
    acts = [desk.ask(f"q{n}", SHOP, Verb.RESCORE, 3.0, 0.0) for n in range(4)]
    assert acts == [[], [], [], [Busy("q3", Why.SHED)]]
    assert desk.ask("b", StoreId("b"), Verb.RESCORE, 3.0, 0.0) == []


def test_one_slow_look_does_not_turn_everybody_away() -> None:
    world = running(look_s=5.0)
    world.ask("slow", "a")
    world.settle()
    assert world.outcomes() == {"expired": 1}
    world.run(5.0)
    world.look_s = 0.02
    for n in range(10):
        world.ask(f"q{n}", "a")
        world.run(0.2)
    assert world.outcomes() == {"expired": 1, "answered": 10}


def test_a_late_answer_is_nobodys() -> None:
    desk = FaceDesk(ONE, 0.0)
    desk.tick(0.0)
    life = desk.life_of(0)
    assert life is not None
    desk.ready(0, life, 0.0)
    desk.ask("q", SHOP, Verb.IDENTIFY, 1.0, 0.0)
    assert desk.tick(0.99) == []
    assert desk.tick(1.0) == [Busy("q", Why.EXPIRED)]
    assert not desk.is_open("q")
    assert desk.answered(0, life, "q", 1.1) == []
    assert (desk.counts.answered, desk.counts.expired) == (0, 1)


def test_what_was_given_up_before_it_went_out_does_not_look_stuck() -> None:
    desk = FaceDesk(ONE, 0.0, [0])
    life = desk.life_of(0)
    assert life is not None
    desk.ready(0, life, 0.0)
    assert [type(act) for act in desk.ask("q", SHOP, Verb.IDENTIFY, 1.0, 0.0)] == [Send]
    assert [type(act) for act in desk.tick(1.1)] == [Busy]
    desk.unsent(0, life, "q", 1.1)
    assert desk.snapshot(1.1)["workers"][0]["with_it"] == 0
    assert desk.tick(1.1 + ONE.stuck_s_max + 1) == [], "a healthy worker is not ended for it"


def test_soon_while_anybody_waits() -> None:
    desk = FaceDesk(ONE, 0.0)
    desk.tick(0.0)
    assert desk.next_tick_s(0.0) == 0.5
    desk.ask("q", SHOP, Verb.IDENTIFY, 1.0, 0.0)
    assert desk.next_tick_s(0.0) == 0.05
    assert desk.next_tick_s(2.0) == 0.005


# ---------------------------------------------------------------- how many workers


def storm(world: World, seconds: float, rate: int, prefix: str) -> None:
    """`rate` questions a tenth of a second, from four stores."""
    for tenth in range(round(seconds * 10)):
        for n in range(rate):
            world.ask(f"{prefix}{tenth}.{n}", f"s{n % 4}")
        world.run(0.1)


def test_up_under_load_and_down_again_within_the_bounds() -> None:
    world = running(between(1, 4, down_hold_s=5.0))
    storm(world, 10.0, 15, "a")
    assert len(world.processes) == 4, "150 a second need three, and those that waited a fourth"
    before = world.outcomes()["shed"] + world.outcomes()["expired"]
    storm(world, 5.0, 15, "b")
    assert world.outcomes()["shed"] + world.outcomes()["expired"] - before <= 75
    world.run(12.0, 0.05)
    assert 1 < len(world.processes) < 4, "one after another"
    world.run(10.0, 0.05)
    assert len(world.processes) == 1
    world.check_ended()
    assert (world.desk.counts.started, world.desk.counts.stopped) == (4, 3)


def test_a_steady_load_does_not_make_the_number_swing() -> None:
    world = running(between(1, 4, down_hold_s=2.0))
    storm(world, 10.0, 8, "a")  # 80 a second need 1.6 workers
    changes = world.desk.counts.started + world.desk.counts.stopped
    storm(world, 30.0, 8, "b")
    assert world.desk.counts.started + world.desk.counts.stopped == changes
    assert len(world.processes) == 3 or len(world.processes) == 2
    world.settle()
    world.check_ended()


def test_a_crowd_of_a_moment_is_not_worth_a_process() -> None:
    world = running(between(1, 4))
    for n in range(20):
        world.ask(f"q{n}", "a")
    world.settle()
    assert len(world.processes) == 1
    assert world.outcomes() == {"answered": 20}


def test_a_worker_that_drains_keeps_what_it_has_and_is_taken_back_when_it_is_needed() -> None:
    desk = FaceDesk(between(1, 2, down_hold_s=1.0, up_hold_s=0.0, up_pause_s=0.0), 0.0, found=(0, 1))
    lives = [desk.life_of(n) for n in (0, 1)]
    for n, life in enumerate(lives):
        assert life is not None
        desk.ready(n, life, 0.0)
    desk.tick(0.5)
    desk.tick(1.1)
    assert desk.ask("q0", SHOP, Verb.IDENTIFY, 9.0, 1.45) == [Send("q0", 0, lives[0] or 0)]
    assert desk.ask("q1", SHOP, Verb.IDENTIFY, 9.0, 1.45) == [Send("q1", 1, lives[1] or 0)]
    assert desk.tick(1.55) == [], "worker 1 is to go, and has a question"
    assert [one["state"] for one in desk.snapshot(1.55)["workers"]] == ["ready", "draining"]
    assert desk.ask("q2", SHOP, Verb.IDENTIFY, 9.0, 1.6) == [Send("q2", 0, lives[0] or 0)]
    assert desk.ask("q3", SHOP, Verb.IDENTIFY, 9.0, 1.6) == []
    assert desk.tick(1.9) == [Send("q3", 1, lives[1] or 0)], "taken back, not started"
    assert desk.counts.started == 0


def test_while_one_comes_back_no_other_goes() -> None:
    world = running(between(1, 2, down_hold_s=1.0), start_s=3.0)
    storm(world, 6.0, 8, "a")
    assert len(world.processes) == 2
    world.die(0)
    world.run(2.5, 0.05)
    assert [one["state"] for one in world.desk.snapshot(world.now)["workers"]] == ["starting", "ready"]
    world.run(5.0, 0.05)
    assert [one["state"] for one in world.desk.snapshot(world.now)["workers"]] == ["ready"]


def test_a_spare_worker_without_a_core_is_not_waited_for() -> None:
    world = running(DeskPolicy(Scaling(1, 3), start_s_max=3.0))
    world.cores = 1
    storm(world, 8.0, 12, "a")
    world.settle()
    world.check_ended()
    assert world.desk.counts.started >= 2
    world.run(70.0, 0.1)
    assert len(world.processes) == 1


def test_one_that_is_needed_and_does_not_come_is_started_again() -> None:
    desk = FaceDesk(DeskPolicy(start_s_max=5.0), 0.0)
    assert desk.tick(0.0) == [Start(0, spare=False)]
    assert desk.tick(4.9) == []
    assert desk.tick(5.1) == [face_desk.Restart(0)]
    assert desk.tick(6.0) == []


def test_too_many_that_were_found_are_stopped() -> None:
    desk = FaceDesk(between(1, 2), 0.0, found=(0, 1, 2, 3))
    assert desk.tick(0.0) == [Stop(3), Stop(2)]


@pytest.mark.parametrize(("least", "most"), [(0, 1), (2, 1), (-1, 3)])
def test_bounds_that_are_none(least: int, most: int) -> None:
    with pytest.raises(ValueError, match="face workers"):
        Scaling(least, most)


def test_lost_is_told_once() -> None:
    desk = FaceDesk(ONE, 0.0)
    desk.tick(0.0)
    acts = []
    for _ in range(face_desk.DEATHS_MAX):
        life = desk.life_of(0)
        assert life is not None
        acts += desk.ready(0, life, 0.0)
        acts += desk.ask("q", SHOP, Verb.IDENTIFY, 5.0, 0.0)
        acts += desk.lost(0, life, 0.1)
    assert [act for act in acts if isinstance(act, Lost)] == [Lost("q")]
