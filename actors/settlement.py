"""What settlement does next, and what a provider's answer means for a membership. Pure; runtime performs it.

The rules are money.md's table from SETTLING on: one number per attempt, an unclear answer is queried under the same
number, a definite failure goes to dunning, and what was taken beyond the due goes back at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from models.domain import ledger
from models.domain.calendar import days_later
from models.domain.charging import Branch
from models.domain.ledger import OwedAs, Place, Settlement, StoreShare, Transaction
from models.domain.membership import HoldState, State
from models.domain.payments import AnyAnswer, Failed, FailReason, PayResult, Succeeded, Unknown
from models.domain.plans import FeeShares
from models.domain.settlement import (
    Call,
    CallKind,
    CallState,
    NewCall,
    Standing,
    capture_call,
    refund_call,
    release_call,
)

HOLD_IS_OVER = frozenset({FailReason.HOLD_GONE, FailReason.HOLD_EXHAUSTED, FailReason.ORDER_UNKNOWN})
"""A release that fails so has nothing left to give back."""


class Step(StrEnum):
    """What to do with a call now."""

    SEND = "send"
    QUERY = "query"
    WAIT = "wait"
    BOOK = "book"
    NOTHING = "nothing"


def next_step(call: Call, now: datetime, wall_now: datetime) -> Step:
    """What a free worker does with a call. `now` is business time, leases run on `wall_now`.

    A call that somebody claimed before may have reached the provider: its number is queried, never sent blindly;
    only when the provider does not have the number is the same request sent again.
    """
    match call.state:
        case CallState.POSTED:
            return Step.NOTHING
        case CallState.ANSWERED:
            return Step.BOOK
        case _ if call.not_before > now or (call.lease_until is not None and call.lease_until > wall_now):
            return Step.WAIT
        case _:
            return Step.SEND if call.tries == 0 else Step.QUERY


def send_after_query(answer: AnyAnswer) -> bool:
    """True when a query says that the provider never had the number: the same request may be sent."""
    return isinstance(answer, Unknown) and answer.absent


def state_after(answer: AnyAnswer) -> CallState:
    """ANSWERED for what is definite; pending, no or unclear answers are UNKNOWN: query the same number."""
    return CallState.ANSWERED if isinstance(answer, Succeeded | Failed) else CallState.UNKNOWN


@dataclass(frozen=True, slots=True)
class Booking:
    """What one commit writes for one membership: its row, entries and further calls. `parked_why` empty: not parked."""

    standing: Standing
    transactions: tuple[Transaction, ...] = ()
    calls: tuple[NewCall, ...] = ()
    parked_why: str = ""


def book_answer(
    standing: Standing, call: Call, shares: Sequence[StoreShare], now: datetime, *, provider: str
) -> Booking:
    """What a definite answer means. `shares`: REGULAR uses net of reversals by store, under the row's lock."""
    assert call.answer is not None, "only answered calls are booked"
    match call.kind:
        case CallKind.CAPTURE:
            settlement = settlement_of(standing, shares, provider)
            if isinstance(call.answer, Failed) and call.answer.reason is FailReason.RECORDS_DIFFER:
                return _parked(standing, f"{call.number}: the records differ. {call.answer.code}")
            if not isinstance(call.answer, Succeeded):
                return _failed(standing, call, settlement, now)
            if not isinstance(call.answer.result, PayResult) or call.answer.result.total_fen != call.fen:
                return _parked(standing, f"{call.number} captured another amount than the {call.fen} fen asked for")
            return _captured(standing, call, settlement, now)
        case CallKind.RELEASE:
            return _released(standing, call, now, provider)
        case CallKind.REFUND:
            if not isinstance(call.answer, Succeeded):
                return _parked(standing, f"refund {call.number} failed: {_reason(call.answer)}")
            paid_back = ledger.refunded(
                call.number,
                owner=standing.owner,
                provider=provider,
                fen=call.fen,
                business_date=standing.business_date(now),
            )
            return Booking(standing, (paid_back,))


def after_reversal(
    standing: Standing,
    reversal: str,
    fen: int,
    place: Place,
    now: datetime,
    *,
    provider: str,
    fee_received: Sequence[StoreShare] = (),
) -> Booking:
    """u fell by `fen`: what follows for a charge that is fixed. `fee_received`: what stores have of a shared fee.

    Collected: the surplus is refunded. Owed: the debt shrinks; a written-off one that reaches 0 closes. An attempt in
    flight keeps its amount, its surplus goes back when it was captured.
    """
    after = replace(standing, used_fen=standing.used_fen - fen)
    drop_fen = standing.due_fen - after.due_fen
    if drop_fen == 0:
        return Booking(after)
    settlement = Settlement(
        after.id, after.owner, provider, after.branch, after.due_fen, (StoreShare(place, after.due_fen),)
    )

    def reduced(owed_as: OwedAs) -> tuple[Transaction, ...]:
        return (
            ledger.due_reduced(
                reversal,
                settlement=settlement,
                fen=drop_fen,
                place=place,
                owed_as=owed_as,
                business_date=after.business_date(now),
                fee_received=fee_received,
            ),
        )

    if after.captured_number:
        after = replace(after, paid_fen=after.paid_fen - drop_fen, refunded_fen=after.refunded_fen + drop_fen)
        return Booking(after, reduced(OwedAs.REFUND), (refund_call(after, reversal, drop_fen, now),))
    if not after.receivable_fen:
        return Booking(after)  # nothing is booked yet
    after = replace(after, receivable_fen=after.receivable_fen - drop_fen)
    if after.state is not State.WRITTEN_OFF:
        return Booking(after, reduced(OwedAs.RECEIVABLE))
    if after.due_fen == 0:
        # Its hold may be on its way back still: then the release closes it.
        state = State.SETTLING if after.hold_state is HoldState.HELD else State.CLOSED
        after = replace(after, state=state)
    return Booking(after, reduced(OwedAs.BAD_DEBT))


