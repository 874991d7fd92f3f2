"""What an administrator does to terminals of a running house: commands, desired documents, retirement, a look."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import uuid_utils
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from models.domain.errors import Refused, RetryLater
from models.domain.ids import MessageId, RegionId, TerminalId
from models.domain.twin import CommandAsked, CommandStatus, DesiredAsked, OrderResult, SoftwareVersion, require_command
from runtime.broker import let_out
from runtime.credentials import Credentials
from runtime.datadir import open_data_dir
from runtime.edge import join_ray
from runtime.orders import order, refresh
from runtime.plant import Plant, read_plants

ORDERS_AT_ONCE_MAX = 64
POLL_S = 0.1
HOST_AWAY_S_MAX = 15.0


@dataclass(frozen=True, slots=True)
class Change:
    """A change of what terminals should run: a merge patch of the configuration, a software version, or both."""

    patch: str | None = None
    software: SoftwareVersion | None = None
    no_software: bool = False
    reset: bool = False
    expected_gen: int | None = None


async def set_desired(
    plant: Plant, terminals: Sequence[str], change: Change, progress: Callable[[int], None] = lambda _: None
) -> dict[str, OrderResult]:
    """Give terminals of one region a new generation each, compare-and-set by `expected_gen`; the answers by terminal.

    Durable when this returns; published by their hosts at once, or as soon as a host is back. A terminal that is
    refused (`gen_conflict`, `bad_config`) changes nothing at the others.
    """
    results: dict[str, OrderResult] = {}
    key = str(uuid_utils.uuid7())
    for n in range(0, len(terminals), ORDERS_AT_ONCE_MAX):
        part = terminals[n : n + ORDERS_AT_ONCE_MAX]
        asked = [
            DesiredAsked(
                MessageId(f"{key}:{terminal}"),
                "",
                change.patch,
                change.software,
                change.no_software,
                change.reset,
                change.expected_gen,
            )
            for terminal in part
        ]
        answers = await _order(plant, list(zip(part, asked, strict=True)))
        results.update(zip(part, answers, strict=True))
        progress(len(results))
    return results


async def command(
    plant: Plant, terminal: str, asked: CommandAsked, progress: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Tell one terminal to do something and wait for its final answer, until the deadline at the latest.

    Raises Refused for a verb, an argument or a deadline that makes no sense.
    """
    require_command(asked)
    [result] = await _order(plant, [(terminal, asked)])
    if not result.ok:
        raise Refused(result.code, result.message, result.do)
    until = time.monotonic() + asked.deadline_s + 5.0
    shown = ""
    async with await AsyncConnection.connect(plant.database_url, autocommit=True, row_factory=dict_row) as conn:
        while True:
            cursor = await conn.execute("SELECT * FROM command WHERE id = %s", (asked.id,))
            row = await cursor.fetchone()
            assert row is not None, "the order was durable"
            if row["status"] != shown:
                shown = row["status"]
                progress(shown)
            if CommandStatus(shown).final or time.monotonic() > until:
                return dict(row)
            await asyncio.sleep(POLL_S)


async def retire(plant: Plant, terminal: str) -> dict[str, Any]:
    """Take a terminal out of service: unknown to its host in a second, retained topics cleared, its broker user gone.

    What it did stays in the books. To undo it, register it again. Raises Refused `unknown_terminal`.
    """
    async with await AsyncConnection.connect(plant.database_url, autocommit=True) as conn:
        cursor = await conn.execute(
            "UPDATE terminal SET retired_at = now() WHERE id = %s AND retired_at IS NULL RETURNING store", (terminal,)
        )
        row = await cursor.fetchone()
    if row is None:
        raise Refused("unknown_terminal", f"no terminal {terminal!r} in service", "see: storeops terminal show ID")
    at_once = False
    if plant.broker_embedded:
        at_once = let_out(open_data_dir(plant.data_dir, create=False), terminal)
    await Credentials(read_plants(plant.data_dir)).end_of_service(plant, terminal, datetime.now(UTC))
    told = True
    try:
        join_ray(plant)
        from runtime.ray_hosts import RayHosts

        await RayHosts(plant).deliver(RegionId(plant.region), [refresh(TerminalId(terminal))])
    except Refused:
        pass  # unknown there: the host has looked by itself already
    except RetryLater:
        told = False  # the host looks by itself when it is back
    return {
        "terminal": terminal,
        "store": row[0],
        "host": "told" if told else "sees it when it is back",
        "broker": "user removed" if at_once else "remove its user there",
    }


