"""Planned changes of a region's hosts: another number of slots, a host for one store, draining.

Each change prepares first and stops last: processes of new slots are up and waiting, and the broker already queues
for the next layout, before the hosts of the old one stop in order. The commit of the next layout fences whoever still
lives; then every slot is served from the broker's queue. Killed at any point, the same verb again, or a start, goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import ray
import structlog
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from devices.link import Delivery
from devices.mqtt import LinkConfig, MqttLink
from devices.topics import host_filters
from models.domain.errors import NeedsOperator, Refused, StoreOpsError
from models.domain.ids import StoreId
from models.tables import layouts
from models.tables.journal import Slot
from models.tables.layouts import SLOTS_MAX, Layout
from runtime import hosting
from runtime.fencing import slot_filters
from runtime.plant import Plant
from runtime.ray_actors import NAMESPACE
from runtime.ray_hosts import RayHosts, host_name
from runtime.slot_host import host_link

log = structlog.get_logger()

Say = Callable[[str], None]
"""Told what is being done, a line for each step."""

PROCESS_UP_S_MAX = 60.0
PAUSE_S_MAX = 10.0
SERVING_S_MAX = 30.0
ASK_AGAIN_S = 0.1
HEALTH_S_MAX = 3.0
SESSION_S_MAX = 5.0
SESSIONS_AT_ONCE_MAX = 16
ENDED_LAYOUTS_REMEMBERED_S = 900
"""Longer than a host's session at the broker lives."""


def quietly(_: str) -> None:
    """Says nothing."""


# ---------------------------------------------------------------- changes


async def resize(plant: Plant, slots: int, say: Say = quietly) -> dict[str, Any]:
    """Change the number of shared slots. Returns once every slot of the new layout is served.

    Raises Refused `bad_slots`, `layout_busy`, `drained_mixed`, and NeedsOperator `hosts_not_ready` when a process does
    not come up: nothing was changed then.
    """
    if not 1 <= slots <= SLOTS_MAX:
        raise Refused("bad_slots", f"{slots} slots", f"1 to {SLOTS_MAX}: one for each shard at most")
    async with _alone(plant) as conn:
        layout = await layouts.first_layout(conn, plant.region, plant.slots)
        return await _change(conn, plant, layout, slots, layout.dedicated, say)


async def dedicate(plant: Plant, store: StoreId, dedicated: bool, say: Say = quietly) -> dict[str, Any]:
    """Give a store a host of its own, or bring it back to its shared slot. Raises Refused `unknown_store` too."""
    async with _alone(plant) as conn:
        layout = await layouts.first_layout(conn, plant.region, plant.slots)
        await layouts.set_dedicated(conn, plant.region, store, dedicated)
        wanted = await layouts.wanted_dedicated(conn, plant.region)
        return await _change(conn, plant, layout, layout.slots, wanted, say)


async def drain(plant: Plant, ks: Sequence[int] | None, say: Say = quietly) -> dict[str, Any]:
    """Stop these hosts (None: all) in order and end their processes; nobody serves their stores until `resume`.

    The broker keeps what terminals send meanwhile, for as long as a host's session lives there (10 minutes).
    """
    async with _alone(plant) as conn:
        layout = await layouts.first_layout(conn, plant.region, plant.slots)
        chosen = _chosen(layout, ks)
        say(f"stopping {len(chosen)} hosts in order")
        await _pause(layout, chosen)
        await layouts.set_drained(conn, layout, chosen, True)
    for k in chosen:
        hosting.end_host(host_name(plant.region, k))
    return {"layout": layout.number, "drained": list(chosen)}


async def resume(plant: Plant, ks: Sequence[int] | None = None, say: Say = quietly) -> dict[str, Any]:
    """Serve drained slots again (None: all), and start whatever host of the layout is missing."""
    async with _alone(plant) as conn:
        layout = await layouts.first_layout(conn, plant.region, plant.slots)
        chosen = _chosen(layout, ks)
        await layouts.set_drained(conn, layout, chosen, False)
        say(f"starting {len(chosen)} hosts")
        await _serve(plant, layout, chosen)
    return {"layout": layout.number, "serving": list(chosen)}


async def leave_node(plant: Plant, node_id: str, say: Say = quietly) -> dict[str, Any]:
    """Take a node of the cluster out of service in order: nothing new is placed there, its hosts move elsewhere.

    Returns once they serve. Raises NeedsOperator `node_not_drained`, and `hosts_not_ready` when no other node has room.
    """
    async with _alone(plant) as conn:
        layout = await layouts.first_layout(conn, plant.region, plant.slots)
        found = (await snapshot(plant))["hosts"]
        node_id = _node(node_id, {str(row["node"]) for row in found if "node" in row})
        say(f"node {node_id[:8]} takes nothing new")
        await asyncio.to_thread(hosting.close_node, node_id)
        leaving = [k for k in layout.ks if found[k].get("node") == node_id]
        say(f"{len(leaving)} hosts stop in order and start elsewhere")
        await _pause(layout, leaving)
        for k in leaving:
            hosting.restart_host(host_name(plant.region, k))
        await _serve(plant, layout, leaving)
    return {"layout": layout.number, "node": node_id, "moved": leaving}


