"""An administrator's orders to terminals: through the Hosts port, decided by the terminal's turn, durable, answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from actors.hosts import COMMAND_CHANNEL, DESIRED_CHANNEL, REGISTRY_CHANNEL, Delivered, Delivery
from actors.terminal import Terminal
from models.domain.errors import Refused, RetryLater
from models.domain.ids import TerminalId
from models.domain.registry import RegisteredTerminal
from models.domain.twin import CommandAsked, DesiredAsked, OrderResult
from runtime.engine import Item, Work
from runtime.observed import address_of
from runtime.states import States
from runtime.terminal_care import TerminalCare

ORDER_S_MAX = 10.0


@dataclass(slots=True)
class Ordered:
    """The source of an order's item: who waits for its commit."""

    result: asyncio.Future[OrderResult]


class Orders:
    """Puts orders into the host's queue and answers them after their commit."""

    def __init__(self, care: TerminalCare, states: States, put: Callable[[Item], None]) -> None:
        self._care, self._states, self._put = care, states, put

    async def give(self, record: RegisteredTerminal, delivery: Delivery) -> Delivered:
        """One order; its OrderResult as JSON, safe to repeat by its id. Raises RetryLater, Refused `bad_order`."""
        waiter: asyncio.Future[OrderResult] = asyncio.get_running_loop().create_future()
        order = self._order(record, delivery)
        # The same id from another terminal is another order.
        self._put(Item(address_of(record), order, order.id, terminal=record, source=Ordered(waiter)))
        try:
            async with asyncio.timeout(ORDER_S_MAX):
                result = await waiter
        except TimeoutError:
            raise RetryLater("no_answer", "the host did not answer in time", "ask again with the same id") from None
        return Delivered(msgspec.json.encode(result), b"")

    def _order(self, record: RegisteredTerminal, delivery: Delivery) -> CommandAsked | DesiredAsked:
        try:
            if delivery.channel == COMMAND_CHANNEL:
                return msgspec.json.decode(delivery.payload, type=CommandAsked)
            assert delivery.channel == DESIRED_CHANNEL, delivery.channel
            return self._care.complete(record, msgspec.json.decode(delivery.payload, type=DesiredAsked))
        except msgspec.DecodeError as error:
            raise Refused("bad_order", str(error), "see the API's documentation") from error

    def after(self, items: list[Item], work: Work) -> None:
        """Answer the orders of a batch that was committed."""
        for item in items:
            if isinstance(item.source, Ordered) and not item.source.result.done():
                item.source.result.set_result(self._result(item, work))

    def _result(self, item: Item, work: Work) -> OrderResult:
        found = work.states.get(item.address) or self._states.get(item.address)
        state = found[0] if found is not None and isinstance(found[0], Terminal) else Terminal()
        gen = state.desired.gen
        if item.refused is not None:
            return OrderResult(False, gen, item.refused.code, item.refused.message, item.refused.do)
        return OrderResult(True, gen)


def order(terminal: TerminalId, asked: CommandAsked | DesiredAsked) -> Delivery:
    """An order as it goes through the Hosts port."""
    channel = COMMAND_CHANNEL if isinstance(asked, CommandAsked) else DESIRED_CHANNEL
    return Delivery(terminal, channel, msgspec.json.encode(asked))


def refresh(terminal: TerminalId) -> Delivery:
    """Makes the terminal's host read the registry within a second."""
    return Delivery(terminal, REGISTRY_CHANNEL, b"")
