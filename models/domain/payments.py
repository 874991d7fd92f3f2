"""What a payment provider answers, in our own words (money.md, "Payment providers"). Integer fen throughout.

Every request carries a number of ours; the same number asks for the same thing and gets the same result, so
whoever lost an answer asks again. Only `Failed` says that no money moved and none will under this number.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Generic, TypeVar

PROVIDERS = ("alipay", "wechat")
"""By the names that tenders, accounts and the ledger know them by; what names none means the first."""
REQUEST_NUMBER_LENGTH_MAX = 64
_REQUEST_NUMBER = re.compile(r"[A-Za-z0-9-]{1,64}")


def is_request_number(text: str) -> bool:
    """True when `text` may number a request to a provider: 1 to 64 letters, digits and hyphens."""
    return _REQUEST_NUMBER.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class FundingPart:
    """Who gave which part of a payment: `who` is payer, merchant or provider; `kind` the provider's channel."""

    who: str
    kind: str
    fen: int


@dataclass(frozen=True, slots=True)
class PayResult:
    """A payment as the provider booked it.

    total_fen is what was asked; payer_fen what the customer paid after the provider's own promotions;
    receipt_fen what reaches the merchant's account; invoiceable_fen what an invoice may state.
    """

    total_fen: int
    payer_fen: int
    receipt_fen: int
    invoiceable_fen: int
    funding: tuple[FundingPart, ...]
    provider_trade_no: str


@dataclass(frozen=True, slots=True)
class HoldResult:
    """A hold on a customer's money or credit line: `hold_no` is the provider's, needed to capture and release.

    remaining_fen is what may still be captured; None where the answer does not tell it (query_freeze does).
    """

    hold_no: str
    frozen_fen: int
    remaining_fen: int | None = None


@dataclass(frozen=True, slots=True)
class ReleaseResult:
    """A hold, or a part of it, given back to the customer."""

    hold_no: str
    released_fen: int


@dataclass(frozen=True, slots=True)
class RefundResult:
    """Money given back for a payment under one refund number."""

    provider_trade_no: str
    refunded_fen: int


class CancelAction(StrEnum):
    """What a cancel did."""

    CLOSED = "closed"
    """Nothing had been taken, and nothing can be taken under this number any more."""
    REVERSED = "reversed"
    """Money had been taken, or frozen, and went back."""


@dataclass(frozen=True, slots=True)
class CancelResult:
    """The order is over: no money of the customer's is kept under its number."""

    action: CancelAction


class AgreementState(StrEnum):
    """What became of a withholding or credit agreement."""

    ACTIVE = "active"
    EXPIRED = "expired"
    """Its period is over: nothing new counts, its settlement may be asked for."""
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class AgreementResult:
    """What a customer signed with the provider for this merchant.

    `agreement_no` and `payer` are the provider's names for the agreement and the customer: both are needed to use it.
    limit_fen bounds one payment; None where the provider names none. `settlement_no` is the provider's number for the
    settlement of a credit agreement: it comes with the expiry, or with the settlement.
    """

    agreement_no: str
    payer: str
    state: AgreementState
    limit_fen: int | None = None
    settlement_no: str | None = None


@dataclass(frozen=True, slots=True)
class SyncResult:
    """A use, or its reversal, that the provider has in its own records of an agreement now."""

    agreement_no: str


@dataclass(frozen=True, slots=True)
class CreditTotals:
    """What a credit agreement's uses add up to, net of reversals, REGULAR uses only.

    discount_fen: benefits enjoyed. paid_fen: what the sales with a benefit took. tasks: how many uses stand. The
    provider compares the three with the sums of what was synchronised, and refuses a settlement that differs.
    """

    discount_fen: int
    paid_fen: int
    tasks: int


class CreditOutcome(StrEnum):
    """What the provider says about trusting a customer."""

    ADMITTED = "admitted"
    HOLD_NEEDED = "hold_needed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class CreditResult:
    """A credit consultation's answer; it binds nobody and freezes nothing."""

    outcome: CreditOutcome


class WaitsFor(StrEnum):
    """Who must act before a pending request ends."""

    PAYER_CONFIRMS = "payer_confirms"
    PAYER_SCANS = "payer_scans"
    PROVIDER = "provider"


