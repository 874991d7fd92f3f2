"""Rollouts on a real database: the journal stands, one of two drivers writes, and a kill anywhere changes no end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import psycopg
import pytest
from psycopg.types.json import Jsonb

from actors.hosts import DESIRED_CHANNEL, Delivered, Delivery
from actors.rollout_commands import REFERENCE_CHARACTERS_MAX
from actors.rollout_effects import Attach, Halt, Pause, Promote, Resume, RollBack, Start
from actors.terminal import Terminal, receive
from models.domain.errors import Refused
from models.domain.ids import ChainId, RegionId, StoreId, TerminalId, shard_of
from models.domain.messages import Address
from models.domain.rollout import PersonId, RolloutId, RolloutPolicy, RolloutState, Selector, TargetState
from models.domain.rollout_journal import TargetMoved
from models.domain.rollout_part import patch_artefact
from models.domain.twin import CommandAsked, Desired, DesiredAsked, OrderResult
from models.tables import rollouts as table
from runtime.plant import Plant
from runtime.postgres import EmbeddedPostgres
from runtime.rollout_desk import RolloutDesk, scope_of, selected_by
from runtime.rollout_files import policy_path, read_policy
from runtime.rollouts import Databases, RolloutDriver
from tests.conftest import fresh_database

pytestmark = pytest.mark.integration

CHAIN, REGION = ChainId("sunrise"), RegionId("south")
STORES = [StoreId(f"s-{n}") for n in range(1, 7)]
AUTHOR, OTHER = PersonId("cli:author"), PersonId("cli:other")
BASE = '{"language":"zh"}'
PATCH = {"sound": {"volume_percent": 40}}
BEGAN = datetime(2026, 3, 2, 1, 0, tzinfo=UTC)


class KilledHere(Exception):
    """The driver's process ends."""


