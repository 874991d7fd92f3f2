"""`python -m runtime.bench.host_process KIND PLANT`: one host in a process of its own, as the hosted actor runs it.

`real` is the StoreHost over the real bridge, journal and ports. `bare` is the least that could be called a host: the
same link code, the same broker and database, one row with the message's id per message, a reply and a screen of the
usual size, acknowledged after the commit. What the real one costs more is what its promises cost.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from psycopg import AsyncConnection

from devices.bridge import Bridge
from devices.link import Outgoing
from devices.mqtt import MqttLink
from devices.mqtt_packets import counted
from devices.topics import Down, Topic, prefix
from models.domain.ids import SHARDS_TOTAL, RegionId
from models.tables.journal import Slot
from runtime.asks import Ports
from runtime.host import StoreHost
from runtime.memberships import Memberships
from runtime.plant import Plant, Providers, connector, open_pool
from runtime.ray_faces import RayFaces
from runtime.slot_host import calm_collector
from runtime.telemetry import configure_logs

BARE_REGION = RegionId("bare")
REPLY = b'{"v":1,"id":"%s","ok":true,"pending":false,"session":"00000000-0000-0000-0000-000000000000"}'
SCREEN = b"s" * 900
"""As a screen with four lines."""
COLLECT_S = 0.002
BATCH_MESSAGES_MAX = 256
_ID = re.compile(rb'"id":"([^"]{36})"')


def read(path: Path) -> Plant:
    """The plant that a yard wrote."""
    return msgspec.json.decode(path.read_bytes(), type=Plant, dec_hook=lambda kind, value: kind(value))


class RealHost:
    """What HostedStoreHost builds, without Ray around it."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._pool = open_pool(plant)
        self._providers = Providers(plant)
        memberships = Memberships(self._pool, self._providers, pepper=plant.pepper)
        self.host = StoreHost(
            plant.region,
            k=0,
            slots=1,
            connect=connector(plant),
            bridge=self._bridge,
            ports=Ports(plant.chain, self._pool, RayFaces(plant.region), plant.region, memberships, self._providers),
            holder=f"pid {os.getpid()}",
            fenced=lambda: os._exit(11),
        )

    def _bridge(self, host: StoreHost, slot: Slot) -> Bridge:
        shards = slot.shards
        return Bridge(MqttLink(self._plant.link_config(slot.k)), self._plant.region, shards, host)

    async def start(self) -> None:
        """Own the shards."""
        await self._pool.open()
        await self.host.start()

    async def stop(self) -> None:
        """Graceful."""
        await self.host.stop()
        await self._providers.aclose()
        await self._pool.close()

    def health(self) -> dict[str, Any]:
        """See StoreHost."""
        return dict(self.host.health())


class BareHost:
    """Ids into a table; nothing else is promised."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._link = MqttLink(plant.link_config(99))
        self._bridge = Bridge(self._link, BARE_REGION, range(SHARDS_TOTAL))
        self._messages = 0

    async def start(self) -> None:
        """Connect to both."""
        self._conn = await AsyncConnection.connect(self._plant.database_url, autocommit=True)
        await self._conn.execute("CREATE TABLE IF NOT EXISTS bench_bare (id text PRIMARY KEY)")
        await self._bridge.start()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Leave nothing."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self._bridge.stop()
        await self._conn.execute("DROP TABLE bench_bare")
        await self._conn.close()

    def health(self) -> dict[str, Any]:
        """How many messages."""
        return {"messages": self._messages}

    async def _run(self) -> None:
        while True:
            inbound = await self._bridge.batch(BATCH_MESSAGES_MAX, COLLECT_S)
            ids = [found[1].decode() if (found := _ID.search(one.payload)) else "" for one in inbound]
            await self._conn.execute("INSERT INTO bench_bare SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING", (ids,))
            messages = []
            for one, id_ in zip(inbound, ids, strict=True):
                screen, reply = _down(one.topic)
                encoded = id_.encode()
                messages.append(Outgoing(screen, SCREEN, 60))
                messages.append(Outgoing(reply, REPLY % encoded, 60, encoded))
            await self._link.publish_all(messages)
            for one in inbound:
                self._bridge.ack(one)
            self._messages += len(inbound)


@lru_cache(maxsize=65_536)
def _down(topic: Topic) -> tuple[bytes, bytes]:
    to = prefix(topic.region, topic.store, topic.terminal)
    return counted(f"{to}/down/{Down.SCREEN}".encode()), counted(f"{to}/down/{Down.REPLY}".encode())


KINDS: dict[str, type[RealHost | BareHost]] = {"real": RealHost, "bare": BareHost}


async def main(kind: str, plant: Plant) -> None:
    """Serve until the input ends. Each line is answered by one: the host's health."""
    configure_logs(plant.data_dir, f"bench-{kind}")
    host = KINDS[kind](plant)
    await host.start()
    calm_collector()
    _say("ready")
    while await asyncio.to_thread(sys.stdin.readline):
        _say(msgspec.json.encode(host.health()).decode())
    await host.stop()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], read(Path(sys.argv[2]))))
