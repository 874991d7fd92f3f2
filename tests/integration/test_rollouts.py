"""Rollouts on a real database: the journal stands, one of two drivers writes, and a kill anywhere changes no end."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from actors.rollout_commands import REFERENCE_CHARACTERS_MAX
from actors.rollout_effects import Attach, Halt, Pause, Promote, Resume, RollBack, Start
from models.domain.errors import Refused
from models.domain.ids import StoreId, TerminalId
from models.domain.rollout import RolloutState, Selector, TargetState
from models.domain.rollout_journal import TargetMoved
from models.domain.rollout_part import patch_artefact
from models.tables import rollouts as table
from runtime.rollout_desk import RolloutDesk, scope_of, selected_by
from runtime.rollouts import RolloutDriver
from tests.integration.rollout_shop import (
    AUTHOR,
    OTHER,
    PATCH,
    REGION,
    Clock,
    KilledHere,
    Region,
    begun,
    documents,
    opened,
    planted,
    report,
    small_policy,
    until,
    url,
)

__all__ = ["planted", "url"]  # fixtures

pytestmark = pytest.mark.integration


async def test_two_stores_then_all_and_back(url: str) -> None:
    clock = Clock()
    before = documents(url)
    async with opened(url) as databases:
        desk, hosts = RolloutDesk(databases, clock), Region(url, clock)
        driver = RolloutDriver(databases, hosts, clock)  # type: ignore[arg-type]
        number = await begun(desk)
        await driver.round()
        assert hosts.given == 4  # the pilot's four terminals and nobody else
        report(url)
        clock.on(5)
        await driver.round()
        clock.on(5)
        await driver.round()
        waits = await desk.show(number)
        assert [one.gate.way for one in waits.turn.stages] == ["await_approval"]
        with pytest.raises(Refused) as refused:
            await desk.tell(number, Promote(AUTHOR))
        assert refused.value.code == "own_rollout"
        await until(driver, desk, number, RolloutState.COMPLETED, url, clock)
        patched = '{"sound":{"volume_percent":40}}'
        assert set(documents(url).values()) == {patched}
        await desk.tell(number, RollBack(OTHER, "too quiet"))
        await until(driver, desk, number, RolloutState.ROLLED_BACK, url, clock)
        assert documents(url) == before
        shown = await desk.show(number)
        assert {mark.state for mark in shown.turn.rollout.marks.values()} == {TargetState.ROLLED_BACK}
        ways = [str(one.gate.way) for one in shown.decisions]
        assert ways[0] == "await_approval"
        assert "advance" in ways


async def run_killed(url: str, dies_at: int) -> tuple[dict[str, str], int]:
    """Forward and back, the driver dying once before its order number `dies_at`; documents, and orders given."""
    clock = Clock()
    async with opened(url) as databases:
        desk, hosts = RolloutDesk(databases, clock), Region(url, clock)
        hosts.dies_at = dies_at
        number = await begun(desk)
        forward, killed = "", 0
        for goal in (RolloutState.COMPLETED, RolloutState.ROLLED_BACK):
            while True:
                driver = RolloutDriver(databases, hosts, clock)  # type: ignore[arg-type]
                try:
                    await until(driver, desk, number, goal, url, clock)
                    break
                except KilledHere:
                    hosts.dies_at = None
                    killed += 1
            if goal is RolloutState.COMPLETED:
                forward = ";".join(sorted(set(documents(url).values())))
                await desk.tell(number, RollBack(OTHER, "a kill"))
        assert forward == '{"sound":{"volume_percent":40}}'
        return documents(url), killed


@pytest.mark.parametrize("dies_at", [0, 5, 12, 20])
async def test_a_kill_before_any_order_changes_no_end(url: str, dies_at: int) -> None:
    before = documents(url)
    after, killed = await run_killed(url, dies_at)
    assert killed == 1
    assert after == before


async def test_a_kill_between_commit_and_orders(url: str) -> None:
    clock = Clock()
    async with opened(url) as databases:
        desk, hosts = RolloutDesk(databases, clock), Region(url, clock)
        number = await begun(desk)

        async def dies(where: str) -> None:
            if where == "written":
                raise KilledHere

        with pytest.raises(KilledHere):
            await RolloutDriver(databases, hosts, clock, dies).round()  # type: ignore[arg-type]
        assert hosts.given == 0
        again = RolloutDriver(databases, hosts, clock)  # type: ignore[arg-type]
        await again.round()
        assert hosts.given == 4
        await until(again, desk, number, RolloutState.COMPLETED, url, clock)


async def test_of_two_drivers_one_writes(url: str) -> None:
    clock = Clock()
    async with opened(url) as databases:
        desk, hosts = RolloutDesk(databases, clock), Region(url, clock)
        number = await begun(desk)
        barrier = asyncio.Barrier(2)

        class Together(RolloutDriver):
            async def observe(self, *arguments: Any, **named: Any) -> Any:
                found = await super().observe(*arguments, **named)
                await barrier.wait()
                return found

        pair = [Together(databases, hosts, clock) for _ in range(2)]  # type: ignore[arg-type]
        assert sorted(await asyncio.gather(*(one.tick(number) for one in pair))) == [False, True]
        assert [one.counts.lost_races for one in pair].count(1) == 1
        assert hosts.given == 4
        async with databases.at() as conn:
            entries = await table.journal(conn, number)
        assert [n for n, _ in entries] == list(range(1, len(entries) + 1))
        assert len([one for _, one in entries if isinstance(one, TargetMoved)]) == 4


async def test_what_was_written_stands(url: str) -> None:
    clock = Clock()
    async with opened(url) as databases:
        desk = RolloutDesk(databases, clock)
        number = await begun(desk)
        await desk.tell(number, Pause(OTHER, "lunch"))
        await desk.tell(number, Resume(OTHER))
        await desk.tell(number, Halt(OTHER, "no"))
        kept = await desk.journal(number)
        assert [one.state for _, one in kept] == ["running", "paused", "running", "halted"]  # type: ignore[union-attr]
    statements = (
        "UPDATE rollout_journal SET kind = 'stage'",
        "DELETE FROM rollout_journal",
        "TRUNCATE rollout_journal",
        "DELETE FROM rollout_decision",
        "UPDATE rollout_verdict SET look = 2",
        "UPDATE rollout SET plan_sha256 = 'x'",
        "UPDATE rollout SET entries = 0",
    )
    with psycopg.connect(url, autocommit=True) as conn:
        for statement in statements:
            with pytest.raises(psycopg.errors.CheckViolation):
                conn.execute(statement)
        audited = conn.execute("SELECT kind FROM audit_event WHERE subject = %s ORDER BY n", (number,)).fetchall()
    assert [kind for (kind,) in audited] == [
        f"rollout.{one}" for one in ("planned", "start", "pause", "resume", "halt")
    ]


async def test_one_active_rollout_of_a_key(url: str) -> None:
    clock = Clock()
    async with opened(url) as databases:
        desk = RolloutDesk(databases, clock)
        first = await begun(desk)
        again = await desk.plan(small_policy(), patch_artefact(PATCH), Selector(all_stores=True), AUTHOR, number="one")
        assert again.rollout.id == first
        second = await desk.plan(small_policy(), patch_artefact({"sound": None}), selected_by(["all"]), AUTHOR)
        assert second.conflict == first
        assert scope_of(second.rollout) == "all"
        with pytest.raises(Refused) as refused:
            await desk.tell(second.rollout.id, Start(AUTHOR))
        assert refused.value.code == "rollout_conflict"
        # Whoever writes past the rule meets the index.
        with psycopg.connect(url, autocommit=True) as conn, pytest.raises(psycopg.errors.UniqueViolation):
            conn.execute("UPDATE rollout SET state = 'running' WHERE id = %s", (second.rollout.id,))
        with pytest.raises(Refused) as refused:
            await desk.tell(first, Attach(OTHER, "nobody_asks", "x" * (REFERENCE_CHARACTERS_MAX + 1)))
        assert refused.value.code == "bad_attachment"


@pytest.mark.parametrize("words", [["every"], ["region="], ["colour=red"], ["!role=till"]])
def test_a_selector_says_what_it_wants(words: list[str]) -> None:
    with pytest.raises(Refused) as refused:
        selected_by(words)
    assert refused.value.code == "bad_selector"


def test_a_selector_in_words() -> None:
    found = selected_by(["region=south", "label.format=street", "label.format=office", "!store=s-2", "!terminal=t"])
    assert found == Selector(
        regions=frozenset({REGION}),
        labels={"format": frozenset({"street", "office"})},
        excluded_stores=frozenset({StoreId("s-2")}),
        excluded_terminals=frozenset({TerminalId("t")}),
    )