def _node(beginning: str, nodes: set[str]) -> str:
    found = [node for node in nodes if node.startswith(beginning)]
    if len(found) != 1:
        raise Refused("which_node", f"{len(found)} nodes with hosts begin with {beginning!r}", "storeops hosts --json")
    return found[0]


async def _change(
    conn: AsyncConnection[TupleRow],
    plant: Plant,
    old: Layout,
    slots: int,
    dedicated: Sequence[StoreId],
    say: Say,
) -> dict[str, Any]:
    if (old.slots, old.dedicated) == (slots, tuple(dedicated)):
        say(f"layout {old.number} is that already")
        await _finish(conn, plant, old, say)
        return _told(old, old)
    new = Layout(old.region, old.number + 1, slots, tuple(dedicated))
    drained = {k for k, state in (await layouts.slot_states(conn, old)).items() if state.drained}
    layouts.carried(old, new, drained)  # refused before anything is touched
    added = [k for k in new.ks if k not in old.ks]
    if added:
        say(f"starting {len(added)} processes")
        await _processes(plant, added)
    say(f"the broker begins to queue for layout {new.number}")
    await _sessions([(_link(plant, new, k), _filters(new, k)) for k in new.ks])
    say(f"stopping {len(old.ks)} hosts in order")
    await _pause(old, old.ks)
    made = await layouts.next_layout(conn, old, slots, dedicated)
    if made.number != new.number:
        raise NeedsOperator("layout_number", f"layout {made.number} was made, not {new.number}", "repeat the verb")
    say(f"layout {made.number} is in force")
    await _finish(conn, plant, made, say)
    return _told(old, made)


async def _finish(conn: AsyncConnection[TupleRow], plant: Plant, layout: Layout, say: Say) -> None:
    """Everything after the commit; harmless when there is nothing to do."""
    states = await layouts.slot_states(conn, layout)
    await _serve(plant, layout, [k for k in layout.ks if not states[k].drained])
    say(f"{len(layout.ks)} hosts serve")
    ended = hosting.end_hosts_beyond(layout)
    if ended:
        say(f"ended {', '.join(ended)}")
    old = await layouts.ended_since(conn, plant.region, ENDED_LAYOUTS_REMEMBERED_S)
    await _sessions([(replace(_link(plant, one, k), session_expiry_s=0), ()) for one in old for k in one.ks])


def _told(old: Layout, new: Layout) -> dict[str, Any]:
    return {
        "was": old.number,
        "layout": new.number,
        "slots": new.slots,
        "dedicated": list(new.dedicated),
        "changed": old.number != new.number,
    }


def _chosen(layout: Layout, ks: Sequence[int] | None) -> list[int]:
    chosen = list(layout.ks if ks is None else ks)
    if beyond := [k for k in chosen if k not in layout.ks]:
        raise Refused("no_slot", f"layout {layout.number} has no slot {beyond[0]}", f"0 to {len(layout.ks) - 1}")
    return chosen


@asynccontextmanager
async def _alone(plant: Plant) -> AsyncIterator[AsyncConnection[TupleRow]]:
    """One change at a time in a region; the lock goes with the connection, so a killed verb leaves none."""
    async with await AsyncConnection.connect(plant.database_url, autocommit=True) as conn:
        cursor = await conn.execute("SELECT pg_try_advisory_lock(hashtext(%s))", (f"layout/{plant.region}",))
        row = await cursor.fetchone()
        if row is None or not row[0]:
            raise Refused("layout_busy", "another change of the hosts is under way", "wait for it, then look again")
        yield conn


# ---------------------------------------------------------------- processes


async def _processes(plant: Plant, ks: Sequence[int]) -> None:
    """Have these processes up; they wait for their turn. Raises NeedsOperator `hosts_not_ready`."""
    await _all_answer(plant, ks, "ready", PROCESS_UP_S_MAX)


async def _serve(plant: Plant, layout: Layout, ks: Sequence[int]) -> None:
    """Returns once these slots are served. Raises NeedsOperator `hosts_not_ready`."""
    await _all_answer(plant, ks, "serving", SERVING_S_MAX)
    log.info("layout_served", layout=layout.number, slots=list(ks))


