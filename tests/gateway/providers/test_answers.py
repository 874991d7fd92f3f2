"""Answers survive a JSON column unchanged, and nothing else is read as one."""

from __future__ import annotations

import json

import pytest

from models.domain.payments import (
    AnyAnswer,
    CancelAction,
    CancelResult,
    CreditOutcome,
    CreditResult,
    Failed,
    FailReason,
    FundingPart,
    HoldResult,
    PayResult,
    Pending,
    RefundResult,
    ReleaseResult,
    Succeeded,
    Unknown,
    WaitsFor,
    answer_document,
    answer_from_document,
)

ANSWERS: list[AnyAnswer] = [
    Succeeded(PayResult(1000, 900, 950, 900, (FundingPart("payer", "PCREDIT", 900),), "20260001")),
    Succeeded(HoldResult("A1", 1000, None)),
    Succeeded(HoldResult("A1", 1000, 200)),
    Succeeded(ReleaseResult("A1", 200)),
    Succeeded(RefundResult("T1", 300)),
    Succeeded(CancelResult(CancelAction.REVERSED)),
    Succeeded(CreditResult(CreditOutcome.HOLD_NEEDED)),
    Pending(WaitsFor.PAYER_SCANS, "http://127.0.0.1/sim/collect/x"),
    Pending(WaitsFor.PROVIDER),
    Failed(FailReason.NOT_ENOUGH_FUNDS, "ACQ.BUYER_BALANCE_NOT_ENOUGH"),
    Unknown("timeout"),
    Unknown("not_found", absent=True),
]


@pytest.mark.parametrize("answer", ANSWERS, ids=repr)
def test_an_answer_survives_json(answer: AnyAnswer) -> None:
    assert answer_from_document(json.loads(json.dumps(answer_document(answer)))) == answer


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"answer": "maybe"},
        {"answer": "succeeded", "kind": "gift"},
        {"answer": "succeeded", "kind": "refund", "provider_trade_no": "T", "refunded_fen": 3.0},
        {"answer": "succeeded", "kind": "refund", "provider_trade_no": "T", "refunded_fen": True},
        {"answer": "succeeded", "kind": "refund", "provider_trade_no": "T"},
        {"answer": "failed", "reason": "boredom", "code": ""},
    ],
)
def test_nothing_else_is_an_answer(document: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        answer_from_document(document)
