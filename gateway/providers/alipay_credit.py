"""Sesame Credit's light membership (芝麻GO): zhima.credit.pe.zmgo.* and zhima.merchant.zmgo.cumulate.sync.

The customer signs on the provider's page; nothing is frozen. Each use is told to the provider, which sums for itself;
after the expiry its notification brings `withhold_plan_no`, and the settlement must name the provider's own sums.
Source: opendocs.alipay.com, "芝麻GO"; fields as in the official SDK's ZhimaCreditPeZmgo* and ZhimaMerchantZmgo*.
"""

from __future__ import annotations

from datetime import datetime

from gateway.providers.alipay_calls import (
    SUCCESS,
    AlipayCalls,
    failure,
    fen_of,
    no_news,
    wire_amount,
    wire_subject,
    worded_number,
)
from gateway.providers.alipay_gateway import PROVIDER_ZONE
from gateway.providers.amounts import format_yuan
from gateway.providers.port import Guarantee, SyncAction
from models.domain.payments import (
    AgreementResult,
    AgreementState,
    Answer,
    CreditOutcome,
    CreditResult,
    CreditTotals,
    Failed,
    FailReason,
    PayResult,
    Pending,
    RefundResult,
    Succeeded,
    SyncResult,
    Unknown,
    WaitsFor,
)

_ACTIONS = {SyncAction.USE: "POSITIVE", SyncAction.REVERSAL: "REVERSE"}
_STATES = {"Y": AgreementState.ACTIVE, "P": AgreementState.EXPIRED, "N": AgreementState.ENDED}
SIGN_TIMEOUT = "15m"


