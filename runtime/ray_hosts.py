"""The names of hosted actors, and the Hosts port over Ray: what a process needs that only asks them.

Apart from hosting.py, so that the gateway and the command line do not import everything that runs in an actor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from actors.hosts import Delivered, Delivery
from models.domain.errors import RetryLater, StoreOpsError
from models.domain.ids import RegionId, TerminalId
from models.domain.live import Changes

NAMESPACE = "storeops"


def host_name(region: str, k: int) -> str:
    """The name of a slot's host."""
    return f"host/{region}/{k}"


def settlement_name(chain: str, region: str) -> str:
    """The name of a region's settlement actor."""
    return f"settlement/{chain}/{region}"


class RayHosts:
    """The Hosts port over Ray handles."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._handles: dict[str, Any] = {}

    async def deliver(self, region: RegionId, batch: Sequence[Delivery]) -> list[Delivered]:
        answers: list[Delivered] = await self._call(region, 0, "deliver", list(batch))
        return answers

    async def changes(self, region: RegionId, slot: int, epoch: int, since: int) -> Changes:
        changes: Changes = await self._call(region, slot, "changes", epoch, since)
        return changes

    async def screen(self, region: RegionId, terminal: TerminalId, session: str, rev: int) -> bytes:
        screen: bytes = await self._call(region, 0, "screen", terminal, session, rev)
        return screen

    async def health(self, region: RegionId, slot: int) -> dict[str, int | str]:
        """A host's snapshot."""
        health: dict[str, int | str] = await self._call(region, slot, "health")
        return health

    async def _call(self, region: str, slot: int, verb: str, *arguments: Any) -> Any:
        name = host_name(region, slot)
        try:
            if name not in self._handles:
                self._handles[name] = ray.get_actor(name, namespace=NAMESPACE)
            return await getattr(self._handles[name], verb).remote(*arguments)
        except StoreOpsError:
            raise
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, StoreOpsError):
                raise cause from None
            raise
        except (RayError, ValueError) as error:
            self._handles.pop(name, None)
            raise RetryLater("host_restarting", "the host is being restarted", "try again", after_s=1.0) from error


def settlement_actor(chain: str, region: str) -> Any:
    """The region's settlement actor. Raises ValueError when it was not started."""
    return ray.get_actor(settlement_name(chain, region), namespace=NAMESPACE)
