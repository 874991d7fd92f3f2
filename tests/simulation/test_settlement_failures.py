"""A capture that fails for good, told step by step: dunning, its numbers and days, and what a reversal changes in it.

The drawn schedules know what must never happen; these say what does happen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from models.domain.membership import State
from models.domain.settlement import Call, CallState, Standing
from tests.simulation.settlement_provider import SUBJECT, Does, ModelProvider
from tests.simulation.settlement_rows import in_memory
from tests.simulation.settlement_schedules import NOW, OPEN, Audit, Play, Profile, Schedule
from tests.simulation.settlement_world import MemoryWorld

FIRST = f"S{SUBJECT}G1"
RETRY, SECOND_RETRY = f"{FIRST}A1", f"{FIRST}A2"
RELEASE = f"U{SUBJECT}G1"
A_DAY = timedelta(days=1)
TWICE = (Does.FAILS, Does.FAILS)
ATTEMPT = (State.SETTLING, State.DUNNING)


@pytest.fixture(autouse=True)
def rows_in_memory() -> Iterator[None]:
    with in_memory():
        yield


@dataclass
class Life:
    """What became of the subject: its states in their order, its row, its calls, its transactions after the hold."""

    states: list[State]
    one: Standing
    calls: dict[str, Call]
    booked: dict[str, set[str]]
    """Kinds of transactions by request number."""
    seen: list[tuple[int, Standing, dict[str, Call]]]
    """At each point what was committed."""


async def lived(schedule: Schedule) -> Life:
    """Plays it with every invariant checked."""
    world, audit = MemoryWorld(), Audit()
    seen: list[tuple[int, Standing, dict[str, Call]]] = []

    async def look(played: Play) -> None:
        await audit.step(played)
        state = await world.state()
        calls = {number: call for number, call in state.calls.items() if call.membership == SUBJECT}
        seen.append((played.points, state.standings[SUBJECT], calls))

    holds = await world.plant(schedule.profile)
    played = Play(schedule, world, ModelProvider(schedule.script, holds), look)
    await played.run()
    await audit.end(played)
    await look(played)
    states: list[State] = []
    for _, one, _ in seen:
        if not states or states[-1] is not one.state:
            states.append(one.state)
    booked: dict[str, set[str]] = {}
    for txn in (await world.state()).transactions.values():
        if SUBJECT in txn.request_number or txn.kind == "due_reduced":
            booked.setdefault(txn.request_number, set()).add(txn.kind)
    booked.pop(f"H{SUBJECT}", None)
    _, one, calls = seen[-1]
    return Life(states, one, calls, booked, seen)


async def reversed_while(schedule: Schedule, holds: Callable[[Standing, dict[str, Call]], bool]) -> Life:
    """The same life with the reversal at the first point where this holds."""
    plain = await lived(replace(schedule, reversal=None))
    point = next(point for point, one, calls in plain.seen if holds(one, calls))
    return await lived(replace(schedule, reversal=point))


def in_flight(number: str) -> Callable[[Standing, dict[str, Call]], bool]:
    """True while that call is claimed and has no answer."""

    def holds(_one: Standing, calls: dict[str, Call]) -> bool:
        call = calls.get(number)
        return call is not None and call.state in OPEN and call.lease_until is not None

    return holds


def dunned(one: Standing, _calls: dict[str, Call]) -> bool:
    return one.state is State.DUNNING


async def test_a_definite_failure_is_dunned_under_the_next_number_on_the_plans_day() -> None:
    life = await lived(Schedule(Profile.CLAWBACK, (Does.FAILS,)))
    assert life.states == [State.ACTIVE, *ATTEMPT, State.SETTLING, State.CLOSED]
    assert life.booked == {FIRST: {"capture_failed"}, RETRY: {"receivable_collected"}}
    assert [(call.number, call.attempt, call.fen) for call in life.calls.values()] == [(FIRST, 0, 800), (RETRY, 1, 800)]
    assert life.calls[RETRY].not_before == NOW + A_DAY
    assert (life.one.captured_number, life.one.attempts, life.one.paid_fen) == (RETRY, 2, 800)
    owed = {one.receivable_fen for _, one, _ in life.seen if one.state is State.DUNNING}
    assert owed == {800}, "what is due is owed from the first failure on"


async def test_a_failure_that_was_unclear_at_first_is_one_too() -> None:
    life = await lived(Schedule(Profile.CLAWBACK, (Does.PENDS_THEN_FAILS,)))
    assert life.states == [State.ACTIVE, State.SETTLING, State.UNKNOWN, State.DUNNING, State.SETTLING, State.CLOSED]
    assert life.booked == {FIRST: {"capture_failed"}, RETRY: {"receivable_collected"}}


async def test_every_retry_has_a_number_of_its_own_and_its_day() -> None:
    life = await lived(Schedule(Profile.DUNNED_TWICE, (*TWICE, Does.FAILS)))
    assert life.states == [State.ACTIVE, *ATTEMPT, *ATTEMPT, State.SETTLING, State.WRITTEN_OFF]
    assert [(call.number, call.attempt) for call in life.calls.values() if call.number != RELEASE] == [
        (FIRST, 0), (RETRY, 1), (SECOND_RETRY, 2),
    ]  # fmt: skip
    assert [life.calls[number].not_before for number in (RETRY, SECOND_RETRY)] == [NOW + A_DAY, NOW + 4 * A_DAY]
    assert life.booked == {FIRST: {"capture_failed"}, SECOND_RETRY: {"written_off"}}, "owed once, given up once"
    assert (life.one.attempts, life.one.receivable_fen, life.one.paid_fen) == (3, 800, 0)
    paid = await lived(Schedule(Profile.DUNNED_TWICE, TWICE))
    assert (paid.one.captured_number, paid.one.attempts, paid.one.state) == (SECOND_RETRY, 3, State.CLOSED)


async def test_the_last_failure_writes_off_and_gives_the_hold_back() -> None:
    life = await lived(Schedule(Profile.FEE, TWICE))
    assert life.states == [State.ACTIVE, *ATTEMPT, State.SETTLING, State.WRITTEN_OFF]
    assert life.booked == {FIRST: {"capture_failed"}, RETRY: {"written_off"}}
    assert life.calls[RELEASE].state is CallState.POSTED
    free = await lived(Schedule(Profile.FREE, TWICE))
    assert (free.states[-1], set(free.calls)) == (State.WRITTEN_OFF, {FIRST, RETRY}), "nothing was held"


@pytest.mark.parametrize("profile", [Profile.ONE_USE, Profile.FREE])
async def test_the_last_attempt_fails_when_nothing_is_due_any_more(profile: Profile) -> None:
    life = await reversed_while(Schedule(profile, TWICE), in_flight(RETRY))
    assert life.states == [State.ACTIVE, *ATTEMPT, State.SETTLING, State.CLOSED], "nothing owed is written off"
    assert life.booked == {FIRST: {"capture_failed"}, **reduced(life)}
    assert (life.one.receivable_fen, life.one.attempts, life.calls[RETRY].fen) == (0, 2, 800)
    assert (RELEASE in life.calls) == (profile is Profile.ONE_USE)


@pytest.mark.parametrize("profile", [Profile.ONE_USE, Profile.FREE])
async def test_the_first_attempt_fails_when_nothing_is_due_any_more(profile: Profile) -> None:
    life = await reversed_while(Schedule(profile, (Does.FAILS,)), in_flight(FIRST))
    waited = [State.SETTLING] if profile is Profile.ONE_USE else []  # for its hold
    assert life.states == [State.ACTIVE, *ATTEMPT, *waited, State.CLOSED], "its day closes it"
    assert life.booked == {}, "nothing was ever owed"
    assert (life.calls[RETRY].state, life.calls[RETRY].fen, life.calls[RETRY].tries) == (CallState.POSTED, 0, 0)
    assert (life.one.attempts, life.one.paid_fen, life.one.refunded_fen) == (1, 0, 0)


async def test_what_is_still_due_is_owed_when_the_first_attempt_fails_after_a_reversal() -> None:
    life = await reversed_while(Schedule(Profile.CLAWBACK, TWICE), in_flight(FIRST))
    owed = {(one.receivable_fen, calls[RETRY].fen) for _, one, calls in life.seen if one.state is State.DUNNING}
    assert owed == {(300, 300)}
    assert (life.calls[FIRST].fen, life.calls[RETRY].fen) == (800, 300), "one in flight keeps its amount"
    assert (life.one.state, life.one.receivable_fen) == (State.WRITTEN_OFF, 300)


async def test_a_retry_takes_what_is_due_on_its_day() -> None:
    life = await reversed_while(Schedule(Profile.CLAWBACK, (Does.FAILS,)), dunned)
    assert (life.calls[RETRY].fen, life.one.paid_fen, life.one.refunded_fen) == (300, 300, 0)
    none = await reversed_while(Schedule(Profile.ONE_USE, (Does.FAILS,)), dunned)
    assert (none.calls[RETRY].fen, none.calls[RETRY].tries, none.one.state) == (0, 0, State.CLOSED)


@pytest.mark.parametrize("number", [FIRST, RETRY])
async def test_an_attempt_in_flight_keeps_its_amount_and_its_surplus_goes_back(number: str) -> None:
    script = (Does.FAILS,) if number == RETRY else ()
    life = await reversed_while(Schedule(Profile.CLAWBACK, script), in_flight(number))
    back = life.calls[f"R{number}"]
    assert (life.calls[number].fen, back.fen, back.state) == (800, 500, CallState.POSTED)
    assert (life.one.captured_number, life.one.paid_fen, life.one.refunded_fen) == (number, 300, 500)
    assert life.one.state is State.CLOSED


def reduced(life: Life) -> dict[str, set[str]]:
    """The transactions of the reversal."""
    return {number: kinds for number, kinds in life.booked.items() if "due_reduced" in kinds}
