"""The names of hosted actors, and the Hosts port over Ray: what a process needs that only asks them.

Apart from hosting.py, so that the gateway and the command line do not import everything that runs in an actor.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ray
from psycopg import AsyncConnection, OperationalError
from ray.exceptions import RayActorError, RayError

from actors.hosts import Delivered, Delivery
from models.domain.errors import Refused, RetryLater, StoreOpsError
from models.domain.ids import RegionId, StoreId, TerminalId
from models.domain.live import Changes
from models.tables.layouts import Layout, first_layout, stores_of
from runtime.ray_actors import NAMESPACE

if TYPE_CHECKING:
    from runtime.plant import Plant

LAYOUT_KEPT_S = 2.0
ROUTE_ATTEMPTS_MAX = 2
TERMINALS_REMEMBERED_MAX = 100_000


def host_name(region: str, k: int) -> str:
    """The name of a slot's host."""
    return f"host/{region}/{k}"


def host_names(layout: Layout) -> list[str]:
    """The names of all hosts of a layout."""
    return [host_name(layout.region, k) for k in layout.ks]


def settlement_name(chain: str, region: str) -> str:
    """The name of a region's settlement actor."""
    return f"settlement/{chain}/{region}"


def rollouts_name(chain: str) -> str:
    """The name of a chain's rollout actor."""
    return f"rollouts/{chain}"


class RayHosts:
    """The Hosts port of one region over Ray handles. The layout in force says which host has which store."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._handles: dict[str, Any] = {}
        self._layout: Layout | None = None
        self._looked_at = float("-inf")
        self._stores: dict[TerminalId, StoreId] = {}

    async def deliver(self, region: RegionId, batch: Sequence[Delivery]) -> list[Delivered]:
        for attempt in range(ROUTE_ATTEMPTS_MAX):
            try:
                return await self._deliver(region, batch)
            except RetryLater as error:
                if error.code != "layout_moved" or attempt + 1 == ROUTE_ATTEMPTS_MAX:
                    raise
                self._looked_at = float("-inf")
        raise AssertionError("unreachable")

    async def _deliver(self, region: RegionId, batch: Sequence[Delivery]) -> list[Delivered]:
        """Each host's part of the batch at the same time; the answers in the batch's order."""
        layout = await self.layout()
        stores = await self._stores_of([delivery.terminal for delivery in batch])
        parts: dict[int, list[int]] = {}
        for n, delivery in enumerate(batch):
            parts.setdefault(layout.k_of(stores[delivery.terminal]), []).append(n)
        answers = await asyncio.gather(
            *(
                self._call(region, k, "deliver", [batch[n] for n in numbers], layout.number)
                for k, numbers in parts.items()
            )
        )
        delivered: dict[int, Delivered] = {}
        for numbers, part in zip(parts.values(), answers, strict=True):
            delivered.update(zip(numbers, part, strict=True))
        return [delivered[n] for n in range(len(batch))]

    async def changes(self, region: RegionId, slot: int, epoch: int, since: int) -> Changes:
        changes: Changes = await self._call(region, slot, "changes", epoch, since)
        return changes

    async def screen(self, region: RegionId, terminal: TerminalId, session: str, rev: int) -> bytes:
        layout = await self.layout()
        stores = await self._stores_of([terminal])
        k = layout.k_of(stores[terminal])
        screen: bytes = await self._call(region, k, "screen", terminal, session, rev)
        return screen

    async def slots(self, region: RegionId) -> int:  # noqa: ARG002 - see Hosts
        """How many hosts the region has now, dedicated ones included."""
        return len((await self.layout()).ks)

    async def health(self, region: RegionId, slot: int) -> dict[str, int | str]:
        """A host's snapshot."""
        health: dict[str, int | str] = await self._call(region, slot, "health")
        return health

    # ------------------------------------------------------------ routing

    async def layout(self) -> Layout:
        """The layout in force, read again every LAYOUT_KEPT_S. Raises RetryLater while the database is away."""
        if self._layout is None or time.monotonic() - self._looked_at > LAYOUT_KEPT_S:
            try:
                async with await AsyncConnection.connect(self._plant.database_url, autocommit=True) as conn:
                    self._layout = await first_layout(conn, self._plant.region, self._plant.slots)
            except OperationalError as error:
                raise RetryLater("database_away", "the database does not answer", "try again") from error
            self._looked_at = time.monotonic()
        return self._layout

    async def _stores_of(self, terminals: Sequence[TerminalId]) -> dict[TerminalId, StoreId]:
        """A terminal never moves to another store, so what was read once holds. Raises Refused `unknown_terminal`."""
        strangers = {terminal for terminal in terminals if terminal not in self._stores}
        if strangers:
            try:
                async with await AsyncConnection.connect(self._plant.database_url, autocommit=True) as conn:
                    found = await stores_of(conn, sorted(strangers))
            except OperationalError as error:
                raise RetryLater("database_away", "the database does not answer", "try again") from error
            if len(self._stores) + len(found) > TERMINALS_REMEMBERED_MAX:
                self._stores.clear()
            self._stores.update((TerminalId(terminal), store) for terminal, store in found.items())
            if unknown := strangers - found.keys():
                raise Refused("unknown_terminal", f"no terminal {min(unknown)!r}", "register it: storeops terminal add")
        return {terminal: self._stores[terminal] for terminal in terminals}

    async def _call(self, region: str, slot: int, verb: str, *arguments: Any) -> Any:
        name = host_name(region, slot)
        try:
            if name not in self._handles:
                self._handles[name] = ray.get_actor(name, namespace=NAMESPACE)
            return await getattr(self._handles[name], verb).remote(*arguments)
        except ray.exceptions.RayTaskError as error:
            # Ray raises a class of both: the host's own error has the message, this one a traceback as its text.
            if isinstance(error.cause, StoreOpsError):
                raise error.cause from None
            raise
        except (RayError, ValueError) as error:
            self._handles.pop(name, None)
            raise RetryLater("host_restarting", "the host is being restarted", "try again", after_s=1.0) from error


def settlement_actor(chain: str, region: str) -> Any:
    """The region's settlement actor. Raises ValueError when it was not started."""
    return ray.get_actor(settlement_name(chain, region), namespace=NAMESPACE)


async def answered(run: Any) -> Any:
    """The answer of a settlement actor. Raises RetryLater `settlement_ended` when its process died meanwhile."""
    try:
        return await run
    except RayActorError:
        raise RetryLater(
            "settlement_ended",
            "the process that settled ended in the middle; it is started again by itself",
            "run the same again: what is done stays done, and nothing is asked twice",
            after_s=5,
        ) from None
