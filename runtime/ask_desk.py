"""Asks in flight: each runs as a task, its answer comes back to the host as a message. Bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from actors.effects import Ask
from models.domain.ids import derived_id
from models.domain.messages import Address
from runtime.asks import Answered, AskPorts, VisitMemory
from runtime.engine import Item
from runtime.telemetry import HostCounts

log = structlog.get_logger()

ASKS_IN_FLIGHT_MAX = 512


class AskDesk:
    """Performs asks. A durable one that fails here is swept and asked again; a face runs into its deadline."""

    def __init__(self, ports: AskPorts, memory: VisitMemory, counts: HostCounts, put: Callable[[Item], None]) -> None:
        self._ports = ports
        self._memory = memory
        self._counts = counts
        self._put = put
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def in_flight(self) -> int:
        """Asks without an answer."""
        return len(self._tasks)

    @property
    def free(self) -> int:
        """How many more may run."""
        return max(0, ASKS_IN_FLIGHT_MAX - len(self._tasks))

    def dispatch(self, address: Address, ask: Ask, attempts: int) -> None:
        """Begin an ask, unless it runs already or the desk is full."""
        if ask.id in self._tasks:
            return
        if not self.free:
            self._counts.refused_full += 1
            return
        self._counts.asks += 1
        task = asyncio.create_task(self._ask(address, ask, attempts), name=f"ask-{ask.id}")
        self._tasks[ask.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(ask.id, None))

    async def stop(self) -> None:
        """End what runs: the outbox repeats it under the same number."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, address: Address, ask: Ask, attempts: int) -> None:
        durable = ask.request.durable
        try:
            answered = await self._ports.ask(ask, attempts, self._memory)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - the port's bug or outage: asked again by the sweep or the customer
            problem = f"{type(error).__name__}: {error}"
            log.warning("ask_failed", trace=ask.id, store=address.store, port=str(ask.request.port), error=problem)
            return
        self._put(_as_item(address, ask.id, durable, attempts, answered))


def _as_item(address: Address, ask: str, durable: bool, attempts: int, answered: Answered) -> Item:
    """The answer as a message; without one, only the outbox row's next attempt is set."""
    progress = answered.defer_s is not None
    return Item(
        address,
        answered.message,
        derived_id(ask, f"progress{attempts}" if progress else "answer"),
        answers=ask if durable else None,
        defer_s=answered.defer_s,
    )
