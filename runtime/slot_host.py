"""The process of one slot: serves while the layout in force has the slot, waits while it has not.

Level-triggered: it reads the layout at its start and whenever it stops serving, so a change of layout that was
interrupted anywhere ends with every slot of the layout in force served, and no other.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import structlog

from actors.hosts import Delivered, Delivery
from devices.bridge import Bridge
from devices.mqtt import LinkConfig, MqttLink
from models.domain.errors import Refused, RetryLater
from models.domain.ids import TerminalId
from models.domain.live import Changes
from models.tables import layouts
from models.tables.journal import Slot
from runtime import origin
from runtime.asks import FaceService, Ports
from runtime.fencing import Fence, FencedLink, FencedPool, FencedPorts, fenced_pool, fenced_providers
from runtime.host import StoreHost
from runtime.memberships import Memberships
from runtime.plant import HOST_DATABASE_OPTIONS, POOL_CONNECTIONS_MAX, Plant, Providers, connector
from runtime.telemetry import configure_logs

log = structlog.get_logger()

FENCED_EXIT = 11
WAIT_EVERY_S = 0.5
PAUSED_EVERY_S = 0.05
PAUSED_S_MAX = 15.0
"""A change of layout that does not come after its pause was interrupted: the host serves again."""


def client_id(region: str, layout: int, k: int) -> str:
    """Of a slot's MQTT client: another layout never resumes the subscriptions of this one."""
    return f"host-{region}-{layout}-{k}"


def host_link(plant: Plant, layout: int, k: int) -> LinkConfig:
    """How a slot's host connects to the broker: a fixed client id, so that the broker resumes its session."""
    return replace(plant.link_config(k), client_id=client_id(plant.region, layout, k))


def exit_fenced() -> None:
    """Another host owns the slot. Ray would start us again and again: the last claim wins, and one stays."""
    os._exit(FENCED_EXIT)


COLLECT_AFTER_OBJECTS, COLLECT_MIDDLE_AFTER, COLLECT_ALL_AFTER = 50_000, 20, 50


def calm_collector() -> None:
    """Keep Python's cycle collector from walking all entities of a host every few seconds while people wait.

    What stands after a start is frozen out of its sight; the rest is looked at more rarely. States are values without
    cycles: what the collector is for are exceptions and tasks. Measured on two cores at 200 messages/s, p99 of event
    to reply: 43 ms without (one run of 60 s), 32 ms with it (another); docs/benchmarks.md has the latter.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER_OBJECTS, COLLECT_MIDDLE_AFTER, COLLECT_ALL_AFTER)


class SlotHost:
    """A slot's host as an async Ray actor. It starts itself: Ray restarts it without anyone calling."""

    def __init__(self, plant: Plant, k: int, faces: FaceService, node: str) -> None:
        origin.check()
        configure_logs(plant.data_dir, f"host-{plant.region}-{k}")
        self._plant, self._k, self._faces, self._node = plant, k, faces, node
        self._state = "starting"
        self._service: Service | None = None
        self._settled = asyncio.Event()
        self._stop_serving = asyncio.Event()
        self._stopped = False
        self._paused_at: tuple[int, float] | None = None
        self._connect = connector(plant)
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"slot-{k}")

    # ------------------------------------------------------------ life

    async def _run(self) -> None:
        while not self._stopped:
            await self._turn()
            self._stop_serving.clear()
            service = Service(self._plant, self._k, self._faces)
            try:
                await service.start()
            except Refused as error:
                # The layout moved between the look and the claim. What was opened goes with the process.
                log.info("not_our_turn", why=error.message)
                exit_fenced()
            except Exception:
                log.exception("host_start")
                await asyncio.sleep(1.0)
                os._exit(1)
            calm_collector()
            self._service, self._state = service, "serving"
            self._settled.set()
            log.info("host_ready", slot=self._k, layout=service.slot.layout, epoch=service.slot.epoch)
            await self._stop_serving.wait()
            self._settled.clear()
            self._service, self._state = None, "waiting"
            await service.stop()
            self._settled.set()

    async def _turn(self) -> None:
        """Return once the layout in force has this slot, and nobody drained or paused it."""
        while True:
            with suppress(Exception):  # the database is away: look again
                async with await self._connect() as conn:
                    while True:
                        layout = await layouts.may_claim(conn, self._plant.region, self._k, self._plant.slots)
                        if layout is not None and not self._paused(layout.number):
                            return
                        self._state = "waiting"
                        self._settled.set()
                        await asyncio.sleep(WAIT_EVERY_S if self._paused_at is None else PAUSED_EVERY_S)
            await asyncio.sleep(WAIT_EVERY_S)

    def _paused(self, layout: int) -> bool:
        now = asyncio.get_running_loop().time()
        if self._paused_at is not None and (layout != self._paused_at[0] or now - self._paused_at[1] > PAUSED_S_MAX):
            self._paused_at = None
        return self._paused_at is not None

    async def ready(self) -> str:
        """Returns `serving` when the host owns its stores and its bridge is connecting, `waiting` if it may not."""
        await self._settled.wait()
        return self._state

    async def serving(self) -> bool:
        """Returns once it serves."""
        while self._state != "serving":  # noqa: ASYNC110 - another process ends the wait, by a row
            await asyncio.sleep(PAUSED_EVERY_S)
        return True

    async def pause(self) -> bool:
        """Stop serving in order: the batch that runs is finished. False when it did not serve.

        It serves again with the next layout that has its slot, or after PAUSED_S_MAX.
        """
        service = self._service
        if service is None:
            return False
        self._paused_at = (service.slot.layout, asyncio.get_running_loop().time())
        self._settled.clear()
        self._stop_serving.set()
        await self._settled.wait()
        return True

    async def stop(self) -> None:
        """As `pause`, for good: the process is going to end."""
        self._stopped = True
        if self._service is None:
            self._task.cancel()
            return
        self._stop_serving.set()
        await self._task

    # ------------------------------------------------------------ Hosts port

    def _serving(self, layout: int | None = None) -> Service:
        if self._service is None:
            raise RetryLater("host_restarting", "the host does not serve now", "try again", after_s=1.0)
        if layout is not None and layout != self._service.slot.layout:
            raise RetryLater("layout_moved", f"layout {layout} is not in force any more", "try again", after_s=0.2)
        return self._service

    async def deliver(self, batch: Sequence[Delivery], layout: int | None = None) -> list[Delivered]:
        """See Hosts. `layout`: the one by which this host was chosen; RetryLater `layout_moved` for another."""
        await self.ready()
        return await self._serving(layout).host.deliver(batch)

    async def changes(self, epoch: int, since: int) -> Changes:
        """See Hosts."""
        await self.ready()
        return await self._serving().host.changes(epoch, since)

    async def screen(self, terminal: TerminalId, session: str, rev: int) -> bytes:
        """See Hosts."""
        await self.ready()
        return await self._serving().host.screen(terminal, session, rev)

    async def health(self) -> dict[str, Any]:
        """One snapshot."""
        await self.ready()
        own = {"pid": os.getpid(), "node": self._node, "machine": socket.gethostname(), "state": self._state}
        return {**own, **({} if self._service is None else self._service.health())}


