"""Rollouts for the console: the real desk and driver over the small world's terminals, on a clock of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import psycopg
from psycopg.types.json import Jsonb

from actors.rollout_effects import Attach, Start
from actors.terminal import Terminal
from models.domain.ids import ChainId, RegionId, StoreId, shard_of
from models.domain.rollout import PersonId, RolloutId, RolloutPolicy, Selector
from models.domain.rollout_part import patch_artefact
from models.domain.twin import Desired
from runtime.plant import Plant
from runtime.rollout_databases import Databases
from runtime.rollout_desk import RolloutDesk
from runtime.rollout_files import policy_path, read_policy
from runtime.rollouts import RolloutDriver
from tests.integration.rollout_shop import Clock, Region, report

CHAIN, REGION = ChainId("chain"), RegionId("local")
AUTHOR = PersonId("console:ann")


def plant_of(url: str) -> Plant:
    return Plant(Path(), region=REGION, chain=CHAIN, database_url=url)


def connect_terminals(url: str) -> None:
    """Every terminal of the world has a twin that is connected."""
    with psycopg.connect(url, autocommit=True) as conn:
        for terminal, store in conn.execute("SELECT id, store FROM terminal").fetchall():
            twin = Terminal(online=True, boot=f"{terminal}/1", software="1.0.0", desired=Desired(gen=1))
            conn.execute(
                "INSERT INTO entity VALUES (%s, %s, 'terminal', %s, %s, %s, 1, now()) ON CONFLICT DO NOTHING",
                (REGION, store, terminal, shard_of(StoreId(store)), Jsonb(msgspec.to_builtins(twin))),
            )


def policy(*, soak_s: int = 0) -> RolloutPolicy:
    """Two stores, eight, all, each by a person; what faces need is attached before the second stage."""
    shipped = read_policy(policy_path("configuration"))
    pilot, several, everybody = (
        replace(one, policy=replace(one.policy, soak_s=soak_s, jitter_s=0, evidence=None, executed_min=2))
        for one in shipped.stages
    )
    stages = (pilot, replace(several, name="eight", stores=8), everybody)
    return replace(shipped, stages=stages, tail=False)


async def begin(
    url: str, value: int, *, flag: str, rules: RolloutPolicy | None = None, silent: Sequence[str] = ()
) -> RolloutId:
    """A rollout of one setting that has had three rounds; terminals that are silent apply nothing."""
    clock = Clock()
    clock.now = datetime.now(UTC) - timedelta(minutes=10)
    databases = Databases([plant_of(url)])
    await databases.open()
    try:
        desk = RolloutDesk(databases, clock)
        patch = {flag.split(".")[0]: {flag.split(".")[1]: value}}
        planned = await desk.plan(
            rules or policy(), patch_artefact(patch, flag), Selector(all_stores=True), AUTHOR, number=flag
        )
        number = planned.rollout.id
        await desk.tell(number, Start(AUTHOR))
        await desk.tell(number, Attach(AUTHOR, "privacy_assessment", "PIA-2026-11"))
        driver = RolloutDriver(databases, Region(url, clock, REGION), clock)  # type: ignore[arg-type]
        for _ in range(3):
            await driver.tick(number)
            report(url, silent=silent)
            clock.on(60)
        await driver.tick(number)
        return number
    finally:
        await databases.close()