async def show(plant: Plant, terminal: str, commands_max: int = 20) -> dict[str, Any]:
    """Everything that is known of a terminal: registry, presence, desired and reported, telemetry, last commands."""
    async with await AsyncConnection.connect(plant.database_url, autocommit=True, row_factory=dict_row) as conn:

        async def one(query: Any, *values: object) -> dict[str, Any] | None:
            return await (await conn.execute(query, values)).fetchone()

        registered = await one(
            "SELECT id, store, lane, role, profile, registered_at, retired_at FROM terminal WHERE id = %s", terminal
        )
        if registered is None:
            raise Refused("unknown_terminal", f"no terminal {terminal!r}", "register it: storeops terminal add")
        presence = await one("SELECT * FROM presence WHERE terminal = %s", terminal)
        desired = await one(
            "SELECT gen, config::jsonb AS config, config_hash, software, set_at FROM desired WHERE terminal = %s",
            terminal,
        )
        telemetry = await one("SELECT at, doc FROM telemetry WHERE terminal = %s ORDER BY at DESC LIMIT 1", terminal)
        cursor = await conn.execute(
            """SELECT id, verb, args, asked_at, deadline_at, status, detail, answered_at, late_status
               FROM command WHERE terminal = %s ORDER BY asked_at DESC LIMIT %s""",
            (terminal, commands_max),
        )
        commands = await cursor.fetchall()
    return {
        "terminal": registered,
        "presence": presence,
        "desired": desired,
        "telemetry": telemetry,
        "commands": commands,
    }


async def selection(plant: Plant, terminal: str | None, store: str | None, everywhere: bool) -> list[str]:
    """Terminals in service: one, those of a store, or all of the region. Raises Refused `which_terminals`."""
    if [terminal is not None, store is not None, everywhere].count(True) != 1:
        raise Refused("which_terminals", "which terminals?", "give one of TERMINAL, --store and --all")
    async with await AsyncConnection.connect(plant.database_url, autocommit=True) as conn:
        cursor = await conn.execute(
            """SELECT t.id FROM terminal t JOIN store s ON s.id = t.store WHERE t.retired_at IS NULL AND s.region = %s
               AND (%s::text IS NULL OR t.id = %s) AND (%s::text IS NULL OR t.store = %s) ORDER BY t.id""",
            (plant.region, terminal, terminal, store, store),
        )
        found = [row[0] for row in await cursor.fetchall()]
    if not found:
        raise Refused("no_terminals", "no terminal in service there", "see the console's list of terminals")
    return found


async def _order(plant: Plant, orders: Sequence[tuple[str, CommandAsked | DesiredAsked]]) -> list[OrderResult]:
    """Through the Hosts port; while a host is being restarted the same orders again, which is safe by their ids."""
    join_ray(plant)
    from runtime.ray_hosts import RayHosts

    hosts = RayHosts(plant)
    deliveries = [order(TerminalId(terminal), asked) for terminal, asked in orders]
    until = time.monotonic() + HOST_AWAY_S_MAX
    while True:
        try:
            answers = await hosts.deliver(RegionId(plant.region), deliveries)
            return [msgspec.json.decode(answer.reply, type=OrderResult) for answer in answers]
        except RetryLater as error:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(error.after_s)


def new_command(verb: str, args: Sequence[str], deadline_s: int) -> CommandAsked:
    """From the command line's words. Raises Refused `bad_args`."""
    pairs: list[tuple[str, str | int]] = []
    for word in args:
        name, equals, value = word.partition("=")
        if not equals:
            raise Refused("bad_args", f"{word!r}", "write --arg name=value")
        pairs.append((name, int(value) if value.lstrip("-").isdecimal() and len(value) < 16 else value))
    asked = CommandAsked(MessageId(str(uuid_utils.uuid7())), verb, tuple(pairs), deadline_s)
    require_command(asked)
    return asked
