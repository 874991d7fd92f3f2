"""What the command line does to a running house: it finds it by the data folder, and asks its database and actors."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, LiteralString

import httpx
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool
from rich.console import Console
from sqlalchemy.ext.asyncio import create_async_engine

from devices.profiles import profile_of, require_role
from gateway.auth import make_login_link
from gateway.providers.simulator import SimulatorAdmin
from gateway.settings import GatewaySettings
from models.domain.errors import Refused, RetryLater
from models.domain.ids import StoreId, is_topic_level, shard_of
from runtime import clock
from runtime.broker import let_in
from runtime.chains import secret_sha256
from runtime.datadir import default_data_dir, open_data_dir
from runtime.edge import join_ray
from runtime.plant import Plant, choose, read_plants
from runtime.postgres import sqlalchemy_url

DEMO_DATA = "storeops-demo"


def running_all(data: Path | None, demo: bool) -> tuple[Plant, ...]:
    """Every region of the house that runs on a data folder, the demonstration's if asked so."""
    return read_plants(data or (default_data_dir().with_name(DEMO_DATA) if demo else default_data_dir()))


def running(data: Path | None, demo: bool, region: str | None = None) -> Plant:
    """One region of it: the named one, or the only one. Raises NeedsOperator `which_region`, naming the choices."""
    return choose(running_all(data, demo), region)


def chosen(plants: Sequence[Plant], region: str | None) -> tuple[Plant, ...]:
    """One region, or all of them. Raises NeedsOperator `which_region` for one that is not there."""
    return tuple(plants) if region is None else (choose(plants, region),)


async def of_store(plants: Sequence[Plant], store: str) -> Plant:
    """The region where a store stands. Raises Refused `unknown_store`."""
    return await _where(plants, "SELECT region FROM store WHERE id = %s", store, "store")


async def of_terminal(plants: Sequence[Plant], terminal: str) -> Plant:
    """The region where a terminal stands. Raises Refused `unknown_terminal`."""
    query = "SELECT s.region FROM terminal t JOIN store s ON s.id = t.store WHERE t.id = %s"
    return await _where(plants, query, terminal, "terminal")


async def _where(plants: Sequence[Plant], query: LiteralString, name: str, what: str) -> Plant:
    for url in dict.fromkeys(plant.database_url for plant in plants):
        async with await AsyncConnection.connect(url, autocommit=True) as conn:
            row = await (await conn.execute(query, (name,))).fetchone()
        if row is not None:
            return choose([plant for plant in plants if plant.database_url == url], row[0])
    regions = ", ".join(plant.region for plant in plants)
    raise Refused(f"unknown_{what}", f"no {what} {name!r} in {regions}", f"see the console's list of {what}s")


async def login_link(plant: Plant, person: str = "") -> str:
    """A one-time link into the console."""
    engine = create_async_engine(sqlalchemy_url(plant.database_url))
    try:
        return await make_login_link(engine, GatewaySettings(port=plant.gateway_port), person=person)
    finally:
        await engine.dispose()


async def clock_now(plant: Plant) -> datetime:
    """Business time."""
    async with pool_of(plant) as pool:
        return await clock.business_now(pool)


async def clocks(plants: Sequence[Plant], region: str | None) -> dict[str, str]:
    """Business time, ISO 8601, by region: of one or of all."""
    return {plant.region: (await clock_now(plant)).isoformat() for plant in chosen(plants, region)}


async def settle_regions(plants: Sequence[Plant], region: str | None, by: str) -> dict[str, Any]:
    """One region's report; for several `{"ok", "regions": [report, …]}`, settled side by side."""
    reports = await asyncio.gather(*(settle(plant, by) for plant in chosen(plants, region)))
    return reports[0] if len(reports) == 1 else {"ok": all(one["ok"] for one in reports), "regions": reports}


async def advance_regions(
    plants: Sequence[Plant], region: str | None, to: datetime, console: Console | None = None
) -> dict[str, Any]:
    """As `advance`, for the clock of each database: one region's (with those that share it) or all, one by one."""
    urls = {plant.database_url for plant in chosen(plants, region)}
    done = []
    for url in dict.fromkeys(plant.database_url for plant in plants if plant.database_url in urls):
        first, *others = [plant for plant in plants if plant.database_url == url]
        done.append(await advance(first, to, console, others))
    return {**done[0], **{name: sum(int(one[name]) for one in done) for name in ("stops", "unfinished", "settlements")}}


async def forecast_regions(plants: Sequence[Plant], region: str | None) -> dict[str, Any]:
    """`{"regions": [forecast, …]}`: what a run would charge now; nothing changes."""

    async def forecast(plant: Plant) -> dict[str, Any]:
        found: dict[str, Any] = await _settlement(plant).forecast.remote(await clock_now(plant))
        return found

    return {"regions": await asyncio.gather(*(forecast(plant) for plant in chosen(plants, region)))}