class Service:
    """One stretch of serving: a host with all it needs, made at the claim and ended in order."""

    def __init__(self, plant: Plant, k: int, faces: FaceService) -> None:
        self._plant = plant
        self._fence = Fence(connector(plant), exit_fenced)
        self._pool: FencedPool = fenced_pool(
            self._fence, plant.database_url, HOST_DATABASE_OPTIONS, POOL_CONNECTIONS_MAX
        )
        self._providers = Providers(plant)
        provider_of = fenced_providers(self._providers, self._fence)
        memberships = Memberships(self._pool, provider_of, pepper=plant.pepper)
        ports = Ports(plant.chain, self._pool, faces, plant.region, memberships, provider_of)
        self._link: FencedLink | None = None
        self.host = StoreHost(
            plant.region,
            k=k,
            slots=plant.slots,
            connect=connector(plant),
            bridge=self._bridge,
            ports=FencedPorts(ports, self._fence),
            holder=f"pid {os.getpid()}",
            fenced=exit_fenced,
        )

    @property
    def slot(self) -> Slot:
        """The slot that was claimed."""
        return self._fence.slot

    def _bridge(self, host: StoreHost, slot: Slot) -> Bridge:
        self._fence.begin(slot)
        self._link = FencedLink(MqttLink(host_link(self._plant, slot.layout, slot.k)), self._fence, slot)
        return Bridge(self._link, self._plant.region, slot.shards, host)

    async def start(self) -> None:
        """Claim, load, connect. Raises Refused when it is not this slot's turn."""
        await self._pool.open()
        await self.host.start()

    async def stop(self) -> None:
        """Finish the batch that runs, disconnect, say that this was in order."""
        slot = self._fence.slot
        await self.host.stop()
        await self._fence.end()
        with suppress(Exception):  # a claim without it counts as a restart, nothing more
            async with await connector(self._plant)() as conn:
                await layouts.release_slot(conn, slot.region, slot.layout, slot.k, slot.epoch)
        await self._providers.aclose()
        await self._pool.close(timeout=0.5)

    def health(self) -> dict[str, Any]:
        """Plain figures."""
        apart = 0 if self._link is None else self._link.apart_messages
        return {
            **self.host.health(),
            "layout": self.slot.layout,
            "lag_ms": self._fence.lag_ms,
            "apart_messages": apart,
        }
