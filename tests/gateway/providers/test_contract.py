"""What every payment provider must do. A new one adds its factory to `shop` and passes all of it (style.md 12)."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest

from gateway.providers.port import Capability, Guarantee, Scene, SyncAction
from gateway.providers.simulator.admin import SimulatorError
from models.domain.payments import (
    Answer,
    CancelAction,
    CancelResult,
    CreditOutcome,
    CreditResult,
    CreditTotals,
    Failed,
    FailReason,
    HoldResult,
    PayResult,
    Pending,
    RefundResult,
    ReleaseResult,
    ResultT,
    Succeeded,
    Unknown,
    WaitsFor,
)
from tests.gateway.providers.conftest import Shop, needs

UNAVAILABLE = FailReason.GUARANTEE_UNAVAILABLE


def number(prefix: str = "O") -> str:
    return f"{prefix}-{uuid.uuid4()}"


def done(answer: Answer[ResultT]) -> ResultT:
    assert isinstance(answer, Succeeded), answer
    return answer.result


def failed(answer: Answer[ResultT]) -> FailReason:
    assert isinstance(answer, Failed), answer
    return answer.reason


async def hold(shop: Shop, fen: int, user: str = "lin", order: str = "") -> HoldResult:
    order, code = order or number("F"), await shop.code(user, Scene.FACE)
    answer = await shop.provider.freeze(
        number=order, amount_fen=fen, subject="light membership", auth_code=code, scene=Scene.FACE
    )
    if isinstance(answer, Pending):
        await shop.customers.authorise_freeze(user, code=answer.code_text)
        answer = await shop.provider.query_freeze(number=order, amount_fen=fen)
    return done(answer)


async def paid(shop: Shop, fen: int, order: str) -> None:
    code = await shop.code("lin")
    done(
        await shop.provider.pay(number=order, amount_fen=fen, subject="咖啡", auth_code=code, scene=Scene.PAYMENT_CODE)
    )


@pytest.mark.parametrize("scene", list(Scene))
async def test_a_code_pays_once_and_the_number_answers_the_same(shop: Shop, scene: Scene) -> None:
    order = number()
    customers = shop.customers
    code = await shop.code("lin", scene)
    before = (await customers.user("lin"))["balance_fen"]
    first = await shop.provider.pay(number=order, amount_fen=1250, subject="咖啡", auth_code=code, scene=scene)
    result = done(first)
    assert (result.total_fen, result.payer_fen, result.receipt_fen, result.invoiceable_fen) == (1250,) * 4
    assert sum(part.fen for part in result.funding) == 1250
    again = await shop.provider.pay(number=order, amount_fen=1250, subject="咖啡", auth_code=code, scene=scene)
    assert again == first
    assert await shop.provider.query_payment(number=order, amount_fen=1250) == first
    assert (await customers.user("lin"))["balance_fen"] == before - 1250


async def test_a_code_of_the_other_kind_or_a_used_one_pays_nothing(shop: Shop) -> None:
    code = await shop.code("lin")
    if Capability.FACE_TOKENS in shop.provider.capabilities:
        wrong = await shop.provider.pay(number=number(), amount_fen=100, subject="a", auth_code=code, scene=Scene.FACE)
        assert failed(wrong) is FailReason.AUTH_INVALID
    done(
        await shop.provider.pay(number=number(), amount_fen=100, subject="a", auth_code=code, scene=Scene.PAYMENT_CODE)
    )
    order = number()
    for _ in range(2):
        used = await shop.provider.pay(
            number=order, amount_fen=100, subject="a", auth_code=code, scene=Scene.PAYMENT_CODE
        )
        assert failed(used) is FailReason.AUTH_INVALID
    assert failed(await shop.provider.query_payment(number=order, amount_fen=100)) is FailReason.CLOSED


async def test_the_same_number_with_another_amount_is_never_a_failure_nor_a_success(shop: Shop) -> None:
    order = number()
    await paid(shop, 500, order)
    code = await shop.code("lin")
    other = await shop.provider.pay(number=order, amount_fen=501, subject="a", auth_code=code, scene=Scene.PAYMENT_CODE)
    assert isinstance(other, Unknown)
    assert await shop.provider.query_payment(number=order, amount_fen=501) == Unknown("answer_mismatch")


async def test_without_means_nothing_is_taken_and_the_number_stays_refused(shop: Shop) -> None:
    await shop.customers.create_user("poor", balance_fen=50, huabei_limit_fen=99)
    order = number()
    for _ in range(2):
        code = await shop.code("poor")
        answer = await shop.provider.pay(
            number=order, amount_fen=100, subject="a", auth_code=code, scene=Scene.PAYMENT_CODE
        )
        assert failed(answer) is FailReason.NOT_ENOUGH_FUNDS
    assert (await shop.customers.user("poor"))["balance_fen"] == 50


async def test_a_collection_code_is_paid_by_whoever_scans_it(shop: Shop) -> None:
    order = number()
    opened = await shop.provider.precreate(number=order, amount_fen=800, subject="lunch")
    assert isinstance(opened, Pending)
    assert opened.waits_for is WaitsFor.PAYER_SCANS
    assert opened.code_text
    assert await shop.provider.precreate(number=order, amount_fen=800, subject="lunch") == opened
    assert isinstance(await shop.provider.query_payment(number=order, amount_fen=800), Pending)
    await shop.customers.pay_code("wang", qr_code=opened.code_text)
    await shop.customers.pay_code("wang", qr_code=opened.code_text)
    result = done(await shop.provider.query_payment(number=order, amount_fen=800))
    assert result.receipt_fen == 800
    assert done(await shop.provider.precreate(number=order, amount_fen=800, subject="lunch")) == result


async def test_cancel_closes_what_is_open_reverses_what_is_paid_and_bars_what_was_never_seen(shop: Shop) -> None:
    opened, settled, unseen = number(), number(), number()
    await shop.provider.precreate(number=opened, amount_fen=800, subject="lunch")
    await paid(shop, 800, settled)
    before = (await shop.customers.user("lin"))["balance_fen"]
    for order, action in (
        (opened, CancelAction.CLOSED),
        (settled, CancelAction.REVERSED),
        (unseen, CancelAction.CLOSED),
    ):
        for _ in range(2):
            assert await shop.provider.cancel(number=order) == Succeeded(CancelResult(action))
    assert (await shop.customers.user("lin"))["balance_fen"] == before + 800
    assert failed(await shop.provider.query_payment(number=opened, amount_fen=800)) is FailReason.CLOSED
    assert failed(await shop.provider.query_payment(number=settled, amount_fen=800)) is FailReason.REVERSED
    late = await shop.provider.pay(
        number=unseen,
        amount_fen=800,
        subject="a",
        auth_code=await shop.code("lin"),
        scene=Scene.PAYMENT_CODE,
    )
    assert failed(late) is FailReason.CLOSED
    assert (await shop.customers.user("lin"))["balance_fen"] == before + 800


async def test_close_ends_only_what_nobody_has_paid(shop: Shop) -> None:
    opened, settled, unseen = number(), number(), number()
    code = await shop.provider.precreate(number=opened, amount_fen=800, subject="lunch")
    assert isinstance(code, Pending)
    await paid(shop, 800, settled)
    for _ in range(2):
        assert await shop.provider.close(number=opened) == Succeeded(CancelResult(CancelAction.CLOSED))
    assert failed(await shop.provider.query_payment(number=opened, amount_fen=800)) is FailReason.CLOSED
    with pytest.raises(SimulatorError, match="TRADE_HAS_CLOSE"):
        await shop.customers.pay_code("wang", qr_code=code.code_text)
    assert failed(await shop.provider.close(number=settled)) is FailReason.ALREADY_PAID
    assert done(await shop.provider.query_payment(number=settled, amount_fen=800)).receipt_fen == 800
    assert failed(await shop.provider.close(number=unseen)) is FailReason.ORDER_UNKNOWN
    await paid(shop, 800, unseen)


async def test_an_agreement_is_signed_pays_and_ends(shop: Shop) -> None:
    needs(shop, Capability.AGREEMENTS)
    ours = uuid.uuid4().hex
    asked = await shop.provider.sign(number=ours, limit_fen=50_000, subject="m")
    assert isinstance(asked, Pending)
    assert asked.waits_for is WaitsFor.PAYER_SCANS
    agreement_no = await shop.customers.sign_agreement("lin", await shop.customers.open(asked.code_text or ""))
    assert done(await shop.provider.query_agreement(number=ours)).agreement_no == agreement_no
    order = number()
    first = await shop.provider.pay_agreement(number=order, agreement_no=agreement_no, amount_fen=700, subject="a")
    assert await shop.provider.query_payment(number=order, amount_fen=700) == first
    assert isinstance(await shop.provider.unsign(number=ours, agreement_no=agreement_no), Succeeded)
    late = await shop.provider.pay_agreement(number=number(), agreement_no=agreement_no, amount_fen=1, subject="a")
    assert failed(late) is FailReason.AGREEMENT_GONE


async def test_refunds_add_up_are_idempotent_and_never_exceed_the_payment(shop: Shop) -> None:
    order, first, second = number(), number("R"), number("R")
    await paid(shop, 1000, order)
    before = (await shop.customers.user("lin"))["balance_fen"]

    async def refund(refund_no: str, fen: int) -> Answer[RefundResult]:
        return await shop.provider.refund(number=refund_no, payment_number=order, amount_fen=fen, reason="return")

    one = await refund(first, 300)
    assert await refund(first, 300) == one
    assert isinstance(await refund(first, 301), Unknown)
    assert failed(await refund(second, 701)) is FailReason.AMOUNT_EXCEEDED
    assert await shop.provider.query_refund(number=second, payment_number=order, amount_fen=700) == Unknown(
        "not_found", absent=True
    )
    assert isinstance(await refund(second, 700), Succeeded)
    assert await shop.provider.query_refund(number=first, payment_number=order, amount_fen=300) == one
    assert (await shop.customers.user("lin"))["balance_fen"] == before + 1000
    after = await shop.provider.query_payment(number=order, amount_fen=1000)
    if Capability.TELLS_REFUNDED in shop.provider.capabilities:
        assert failed(after) is FailReason.REVERSED
    else:
        assert done(after).total_fen == 1000, "it was paid; what went back, each refund's own query tells"
    unpaid = await shop.provider.refund(number=number("R"), payment_number=number(), amount_fen=1, reason="x")
    assert failed(unpaid) is FailReason.ORDER_UNKNOWN


async def test_a_hold_is_captured_released_and_never_exceeded(shop: Shop) -> None:
    needs(shop, Capability.HOLD_PARTS)
    held = await hold(shop, 1000)
    part, too_much, last = number("S"), number("S"), number("S")

    async def capture(order: str, fen: int, *, complete: bool) -> Answer[PayResult]:
        return await shop.provider.capture(
            number=order, hold_no=held.hold_no, amount_fen=fen, subject="settlement", complete=complete
        )

    first = await capture(part, 300, complete=False)
    assert isinstance(first, Succeeded)
    assert await capture(part, 300, complete=False) == first
    assert await shop.provider.query_payment(number=part, amount_fen=300) == first
    assert failed(await capture(too_much, 701, complete=True)) is FailReason.HOLD_EXHAUSTED
    release = number("U")
    for _ in range(2):
        released = await shop.provider.unfreeze(number=release, hold_no=held.hold_no, amount_fen=200, remark="reversal")
        assert released == Succeeded(ReleaseResult(held.hold_no, 200))
    assert await shop.provider.query_unfreeze(number=release, hold_no=held.hold_no, amount_fen=200) == released
    assert isinstance(await capture(last, 400, complete=True), Succeeded)
    assert failed(await capture(number("S"), 1, complete=True)) is FailReason.HOLD_GONE
    over = await shop.provider.unfreeze(number=number("U"), hold_no=held.hold_no, amount_fen=1, remark="x")
    assert failed(over) is FailReason.HOLD_GONE
    assert (await shop.customers.user("lin"))["huabei_held_fen"] == 0


async def test_a_hold_is_captured_once_with_the_rest_given_back(shop: Shop) -> None:
    held, number_ = await hold(shop, 1000), number("S")

    async def capture(order: str, fen: int) -> Answer[PayResult]:
        return await shop.provider.capture(number=order, hold_no=held.hold_no, amount_fen=fen, subject="settlement")

    assert failed(await capture(number("S"), 1001)) is FailReason.HOLD_EXHAUSTED
    first = await capture(number_, 700)
    assert done(first).receipt_fen == 700
    assert await capture(number_, 700) == first
    assert isinstance(await capture(number_, 699), Unknown)
    assert failed(await capture(number("S"), 300)) is FailReason.HOLD_GONE
    over = await shop.provider.unfreeze(number=number("U"), hold_no=held.hold_no, amount_fen=300, remark="x")
    assert failed(over) is FailReason.HOLD_GONE
    assert (await shop.customers.user("lin"))["huabei_held_fen"] == 0


async def test_a_hold_released_whole_is_gone(shop: Shop) -> None:
    held, release = await hold(shop, 900), number("U")
    before = (await shop.customers.user("lin"))["huabei_held_fen"]
    absent = await shop.provider.query_unfreeze(number=release, hold_no=held.hold_no, amount_fen=900)
    assert absent == Unknown("not_found", absent=True)
    for _ in range(2):
        answer = await shop.provider.unfreeze(number=release, hold_no=held.hold_no, amount_fen=900, remark="end")
        assert answer == Succeeded(ReleaseResult(held.hold_no, 900))
    assert await shop.provider.query_unfreeze(number=release, hold_no=held.hold_no, amount_fen=900) == answer
    gone = await shop.provider.capture(number=number("S"), hold_no=held.hold_no, amount_fen=1, subject="s")
    assert failed(gone) is FailReason.HOLD_GONE
    assert (await shop.customers.user("lin"))["huabei_held_fen"] == before - 900


async def test_what_is_missing_is_refused(shop: Shop) -> None:
    """A capability that a provider does not declare is missing: it asks nobody, and moves nothing."""
    provider, has = shop.provider, shop.provider.capabilities
    before = await shop.customers.books(shop.account)
    if Capability.HOLD_PARTS not in has:
        held = await hold(shop, 1000)
        part = await provider.capture(
            number=number("S"), hold_no=held.hold_no, amount_fen=1, subject="s", complete=False
        )
        assert failed(part) is FailReason.REFUSED
        some = await provider.unfreeze(number=number("U"), hold_no=held.hold_no, amount_fen=1, remark="x")
        assert failed(some) is FailReason.REFUSED
        done(await provider.unfreeze(number=number("U"), hold_no=held.hold_no, amount_fen=1000, remark="x"))
    if Capability.AGREEMENTS not in has:
        assert failed(await provider.sign(number="A1", limit_fen=100, subject="a")) is FailReason.REFUSED
        paying = await provider.pay_agreement(number=number(), agreement_no="1", amount_fen=1, subject="a")
        answers = (await provider.query_agreement(number="A1"), await provider.unsign(number="A1", agreement_no="1"))
        assert {failed(answer) for answer in (*answers, paying)} == {FailReason.AGREEMENT_GONE}
    if Capability.CREDIT not in has:
        totals, when = CreditTotals(1, 1, 1), datetime(2026, 11, 22, tzinfo=UTC)
        assert failed(await provider.sign_credit(number="C1", fee_fen=100, subject="m")) is UNAVAILABLE
        if shop.name == "wechat":
            use = await provider.sync_use(
                number="U1", agreement_no="1", payer="1", action=SyncAction.USE, totals=totals, at=when
            )
            settled = await provider.settle_credit(
                number="S1", agreement_no="1", payer="1", settlement_no="1", amount_fen=1, totals=totals
            )
            back = await provider.refund_credit(
                number="R1", agreement_no="1", payer="1", settlement_no="1", amount_fen=1, reason="x"
            )
            known = await provider.query_credit(number="C1", agreement_no="1")
            assert {failed(answer) for answer in (use, settled, back, known)} == {UNAVAILABLE}
    after = await shop.customers.books(shop.account)
    assert after["captured_fen"] == before["captured_fen"]


async def test_a_hold_waits_for_its_customer_and_answers_the_same_for_ever(shop: Shop) -> None:
    order = number("F")
    opened = await shop.provider.freeze(number=order, amount_fen=1000, subject="light membership")
    assert isinstance(opened, Pending)
    assert opened.waits_for is WaitsFor.PAYER_SCANS
    assert isinstance(await shop.provider.query_freeze(number=order, amount_fen=1000), Pending)
    await shop.customers.authorise_freeze("wang", code=opened.code_text)
    await shop.customers.authorise_freeze("wang", code=opened.code_text)
    held = done(await shop.provider.query_freeze(number=order, amount_fen=1000))
    assert (held.frozen_fen, held.remaining_fen) == (1000, 1000)
    assert (await shop.customers.user("wang"))["huabei_held_fen"] == 1000
    assert await shop.provider.freeze(number=order, amount_fen=1000, subject="light membership") == Succeeded(held)
    if Capability.HOLD_PARTS not in shop.provider.capabilities:
        done(await shop.provider.unfreeze(number=number("U"), hold_no=held.hold_no, amount_fen=1000, remark="all"))
        return
    done(
        await shop.provider.capture(
            number=number("S"), hold_no=held.hold_no, amount_fen=800, subject="settlement", complete=False
        )
    )
    assert done(await shop.provider.query_freeze(number=order, amount_fen=1000)).remaining_fen == 200
    done(await shop.provider.unfreeze(number=number("U"), hold_no=held.hold_no, amount_fen=200, remark="rest"))
    assert (await shop.customers.user("wang"))["huabei_held_fen"] == 0


async def test_an_open_freeze_is_cancelled_a_made_one_released_and_an_unseen_one_barred(shop: Shop) -> None:
    opened, unseen, made = number("F"), number("F"), number("F")
    waiting = await shop.provider.freeze(number=opened, amount_fen=1000, subject="m")
    assert isinstance(waiting, Pending)
    await hold(shop, 1000, "zhao", made)
    cases = ((opened, CancelAction.CLOSED), (unseen, CancelAction.CLOSED), (made, CancelAction.REVERSED))
    for order, action in cases:
        for _ in range(2):
            assert await shop.provider.cancel_freeze(number=order) == Succeeded(CancelResult(action))
        assert failed(await shop.provider.query_freeze(number=order, amount_fen=1000)) is FailReason.CLOSED
        late = await shop.provider.freeze(
            number=order,
            amount_fen=1000,
            subject="m",
            auth_code=await shop.code("zhao", Scene.FACE),
            scene=Scene.FACE,
        )
        assert failed(late) is FailReason.CLOSED
    assert (await shop.customers.user("zhao"))["huabei_held_fen"] == 0


async def test_a_hold_beyond_the_credit_line_is_refused(shop: Shop) -> None:
    await shop.customers.create_user("thin", balance_fen=10_000, huabei_limit_fen=999)
    order, code = number("F"), await shop.code("thin", Scene.FACE)
    answer = await shop.provider.freeze(number=order, amount_fen=1000, subject="m", auth_code=code, scene=Scene.FACE)
    if Capability.HOLD_PARTS in shop.provider.capabilities:
        assert failed(answer) is FailReason.NOT_ENOUGH_FUNDS
        return
    assert isinstance(answer, Pending), "it is confirmed on the phone, where it is refused"
    with pytest.raises(SimulatorError, match="PAYER_BALANCE_NOT_ENOUGH"):
        await shop.customers.authorise_freeze("thin", code=answer.code_text)
    assert failed(await shop.provider.query_freeze(number=order, amount_fen=1000)) is FailReason.CLOSED


async def test_what_was_never_asked_is_absent_and_not_failed(shop: Shop) -> None:
    absent = Unknown("not_found", absent=True)
    provider = shop.provider
    held = await hold(shop, 100)
    assert await provider.query_payment(number=number(), amount_fen=1) == absent
    assert await provider.query_freeze(number=number(), amount_fen=1) == absent
    assert await provider.query_unfreeze(number=number(), hold_no=held.hold_no, amount_fen=1) == absent
    assert await provider.query_refund(number=number(), payment_number=number(), amount_fen=1) == absent


async def test_only_its_own_hold_is_offered(shop: Shop) -> None:
    own = {"alipay": Guarantee.HUABEI_HOLD, "wechat": Guarantee.PAY_SCORE}[shop.name]
    for guarantee in Guarantee:
        answer = await shop.provider.consult_credit(number=number(), guarantee=guarantee, fee_fen=1000)
        if guarantee is own:
            assert answer == Succeeded(CreditResult(CreditOutcome.HOLD_NEEDED))
        else:
            assert failed(answer) is FailReason.GUARANTEE_UNAVAILABLE


@pytest.mark.parametrize(("bad", "fen"), [("", 1), ("x" * 65, 1), ("a b", 1), ("单", 1), ("ok", 0), ("ok", -1)])
async def test_a_number_or_amount_that_cannot_be_sent_raises_before_anything_is_sent(
    shop: Shop, bad: str, fen: int
) -> None:
    with pytest.raises(ValueError, match=r"number|amount"):
        await shop.provider.precreate(number=bad, amount_fen=fen, subject="a")