class AlipayCredits(AlipayCalls):
    """See `Credits` for the promises of each method. Without a template the product is not this merchant's."""

    async def consult_credit(
        self, *, number: str, guarantee: Guarantee, fee_fen: int, payer: str | None = None
    ) -> Answer[CreditResult]:
        worded_number(number)
        format_yuan(fee_fen)
        if guarantee is Guarantee.HUABEI_HOLD:
            # A hold asks nobody's opinion beforehand: the freeze itself is the answer.
            return Succeeded(CreditResult(CreditOutcome.HOLD_NEEDED))
        if guarantee is not Guarantee.SESAME_CREDIT or not self._template:
            return Failed(FailReason.GUARANTEE_UNAVAILABLE, guarantee.value)
        if payer is None:
            return Succeeded(CreditResult(CreditOutcome.ADMITTED))
        who = "alipay_user_id" if payer.startswith("2088") else "phone"
        answer = await self._gateway.call("zhima.credit.pe.zmgo.pre.consult", self._merchant() | {who: payer})
        if isinstance(answer, Unknown):
            return answer
        if answer.code != SUCCESS:
            return no_news(answer)
        admitted = answer.fields.get("admittance")
        if not isinstance(admitted, bool):
            return Unknown("answer_mismatch")
        return Succeeded(CreditResult(CreditOutcome.ADMITTED if admitted else CreditOutcome.REFUSED))

    async def sign_credit(self, *, number: str, fee_fen: int, subject: str) -> Answer[AgreementResult]:
        wire_amount(fee_fen)
        wire_subject(subject)
        if not self._template:
            return Failed(FailReason.GUARANTEE_UNAVAILABLE, Guarantee.SESAME_CREDIT.value)
        biz = self._merchant() | {
            "out_request_no": worded_number(number),
            "channel": "channel_external",
            "timeout_express": SIGN_TIMEOUT,
        }
        return Pending(WaitsFor.PAYER_SCANS, self._gateway.signed_url("zhima.credit.pe.zmgo.sign.apply", biz))

    async def query_credit(self, *, number: str, agreement_no: str = "") -> Answer[AgreementResult]:
        worded_number(number)
        if not agreement_no:
            return Unknown("agreement_no_needed")  # it comes with the notification of the signing
        answer = await self._gateway.call(
            "zhima.credit.pe.zmgo.agreement.query",
            {"agreement_id": agreement_no, "partner_id": self._gateway.account.seller_id},
        )
        if isinstance(answer, Unknown):
            return answer
        if answer.code != SUCCESS:
            return no_news(answer)
        payer, state = answer.fields.get("alipay_user_id"), _STATES.get(str(answer.fields.get("agreement_status")))
        if answer.fields.get("agreement_id") != agreement_no or not isinstance(payer, str) or state is None:
            return Unknown("answer_mismatch")
        return Succeeded(AgreementResult(agreement_no, payer, state))

    async def sync_use(
        self,
        *,
        number: str,
        agreement_no: str,
        payer: str,
        action: SyncAction,
        totals: CreditTotals,
        at: datetime,
        reverses: str = "",
    ) -> Answer[SyncResult]:
        if (action is SyncAction.REVERSAL) != bool(reverses):
            raise ValueError("a reversal names the use that it reverses, a use names none")
        biz: dict[str, object] = {
            "agreement_id": agreement_no,
            "user_id": payer,
            "provider_pid": self._gateway.account.seller_id,
            "out_biz_no": worded_number(number),
            "biz_action": _ACTIONS[action],
            "sub_biz_action": "ADD",
            "biz_time": at.astimezone(PROVIDER_ZONE).strftime("%Y-%m-%d %H:%M:%S"),
            "data_type": "TASK",
            "times_type_sync_data": {
                "discount_amount": format_yuan(totals.discount_fen),
                "task_amount": format_yuan(totals.paid_fen),
                "task_times": totals.tasks,
            },
        }
        if reverses:
            biz["refer_out_biz_no"] = worded_number(reverses)
        answer = await self._gateway.call("zhima.merchant.zmgo.cumulate.sync", biz)
        if isinstance(answer, Unknown):
            return answer
        if answer.code != SUCCESS:
            return failure(answer)
        if answer.fields.get("agreement_id") != agreement_no or answer.fields.get("out_biz_no") != biz["out_biz_no"]:
            return Unknown("answer_mismatch")
        return Succeeded(SyncResult(agreement_no))

    async def settle_credit(
        self, *, number: str, agreement_no: str, payer: str, settlement_no: str, amount_fen: int, totals: CreditTotals
    ) -> Answer[PayResult]:
        biz = self._agreement(number, agreement_no, payer, settlement_no) | {
            "action_type": "DEFAULT_SETTLE",
            "pay_amount": wire_amount(amount_fen),
            "total_discount_amount": format_yuan(totals.discount_fen),
            "total_real_pay_amount": format_yuan(totals.paid_fen),
            "total_task_count": str(totals.tasks),
        }
        answer = await self._gateway.call("zhima.credit.pe.zmgo.settle.apply", biz)
        if isinstance(answer, Unknown):
            return answer
        if answer.code != SUCCESS:
            return failure(answer)
        fields = answer.fields
        if any(fields.get(name) != biz[name] for name in ("agreement_id", "out_request_no", "withhold_plan_no")):
            return Unknown("answer_mismatch")
        match fields.get("settle_status"):
            case "Y":
                return Succeeded(PayResult(amount_fen, amount_fen, amount_fen, amount_fen, (), settlement_no))
            case "P":
                return Pending(WaitsFor.PROVIDER)
            case "N" if fields.get("fail_reason") in {"BUYER_BALANCE_NOT_ENOUGH", "PAYER_BALANCE_NOT_ENOUGH"}:
                return Failed(FailReason.NOT_ENOUGH_FUNDS, str(fields["fail_reason"]))
            case "N":
                return Failed(FailReason.RECORDS_DIFFER, str(fields.get("fail_reason", "")))
        return Unknown("answer_malformed")

    async def refund_credit(
        self, *, number: str, agreement_no: str, payer: str, settlement_no: str, amount_fen: int, reason: str
    ) -> Answer[RefundResult]:
        biz = self._agreement(number, agreement_no, payer, settlement_no) | {
            "refund_amount": wire_amount(amount_fen),
            "refund_type": "MEMBER_FEE_REFUND",
            "memo": reason[:128],
        }
        answer = await self._gateway.call("zhima.credit.pe.zmgo.settle.refund", biz)
        if isinstance(answer, Unknown):
            return answer
        if answer.code != SUCCESS:
            return failure(answer)
        fields = answer.fields
        if fields.get("retry") is True:
            return Unknown("refund_must_be_repeated")
        if (
            fields.get("out_request_no") != biz["out_request_no"]
            or fields.get("withhold_plan_no") != settlement_no
            or fen_of(fields, "refund_amount") != amount_fen
            or not isinstance(fields.get("refund_opt_no"), str)
        ):
            return Unknown("answer_mismatch")
        return Succeeded(RefundResult(str(fields["refund_opt_no"]), amount_fen))

    @property
    def _template(self) -> str:
        return self._gateway.account.credit_template

    def _merchant(self) -> dict[str, object]:
        return {"partner_id": self._gateway.account.seller_id, "template_id": self._template}

    def _agreement(self, number: str, agreement_no: str, payer: str, settlement_no: str) -> dict[str, object]:
        return {
            "agreement_id": agreement_no,
            "alipay_user_id": payer,
            "out_request_no": worded_number(number),
            "partner_id": self._gateway.account.seller_id,
            "withhold_plan_no": settlement_no,
        }
