"""WeChat Pay as a `PaymentProvider`: code payments, collection codes, refunds; holds are pay-score service orders.

Source: pay.weixin.qq.com, APIv3 for direct merchants. Every answer is checked for number, amount, merchant and app
before it may be called a success; one that fails the check is `Unknown`, for the money may well have moved. What the
provider has no call for is declared (`capabilities`) and refused without asking: docs/decisions/wechat-maps.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.providers.port import Capability, Scene
from gateway.providers.wechat_absent import WechatAbsent
from gateway.providers.wechat_calls import (
    DONE_ALREADY,
    cancel_number,
    failure,
    fen_of,
    no_news,
    order_number,
    refund_number,
    wire_fen,
)
from gateway.providers.wechat_score import WechatServiceOrders
from gateway.providers.wechat_statements import WechatStatements
from models.domain.payments import (
    Answer,
    CancelAction,
    CancelResult,
    Failed,
    FailReason,
    PayResult,
    Pending,
    RefundResult,
    Succeeded,
    Unknown,
    WaitsFor,
)

DESCRIPTION_LENGTH_MAX = 127
REASON_LENGTH_MAX = 80
EXCEEDED = "退款金额"
"""In the message of an INVALID_REQUEST when refunds would make more than the payment: it has no code of its own."""
CLOSED = Succeeded(CancelResult(CancelAction.CLOSED))
REVERSED = Succeeded(CancelResult(CancelAction.REVERSED))
_AGAIN = Unknown("cancel_must_be_repeated")


class WechatProvider(WechatServiceOrders, WechatStatements, WechatAbsent):
    """One merchant account at WeChat Pay. See `PaymentProvider` for the promises of each method."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset({Capability.HOLDS}) if self._gateway.account.service_id else frozenset()

    async def aclose(self) -> None:
        await self._gateway.aclose()

    async def pay(
        self,
        *,
        number: str,
        amount_fen: int,
        subject: str,
        auth_code: str,
        scene: Scene,  # noqa: ARG002 - the face device of the provider yields a payment code like the phone's
    ) -> Answer[PayResult]:
        body = self._order(number, amount_fen, subject) | {
            "payer": {"auth_code": auth_code},
            "scene_info": {"store_info": {"out_id": self._gateway.account.entity or "store"}},
        }
        answer = await self._gateway.post("/v3/pay/transactions/codepay", body)
        if isinstance(answer, Unknown):
            return answer
        if answer.code in DONE_ALREADY:
            return await self.query_payment(number=number, amount_fen=amount_fen)
        if not answer.ok:
            return failure(answer)
        return self._payment(answer.fields, number, amount_fen)

    async def precreate(self, *, number: str, amount_fen: int, subject: str) -> Answer[PayResult]:
        body = self._order(number, amount_fen, subject) | {"notify_url": self._gateway.account.notify_url}
        answer = await self._gateway.post("/v3/pay/transactions/native", body)
        if isinstance(answer, Unknown):
            return answer
        if answer.code in DONE_ALREADY:
            return await self.query_payment(number=number, amount_fen=amount_fen)
        if not answer.ok:
            return failure(answer)
        code = answer.fields.get("code_url")
        return Pending(WaitsFor.PAYER_SCANS, code) if isinstance(code, str) and code else Unknown("answer_malformed")

    async def cancel(self, *, number: str) -> Answer[CancelResult]:
        """Code payments have a cancel of their own (reverse); a collection code is closed, or refunded when paid."""
        answer = await self._order_state(number)
        if isinstance(answer, Unknown):
            return answer
        if not answer.ok:
            return await self._bar(number) if no_news(answer).absent else no_news(answer)
        fields = answer.fields
        state = fields.get("trade_state")
        if state != "USERPAYING" and not self._is_ours(fields, number):
            return Unknown("answer_mismatch")
        match state, fields.get("trade_type"):
            case (("CLOSED" | "PAYERROR"), _):
                return CLOSED
            case "REVOKED", _:
                return REVERSED if fields.get("success_time") else CLOSED
            case ("USERPAYING", _) | ("SUCCESS", "MICROPAY"):
                return await self._reverse(number)
            case "NOTPAY", _:
                closed = await self.close(number=number)
                return _AGAIN if isinstance(closed, Failed) else closed  # paid a moment ago: asked again, it goes back
            case "SUCCESS", _:
                return await self._refund_all(fields, number)
            case "REFUND", _ if await self._was_cancelled(number):
                return REVERSED
            case "REFUND", _:
                return Failed(FailReason.REFUSED, "REFUND")
        return Unknown("answer_malformed")

    async def close(self, *, number: str) -> Answer[CancelResult]:
        path = f"/v3/pay/transactions/out-trade-no/{order_number(number)}/close"
        answer = await self._gateway.post(path, {"mchid": self._gateway.account.mchid})
        if isinstance(answer, Unknown):
            return answer
        if answer.ok or answer.code == "ORDER_CLOSED":
            return CLOSED
        return failure(answer)

    async def refund(self, *, number: str, payment_number: str, amount_fen: int, reason: str) -> Answer[RefundResult]:
        wire_fen(amount_fen)
        order = await self._order_state(payment_number)
        if isinstance(order, Unknown):
            return order
        if not order.ok:
            return await self._refund_collected(number, payment_number, amount_fen, reason, no_news(order))
        if not self._is_ours(order.fields, payment_number):
            return Unknown("answer_mismatch")
        amount = order.fields.get("amount")
        total = fen_of(amount, "total") if isinstance(amount, dict) else None
        if total is None:  # nothing was paid, so there is nothing to give back
            return Failed(FailReason.REFUSED, str(order.fields.get("trade_state")))
        paid = {"out_trade_no": order_number(payment_number)}
        return await self._refund(refund_number(number), paid, amount_fen, total, reason)

    async def _refund_collected(
        self, number: str, payment_number: str, amount_fen: int, reason: str, absent: Unknown
    ) -> Answer[RefundResult]:
        """A service order collects under the provider's number only: `payment_number` is that of the hold."""
        if not absent.absent:
            return absent
        collected = await self._collection_of(payment_number)
        if isinstance(collected, Unknown | Failed):
            return collected
        paid = {"transaction_id": collected.provider_trade_no}
        return await self._refund(refund_number(number), paid, amount_fen, collected.total_fen, reason)

    async def query_refund(self, *, number: str, payment_number: str, amount_fen: int) -> Answer[RefundResult]:
        wire_fen(amount_fen)
        wire = refund_number(number)
        known = await self._refund_state(wire, {"out_trade_no": order_number(payment_number)}, amount_fen)
        if not isinstance(known, Unknown) or known.why != "answer_mismatch" or not self._gateway.account.service_id:
            return known
        collected = await self._collection_of(payment_number)  # perhaps it is of a service order
        if isinstance(collected, Unknown | Failed):
            return known
        return await self._refund_state(wire, {"transaction_id": collected.provider_trade_no}, amount_fen)

    async def _refund(
        self, wire: str, paid: Mapping[str, str], amount_fen: int, total: int, reason: str
    ) -> Answer[RefundResult]:
        """`paid` names the payment: by our number, or by the provider's."""
        body = {
            **paid,
            "out_refund_no": wire,
            "reason": reason[:REASON_LENGTH_MAX],
            "amount": {"refund": amount_fen, "total": total, "currency": "CNY"},
        }
        answer = await self._gateway.post("/v3/refund/domestic/refunds", body)
        if isinstance(answer, Unknown):
            return answer
        if answer.ok:
            return self._refunded(answer.fields, wire, paid, amount_fen)
        # A refusal may be of this request only: under the same number another one may have been done before.
        known = await self._refund_state(wire, paid, amount_fen)
        if not isinstance(known, Unknown) or not known.absent:
            return known
        if answer.code == "INVALID_REQUEST" and EXCEEDED in answer.message:
            return Failed(FailReason.AMOUNT_EXCEEDED, answer.code)
        return failure(answer)

    async def _refund_state(self, wire: str, paid: Mapping[str, str], amount_fen: int) -> Answer[RefundResult]:
        answer = await self._gateway.get(f"/v3/refund/domestic/refunds/{wire}", {})
        if isinstance(answer, Unknown):
            return answer
        if not answer.ok:
            return no_news(answer)
        return self._refunded(answer.fields, wire, paid, amount_fen)

    @staticmethod
    def _refunded(
        fields: Mapping[str, Any], wire: str, paid: Mapping[str, str], amount_fen: int
    ) -> Answer[RefundResult]:
        amount = fields.get("amount")
        if (
            fields.get("out_refund_no") != wire
            or any(fields.get(name) != value for name, value in paid.items())
            or not isinstance(amount, dict)
            or fen_of(amount, "refund") != amount_fen
        ):
            return Unknown("answer_mismatch")
        match fields.get("status"):
            case "SUCCESS":
                return Succeeded(RefundResult(str(fields.get("transaction_id", "")), amount_fen))
            case "PROCESSING":
                return Pending(WaitsFor.PROVIDER)
            case "CLOSED":
                return Failed(FailReason.REFUSED, "CLOSED")
            case "ABNORMAL":
                return Unknown("refund_abnormal")  # the customer's account is closed: the provider's page settles it
        return Unknown("answer_malformed")

    async def _reverse(self, number: str) -> Answer[CancelResult]:
        account = self._gateway.account
        path = f"/v3/pay/transactions/out-trade-no/{order_number(number)}/reverse"
        answer = await self._gateway.post(path, {"appid": account.appid, "mchid": account.mchid})
        if isinstance(answer, Unknown):
            return answer
        if not answer.ok:
            open_ = failure(answer)
            return _AGAIN if isinstance(open_, Pending) else open_
        state = await self._order_state(number)  # whether money had been taken, the answer does not tell
        if isinstance(state, Unknown) or not self._is_ours(state.fields, number):
            return _AGAIN
        if state.fields.get("trade_state") not in {"REVOKED", "CLOSED", "PAYERROR"}:
            return _AGAIN
        return REVERSED if state.fields.get("success_time") else CLOSED

    async def _refund_all(self, order: Mapping[str, Any], number: str) -> Answer[CancelResult]:
        amount = order.get("amount")
        total = fen_of(amount, "total") if isinstance(amount, dict) else None
        if not total:
            return Unknown("answer_mismatch")
        match await self._refund(
            cancel_number(number), {"out_trade_no": order_number(number)}, total, total, "cancelled"
        ):
            case Succeeded():
                return REVERSED
            case Pending():
                return _AGAIN
            case answer:
                return answer

    async def _bar(self, number: str) -> Answer[CancelResult]:
        """A number that the provider never saw is taken, and closed: what is still on its way then finds it closed."""
        opened = await self.precreate(number=number, amount_fen=1, subject="cancelled")
        if isinstance(opened, Pending):
            return await self.close(number=number)
        return CLOSED if opened == Failed(FailReason.CLOSED, "ORDER_CLOSED") else _AGAIN

    def _order(self, number: str, amount_fen: int, subject: str) -> dict[str, object]:
        if not subject:
            raise ValueError("an order needs a subject: the customer reads it on the phone")
        return {
            "appid": self._gateway.account.appid,
            "mchid": self._gateway.account.mchid,
            "description": subject[:DESCRIPTION_LENGTH_MAX],
            "out_trade_no": order_number(number),
            "attach": number,
            "amount": {"total": wire_fen(amount_fen), "currency": "CNY"},
        }
