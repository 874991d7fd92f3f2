"""A payment provider in memory with books of its own: each number has one effect, whenever the request arrives.

Requests may be slow, lost before or after their effect, or arrive after whoever sent them has died.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from gateway.providers.port import Scene
from models.domain.payments import (
    Answer,
    CancelAction,
    CancelResult,
    Failed,
    FailReason,
    FundingPart,
    PayResult,
    Pending,
    ProviderResult,
    RefundResult,
    Succeeded,
    Unknown,
    WaitsFor,
)

A = TypeVar("A", bound=ProviderResult)
R = TypeVar("R")


@dataclass(slots=True)
class Order:
    """One of the merchant's numbers."""

    number: str
    fen: int
    payer: str = ""
    paid: bool = False
    closed: bool = False
    reversed: bool = False
    code: str = ""
    refunds: dict[str, int] = field(default_factory=dict)

    @property
    def kept_fen(self) -> int:
        """What the merchant has of it now."""
        if not self.paid or self.reversed:
            return 0
        return self.fen - sum(self.refunds.values())


@dataclass(frozen=True, slots=True)
class ProviderFaults:
    """In thousandths of the requests; spans in seconds."""

    lost_before: int = 0
    lost_after: int = 0
    pending: int = 0
    """A payment that the customer must confirm on the phone first."""
    slow_s: tuple[float, float] = (0.01, 0.05)


class MemoryProvider:
    """The part of `PaymentProvider` that a counter needs. A token `ok:…` pays, `poor:…` does not."""

    def __init__(self, rng: random.Random, faults: ProviderFaults, point: Callable[[str], None]) -> None:
        self.orders: dict[str, Order] = {}
        self.faults = faults
        self.point = point
        """Where the process that asks may die; each new process sets its own."""
        self.blind: list[str] = []
        """Numbers under which a payment was sent twice with no query between: a lost answer is asked for first."""
        self._last: dict[str, str] = {}
        self._rng = rng
        self._underway: set[asyncio.Task[Any]] = set()

    # ------------------------------------------------------------ what customers do

    def confirm(self, number: str) -> None:
        """The customer confirms on the phone, or pays a collection code."""
        order = self.orders.get(number)
        if order is not None and not order.closed:
            order.paid = True

    def by_code(self, code: str) -> Order | None:
        """The order behind a collection code."""
        return next((order for order in self.orders.values() if order.code and order.code == code), None)

    # ------------------------------------------------------------ the port

    async def pay(
        self, *, number: str, amount_fen: int, subject: str, auth_code: str, scene: Scene
    ) -> Answer[PayResult]:
        """See PaymentProvider."""
        if self._last.get(number) == "pay":
            self.blind.append(number)
        self._last[number] = "pay"

        def effect() -> Answer[PayResult]:
            order = self.orders.setdefault(number, Order(number, amount_fen, auth_code))
            if auth_code.startswith("poor") and not order.paid:
                order.closed = True
                return Failed(FailReason.NOT_ENOUGH_FUNDS, "poor")
            if not order.paid and not order.closed:
                if auth_code.startswith("slow") or self._chance(self.faults.pending):
                    return Pending(WaitsFor.PAYER_CONFIRMS)
                order.paid = True
            return self._state(order)

        return await self._request("pay", effect)

    async def precreate(self, *, number: str, amount_fen: int, subject: str) -> Answer[PayResult]:
        """See PaymentProvider."""

        def effect() -> Answer[PayResult]:
            order = self.orders.setdefault(number, Order(number, amount_fen))
            if order.closed or order.paid:
                return self._state(order)
            order.code = f"https://pay/{number}"
            return Pending(WaitsFor.PAYER_SCANS, order.code)

        return await self._request("precreate", effect)

    async def query_payment(self, *, number: str, amount_fen: int) -> Answer[PayResult]:
        """See PaymentProvider."""
        self._last[number] = "query"

        def effect() -> Answer[PayResult]:
            order = self.orders.get(number)
            return Unknown("not_found", absent=True) if order is None else self._state(order)

        return await self._request("query", effect)

    async def cancel(self, *, number: str) -> Answer[CancelResult]:
        """See PaymentProvider."""

        def effect() -> Answer[CancelResult]:
            order = self.orders.setdefault(number, Order(number, 0))
            was_paid, order.closed = order.paid, True
            order.reversed = was_paid
            return Succeeded(CancelResult(CancelAction.REVERSED if was_paid else CancelAction.CLOSED))

        return await self._request("cancel", effect)

    async def refund(self, *, number: str, payment_number: str, amount_fen: int, reason: str) -> Answer[RefundResult]:
        """See PaymentProvider."""

        def effect() -> Answer[RefundResult]:
            order = self.orders.get(payment_number)
            if order is None or not order.paid or order.reversed:
                return Failed(FailReason.ORDER_UNKNOWN, "no such payment")
            if order.refunds.get(number, amount_fen) != amount_fen:
                return Failed(FailReason.REFUSED, "this refund was made over another amount")
            if number not in order.refunds and order.kept_fen < amount_fen:
                return Failed(FailReason.AMOUNT_EXCEEDED, "more than was paid")
            order.refunds[number] = amount_fen
            return Succeeded(RefundResult(f"trade-{payment_number}", amount_fen))

        return await self._request("refund", effect)

    # ------------------------------------------------------------ inside

    def _state(self, order: Order) -> Answer[PayResult]:
        if order.reversed:
            return Failed(FailReason.REVERSED, "reversed")
        if order.paid:
            funding = (FundingPart("payer", "balance", order.fen),)
            return Succeeded(PayResult(order.fen, order.fen, order.fen, order.fen, funding, f"trade-{order.number}"))
        if order.closed:
            return Failed(FailReason.CLOSED, "closed")
        return Pending(WaitsFor.PAYER_CONFIRMS, order.code or None)

    def _chance(self, thousandths: int) -> bool:
        return thousandths > 0 and self._rng.randrange(1000) < thousandths

    async def _request(self, verb: str, effect: Callable[[], Answer[A]]) -> Answer[A]:
        """One request over the wire. What has left a process arrives, whether that process lives or not."""
        point = self.point
        point(f"before_{verb}")
        lost_before, lost_after = self._chance(self.faults.lost_before), self._chance(self.faults.lost_after)
        there_s, back_s = self._rng.uniform(*self.faults.slow_s), self._rng.uniform(*self.faults.slow_s)

        async def arrive() -> Answer[A] | None:
            await asyncio.sleep(there_s)
            return None if lost_before else effect()

        answer = await asyncio.shield(self._spawn(arrive()))
        point(f"after_{verb}")
        await asyncio.sleep(back_s)
        if answer is None or lost_after:
            return Unknown("timeout")
        return answer

    def _spawn(self, work: Coroutine[object, object, R]) -> asyncio.Task[R]:
        task = asyncio.get_running_loop().create_task(work, name="outside")
        self._underway.add(task)
        task.add_done_callback(self._underway.discard)
        return task
