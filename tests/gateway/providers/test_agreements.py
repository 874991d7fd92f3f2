"""Withholding agreements and credit memberships: signed on the phone, compared by the provider, collected."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from gateway.providers.alipay import AlipayProvider
from gateway.providers.alipay_gateway import AlipayAccount, AlipayGateway
from gateway.providers.port import Guarantee, SyncAction
from gateway.providers.simulator import SimulatorAdmin
from gateway.providers.simulator.admin import SimulatorError
from models.domain.payments import (
    AgreementResult,
    AgreementState,
    Answer,
    CancelAction,
    CancelResult,
    CreditOutcome,
    CreditResult,
    CreditTotals,
    Failed,
    FailReason,
    PayResult,
    Pending,
    RefundResult,
    ResultT,
    Succeeded,
    Unknown,
)

NOW = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)
APPLY = "zhima.credit.pe.zmgo.settle.apply"


def agreement_number() -> str:
    return uuid.uuid4().hex


def number(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4()}"


def done(answer: Answer[ResultT]) -> ResultT:
    assert isinstance(answer, Succeeded), answer
    return answer.result


def why(answer: Answer[ResultT]) -> FailReason:
    assert isinstance(answer, Failed), answer
    return answer.reason


async def signed(provider: AlipayProvider, admin: SimulatorAdmin, ours: str, user: str = "lin") -> str:
    asked = await provider.sign(number=ours, limit_fen=50_000, subject="免密支付")
    assert isinstance(asked, Pending)
    assert asked.code_text
    return await admin.sign_agreement(user, await admin.open(asked.code_text))


async def test_an_agreement_is_signed_on_the_phone_and_pays_without_asking(
    provider: AlipayProvider, admin: SimulatorAdmin
) -> None:
    ours = agreement_number()
    assert await provider.query_agreement(number=ours) == Unknown("not_found", absent=True)
    agreement_no = await signed(provider, admin, ours)
    expected = AgreementResult(agreement_no, "lin", AgreementState.ACTIVE)
    assert done(await provider.query_agreement(number=ours)) == expected
    assert done(await provider.sign(number=ours, limit_fen=50_000, subject="免密支付")) == expected
    before = (await admin.user("lin"))["balance_fen"]
    order = number("O")
    first = await provider.pay_agreement(number=order, agreement_no=agreement_no, amount_fen=900, subject="咖啡")
    assert done(first).receipt_fen == 900
    again = await provider.pay_agreement(number=order, agreement_no=agreement_no, amount_fen=900, subject="咖啡")
    assert again == first
    assert (await admin.user("lin"))["balance_fen"] == before - 900


async def test_above_the_limit_or_after_the_end_nothing_is_withheld(
    provider: AlipayProvider, admin: SimulatorAdmin
) -> None:
    ours = agreement_number()
    agreement_no = await signed(provider, admin, ours)
    before = (await admin.user("lin"))["balance_fen"]

    async def pay(fen: int, agreement: str = agreement_no) -> Answer[PayResult]:
        return await provider.pay_agreement(number=number("O"), agreement_no=agreement, amount_fen=fen, subject="咖啡")

    assert why(await pay(200_001)) is FailReason.LIMIT_EXCEEDED
    assert why(await pay(100, "2026000000000000000000000000")) is FailReason.AGREEMENT_GONE
    for _ in range(2):
        assert await provider.unsign(number=ours, agreement_no=agreement_no) == Succeeded(
            CancelResult(CancelAction.CLOSED)
        )
    assert why(await pay(100)) is FailReason.AGREEMENT_GONE
    assert why(await provider.query_agreement(number=ours)) is FailReason.AGREEMENT_GONE
    assert (await admin.user("lin"))["balance_fen"] == before


async def test_a_page_that_nobody_signed_in_time_is_gone(provider: AlipayProvider, admin: SimulatorAdmin) -> None:
    ours = agreement_number()
    asked = await provider.sign(number=ours, limit_fen=100, subject="m")
    assert isinstance(asked, Pending)
    page = await admin.open(asked.code_text or "")
    await admin.advance(16 * 60)
    with pytest.raises(SimulatorError, match="agreement_not_found"):
        await admin.sign_agreement("lin", page)
    with pytest.raises(ValueError, match="1 to 32 letters and digits"):
        await provider.sign(number="a-b", limit_fen=1, subject="m")


@pytest.fixture
async def credit(account: AlipayAccount) -> AsyncIterator[AlipayProvider]:
    provider = AlipayProvider(AlipayGateway(replace(account, credit_template="ZMGO_TPL1")))
    yield provider
    await provider.aclose()


class Member:
    """A credit membership of one customer, and the uses that the provider was told of."""

    def __init__(self, provider: AlipayProvider, admin: SimulatorAdmin, user: str = "lin") -> None:
        self.provider, self.admin, self.user = provider, admin, user
        self.agreement_no = self.plan_no = ""

    async def sign(self) -> None:
        asked = await self.provider.sign_credit(number=number("M"), fee_fen=1000, subject="轻会员")
        assert isinstance(asked, Pending)
        self.agreement_no = await self.admin.sign_credit(self.user, await self.admin.open(asked.code_text or ""))

    async def use(self, fen: int, *, ours: str = "", reverses: str = "") -> str:
        ours = ours or number("U")
        await self._sync(ours, CreditTotals(fen, fen * 2, 1), reverses)
        return ours

    async def _sync(self, ours: str, totals: CreditTotals, reverses: str) -> None:
        answer = await self.provider.sync_use(
            number=ours,
            agreement_no=self.agreement_no,
            payer=self.user,
            action=SyncAction.REVERSAL if reverses else SyncAction.USE,
            totals=totals,
            at=NOW,
            reverses=reverses,
        )
        assert done(answer).agreement_no == self.agreement_no

    async def expire(self) -> None:
        self.plan_no = await self.admin.lapse_credit(self.agreement_no)

    async def settle(self, ours: str, fen: int, totals: CreditTotals) -> Answer[PayResult]:
        return await self.provider.settle_credit(
            number=ours,
            agreement_no=self.agreement_no,
            payer=self.user,
            settlement_no=self.plan_no,
            amount_fen=fen,
            totals=totals,
        )

    async def refund(self, ours: str, fen: int) -> Answer[RefundResult]:
        return await self.provider.refund_credit(
            number=ours,
            agreement_no=self.agreement_no,
            payer=self.user,
            settlement_no=self.plan_no,
            amount_fen=fen,
            reason="reversal",
        )


async def test_the_provider_collects_only_what_its_own_records_agree_with(
    credit: AlipayProvider, admin: SimulatorAdmin
) -> None:
    member = Member(credit, admin)
    await member.sign()
    one = await member.use(800)
    await member.use(800, ours=one)  # told twice, counted once
    two = await member.use(800)
    await member.use(800, reverses=two)
    assert done(await credit.query_credit(number="M", agreement_no=member.agreement_no)).state is AgreementState.ACTIVE
    settlement, right = number("S"), CreditTotals(800, 1600, 1)
    assert why(await member.settle(settlement, 800, right)) is FailReason.REFUSED, "no plan before the expiry"
    await member.expire()
    for wrong in (CreditTotals(801, 1600, 1), CreditTotals(800, 1599, 1), CreditTotals(800, 1600, 2)):
        assert why(await member.settle(settlement, 800, wrong)) is FailReason.RECORDS_DIFFER
    before = (await admin.user("lin"))["balance_fen"]
    first = await member.settle(settlement, 800, right)
    assert done(first).receipt_fen == 800
    assert await member.settle(settlement, 800, right) == first
    assert isinstance(await member.settle(settlement, 801, right), Unknown), "the amount is fixed"
    assert isinstance(await member.settle(number("S"), 800, right), Failed), "one settlement a plan"
    assert (await admin.user("lin"))["balance_fen"] == before - 800
    refund = number("R")
    back = await member.refund(refund, 300)
    assert done(back).refunded_fen == 300
    assert await member.refund(refund, 300) == back
    assert isinstance(await member.refund(number("R"), 501), Failed)
    assert (await admin.user("lin"))["balance_fen"] == before - 500


async def test_a_settlement_may_be_pending_or_fail_for_good(credit: AlipayProvider, admin: SimulatorAdmin) -> None:
    await admin.create_user("poor", balance_fen=100, huabei_limit_fen=0)
    poor = Member(credit, admin, "poor")
    await poor.sign()
    await poor.use(800)
    await poor.expire()
    totals, attempt = CreditTotals(800, 1600, 1), number("S")
    assert why(await poor.settle(attempt, 800, totals)) is FailReason.NOT_ENOUGH_FUNDS
    assert why(await poor.settle(attempt, 800, totals)) is FailReason.NOT_ENOUGH_FUNDS
    await admin.add_fault(APPLY, "pending")
    second = number("S")
    assert isinstance(await poor.settle(second, 50, totals), Pending)
    assert isinstance(await poor.settle(second, 50, totals), Pending)
    assert (await admin.user("poor"))["balance_fen"] == 100


async def test_credit_is_asked_about_and_refused(credit: AlipayProvider, admin: SimulatorAdmin) -> None:
    async def consult(payer: str | None) -> CreditOutcome:
        result: CreditResult = done(
            await credit.consult_credit(
                number=number("C"), guarantee=Guarantee.SESAME_CREDIT, fee_fen=1000, payer=payer
            )
        )
        return result.outcome

    assert await consult(None) is CreditOutcome.ADMITTED
    assert await consult("13900000000") is CreditOutcome.ADMITTED
    assert await consult("refused-1") is CreditOutcome.REFUSED
    member = Member(credit, admin, "refused-1")
    with pytest.raises(SimulatorError, match="ZMGO_RISK_REFUSED"):
        await member.sign()


async def test_reversals_never_exceed_their_use_and_belong_to_their_customer(
    credit: AlipayProvider, admin: SimulatorAdmin
) -> None:
    member = Member(credit, admin)
    await member.sign()
    use = await member.use(800)
    for reverses, fen in ((use, 801), ("U-unknown", 1)):
        answer = await credit.sync_use(
            number=number("V"),
            agreement_no=member.agreement_no,
            payer="lin",
            action=SyncAction.REVERSAL,
            totals=CreditTotals(fen, 0, 1),
            at=NOW,
            reverses=reverses,
        )
        assert isinstance(answer, Failed)
    stranger = await credit.sync_use(
        number=number("U"),
        agreement_no=member.agreement_no,
        payer="wang",
        action=SyncAction.USE,
        totals=CreditTotals(1, 1, 1),
        at=NOW + timedelta(hours=1),
    )
    assert isinstance(stranger, Failed)