class Clock:
    def __init__(self) -> None:
        self.now = BEGAN

    def __call__(self) -> datetime:
        return self.now

    def on(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Region:
    """Hosts of one region: the terminal's turn decides each order, its row keeps it. Dies before order `dies_at`."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._url, self._clock = url, clock
        self.given = 0
        self.dies_at: int | None = None
        self.commands: list[CommandAsked] = []

    async def deliver(self, region: RegionId, batch: Sequence[Delivery]) -> list[Delivered]:
        assert region == REGION
        answers = []
        with psycopg.connect(self._url, autocommit=True) as conn:
            for one in batch:
                if self.given == self.dies_at:
                    raise KilledHere
                self.given += 1
                answers.append(self._one(conn, one))
        return answers

    def _one(self, conn: psycopg.Connection[Any], delivery: Delivery) -> Delivered:
        assert delivery.channel == DESIRED_CHANNEL
        asked = replace(msgspec.json.decode(delivery.payload, type=DesiredAsked), base=BASE)
        store, before = read_twin(conn, delivery.terminal)
        me = Address(REGION, store, "terminal", delivery.terminal)
        try:
            after = receive(before, asked, me, asked.id, self._clock.now).state
        except Refused as error:
            result = OrderResult(False, before.desired.gen, error.code, error.message, error.do)
        else:
            write_twin(conn, delivery.terminal, after)
            result = OrderResult(True, after.desired.gen)
        return Delivered(msgspec.json.encode(result), b"")


def read_twin(conn: psycopg.Connection[Any], terminal: str) -> tuple[StoreId, Terminal]:
    row = conn.execute("SELECT store, state::text FROM entity WHERE id = %s", (terminal,)).fetchone()
    assert row is not None
    return StoreId(row[0]), msgspec.json.decode(row[1], type=Terminal)


def write_twin(conn: psycopg.Connection[Any], terminal: str, twin: Terminal) -> None:
    state = Jsonb(msgspec.to_builtins(twin))
    conn.execute("UPDATE entity SET state = %s, version = version + 1 WHERE id = %s", (state, terminal))


def report(url: str, *, silent: Sequence[str] = ()) -> None:
    """Every terminal but the silent ones applies what is desired and says so."""
    with psycopg.connect(url, autocommit=True) as conn:
        for (terminal,) in conn.execute("SELECT id FROM entity WHERE kind = 'terminal'").fetchall():
            if terminal not in silent:
                _, twin = read_twin(conn, terminal)
                said = replace(twin, applied_gen=twin.desired.gen, config_hash=twin.desired.config_hash)
                write_twin(conn, terminal, said)


def documents(url: str) -> dict[str, str]:
    """Overrides by terminal."""
    with psycopg.connect(url, autocommit=True) as conn:
        rows = conn.execute("SELECT id, state->'desired'->>'overrides' FROM entity ORDER BY id").fetchall()
        return dict(rows)


def plant(conn: psycopg.Connection[Any]) -> None:
    """Six stores with a till and a face terminal each, all connected; one of them has a volume of its own."""
    for store in STORES:
        conn.execute(
            "INSERT INTO store (id, chain, region, shard, name_zh, name_en, zone, cutoff_hour, basket_owner, opened_at)"
            " VALUES (%s, %s, %s, %s, '', '', 'Asia/Shanghai', 0, 'storeops', now())",
            (store, CHAIN, REGION, shard_of(store)),
        )
        for role in ("till", "face"):
            terminal = f"{store}-{role}"
            conn.execute(
                "INSERT INTO terminal (id, store, lane, role, profile, secret_sha256, registered_at)"
                " VALUES (%s, %s, 'one', %s, 'till', '', now())",
                (terminal, store, role),
            )
            own = '{"sound":{"volume_percent":70}}' if terminal == "s-1-till" else "{}"
            twin = Terminal(online=True, boot=f"{terminal}/1", software="1.0", desired=Desired(gen=1, overrides=own))
            conn.execute(
                "INSERT INTO entity VALUES (%s, %s, 'terminal', %s, %s, %s, 1, now())",
                (REGION, store, terminal, shard_of(store), Jsonb(msgspec.to_builtins(twin))),
            )


@pytest.fixture(scope="module")
def planted(embedded_postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[tuple[EmbeddedPostgres, str]]:
    """A database to copy: kills need a fresh one each."""
    with fresh_database(embedded_postgres, migrated_template) as url:
        with psycopg.connect(url, autocommit=True) as conn:
            plant(conn)
        yield embedded_postgres, urlsplit(url).path.lstrip("/")


@pytest.fixture
def url(planted: tuple[EmbeddedPostgres, str]) -> Iterator[str]:
    server, template = planted
    with fresh_database(server, template) as made:
        yield made


def small_policy() -> RolloutPolicy:
    """Two stores, then all; nobody soaks, a person lets the second stage begin."""
    policy = read_policy(policy_path("configuration"))
    pilot, _, everybody = policy.stages
    plain = {"soak_s": 0, "jitter_s": 0, "evidence": None, "attachments": ()}
    first = replace(pilot, named=(STORES[0],), policy=replace(pilot.policy, **plain))  # type: ignore[arg-type]
    last = replace(everybody, policy=replace(everybody.policy, **plain))  # type: ignore[arg-type]
    return replace(policy, stages=(first, last), tail=False)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Databases]:
    databases = Databases([Plant(Path("/nowhere"), CHAIN, REGION, database_url=url)])
    await databases.open()
    try:
        yield databases
    finally:
        await databases.close()


async def begun(desk: RolloutDesk) -> RolloutId:
    made = await desk.plan(small_policy(), patch_artefact(PATCH), Selector(all_stores=True), AUTHOR, number="one")
    await desk.tell(made.rollout.id, Start(AUTHOR))
    return made.rollout.id


async def until(
    driver: RolloutDriver, desk: RolloutDesk, number: RolloutId, state: RolloutState, url: str, clock: Clock
) -> None:
    """Rounds with what terminals do between them, until it is there; whoever waits for approval gets it."""
    for _ in range(30):
        await driver.round()
        report(url)
        clock.on(5)
        shown = await desk.show(number)
        if shown.turn.rollout.state is state:
            return
        if shown.turn.stages and shown.turn.stages[-1].gate.way == "await_approval":
            await desk.tell(number, Promote(OTHER))
    raise AssertionError(f"still {shown.turn.rollout.state}: {shown.turn.why.en}")


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
            async def observe(self, *arguments: Any) -> Any:
                found = await super().observe(*arguments)
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