# ---------------------------------------------------------------- captures


def _captured(standing: Standing, call: Call, settlement: Settlement, now: datetime) -> Booking:
    """Booked whatever the state: a provider that collects after a failure has collected."""
    if standing.captured_number:
        return _parked(standing, f"captured twice: {standing.captured_number} and {call.number}")
    due_fen, surplus_fen = standing.due_fen, call.fen - standing.due_fen
    if surplus_fen < 0:
        return _parked(standing, f"{call.number} captured {call.fen} fen, {due_fen} fen are due")
    date = standing.business_date(now)
    if standing.receivable_fen:
        owed_as = OwedAs.BAD_DEBT if standing.state is State.WRITTEN_OFF else OwedAs.RECEIVABLE
        income = ledger.receivable_collected(
            call.number, settlement, captured_fen=call.fen, business_date=date, owed_as=owed_as
        )
    else:
        income = ledger.settled(call.number, settlement, captured_fen=call.fen, business_date=date)
    transactions = [income]
    closed = replace(
        standing,
        state=State.CLOSED,
        paid_fen=due_fen,
        refunded_fen=surplus_fen,
        receivable_fen=0,
        captured_number=call.number,
        attempts=call.attempt + 1,
    )
    if standing.hold_state is HoldState.HELD:  # the capture completed it: its rest was freed in the same step
        transactions.append(_hold_ended(standing, settlement.provider, date))
        closed = replace(closed, hold_state=HoldState.ENDED)
    calls = (refund_call(closed, call.number, surplus_fen, now),) if surplus_fen else ()
    return Booking(closed, tuple(transactions), calls)


def _failed(standing: Standing, call: Call, settlement: Settlement, now: datetime) -> Booking:
    """A definite failure: the next attempt on the plan's day, or the end."""
    if standing.state not in {State.SETTLING, State.UNKNOWN}:
        return Booking(standing)
    plan, date = standing.plan, standing.business_date(now)
    transactions: list[Transaction] = []
    after = replace(standing, attempts=call.attempt + 1)
    if call.attempt == 0:
        transactions.append(ledger.capture_failed(call.number, settlement, business_date=date))
        after = replace(after, receivable_fen=standing.due_fen)
    if call.attempt < plan.dunning_attempts:
        due_at = days_later(now, plan.dunning_days[call.attempt], plan.zone)
        following = capture_call(standing, call.attempt + 1, standing.due_fen, due_at)
        return Booking(replace(after, state=State.DUNNING), tuple(transactions), (following,))
    calls = (release_call(after, now),) if after.hold_state is HoldState.HELD else ()
    if after.due_fen:
        transactions.append(ledger.written_off(call.number, settlement, business_date=date))
        return Booking(replace(after, state=State.WRITTEN_OFF), tuple(transactions), calls)
    # Nothing is due any more: closed once its hold is given back, at once without one.
    return Booking(replace(after, state=State.SETTLING if calls else State.CLOSED), tuple(transactions), calls)


def _released(standing: Standing, call: Call, now: datetime, provider: str) -> Booking:
    over = isinstance(call.answer, Failed) and call.answer.reason in HOLD_IS_OVER
    if not isinstance(call.answer, Succeeded) and not over:
        return _parked(standing, f"release {call.number} failed: {_reason(call.answer)}")
    if standing.hold_state is not HoldState.HELD:
        return Booking(standing)
    ended = _hold_ended(standing, provider, standing.business_date(now))
    closes = standing.state is State.SETTLING and standing.due_fen == 0
    state = State.CLOSED if closes else standing.state
    return Booking(replace(standing, state=state, hold_state=HoldState.ENDED), (ended,))


def _hold_ended(standing: Standing, provider: str, date: str) -> Transaction:
    return ledger.hold_ended(
        standing.hold_order,
        entity=standing.owner,
        provider=provider,
        hold_fen=standing.hold_fen,
        business_date=date,
    )


def shared_out(standing: Standing) -> bool:
    """True when the income is the stores': discounts taken back, or a fee that the plan shares by usage."""
    by_usage = standing.plan.fee_shares is FeeShares.USAGE
    return standing.branch is Branch.CLAWBACK or (standing.branch is Branch.FEE and by_usage)


def settlement_of(standing: Standing, shares: Sequence[StoreShare], provider: str) -> Settlement:
    """What it owes now, and whose money that is."""
    own = tuple(shares) if shared_out(standing) else ()
    return Settlement(standing.id, standing.owner, provider, standing.branch, standing.due_fen, own)


def _parked(standing: Standing, why: str) -> Booking:
    return Booking(replace(standing, state=State.PARKED), parked_why=why)


def _reason(answer: AnyAnswer | None) -> str:
    return f"{answer.reason} ({answer.code})" if isinstance(answer, Failed) else "no definite answer"
