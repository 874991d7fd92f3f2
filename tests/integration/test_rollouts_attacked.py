"""Rollouts under attack, on a real database: drivers that die at every transition, two at once, clocks that jump,
rows that were edited, terminals that lie or are gone, and whatever people write."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import replace

import psycopg
import pytest

from actors.rollout_effects import Attach, Halt, Promote, RollBack, Start
from models.domain.errors import NeedsOperator, Refused
from models.domain.rollout import PersonId, Reason, RolloutId, RolloutState, Selector, TargetState
from models.domain.rollout_part import patch_artefact
from models.tables import rollouts as table
from runtime.rollout_conflicts import ACTIVE_MAX
from runtime.rollout_desk import RolloutDesk
from runtime.rollouts import RolloutDriver
from tests.integration.rollout_shop import (
    AUTHOR,
    OTHER,
    PATCH,
    STORES,
    Clock,
    KilledHere,
    Region,
    begun,
    documents,
    opened,
    planted,
    read_twin,
    report,
    small_policy,
    until,
    url,
    write_twin,
)

__all__ = ["planted", "url"]  # fixtures

pytestmark = pytest.mark.integration

PATCHED = '{"sound":{"volume_percent":40}}'
ROUNDS_MAX = 60


async def dies(_: str) -> None:
    raise KilledHere


async def doomed(driver: RolloutDriver) -> bool:
    """A round of a driver that may die in it; whether it did."""
    with suppress(KilledHere):
        await driver.round()
        return False
    return True


async def to_the_end(
    number: RolloutId, goal: RolloutState, desk: RolloutDesk, hosts: Region, clock: Clock, url: str, dice: random.Random
) -> int:
    """Two drivers at once in each round, each of which dies at its first transition; returns how many died."""
    died = 0
    for _ in range(ROUNDS_MAX):
        databases = desk._databases
        pair = [RolloutDriver(databases, hosts, clock, dies) for _ in range(2)]  # type: ignore[arg-type]
        died += sum(await asyncio.gather(*(doomed(one) for one in pair)))
        if dice.random() < 0.7:
            report(url)
        clock.on(dice.choice((5, 5, 20, 90, -30)))
        shown = await desk.show(number)
        if shown.turn.rollout.state is goal:
            return died
        if shown.turn.stages and shown.turn.stages[-1].gate.way == "await_approval":
            with suppress(Refused):
                await desk.tell(number, Promote(OTHER))
    raise AssertionError(f"still {shown.turn.rollout.state}: {shown.turn.why.en}")


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(2, 40))])
async def test_two_drivers_die_at_every_transition_while_the_clock_jumps(url: str, seed: int) -> None:
    clock, before, dice = Clock(), documents(url), random.Random(seed)
    async with opened(url) as databases:
        desk, hosts = RolloutDesk(databases, clock), Region(url, clock)
        number = await begun(desk)
        died = await to_the_end(number, RolloutState.COMPLETED, desk, hosts, clock, url, dice)
        assert set(documents(url).values()) == {PATCHED}
        await desk.tell(number, RollBack(OTHER, "again"))
        died += await to_the_end(number, RolloutState.ROLLED_BACK, desk, hosts, clock, url, dice)
        assert documents(url) == before
        assert died >= 8
        async with databases.at() as conn:
            entries = await table.journal(conn, number)
        assert [n for n, _ in entries] == list(range(1, len(entries) + 1))


async def test_a_plan_that_was_edited_is_not_driven_and_keeps_no_other_waiting(url: str) -> None:
    clock = Clock()
    async with opened(url) as databases:
        desk, hosts = RolloutDesk(databases, clock), Region(url, clock)
        first = await begun(desk)
        policy = replace(small_policy(), stages=tuple(replace(one, named=()) for one in small_policy().stages))
        other = await desk.plan(policy, patch_artefact({"till": {"beeps": 1}}, "till.beeps"), Selector(True), AUTHOR)
        await desk.tell(other.rollout.id, Start(AUTHOR))
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("ALTER TABLE rollout DISABLE TRIGGER rollout_frozen")
            conn.execute("UPDATE rollout SET plan = jsonb_set(plan, '{stages,0,stores}', '[]') WHERE id = %s", (first,))
        driver = RolloutDriver(databases, hosts, clock)  # type: ignore[arg-type]
        await driver.round()
        assert driver.counts.errors == 1
        assert hosts.given == 4, "the other one's pilot"
        with pytest.raises(NeedsOperator) as refused:
            await desk.show(first)
        assert refused.value.code == "rollout_changed"


async def test_there_is_a_most_of_active_rollouts_and_none_hides_behind_the_others(url: str) -> None:
    clock = Clock()
    async with opened(url) as databases:
        desk = RolloutDesk(databases, clock)
        first = await begun(desk)
        with psycopg.connect(url, autocommit=True) as conn:
            columns = "artefact, selector, policy, plan, plan_sha256, outlooks, author, state, entries"
            conn.execute(
                f"""INSERT INTO rollout (id, chain, artefact_key, scope, {columns}, created_at, changed_at)
                    SELECT id || n, chain, 'config', 's' || n,
                      jsonb_set(artefact, '{{payload}}', to_jsonb('{{"vendor":{{"n' || n || '":1}}}}'::text))
                        || jsonb_build_object('key', 'k' || n, 'kind', 'flag'), {columns.removeprefix("artefact, ")},
                      created_at + n * interval '1 second', changed_at
                    FROM rollout, generate_series(2, %s) n""",
                (ACTIVE_MAX,),
            )
        again = await desk.plan(small_policy(), patch_artefact(PATCH, "sound.volume_percent"), Selector(True), AUTHOR)
        assert again.conflict == first, "the oldest of them, under another key"
        with pytest.raises(Refused) as refused:
            await desk.tell(again.rollout.id, Start(AUTHOR))
        assert refused.value.code == "rollout_conflict"
        more = await desk.plan(small_policy(), patch_artefact({"vendor": {"x": 1}}, "vendor.x"), Selector(True), AUTHOR)
        assert more.conflict is None
        with pytest.raises(Refused) as refused:
            await desk.tell(more.rollout.id, Start(AUTHOR))
        assert refused.value.code == "too_many_rollouts"


async def test_words_that_cannot_be_kept_are_refused_before_anything_is_written(url: str) -> None:
    clock = Clock()
    async with opened(url) as databases:
        desk = RolloutDesk(databases, clock)
        number = await begun(desk)
        for word in ("a\0b", "\ud800", "\u202esmall", "x" * 401):
            for told in (Halt(OTHER, word), Halt(PersonId(word), "no"), Attach(OTHER, "privacy_assessment", word)):
                with pytest.raises(Refused) as refused:
                    await desk.tell(number, told)
                assert refused.value.code in ("bad_text", "bad_attachment")
            for author, given in ((PersonId(word), "n"), (AUTHOR, word)):
                with pytest.raises(Refused) as refused:
                    await desk.plan(small_policy(), patch_artefact(PATCH), Selector(True), author, number=given)
                assert refused.value.code == "bad_text"
        await desk.tell(number, Halt(OTHER, "太吵了 🙉\nsee the call"))
        assert (await desk.show(number)).turn.why.en == "halted by cli:other: 太吵了 🙉\nsee the call"


async def test_a_liar_with_the_last_generation_halts_and_a_retired_one_is_not_waited_for(url: str) -> None:
    clock, before = Clock(), documents(url)
    liar = f"{STORES[0]}-face"
    async with opened(url) as databases:
        desk, hosts = RolloutDesk(databases, clock), Region(url, clock)
        number = await begun(desk)
        driver = RolloutDriver(databases, hosts, clock)  # type: ignore[arg-type]
        await driver.round()
        report(url, silent=[liar])
        with psycopg.connect(url, autocommit=True) as conn:
            _, twin = read_twin(conn, liar)
            nested = '{"desired_refused":' + "[" * 400
            write_twin(conn, liar, replace(twin, applied_gen=2**31 - 1, config_hash="f" * 64, health=nested))
        for _ in range(3):
            clock.on(5)
            await driver.round()
            report(url, silent=[liar])
        shown = await desk.show(number)
        assert shown.turn.rollout.mark(liar).error is TargetState.LYING  # type: ignore[arg-type]
        assert shown.turn.rollout.state is RolloutState.ROLLING_BACK
        assert shown.turn.why.en.endswith("1 stores are not back yet")
        assert driver.counts.errors == 0
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("UPDATE terminal SET retired_at = now() WHERE id = %s", (liar,))
        await until(driver, desk, number, RolloutState.ROLLED_BACK, url, clock)
        mark = (await desk.show(number)).turn.rollout.marks[liar]  # type: ignore[index]
        assert (mark.state, mark.reason) == (TargetState.SUPERSEDED, Reason.RETIRED)
        after = documents(url)
        assert {one: text for one, text in after.items() if one != liar} == {
            one: text for one, text in before.items() if one != liar
        }
