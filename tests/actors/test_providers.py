"""Whose money it is: each tender goes to the provider that it names, is booked there, and comes back from there."""

from __future__ import annotations

from collections import Counter

from actors.ports import PaymentRequest, PayVerb
from models.domain.events import Confirm, ProviderAuth, Tender, TenderKind
from models.domain.messages import PaymentOutcome, SaleTender
from models.tables.facts import sale_transaction
from tests.actors.lane import Lane, buy, face_pay
from tests.actors.test_voiding import asked


def wechat(kind: TenderKind, fen: int) -> Tender:
    return Tender(kind, fen, ProviderAuth("wechat", "13"))


def test_tenders_of_two_providers_in_one_sale_are_booked_at_each() -> None:
    lane = Lane()
    lane.open()
    buy(lane, "tea", "roll")  # 18.53
    lane.later(Confirm(lane.session.rev, (wechat(TenderKind.QR, 353), face_pay(500), wechat(TenderKind.CODE, 1000))))
    requests = [lane.pay_answer(PaymentOutcome.SUCCEEDED, trade_no="t1")]
    requests.append(lane.pay_answer(PaymentOutcome.SUCCEEDED, trade_no="t2"))
    requests.append(lane.pay_answer(PaymentOutcome.SUCCEEDED, collection_code="https://pay/1"))
    lane.after(3)
    requests.append(lane.pay_answer(PaymentOutcome.SUCCEEDED, trade_no="t3"))
    assert [(one.verb, one.fen, one.provider) for one in requests] == [
        (PayVerb.PAY, 500, "alipay"),
        (PayVerb.PAY, 1000, "wechat"),
        (PayVerb.PRECREATE, 353, "wechat"),
        (PayVerb.QUERY, 353, "wechat"),
    ]
    (sale,) = lane.sales
    assert [one.provider for one in sale.tenders] == ["alipay", "wechat", "wechat"]
    booked: Counter[str] = Counter()
    for entry in sale_transaction(sale).entries:
        booked[entry.account] += entry.amount_fen
    assert (booked["provider_clearing:alipay"], booked["provider_clearing:wechat"]) == (500, 1353)


def test_a_provider_that_nobody_knows_is_refused() -> None:
    lane = Lane()
    lane.open()
    buy(lane, "tea")
    due = lane.screen.due_fen if lane.screen is not None else 0
    tender = Tender(TenderKind.CODE, due, ProviderAuth("bank", "1"))
    lane.refused(Confirm(lane.session.rev, (tender,)), "tender_unsupported")


def test_a_refund_goes_to_the_provider_that_took_it_and_to_the_first_where_none_was_named() -> None:
    for provider, expected in (("wechat", "wechat"), ("", "alipay")):
        lane = Lane()
        asked(lane, tenders=(SaleTender(TenderKind.CODE, 400, "P1", "trade", provider=provider),), uses=())
        _, request = lane.asked(PaymentRequest)
        assert (request.verb, request.order, request.provider) == (PayVerb.REFUND, "P1", expected)
