"""WeChat's pay score as the port's hold: a service order that the customer confirms, and that is completed once.

Nothing is frozen: `risk_fund` is what the provider vouches for. `complete` names the sum, which the provider collects
until it has it; `cancel` ends the order without one. So a hold is captured once and whole, or released whole. Source:
pay.weixin.qq.com, "微信支付分(需确认模式)", /v3/payscore/serviceorder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from gateway.providers.port import Guarantee, Scene
from gateway.providers.wechat_calls import (
    WechatCalls,
    failure,
    fen_of,
    no_news,
    order_number,
    wire_fen,
)
from gateway.providers.wechat_gateway import WechatAnswer
from models.domain.payments import (
    Answer,
    CancelAction,
    CancelResult,
    CreditOutcome,
    CreditResult,
    Failed,
    FailReason,
    HoldResult,
    PayResult,
    Pending,
    ReleaseResult,
    Succeeded,
    Unknown,
    WaitsFor,
)

PATH = "/v3/payscore/serviceorder"
INTRODUCTION_LENGTH_MAX, TAG_LENGTH = 20, 30
RISK_NAME = "ESTIMATE_ORDER_COST"
_BARRED_FEN = 1


class WechatServiceOrders(WechatCalls):
    """See `Holds` for the promises of each method. Without a service the product is not this merchant's."""

    async def consult_credit(
        self,
        *,
        number: str,
        guarantee: Guarantee,
        fee_fen: int,
        payer: str | None = None,  # noqa: ARG002 - the order's confirmation is the answer
    ) -> Answer[CreditResult]:
        order_number(number)
        wire_fen(fee_fen)
        if guarantee is Guarantee.PAY_SCORE and self._gateway.account.service_id:
            return Succeeded(CreditResult(CreditOutcome.HOLD_NEEDED))
        return Failed(FailReason.GUARANTEE_UNAVAILABLE, guarantee.value)

    async def freeze(
        self,
        *,
        number: str,
        amount_fen: int,
        subject: str,
        auth_code: str | None = None,  # noqa: ARG002 - a code pays; a service order is confirmed on the phone
        scene: Scene = Scene.PAYMENT_CODE,  # noqa: ARG002
    ) -> Answer[HoldResult]:
        if not self._gateway.account.service_id:
            return Failed(FailReason.GUARANTEE_UNAVAILABLE, Guarantee.PAY_SCORE.value)
        answer = await self._gateway.post(PATH, self._opening(number, amount_fen, subject))
        if isinstance(answer, Unknown):
            return answer
        if not answer.ok:
            known = await self.query_freeze(number=number, amount_fen=amount_fen)
            return failure(answer) if isinstance(known, Unknown) and known.absent else known
        package = answer.fields.get("package")
        if answer.fields.get("state") == "CREATED" and isinstance(package, str):
            if not self._is_my_order(answer.fields, order_number(number)):
                return Unknown("answer_mismatch")
            return Pending(WaitsFor.PAYER_SCANS, f"{self._gateway.account.confirm_url}{package}")
        return self._hold(answer.fields, number, amount_fen)

    async def query_freeze(self, *, number: str, amount_fen: int) -> Answer[HoldResult]:
        wire_fen(amount_fen)
        answer = await self._service_order(order_number(number))
        if isinstance(answer, Unknown):
            return answer
        return self._hold(answer.fields, number, amount_fen) if answer.ok else no_news(answer)

    async def cancel_freeze(self, *, number: str) -> Answer[CancelResult]:
        hold_no = order_number(number)
        answer = await self._service_order(hold_no)
        if isinstance(answer, Unknown):
            return answer
        if not answer.ok and not no_news(answer).absent:
            return no_news(answer)
        if not answer.ok:  # never seen: taken, and ended, so that what is on its way finds it over
            opened = await self.freeze(number=number, amount_fen=_BARRED_FEN, subject="cancelled")
            if not isinstance(opened, Pending):
                return Unknown("cancel_must_be_repeated")
            return await self._end(hold_no, CancelAction.CLOSED)
        confirmed = CancelAction.REVERSED if answer.fields.get("openid") else CancelAction.CLOSED
        match answer.fields.get("state"):
            case "CREATED" | "DOING":
                return await self._end(hold_no, confirmed)
            case "REVOKED" | "EXPIRED":
                return Succeeded(CancelResult(confirmed))
            case "DONE":
                return Failed(FailReason.REFUSED, "DONE")
        return Unknown("answer_malformed")

    async def capture(
        self, *, number: str, hold_no: str, amount_fen: int, subject: str, complete: bool = True
    ) -> Answer[PayResult]:
        tag = _tag(number)
        wire_fen(amount_fen)
        if not complete:
            return Failed(FailReason.REFUSED, "captured_once")
        known = await self._service_order(hold_no)
        if isinstance(known, Unknown) or not known.ok:
            return _no_hold(known)
        if known.fields.get("state") != "DOING":
            return self._collected(known.fields, hold_no, tag, amount_fen)
        if amount_fen > (_risk_fen(known.fields) or 0):
            return Failed(FailReason.HOLD_EXHAUSTED, "risk_fund")
        account = self._gateway.account
        body = {
            "appid": account.appid,
            "service_id": account.service_id,
            "post_payments": [{"name": subject[:INTRODUCTION_LENGTH_MAX], "description": tag, "amount": amount_fen}],
            "total_amount": amount_fen,
        }
        answer = await self._gateway.post(f"{PATH}/{hold_no}/complete", body)
        if isinstance(answer, Unknown):
            return answer
        if answer.ok:
            return self._collected(answer.fields, hold_no, tag, amount_fen)
        again = await self._service_order(hold_no)  # completed by another, a moment ago?
        if isinstance(again, Unknown) or not again.ok or again.fields.get("state") == "DOING":
            return failure(answer)
        return self._collected(again.fields, hold_no, tag, amount_fen)

    async def unfreeze(self, *, number: str, hold_no: str, amount_fen: int, remark: str) -> Answer[ReleaseResult]:
        order_number(number)
        wire_fen(amount_fen)
        known = await self._service_order(hold_no)
        if isinstance(known, Unknown) or not known.ok:
            return _no_hold(known)
        whole = _risk_fen(known.fields)
        if known.fields.get("state") == "REVOKED" and amount_fen == whole:
            return Succeeded(ReleaseResult(hold_no, amount_fen))
        if known.fields.get("state") != "DOING":
            return Failed(FailReason.HOLD_GONE, str(known.fields.get("state")))
        if amount_fen != whole:
            above = amount_fen > (whole or 0)
            return Failed(FailReason.HOLD_EXHAUSTED if above else FailReason.REFUSED, "released_whole")
        ended = await self._end(hold_no, CancelAction.REVERSED, remark)
        return Succeeded(ReleaseResult(hold_no, amount_fen)) if isinstance(ended, Succeeded) else ended

    async def query_unfreeze(self, *, number: str, hold_no: str, amount_fen: int) -> Answer[ReleaseResult]:
        order_number(number)
        wire_fen(amount_fen)
        known = await self._service_order(hold_no)
        if isinstance(known, Unknown):
            return known
        if not known.ok:
            return no_news(known)
        if known.fields.get("state") == "REVOKED" and _risk_fen(known.fields) == amount_fen:
            return Succeeded(ReleaseResult(hold_no, amount_fen))
        return Unknown("not_found", absent=True)

    async def _service_order(self, hold_no: str) -> WechatAnswer | Unknown:
        account = self._gateway.account
        query = {"service_id": account.service_id, "out_order_no": hold_no, "appid": account.appid}
        answer = await self._gateway.get(PATH, query)
        if isinstance(answer, WechatAnswer) and answer.ok and not self._is_my_order(answer.fields, hold_no):
            return Unknown("answer_mismatch")
        return answer

    def _is_my_order(self, fields: Mapping[str, Any], hold_no: str) -> bool:
        account = self._gateway.account
        named = tuple(fields.get(name) for name in ("mchid", "appid", "service_id", "out_order_no"))
        return named == (account.mchid, account.appid, account.service_id, hold_no)

    async def _end(self, hold_no: str, action: CancelAction, reason: str = "cancelled") -> Answer[CancelResult]:
        account = self._gateway.account
        body = {"appid": account.appid, "service_id": account.service_id, "reason": reason[:TAG_LENGTH]}
        answer = await self._gateway.post(f"{PATH}/{hold_no}/cancel", body)
        if isinstance(answer, Unknown):
            return answer
        return Succeeded(CancelResult(action)) if answer.ok else failure(answer)

    def _hold(self, fields: Mapping[str, Any], number: str, amount_fen: int) -> Answer[HoldResult]:
        hold_no, state = order_number(number), fields.get("state")
        if not self._is_my_order(fields, hold_no):
            return Unknown("answer_mismatch")
        if state in {"REVOKED", "EXPIRED"}:
            return Failed(FailReason.CLOSED, str(state))
        if _risk_fen(fields) != amount_fen:
            return Unknown("answer_mismatch")
        match state:
            case "CREATED":
                return Pending(WaitsFor.PAYER_CONFIRMS)
            case "DOING":
                return Succeeded(HoldResult(hold_no, amount_fen, amount_fen))
            case "DONE":
                return Succeeded(HoldResult(hold_no, amount_fen, 0))
        return Unknown("answer_malformed")

    def _collected(self, fields: Mapping[str, Any], hold_no: str, tag: str, amount_fen: int) -> Answer[PayResult]:
        """What became of a completed order: collected, or still being collected. It never fails for good."""
        payments = fields.get("post_payments")
        payment = payments[0] if isinstance(payments, list) and payments and isinstance(payments[0], dict) else {}
        if fields.get("state") in {"CREATED", "REVOKED", "EXPIRED"}:
            return Failed(FailReason.HOLD_GONE, str(fields["state"]))
        if fields.get("state") == "DONE" and payment.get("description") != tag:
            return Failed(FailReason.HOLD_GONE, "DONE")
        if not self._is_my_order(fields, hold_no) or fields.get("total_amount") != amount_fen:
            return Unknown("answer_mismatch")
        return self._payment_of(fields, amount_fen)

    def _payment_of(self, fields: Mapping[str, Any], amount_fen: int) -> Answer[PayResult]:
        collection = fields.get("collection")
        if not isinstance(collection, dict) or collection.get("state") != "USER_PAID":
            return Pending(WaitsFor.PROVIDER)
        details = collection.get("details")
        detail = details[0] if isinstance(details, list) and details and isinstance(details[0], dict) else {}
        trade_no = detail.get("transaction_id")
        if fen_of(collection, "paid_amount") != amount_fen or not isinstance(trade_no, str):
            return Unknown("answer_mismatch")
        return Succeeded(PayResult(amount_fen, amount_fen, amount_fen, amount_fen, (), trade_no))

    async def _collection_of(self, number: str) -> PayResult | Failed | Unknown:
        """What the service order of this hold collected."""
        if not self._gateway.account.service_id:
            return Failed(FailReason.ORDER_UNKNOWN, "no_service")
        known = await self._service_order(order_number(number))
        if isinstance(known, Unknown) or not known.ok:
            return _no_hold(known)
        paid = self._payment_of(known.fields, fen_of(known.fields, "total_amount", 0) or 0)
        if isinstance(paid, Succeeded):
            return paid.result
        return paid if isinstance(paid, Unknown) else Failed(FailReason.REFUSED, "not_collected")

    def _opening(self, number: str, amount_fen: int, subject: str) -> dict[str, object]:
        if not subject:
            raise ValueError("an order needs a subject: the customer reads it on the phone")
        account = self._gateway.account
        return {
            "out_order_no": order_number(number),
            "appid": account.appid,
            "service_id": account.service_id,
            "service_introduction": subject[:INTRODUCTION_LENGTH_MAX],
            "risk_fund": {"name": RISK_NAME, "amount": wire_fen(amount_fen)},
            "time_range": {"start_time": "OnAccept"},
            "need_user_confirm": True,
            "attach": number,
            "notify_url": account.notify_url,
        }


def _no_hold(answer: WechatAnswer | Unknown) -> Failed | Unknown:
    if isinstance(answer, Unknown):
        return answer
    news = no_news(answer)
    return Failed(FailReason.ORDER_UNKNOWN, answer.code) if news.absent else news


def _risk_fen(fields: Mapping[str, Any]) -> int | None:
    risk = fields.get("risk_fund")
    return fen_of(risk, "amount") if isinstance(risk, dict) else None


def _tag(number: str) -> str:
    """A capture's number where the order keeps it: a completion has no number of its own."""
    order_number(number)
    return number if len(number) <= TAG_LENGTH else hashlib.sha256(number.encode()).hexdigest()[:TAG_LENGTH]
