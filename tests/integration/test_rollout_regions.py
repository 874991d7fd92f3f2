"""A chain in two regions with a database each: one rollout over both, killed between them, with one of them away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from datetime import date
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from actors.hosts import Delivered, Delivery
from actors.rollout_effects import RollBack
from models.domain.evidence import MetricId
from models.domain.ids import RegionId, StoreId
from models.domain.rollout import RolloutId, RolloutPolicy, RolloutState, TargetState
from runtime import rollout_databases
from runtime.plant import Plant
from runtime.postgres import EmbeddedPostgres
from runtime.rollout_databases import Databases
from runtime.rollout_desk import RolloutDesk
from runtime.rollouts import RolloutDriver
from tests.conftest import fresh_database
from tests.integration.rollout_shop import (
    CHAIN,
    OTHER,
    REGION,
    STORES,
    Clock,
    KilledHere,
    Region,
    begun_with,
    documents,
    plant,
    report,
    small_policy,
    until,
)

pytestmark = pytest.mark.integration

FAR = RegionId("east")
FAR_STORES = [StoreId(f"e-{n}") for n in range(1, 4)]
PATCHED = '{"sound":{"volume_percent":40}}'


class Both:
    """The hosts of both regions."""

    def __init__(self, urls: dict[RegionId, str], clock: Clock) -> None:
        self.regions = {region: Region(url, clock, region) for region, url in urls.items()}

    async def deliver(self, region: RegionId, batch: Sequence[Delivery]) -> list[Delivered]:
        return await self.regions[region].deliver(region, batch)

    def given(self) -> list[int]:
        return [one.given for one in self.regions.values()]


@pytest.fixture(scope="module")
def templates(
    embedded_postgres: EmbeddedPostgres, migrated_template: str
) -> Iterator[tuple[EmbeddedPostgres, list[str]]]:
    """A region's stores in each."""
    with (
        fresh_database(embedded_postgres, migrated_template) as near,
        fresh_database(embedded_postgres, migrated_template) as far,
    ):
        for url, region, stores in ((near, REGION, STORES[:3]), (far, FAR, FAR_STORES)):
            with psycopg.connect(url, autocommit=True) as conn:
                plant(conn, region, stores)
        yield embedded_postgres, [urlsplit(url).path.lstrip("/") for url in (near, far)]


@pytest.fixture
def urls(templates: tuple[EmbeddedPostgres, list[str]]) -> Iterator[dict[RegionId, str]]:
    server, (near, far) = templates
    with fresh_database(server, near) as one, fresh_database(server, far) as other:
        yield {REGION: one, FAR: other}


@asynccontextmanager
async def opened(urls: dict[RegionId, str]) -> AsyncIterator[Databases]:
    databases = Databases([Plant(Path("/nowhere"), CHAIN, region, database_url=url) for region, url in urls.items()])
    await databases.open()
    try:
        yield databases
    finally:
        await databases.close()


def everything(urls: dict[RegionId, str]) -> dict[str, str]:
    return {terminal: text for url in urls.values() for terminal, text in documents(url).items()}


def policy() -> RolloutPolicy:
    """A store of each region first, then all."""
    whole = small_policy()
    return replace(whole, stages=(replace(whole.stages[0], named=(STORES[0], FAR_STORES[0])), *whole.stages[1:]))


async def driven(
    number: RolloutId, databases: Databases, hosts: Both, clock: Clock, urls: dict[RegionId, str], goal: RolloutState
) -> int:
    """To the goal, killed once after the first region was given its orders and the other was not; how often it died."""
    desk, died = RolloutDesk(databases, clock), 0

    async def between(where: str) -> None:
        nonlocal died
        if where == "given" and not died:
            died += 1
            raise KilledHere

    class Everywhere(RolloutDriver):
        async def round(self) -> int:
            try:
                return await super().round()
            finally:
                for url in urls.values():
                    report(url)

    while True:
        driver = Everywhere(databases, hosts, clock, between)  # type: ignore[arg-type]
        with suppress(KilledHere):
            await until(driver, desk, number, goal, urls[REGION], clock)
            return died


async def test_one_rollout_over_two_databases_there_and_back(urls: dict[RegionId, str]) -> None:
    clock, before = Clock(), everything(urls)
    async with opened(urls) as databases:
        desk, hosts = RolloutDesk(databases, clock), Both(urls, clock)
        number = await begun_with(desk, policy())
        plan = (await desk.show(number)).turn.rollout.plan
        assert {store.store for store in plan.stages[0].stores} == {STORES[0], FAR_STORES[0]}
        assert plan.targets == len(before) == 12
        killed = RolloutDriver(databases, hosts, clock, _dies)  # type: ignore[arg-type]
        with pytest.raises(KilledHere):
            await killed.round()
        assert sorted(hosts.given()) == [0, 2], "one region has its orders, the other has not"
        assert await driven(number, databases, hosts, clock, urls, RolloutState.COMPLETED) == 1
        assert set(everything(urls).values()) == {PATCHED}
        await desk.tell(number, RollBack(OTHER, "too quiet"))
        assert await driven(number, databases, hosts, clock, urls, RolloutState.ROLLED_BACK) == 1
        assert everything(urls) == before


async def _dies(where: str) -> None:
    if where == "given":
        raise KilledHere


@contextmanager
def away(server: EmbeddedPostgres, url: str) -> Iterator[None]:
    """Nobody can connect to this database."""
    name = sql.Identifier(urlsplit(url).path.lstrip("/"))
    with psycopg.connect(server.url, autocommit=True) as owner:
        owner.execute(sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false").format(name))
        owner.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name._obj[0],))
        try:
            yield
        finally:
            owner.execute(sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS true").format(name))


@pytest.mark.soak
async def test_a_region_whose_database_is_away_is_offline_and_catches_up(
    urls: dict[RegionId, str], templates: tuple[EmbeddedPostgres, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout_databases, "CONNECT_S_MAX", 0.2)
    clock, before = Clock(), everything(urls)
    async with opened(urls) as databases:
        desk, hosts = RolloutDesk(databases, clock), Both(urls, clock)
        number = await begun_with(desk, policy())
        driver = RolloutDriver(databases, hosts, clock)  # type: ignore[arg-type]
        with away(templates[0], urls[FAR]):
            for _ in range(3):
                await driver.round()
                report(urls[REGION])
                clock.on(5)
            shown = await desk.show(number)
            counts = shown.turn.stages[0].counts
            assert (counts.succeeded, counts.offline) == (1, 1)
            assert shown.turn.stages[0].gate.way == "hold"
            assert hosts.given() == [2, 0]
            assert not await desk.decisions(number)
            with pytest.raises(rollout_databases.AWAY):
                await databases.days(MetricId("sales_per_day"), [STORES[0]], date(2026, 3, 1), date(2026, 3, 2))
        for _ in range(50):  # the pool connects again in the background
            _, missing = await databases.sites(CHAIN)
            if not missing:
                break
            await asyncio.sleep(0.05)
        days = await databases.days(
            MetricId("sales_per_day"), [STORES[0], FAR_STORES[0]], date(2027, 3, 1), date(2027, 3, 3)
        )
        assert {store: len(those) for store, those in days.items()} == {STORES[0]: 2, FAR_STORES[0]: 2}
        await driven(number, databases, hosts, clock, urls, RolloutState.COMPLETED)
        marks = (await desk.show(number)).turn.rollout.marks
        assert {mark.state for mark in marks.values()} == {TargetState.SUCCEEDED}
        assert len(marks) == len(before)