class FailReason(StrEnum):
    """Why nothing was taken, so that a clerk's sentence can be chosen without a provider's codes."""

    NOT_ENOUGH_FUNDS = "not_enough_funds"
    AUTH_INVALID = "auth_invalid"
    """The face token or payment code is wrong, used or expired: ask for a new one (and use a new number)."""
    HOLD_EXHAUSTED = "hold_exhausted"
    HOLD_GONE = "hold_gone"
    CLOSED = "closed"
    """Cancelled or timed out before anything was paid."""
    REVERSED = "reversed"
    """It was paid, and all of it went back by a cancel or refunds."""
    ORDER_UNKNOWN = "order_unknown"
    """A refund or release named a payment or hold that the provider does not have."""
    AMOUNT_EXCEEDED = "amount_exceeded"
    ALREADY_PAID = "already_paid"
    """An order to be closed was paid before: refund or cancel it."""
    AGREEMENT_GONE = "agreement_gone"
    """Never signed, ended, or of another merchant: ask for another way to pay."""
    LIMIT_EXCEEDED = "limit_exceeded"
    """Above what the customer agreed to let be withheld at once."""
    RECORDS_DIFFER = "records_differ"
    """A settlement's totals are not what the provider recorded: synchronise, then settle under the same number."""
    GUARANTEE_UNAVAILABLE = "guarantee_unavailable"
    REFUSED = "refused"
    """The provider rejected the request itself (rights, parameters, risk): an operator should look."""


@dataclass(frozen=True, slots=True)
class Pending:
    """Accepted and open. `code_text` is what the customer scans, for a collection code or a hold's code."""

    waits_for: WaitsFor
    code_text: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """Definite: the request had no effect and will have none. `code` is the provider's own, for the log.

    As the answer of a query it speaks of the request that was asked about.
    """

    reason: FailReason
    code: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """No answer, or none that can be trusted: query the same number, never take a new one.

    `absent`: the provider has no such number (yet). Sending the same request again under the same number is
    then safe; taking a new number is not, for the first request may still be on its way.
    """

    why: str
    absent: bool = False


ResultT = TypeVar("ResultT")
ResultCoT = TypeVar("ResultCoT", covariant=True)
ProviderResult = (
    PayResult | HoldResult | ReleaseResult | RefundResult | CancelResult | CreditResult | AgreementResult | SyncResult
)
"""Results that a JSON column can keep."""


@dataclass(frozen=True, slots=True)
class Succeeded(Generic[ResultCoT]):
    """Done, and checked: number, amount, seller and app in the answer are the ones asked for."""

    result: ResultCoT


Answer = Succeeded[ResultT] | Pending | Failed | Unknown
AnyAnswer = Succeeded[ProviderResult] | Pending | Failed | Unknown

_RESULTS: dict[str, type[ProviderResult]] = {
    "pay": PayResult,
    "hold": HoldResult,
    "release": ReleaseResult,
    "refund": RefundResult,
    "cancel": CancelResult,
    "credit": CreditResult,
    "agreement": AgreementResult,
    "sync": SyncResult,
}
_RESULT_KINDS: dict[type[object], str] = {cls: kind for kind, cls in _RESULTS.items()}


def answer_document(answer: AnyAnswer) -> dict[str, object]:
    """An answer as a plain document for a JSON column; `answer_from_document` reads it back, equal."""
    match answer:
        case Succeeded(result=result):
            return {"answer": "succeeded", "kind": _RESULT_KINDS[type(result)], **asdict(result)}
        case Pending():
            return {"answer": "pending", **asdict(answer)}
        case Failed():
            return {"answer": "failed", **asdict(answer)}
        case Unknown():
            return {"answer": "unknown", **asdict(answer)}


def answer_from_document(document: dict[str, object]) -> AnyAnswer:
    """The answer that `answer_document` wrote. Raises ValueError or TypeError on anything else."""
    fields = dict(document)
    name = fields.pop("answer", None)
    if name == "succeeded":
        return Succeeded(_result_from(fields))
    if name == "pending":
        code_text = fields.get("code_text")
        return Pending(WaitsFor(str(fields["waits_for"])), None if code_text is None else str(code_text))
    if name == "failed":
        return Failed(FailReason(str(fields["reason"])), str(fields["code"]))
    if name == "unknown":
        return Unknown(str(fields["why"]), fields.get("absent") is True)
    raise ValueError(f"no such answer: {name!r}")


def _result_from(fields: dict[str, object]) -> ProviderResult:
    kind = str(fields.pop("kind", ""))
    cls = _RESULTS.get(kind)
    if cls is None:
        raise ValueError(f"no such result: {kind!r}")
    if cls is CancelResult:
        return CancelResult(CancelAction(str(fields["action"])))
    if cls is CreditResult:
        return CreditResult(CreditOutcome(str(fields["outcome"])))
    if cls is AgreementResult:
        fields["state"] = AgreementState(str(fields["state"]))
    for name, value in fields.items():
        if name.endswith("_fen") and value is not None and type(value) is not int:
            raise TypeError(f"{name} must be an integer of fen, not {value!r}")
    if cls is PayResult:
        parts = fields["funding"]
        if not isinstance(parts, (list, tuple)):
            raise TypeError("funding must be a list")
        fields["funding"] = tuple(FundingPart(**part) for part in parts)
    return cls(**fields)  # type: ignore[arg-type]  # the fields of each class, checked by its constructor
