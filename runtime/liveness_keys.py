"""Keys for signed liveness over the databases of a deployment: registered, replaced and revoked, each in the audit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from devices.liveness import fingerprint as fingerprint_of
from devices.liveness import read_public_key
from devices.profiles import traits_of
from gateway.liveness_keys import LivenessKeysChange
from models.domain.errors import Refused, RetryLater
from models.domain.ids import RegionId, TerminalId
from models.tables import liveness_keys as table
from models.tables.privacy import audit
from runtime.clock import wall_now
from runtime.orders import refresh
from runtime.plant import Plant

LIVE_MAX = 2
"""Two count beside each other while a camera is exchanged: the old one and the new one."""
CONNECT_S_MAX = 5

Tell = Callable[[Plant, str], Awaitable[bool]]


async def tell_host(plant: Plant, terminal: str) -> bool:
    """Its host reads the registry now; False: it is away, and sees it when it looks next."""
    from runtime.edge import join_ray

    try:
        join_ray(plant)
        from runtime.ray_hosts import RayHosts

        await RayHosts(plant).deliver(RegionId(plant.region), [refresh(TerminalId(terminal))])
    except (RetryLater, Refused, ConnectionError):
        return False
    return True


class LivenessKeysOfAHouse:
    """See gateway.liveness_keys.LivenessKeys. Keeps no connection."""

    def __init__(
        self, plants: Sequence[Plant], wall: Callable[[], datetime] = wall_now, tell: Tell = tell_host
    ) -> None:
        self._plants = tuple(plants)
        self._wall = wall
        self._tell = tell

    async def keys(self, terminal: str) -> list[table.StoredKey]:
        """All that were ever registered, those that count first. Raises Refused `unknown_terminal`."""
        plant = await self._plant_of(terminal)
        async with await _connect(plant) as conn:
            return await table.keys_of(conn, terminal)

    async def register(self, terminal: str, key: str, by: str, *, replace: bool = False) -> LivenessKeysChange:
        octets = read_public_key(key)
        named, hexed = fingerprint_of(octets), octets.hex()
        plant, at = await self._plant_of(terminal), self._wall()
        async with await _connect(plant) as conn, conn.transaction():
            await _locked(conn, terminal, registers=True)
            known = await table.keys_of(conn, terminal)
            live = [one.fingerprint for one in known if one.ended_at is None]
            _require_new(terminal, named, known, await table.holder_of(conn, hexed))
            ended = await table.end_keys(conn, terminal, by, at) if replace else []
            if not replace and len(live) >= LIVE_MAX:
                do = "revoke one of them first, or register with --replace"
                raise Refused("keys_full", f"{LIVE_MAX} keys count already: {', '.join(live)}", do)
            await table.add_key(conn, terminal, named, hexed, by, at)
            detail = {"terminal": terminal, "key": named, "ended": ended}
            await audit(conn, "liveness_key.registered", terminal, detail, by, at)
        return LivenessKeysChange(terminal, named, tuple(ended), await self._tell(plant, terminal))

    async def revoke(self, terminal: str, fingerprint: str | None, by: str) -> LivenessKeysChange:
        plant, at = await self._plant_of(terminal), self._wall()
        async with await _connect(plant) as conn, conn.transaction():
            await _locked(conn, terminal, registers=False)
            ended = await table.end_keys(conn, terminal, by, at, only=fingerprint or "")
            if not ended:
                what = f"key {fingerprint!r}" if fingerprint else "key"
                do = f"storeops terminal liveness-key show {terminal}"
                raise Refused("unknown_key", f"no {what} of {terminal} counts", do)
            await audit(conn, "liveness_key.revoked", terminal, {"terminal": terminal, "ended": ended}, by, at)
        return LivenessKeysChange(terminal, "", tuple(ended), await self._tell(plant, terminal))

    async def _plant_of(self, terminal: str) -> Plant:
        """The plant of the region that has the terminal."""
        for url in dict.fromkeys(plant.database_url for plant in self._plants):
            async with await AsyncConnection.connect(url, autocommit=True, connect_timeout=CONNECT_S_MAX) as conn:
                cursor = await conn.execute(
                    "SELECT s.region FROM terminal t JOIN store s ON s.id = t.store WHERE t.id = %s", (terminal,)
                )
                row = await cursor.fetchone()
            for plant in self._plants:
                if row is not None and plant.region == row[0]:
                    return plant
        raise _unknown(terminal)


async def _locked(conn: AsyncConnection[Any], terminal: str, *, registers: bool) -> None:
    found = await table.lock(conn, terminal)
    if found is None or (registers and found.retired):
        raise _unknown(terminal)
    if registers and not traits_of(found.profile).vouches_liveness:
        do = "give the key to a terminal with a depth camera; of this family no score is read, signed or not"
        raise Refused("no_depth", f"{terminal} is a {found.profile}, which measures no depth", do)


def _require_new(terminal: str, named: str, known: Sequence[table.StoredKey], holder: str | None) -> None:
    if holder == terminal:
        raise Refused("key_known", f"key {named} counts at {terminal} already", "nothing to do")
    if holder is not None:
        do = "each camera has a key of its own; revoke it there first if the camera has moved"
        raise Refused("key_elsewhere", f"key {named} counts at {holder}", do)
    if any(one.fingerprint == named for one in known):
        raise Refused("key_ended", f"key {named} was revoked at {terminal}", "let the camera make another one")


def _unknown(terminal: str) -> Refused:
    return Refused("unknown_terminal", f"no terminal {terminal!r} in service", "register it: storeops terminal add")


async def _connect(plant: Plant) -> AsyncConnection[Any]:
    return await AsyncConnection.connect(plant.database_url, autocommit=True, connect_timeout=CONNECT_S_MAX)
