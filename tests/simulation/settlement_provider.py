"""A payment provider for schedules of settlement: each number has one effect, and it does what a script says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import cast

from gateway.providers.port import PaymentProvider
from models.domain.payments import (
    AnyAnswer,
    CreditTotals,
    Failed,
    FailReason,
    PayResult,
    Pending,
    RefundResult,
    ReleaseResult,
    Succeeded,
    Unknown,
    WaitsFor,
)

SUBJECT, BYSTANDER = "a-subject", "b-bystander"
"""The membership that a script is about, and one beside it whose calls all succeed."""


class Does(StrEnum):
    """What the provider does with one request that reaches it for the first time."""

    SUCCEEDS = "succeeds"
    FAILS = "fails"
    PENDS_THEN_SUCCEEDS = "pends, then succeeds"
    PENDS_THEN_FAILS = "pends, then fails"
    EFFECT_UNHEARD = "effect, answer lost"
    EFFECT_UNCLEAR = "effect, answer lost, the first query too"
    NO_EFFECT = "request lost"
    ARRIVES_LATE = "request arrives after a query found nothing"
    FAILS_AND_COLLECTS = "fails, collects after all, says so while it is dunned"
    FAILS_AND_COLLECTS_TOLD_MEANWHILE = "fails, collects after all, says so while the next attempt is open"
    FAILS_AND_COLLECTS_TOLD_LAST = "fails, collects after all, says so at the very end"


COLLECTS = {
    Does.FAILS_AND_COLLECTS,
    Does.FAILS_AND_COLLECTS_TOLD_MEANWHILE,
    Does.FAILS_AND_COLLECTS_TOLD_LAST,
}


@dataclass
class ModelProvider:
    """Each number has one effect, whatever is sent how often. Follows a script for the subject, else it succeeds."""

    script: tuple[Does, ...]
    holds: dict[str, int]
    captured: dict[str, int] = field(default_factory=dict)
    refunded: dict[str, int] = field(default_factory=dict)
    released: dict[str, int] = field(default_factory=dict)
    blind: list[str] = field(default_factory=list)
    """Numbers that were sent again although no query said that the provider does not have them."""
    named: dict[str, CreditTotals] = field(default_factory=dict)
    """The sums that a credit's settlement named, under its number."""
    secret: dict[str, Does] = field(default_factory=dict)
    """Failed, we were told; collected they are."""
    _met: int = 0
    _last: dict[str, str] = field(default_factory=dict)
    _final: dict[str, AnyAnswer] = field(default_factory=dict)
    _open: dict[str, tuple[Does, Callable[[], AnyAnswer]]] = field(default_factory=dict)

    def port(self) -> PaymentProvider:
        """Itself, as the runner knows it."""
        return cast("PaymentProvider", self)

    async def capture(self, *, number: str, hold_no: str, amount_fen: int, **_: object) -> AnyAnswer:
        return self._sent(number, lambda: self._collected(number, hold_no, amount_fen))

    def _collected(self, number: str, hold_no: str, amount_fen: int) -> AnyAnswer:
        generation = number.partition("A")[0]
        if (hold_no and self.holds.get(hold_no, 0) < amount_fen) or any(
            other.startswith(generation) for other in self.captured
        ):
            return Failed(FailReason.HOLD_GONE, "no hold")
        self.holds.pop(hold_no, None)
        self.captured[number] = amount_fen
        return Succeeded(PayResult(amount_fen, amount_fen, amount_fen, amount_fen, (), f"T{number}"))

    async def settle_credit(self, *, number: str, amount_fen: int, totals: CreditTotals, **_: object) -> AnyAnswer:
        if self.named.setdefault(number, totals) != totals:
            return Failed(FailReason.RECORDS_DIFFER, f"{totals}")
        return self._again(number, lambda: self._collected(number, "", amount_fen))

    async def unfreeze(self, *, number: str, hold_no: str, amount_fen: int, **_: object) -> AnyAnswer:
        def effect() -> AnyAnswer:
            if self.holds.get(hold_no, 0) < amount_fen:
                return Failed(FailReason.HOLD_GONE, "no hold")
            self.released[number] = self.holds.pop(hold_no)
            return Succeeded(ReleaseResult(hold_no, amount_fen))

        return self._sent(number, effect)

    async def refund(self, *, number: str, payment_number: str, amount_fen: int, **_: object) -> AnyAnswer:
        def effect() -> AnyAnswer:
            if payment_number not in self.captured:
                return Failed(FailReason.ORDER_UNKNOWN, "no payment")
            self.refunded[number] = amount_fen
            return Succeeded(RefundResult(f"T{payment_number}", amount_fen))

        return self._sent(number, effect)

    async def refund_credit(self, *, number: str, settlement_no: str, amount_fen: int, **_: object) -> AnyAnswer:
        def effect() -> AnyAnswer:
            if not any(taken.startswith(f"S{settlement_no}G") for taken in self.captured):
                return Failed(FailReason.ORDER_UNKNOWN, "no payment")
            self.refunded[number] = amount_fen
            return Succeeded(RefundResult(f"T{settlement_no}", amount_fen))

        return self._again(number, effect)

    async def query_payment(self, *, number: str, **_: object) -> AnyAnswer:
        return self._asked(number)

    query_unfreeze = query_refund = query_payment

    @property
    def net_fen(self) -> int:
        """Collected less given back."""
        return sum(self.captured.values()) - sum(self.refunded.values())

    def _sent(self, number: str, effect: Callable[[], AnyAnswer]) -> AnyAnswer:
        if self._last.get(number, "absent") != "absent":
            self.blind.append(number)
        self._last[number] = "sent"
        if number in self._final:
            return self._final[number]
        if number in self._open:
            return self._step(number)
        does = Does.SUCCEEDS
        if BYSTANDER not in number and self._met < len(self.script):
            does = self.script[self._met]
            self._met += 1
        return self._do(number, does, effect)

    def _again(self, number: str, effect: Callable[[], AnyAnswer]) -> AnyAnswer:
        """Of a credit: asking again under the number is the query."""
        if self._last.get(number, "absent") != "absent":
            known = self._asked(number)
            if not (isinstance(known, Unknown) and known.absent):
                return known
        return self._sent(number, effect)

    def _do(self, number: str, does: Does, effect: Callable[[], AnyAnswer]) -> AnyAnswer:
        capture = number.startswith("S")
        if not capture and does in {Does.FAILS, Does.PENDS_THEN_FAILS, *COLLECTS}:
            does = Does.EFFECT_UNHEARD  # a release or refund that fails for good waits for a person
        match does:
            case Does.SUCCEEDS:
                return self._final.setdefault(number, effect())
            case Does.FAILS:
                return self._final.setdefault(number, Failed(FailReason.NOT_ENOUGH_FUNDS, "poor"))
            case Does.EFFECT_UNHEARD:
                self._final[number] = effect()
            case Does.NO_EFFECT:
                pass
            case _ if does in COLLECTS:
                if isinstance(effect(), Succeeded):
                    self.secret[number] = does
                return self._final.setdefault(number, Failed(FailReason.NOT_ENOUGH_FUNDS, "poor"))
            case _:
                self._open[number] = (does, effect)
                if does is Does.EFFECT_UNCLEAR:
                    answer = effect()
                    self._open[number] = (does, lambda: answer)
                elif does is not Does.ARRIVES_LATE:
                    return Pending(WaitsFor.PROVIDER)
        return Unknown("timeout")

    def _asked(self, number: str) -> AnyAnswer:
        self._last[number] = "asked"
        if number in self._final:
            return self._final[number]
        if number not in self._open or self._open[number][0] is Does.ARRIVES_LATE:
            self._last[number] = "absent"
            return Unknown("not_found", absent=True)
        does, effect = self._open[number]
        if does is Does.EFFECT_UNCLEAR:
            self._open[number] = (Does.SUCCEEDS, effect)
            return Unknown("timeout")
        return self._step(number)

    def _step(self, number: str) -> AnyAnswer:
        """An open request comes to its end: after one more Pending, for those that pend."""
        does, effect = self._open.pop(number)
        if does is Does.PENDS_THEN_SUCCEEDS:
            self._open[number] = (Does.SUCCEEDS, effect)
            return Pending(WaitsFor.PROVIDER)
        if does is Does.PENDS_THEN_FAILS:
            return self._final.setdefault(number, Failed(FailReason.CLOSED, "closed"))
        return self._final.setdefault(number, effect())