async def settle(plant: Plant, by: str) -> dict[str, Any]:
    """Run the region's settlement to its end; `by` stands in the run's row."""
    now = await clock_now(plant)
    return await _settle_at(plant, now, by)


async def _settle_at(plant: Plant, now: datetime, by: str = "clock advance") -> dict[str, Any]:
    settlement = _settlement(plant)
    from runtime.ray_hosts import answered

    report: dict[str, Any] = await answered(settlement.run.remote(now, by))
    return report


def _settlement(plant: Plant) -> Any:
    """The region's settlement actor."""
    join_ray(plant)
    from runtime.ray_hosts import settlement_actor

    return settlement_actor(plant.chain, plant.region)


async def advance(
    plant: Plant, to: datetime, console: Console | None = None, others: Sequence[Plant] = ()
) -> dict[str, Any]:
    """Move the business clock to `to`, settling at every stop; `others` are the regions that share its database."""
    if to.tzinfo is None:
        to = to.replace(tzinfo=UTC)
    reports: list[dict[str, Any]] = []

    async def settle_at(now: datetime) -> None:
        reports.extend(await asyncio.gather(*(_settle_at(one, now) for one in (plant, *others))))

    async def fire(now: datetime) -> None:
        """Hosts fire business timers by themselves, within a second of seeing the clock; the provider is told."""
        await _tell_provider(plant, now)

    def show(now: datetime) -> None:
        if console is not None:
            console.print(f"· {now.isoformat()}", markup=False)

    async with pool_of(plant) as pool:
        advanced = await clock.advance(pool, to, settle_at, fire, progress=show)
    await _tell_provider(plant, to)
    return {**{name: str(value) for name, value in asdict(advanced).items()}, "settlements": len(reports)}


async def _tell_provider(plant: Plant, now: datetime) -> None:
    """The house's own simulator lives on the same day: else its statements would be of days that our books skipped."""
    if not plant.provider_follows:
        return
    try:
        async with SimulatorAdmin(plant.provider_url) as provider:
            await provider.advance_to(now)
    except httpx.TransportError as error:
        raise RetryLater(
            "provider_away", f"{plant.provider_url}: {error}", "the same command goes on from here", after_s=5
        ) from None


def pool_of(plant: Plant) -> AsyncConnectionPool[Any]:
    """Connections to a region's database, to be opened by `async with`."""
    return AsyncConnectionPool(plant.database_url, min_size=1, max_size=2, open=False)


async def add_terminal(
    plant: Plant, store: str, lane: str, role: str, profile: str, terminal: str | None
) -> dict[str, str | int]:
    """Register a terminal and let it into the broker. The secret is returned once and kept as a hash.

    Raises Refused for an unknown store or profile, a role that the profile cannot play, a name that cannot stand in a
    topic, or an id that exists.
    """
    require_role(profile_of(profile), role)
    name = terminal or f"{store}-{role}-{secrets.token_hex(2)}"
    for what, text in (("lane", lane), ("role", role), ("terminal", name)):
        if not is_topic_level(text):
            raise Refused("bad_name", f"{what} {text!r}", "use a-z, 0-9 and -, 48 at most")
    secret = secrets.token_hex(32)
    async with await AsyncConnection.connect(plant.database_url, autocommit=True) as conn:
        cursor = await conn.execute("SELECT region FROM store WHERE id = %s", (store,))
        row = await cursor.fetchone()
        if row is None:
            raise Refused("unknown_store", f"no store {store!r}", "see the console's list of stores")
        # A retired terminal comes back by a new registration, in its own store: its books are there.
        cursor = await conn.execute(
            """INSERT INTO terminal (id, store, lane, role, profile, secret_sha256, registered_at)
               VALUES (%s, %s, %s, %s, %s, %s, now()) ON CONFLICT (id) DO UPDATE SET lane = excluded.lane,
               role = excluded.role, profile = excluded.profile, delivered_profile = '',
               secret_sha256 = excluded.secret_sha256,
               registered_at = excluded.registered_at, retired_at = NULL, revoked_at = NULL
               WHERE terminal.retired_at IS NOT NULL AND terminal.store = excluded.store RETURNING 1""",
            (name, store, lane, role, profile, secret_sha256(secret)),
        )
        if await cursor.fetchone() is None:
            raise Refused("terminal_exists", f"{name!r} is registered", "choose another --id")
    at_once = let_in(open_data_dir(plant.data_dir, create=False), name, secret) if plant.broker_embedded else False
    shard = shard_of(StoreId(store))
    return {
        "topic_prefix": f"so/1/{row[0]}/{shard:02x}/{store}/{name}",
        "username": name,
        "client_id": name,
        "secret": secret,
        "broker_host": plant.broker_host,
        "broker_port": plant.broker_port,
        "usable": "now" if at_once else "once the broker knows this user",
    }
