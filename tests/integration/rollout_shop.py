"""A small chain with rollouts on a real database: its terminals, its hosts, a clock, and what people do."""

from __future__ import annotations

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
from actors.rollout_effects import Promote, Start
from actors.terminal import Terminal, receive
from models.domain.errors import Refused
from models.domain.ids import ChainId, RegionId, StoreId, shard_of
from models.domain.messages import Address
from models.domain.rollout import PersonId, RolloutId, RolloutPolicy, RolloutState, Selector
from models.domain.rollout_part import patch_artefact
from models.domain.twin import CommandAsked, Desired, DesiredAsked, OrderResult
from runtime.plant import Plant
from runtime.postgres import EmbeddedPostgres
from runtime.rollout_databases import Databases
from runtime.rollout_desk import RolloutDesk
from runtime.rollout_files import policy_path, read_policy
from runtime.rollouts import RolloutDriver
from tests.conftest import fresh_database

CHAIN, REGION = ChainId("sunrise"), RegionId("south")
STORES = [StoreId(f"s-{n}") for n in range(1, 7)]
AUTHOR, OTHER = PersonId("cli:author"), PersonId("cli:other")
BASE = '{"language":"zh"}'
PATCH = {"sound": {"volume_percent": 40}}
BEGAN = datetime(2026, 3, 2, 1, 0, tzinfo=UTC)


class KilledHere(BaseException):
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

    def __init__(self, url: str, clock: Clock, region: RegionId = REGION) -> None:
        self._url, self._clock, self._region = url, clock, region
        self.given = 0
        self.dies_at: int | None = None
        self.commands: list[CommandAsked] = []

    async def deliver(self, region: RegionId, batch: Sequence[Delivery]) -> list[Delivered]:
        assert region == self._region
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
        me = Address(self._region, store, "terminal", delivery.terminal)
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


def plant(conn: psycopg.Connection[Any], region: RegionId = REGION, stores: Sequence[StoreId] = STORES) -> None:
    """Stores with a till and a face terminal each, all connected; one of six has a volume of its own."""
    for store in stores:
        conn.execute(
            "INSERT INTO store (id, chain, region, shard, name_zh, name_en, zone, cutoff_hour, basket_owner, opened_at)"
            " VALUES (%s, %s, %s, %s, '', '', 'Asia/Shanghai', 0, 'storeops', now())",
            (store, CHAIN, region, shard_of(store)),
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
                (region, store, terminal, shard_of(store), Jsonb(msgspec.to_builtins(twin))),
            )


@pytest.fixture(scope="module")
def planted(embedded_postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[tuple[EmbeddedPostgres, str]]:
    """A database to copy: kills need a fresh one each."""
    with fresh_database(embedded_postgres, migrated_template) as made:
        with psycopg.connect(made, autocommit=True) as conn:
            plant(conn)
        yield embedded_postgres, urlsplit(made).path.lstrip("/")


@pytest.fixture
def url(planted: tuple[EmbeddedPostgres, str]) -> Iterator[str]:
    """A copy of it."""
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
    return await begun_with(desk, small_policy())


async def begun_with(desk: RolloutDesk, policy: RolloutPolicy) -> RolloutId:
    made = await desk.plan(policy, patch_artefact(PATCH), Selector(all_stores=True), AUTHOR, number="one")
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