async def _all_answer(plant: Plant, ks: Sequence[int], verb: str, timeout_s: float) -> None:
    async def one(k: int) -> None:
        """A process that ends meanwhile is started again, by the engine or here."""
        while True:
            try:
                handle = await asyncio.to_thread(hosting.start_host, plant, k)
                await getattr(handle, verb).remote()
            except ray.exceptions.RayError as error:
                log.info("host_not_ready", slot=k, error=type(error).__name__)
                await asyncio.sleep(ASK_AGAIN_S)
            else:
                return

    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.gather(*(one(k) for k in ks))
    except TimeoutError as error:
        raise NeedsOperator(
            "hosts_not_ready",
            f"not within {timeout_s:.0f} s: {', '.join(host_name(plant.region, k) for k in ks)}",
            "see the hosts' logs, then repeat the verb: it goes on where it stopped",
        ) from error


async def _pause(layout: Layout, ks: Sequence[int]) -> None:
    """All at once, each finishing its batch. One that is away or does not answer is fenced by what follows."""

    async def pause(k: int) -> None:
        try:
            async with asyncio.timeout(PAUSE_S_MAX):
                await ray.get_actor(host_name(layout.region, k), namespace=NAMESPACE).pause.remote()
        except (TimeoutError, ValueError, ray.exceptions.RayError) as error:
            log.warning("host_not_paused", slot=k, error=type(error).__name__)

    await asyncio.gather(*(pause(k) for k in ks))


# ---------------------------------------------------------------- the broker's sessions


def _link(plant: Plant, layout: Layout, k: int) -> LinkConfig:
    return replace(host_link(plant, layout.number, k), clean_start=True)


def _filters(layout: Layout, k: int) -> tuple[str, ...]:
    slot = Slot(layout.region, layout.number, k, layout.slots, 0, layout.store_of(k))
    return slot_filters(slot, host_filters(layout.region, slot.shards))


async def _sessions(wanted: Sequence[tuple[LinkConfig, tuple[str, ...]]]) -> None:
    """Connect each once with a clean start and leave: with filters the broker queues from now on, without it forgets.

    A broker that is away now loses nothing by it: terminals repeat what has no reply.
    """
    few = asyncio.Semaphore(SESSIONS_AT_ONCE_MAX)

    async def one(config: LinkConfig, filters: tuple[str, ...]) -> None:
        async with few:
            visit = _Visit()
            link = MqttLink(config)
            link.listen(visit, filters)
            await link.start()
            try:
                async with asyncio.timeout(SESSION_S_MAX):
                    await visit.came.wait()
            except TimeoutError:
                log.warning("session_not_made", client_id=config.client_id)
            finally:
                await link.stop()

    await asyncio.gather(*(one(config, filters) for config, filters in wanted))


class _Visit:
    """Acknowledges nothing: what the broker delivers meanwhile is delivered again to the host itself."""

    def __init__(self) -> None:
        self.came = asyncio.Event()

    def delivered(self, delivery: Delivery) -> None:
        """See LinkListener."""

    def connected(self, epoch: int, session_present: bool) -> None:  # noqa: ARG002 - see LinkListener
        """See LinkListener."""
        self.came.set()

    def disconnected(self, reason: str) -> None:
        """See LinkListener."""

    async def may_reconnect(self, taken_over: bool) -> bool:
        """See LinkListener."""
        return not taken_over and not self.came.is_set()


# ---------------------------------------------------------------- looking


async def snapshot(plant: Plant) -> dict[str, Any]:
    """The layout in force and every host of it: what its row says, and what it says itself if it answers."""
    async with await AsyncConnection.connect(plant.database_url, autocommit=True) as conn:
        layout = await layouts.first_layout(conn, plant.region, plant.slots)
        states = await layouts.slot_states(conn, layout)
    port = RayHosts(plant)

    async def look(k: int) -> dict[str, Any]:
        state = states[k]
        row: dict[str, Any] = {
            "slot": f"{layout.region}/{k}",
            "store": layout.store_of(k) or "",
            "state": "drained" if state.drained else "away",
            "epoch": state.epoch,
            "restarts": state.restarts,
        }
        try:
            async with asyncio.timeout(HEALTH_S_MAX):
                return row | await port.health(plant.region, k)
        except (StoreOpsError, TimeoutError):
            return row

    rows = await asyncio.gather(*(look(k) for k in layout.ks))
    for row, k in zip(rows, layout.ks, strict=True):
        row["state"] = "drained" if states[k].drained else row["state"]
    return {
        "region": layout.region,
        "layout": layout.number,
        "slots": layout.slots,
        "dedicated": list(layout.dedicated),
        "hosts": list(rows),
    }
