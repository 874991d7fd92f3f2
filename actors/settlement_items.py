"""What an operator may do with a membership that is PARKED. Pure; runtime performs it and writes the audit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from enum import StrEnum

from actors.settlement import HOLD_IS_OVER, Booking, settlement_of
from models.domain import ledger
from models.domain.charging import branch_of
from models.domain.errors import Refused
from models.domain.ledger import StoreShare
from models.domain.membership import HoldState, State
from models.domain.payments import Failed, PayResult, Succeeded
from models.domain.settlement import Call, CallKind, NewCall, Standing, refund_number


class Action(StrEnum):
    """RETRY: the failed release or refund once more. RELEASE: give the hold back. REFUND: give a capture back that is
    none of the charge's. WRITE_OFF: what is due is bad debt. CLOSE: done by hand elsewhere, nothing is booked.
    """

    RETRY = "retry"
    RELEASE = "release"
    REFUND = "refund"
    WRITE_OFF = "write_off"
    CLOSE = "close"


def resolve(
    standing: Standing,
    action: Action,
    calls: Sequence[Call],
    shares: Sequence[StoreShare],
    now: datetime,
    *,
    provider: str,
    capture: str,
) -> Booking:
    """The booking of one action. `calls`: all that the membership has had, so that a new one gets a number of its own.
    `capture`: the number of its last attempt, under which a write-off is booked, as without a person.

    Raises Refused `not_parked`, `nothing_to_retry`, `nothing_held`, `nothing_to_refund`, `nothing_owed`,
    `hold_is_open`, `still_owed`.
    """
    if standing.state is not State.PARKED:
        raise Refused("not_parked", f"{standing.id} is {standing.state}", "see the list of parked items")
    nth = len(calls)
    match action:
        case Action.RETRY:
            failed = still_failed(calls)
            # A capture is never asked again under a new number while nobody knows what the provider took.
            if not failed:
                raise Refused(
                    "nothing_to_retry", f"{standing.id}: no release or refund failed", "choose another action"
                )
            again = tuple(
                NewCall(standing.id, call.kind, f"{call.number}R{n}", call.fen, now)
                for n, call in enumerate(failed, nth)
            )
            return Booking(replace(standing, state=_before(standing, failed[-1])), (), again)
        case Action.RELEASE:
            if standing.hold_state is not HoldState.HELD:
                raise Refused("nothing_held", f"{standing.id} holds nothing", "choose another action")
            number = f"U{standing.id}G{standing.generation}R{nth}"
            back = NewCall(standing.id, CallKind.RELEASE, number, standing.hold_fen, now)
            return Booking(standing, (), (back,), parked_why="its hold goes back")
        case Action.REFUND:
            return _given_back(standing, calls, now, provider)
        case Action.WRITE_OFF:
            return _write_off(standing, shares, now, provider, capture)
        case Action.CLOSE:
            if standing.hold_state is HoldState.HELD:
                raise Refused("hold_is_open", f"{standing.id} still holds {standing.hold_fen} fen", "release it first")
            if not standing.captured_number and _fixed(standing).due_fen:
                # Closed without booking, the stores would bear what the member enjoyed.
                raise Refused("still_owed", f"{standing.id} owes {_fixed(standing).due_fen} fen", "write it off")
            return Booking(replace(standing, state=State.CLOSED))


def still_failed(calls: Sequence[Call]) -> list[Call]:
    """Of a membership's calls the releases and refunds that came to nothing, and were not asked again since."""
    numbers = [call.number for call in calls]
    return [
        call
        for call in calls
        if call.kind is not CallKind.CAPTURE
        and isinstance(call.answer, Failed)
        and not (call.kind is CallKind.RELEASE and call.answer.reason in HOLD_IS_OVER)
        and not any(number.startswith(f"{call.number}R") for number in numbers)
    ]


def _given_back(standing: Standing, calls: Sequence[Call], now: datetime, provider: str) -> Booking:
    """A second collection of one charge, or one of another amount: booked as the member's, and refunded."""
    numbers = {call.number for call in calls}
    surplus = [
        (call.number, call.answer.result.total_fen)
        for call in calls
        if call.kind is CallKind.CAPTURE
        and call.number != standing.captured_number
        and refund_number(call.number) not in numbers
        and isinstance(call.answer, Succeeded)
        and isinstance(call.answer.result, PayResult)
    ]
    if not surplus:
        raise Refused("nothing_to_refund", f"{standing.id}: nothing was captured beside the charge", "see its calls")
    date = standing.business_date(now)
    booked = tuple(
        ledger.collected_beside(number, owner=standing.owner, provider=provider, fen=fen, business_date=date)
        for number, fen in surplus
    )
    back = tuple(NewCall(standing.id, CallKind.REFUND, refund_number(number), fen, now) for number, fen in surplus)
    if standing.captured_number:
        return Booking(replace(standing, state=State.CLOSED), booked, back)
    return Booking(standing, booked, back, parked_why="what was captured goes back")


def _fixed(standing: Standing) -> Standing:
    """With its charge: one that was parked before its cutoff never got any."""
    if standing.charge_fen is not None:
        return standing
    charge = standing.preview_fen
    return replace(standing, charge_fen=charge, branch=branch_of(charge, standing.fee_eff_fen))


def _before(standing: Standing, failed: Call) -> State:
    if failed.kind is CallKind.REFUND or standing.captured_number:
        return State.CLOSED
    return State.WRITTEN_OFF if standing.receivable_fen else State.SETTLING


def _write_off(parked: Standing, shares: Sequence[StoreShare], now: datetime, provider: str, number: str) -> Booking:
    """Under the last attempt's number: what was written off before it was parked is not booked a second time."""
    standing = _fixed(parked)
    if standing.captured_number or not standing.due_fen:
        raise Refused("nothing_owed", f"{standing.id} owes nothing that was not collected", "choose another action")
    if standing.hold_state is HoldState.HELD:
        raise Refused("hold_is_open", f"{standing.id} still holds {standing.hold_fen} fen", "release it first")
    date = standing.business_date(now)
    owed = settlement_of(standing, shares, provider)
    written = ledger.written_off(number, owed, business_date=date)
    first = () if standing.receivable_fen else (ledger.capture_failed(number, owed, business_date=date),)
    after = replace(standing, state=State.WRITTEN_OFF, receivable_fen=standing.due_fen)
    return Booking(after, (*first, written))
