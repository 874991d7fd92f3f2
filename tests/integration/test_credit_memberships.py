"""Credit memberships over PostgreSQL and the provider simulator over HTTP, its notifications at our door."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from actors.settlement_items import Action
from gateway.providers.port import PaymentProvider
from gateway.providers.signing import public_key_pem
from models.domain.errors import Refused
from models.domain.ids import LegalEntityId, MembershipId
from models.domain.membership import HOLD_TIMEOUT
from models.domain.messages import EnrolAnswered, SaleUse
from models.domain.payments import Answer, PayResult, SyncResult, Unknown
from runtime.late_money import LateMoney
from runtime.memberships import Memberships
from runtime.plant import MerchantAccount, Plant
from runtime.provider_desk import ProvidersOfAHouse
from runtime.settlement_desk import SettlementDesk
from tests.gateway.providers.conftest import KEY, serve_in_thread
from tests.integration.money_shop import (
    CHAIN,
    FRANCHISED,
    PEPPER,
    REGION,
    Overheard,
    RunningSimulator,
    Shop,
    open_shop,
    running_simulator,
)
from tests.integration.test_membership_life import LATER, plan, row

SYNC, APPLY = "zhima.merchant.zmgo.cumulate.sync", "zhima.credit.pe.zmgo.settle.apply"
WAIT_S = 30.0


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSimulator]:
    with running_simulator(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture
async def shop(migrated_database_url: str, simulator: RunningSimulator) -> AsyncIterator[Shop]:
    async with open_shop(migrated_database_url, simulator) as shop, listening(shop, migrated_database_url):
        yield shop


@asynccontextmanager
async def listening(shop: Shop, database_url: str) -> AsyncIterator[None]:
    """The house's door for notifications, on a socket of its own; the merchant account is told there."""
    seller = f"2088{shop.app[4:]}"
    desks: list[ProvidersOfAHouse] = []

    async def door(scope: Any, receive: Any, send: Any) -> None:
        while scope["type"] == "lifespan":
            event = (await receive())["type"]
            if event == "lifespan.shutdown":
                await desks[0].aclose()  # its pool belongs to the server's loop
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return
        body = (await receive())["body"]
        said = await desks[0].receive("alipay", {}, body)
        assert isinstance(said, bytes), said
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": said})

    server, thread, url = serve_in_thread(door)
    pem = await shop.admin.register_app(
        app_id=shop.app, seller_id=seller, public_key_pem=public_key_pem(KEY.public_key()), notify_url=f"{url}/notify"
    )
    account = MerchantAccount(LegalEntityId("chain"), shop.app, seller, "", pem)
    desks.append(ProvidersOfAHouse([Plant(Path("/"), database_url=database_url, accounts=(account,))], now=shop.clock))
    try:
        yield
    finally:
        server.should_exit = True
        await asyncio.to_thread(thread.join, 10)


async def told(shop: Shop, count: int) -> None:
    """Until the house has heard of so many agreements, signed or over."""
    deadline = time.monotonic() + WAIT_S
    while await shop.one("SELECT count(*) FROM provider_notice WHERE kind = 'agreement'") < count:
        assert time.monotonic() < deadline, "nobody told us"
        await asyncio.sleep(0.02)


async def asked(shop: Shop, name: str = "lin", **changes: Any) -> tuple[str, EnrolAnswered]:
    """An application that the provider admits: the ask's id, and the answer with the code to scan."""
    light = await plan(shop, guarantees=["sesame_credit"], **changes)
    request = await shop.enrol_request(
        name, plan=light, guarantee="sesame_credit", phone=f"138{uuid.uuid4().int % 10**8:08d}"
    )
    ask = str(uuid.uuid4())
    answer = await shop.ask(request, ask)
    assert isinstance(answer, EnrolAnswered)
    again = await shop.ask(request, ask, 1)
    assert isinstance(again, EnrolAnswered)
    assert replace(again, code_text="") == replace(answer, code_text="")
    assert page(again.code_text) == page(answer.code_text), "the same page"
    return ask, answer


def page(address: str) -> dict[str, list[str]]:
    """What the provider is asked to show, without the second in which it was signed."""
    told = parse_qs(urlsplit(address).query, strict_parsing=True)
    assert told.pop("timestamp")
    assert told.pop("sign")
    return told


async def signed(shop: Shop, name: str = "lin", **changes: Any) -> MembershipId:
    """A membership that the member signed for."""
    ask, answer = await asked(shop, name, **changes)
    assert answer.pending
    before = await shop.one("SELECT count(*) FROM provider_notice WHERE kind = 'agreement'")
    await shop.admin.sign_credit(shop.customer(name), await shop.admin.open(answer.code_text))
    await told(shop, before + 1)
    [resolved] = await shop.memberships.sweep(CHAIN, REGION)
    assert resolved.answer.member is not None
    return MembershipId(await shop.one("SELECT id FROM membership WHERE enrol_key = %s", ask))


async def over(shop: Shop, membership: MembershipId) -> None:
    """The provider says that the agreement's time is over."""
    before = await shop.one("SELECT count(*) FROM provider_notice WHERE kind = 'agreement'")
    agreement_no = await shop.one("SELECT agreement_no FROM credit_agreement WHERE membership = %s", membership)
    await shop.admin.lapse_credit(agreement_no)
    await told(shop, before + 1)
    await shop.memberships.sweep(CHAIN, REGION)


async def records(shop: Shop, membership: MembershipId) -> list[tuple[Any, ...]]:
    return await shop.rows(
        "SELECT reverses <> '', discount_fen, paid_fen, tasks, state FROM credit_use WHERE membership = %s ORDER BY n",
        membership,
    )


async def test_a_credit_is_signed_told_of_its_uses_and_collected_and_refunded(shop: Shop) -> None:
    membership = await signed(shop)
    assert await row(shop, membership, "state", "hold_state") == ("ACTIVE", "none")
    first = await shop.use_coupon(membership, store=FRANCHISED, fen=500)
    second = await shop.use_coupon(membership, fen=300)
    await shop.reverse(SaleUse(first.usage, membership, first.benefit, 200))  # a part, then the rest of another
    await shop.reverse(second)
    await shop.memberships.sweep(CHAIN, REGION)
    assert await records(shop, membership) == [
        (False, 500, 1200, 1, "done"),
        (False, 300, 1200, 1, "done"),
        (True, 200, 0, 0, "done"),
        (True, 300, 1200, 1, "done"),
    ]
    await over(shop, membership)
    await shop.settle_after(LATER)
    assert await row(shop, membership, "state", "charge_fen", "branch", "paid_fen") == ("CLOSED", 300, "CLAWBACK", 300)
    assert await shop.account("north", f"discount_given:{FRANCHISED}") == 0
    await shop.reverse(SaleUse(first.usage, membership, first.benefit, 100))
    assert len(await records(shop, membership)) == 4, "after the charge is fixed the provider is told nothing"
    await shop.settle_after(0)
    assert await row(shop, membership, "paid_fen", "refunded_fen") == (200, 100)
    assert (await shop.provider_net())["net_fen"] == 200


async def test_only_what_counts_is_told_and_each_sale_counts_once(shop: Shop) -> None:
    membership = await signed(shop)
    pair = (shop.use(membership, 800), shop.use(membership, 100))
    await shop.ask(shop.post_request(*pair, unreserved=True))
    made_up = shop.use(membership, 900)  # more than the benefit is worth: OVERUSE
    await shop.ask(shop.post_request(made_up, unreserved=True))
    back_first = shop.use(membership, 400)
    await shop.reverse(SaleUse(back_first.usage, membership, back_first.benefit, 150))  # it comes before its use
    await shop.ask(shop.post_request(back_first, unreserved=True))
    await shop.memberships.sweep(CHAIN, REGION)
    assert await records(shop, membership) == [
        (False, 800, 1200, 1, "done"),
        (False, 100, 0, 1, "done"),
        (False, 400, 1200, 1, "done"),
        (True, 150, 0, 0, "done"),
    ]
    await over(shop, membership)
    await shop.settle_after(LATER)
    assert await row(shop, membership, "state", "charge_fen", "paid_fen") == ("CLOSED", 1000, 1000)


async def test_nothing_used_asks_nobody(shop: Shop) -> None:
    membership = await signed(shop)
    use = await shop.use_coupon(membership)
    await shop.reverse(use)
    await shop.memberships.sweep(CHAIN, REGION)
    overheard = Overheard(shop.provider)
    await shop.settle_after(LATER, providers=lambda *_: overheard)
    assert await row(shop, membership, "state", "charge_fen") == ("CLOSED", 0)
    assert overheard.calls == []


class Deaf:
    """The real provider; the first answers to some calls are lost after their effect."""

    def __init__(self, provider: PaymentProvider, **lost: int) -> None:
        self._provider = provider
        self._lost = lost

    def __getattr__(self, name: str) -> Any:
        return getattr(self._provider, name)

    def _hears(self, name: str) -> bool:
        self._lost[name] = self._lost.get(name, 0) - 1
        return self._lost[name] < 0

    async def sync_use(self, **request: Any) -> Answer[SyncResult]:
        answer = await self._provider.sync_use(**request)
        return answer if self._hears("sync_use") else Unknown("lost")

    async def settle_credit(self, **request: Any) -> Answer[PayResult]:
        answer = await self._provider.settle_credit(**request)
        return answer if self._hears("settle_credit") else Unknown("lost")


async def test_a_lost_answer_is_asked_for_again_under_its_number_and_the_cutoff_waits(shop: Shop) -> None:
    membership = await signed(shop)
    provider = Deaf(shop.provider, sync_use=1, settle_credit=1)
    shop.memberships = Memberships(shop.pool, lambda *_: provider, pepper=PEPPER, wall=shop.clock)
    await shop.use_coupon(membership)
    await over(shop, membership)
    assert [state for *_, state in await records(shop, membership)] == ["open"]
    report = await shop.settle_after(LATER, providers=lambda *_: provider)
    assert (report.reserved, report.cut_off) == (1, 0)
    assert await row(shop, membership, "state", "charge_fen") == ("EXPIRED", None)
    await shop.memberships.sweep(CHAIN, REGION)
    await shop.settle_after(0, providers=lambda *_: provider)
    [state] = await row(shop, membership, "state")
    assert state in {"UNKNOWN", "CLOSED"}, "closed already where the notification was quicker than the run's end"
    await shop.settle_after(1, providers=lambda *_: provider)
    assert await row(shop, membership, "state", "paid_fen") == ("CLOSED", 800)
    assert (await shop.provider_net())["net_fen"] == 800


async def test_a_settlement_waits_for_its_number_and_for_records_that_agree(shop: Shop) -> None:
    waits, differs = await signed(shop, "a"), await signed(shop, "b")
    for membership in (waits, differs):
        await shop.use_coupon(membership)
    await shop.memberships.sweep(CHAIN, REGION)
    await shop.rows("UPDATE credit_use SET discount_fen = 700 WHERE membership = %s RETURNING 1", differs)
    await over(shop, differs)
    await shop.settle_after(LATER - 8)
    assert await row(shop, waits, "state") == ("UNKNOWN",), "no number yet"
    state, why = await row(shop, differs, "state", "parked_why")
    assert state == "PARKED"
    assert "ours: 7.00 12.00 1" in why
    assert "8.00 12.00 1" in why, "and the provider's figures"
    await shop.rows("UPDATE credit_use SET discount_fen = 800 WHERE membership = %s RETURNING 1", differs)
    desk = SettlementDesk(CHAIN, REGION, shop.pool, shop.clock)
    assert await desk.resolve(differs, Action.RETRY, "put right", "test") == "UNKNOWN"
    await shop.settle_after(0)
    assert await row(shop, differs, "state", "paid_fen") == ("CLOSED", 800)
    await over(shop, waits)
    await shop.settle_after(1)
    assert await row(shop, waits, "state", "paid_fen") == ("CLOSED", 800)
    never = await signed(shop, "c")
    await shop.use_coupon(never)
    await shop.memberships.sweep(CHAIN, REGION)
    await shop.settle_after(LATER)
    await shop.settle_after(4)
    state, why = await row(shop, never, "state", "parked_why")
    assert state == "PARKED"
    assert "no notification" in why


async def test_a_use_that_the_provider_will_not_take_parks_its_membership_at_the_end(shop: Shop) -> None:
    membership, given_up = [await signed(shop, name) for name in ("a", "b")]
    await shop.admin.add_fault(SYNC, "fail", sub_code="AGREEMENT_INVALID", times=40)
    await shop.use_coupon(membership)
    await shop.use_coupon(given_up, store=FRANCHISED)
    for _ in range(9):
        await shop.memberships.sweep(CHAIN, REGION)
        shop.clock.now += timedelta(minutes=11)
    assert [state for *_, state in await records(shop, membership)] == ["failed"]
    assert await row(shop, membership, "state") == ("ACTIVE",), "it is of use until its end"
    await shop.settle_after(LATER)
    await shop.memberships.sweep(CHAIN, REGION)
    state, why = await row(shop, membership, "state", "parked_why")
    assert state == "PARKED"
    assert "AGREEMENT_INVALID" in why
    await shop.admin.clear_faults()
    desk = SettlementDesk(CHAIN, REGION, shop.pool, shop.clock)
    assert await desk.resolve(membership, Action.RETRY, "they take it again", "test") == "EXPIRED"
    with pytest.raises(Refused, match="owes"):
        await desk.resolve(given_up, Action.CLOSE, "the member is gone", "test")
    assert await desk.resolve(given_up, Action.WRITE_OFF, "the member is gone", "test") == "WRITTEN_OFF"
    assert await row(shop, given_up, "charge_fen", "branch", "paid_fen") == (800, "CLAWBACK", 0)
    assert await shop.account("north", f"discount_given:{FRANCHISED}") == 0, "the store gets what it gave all the same"
    assert await shop.account("chain", "bad_debt") == 800
    await shop.memberships.sweep(CHAIN, REGION)
    await over(shop, membership)
    report = await desk.run(shop.runner(), shop.clock.now, "test")
    assert report.ok, "the totals know what a person wrote off"
    assert await row(shop, membership, "state", "paid_fen") == ("CLOSED", 800)


async def test_who_does_not_sign_in_time_is_no_member_and_one_without_credit_is_refused(shop: Shop) -> None:
    _, answer = await asked(shop)
    assert answer.pending
    shop.clock.now += HOLD_TIMEOUT
    [ended] = await shop.memberships.sweep(CHAIN, REGION)
    assert ended.answer.code == "enrol_refused"
    await shop.admin.sign_credit(shop.customer(), await shop.admin.open(answer.code_text))
    await told(shop, 1)
    await shop.memberships.sweep(CHAIN, REGION)
    assert await shop.one("SELECT state FROM membership") == "ABANDONED", "too late: nothing is used, nothing owed"


async def test_a_charge_without_an_answer_is_asked_about_and_never_made_when_nobody_waits_for_it(shop: Shop) -> None:
    both = [await signed(shop, name) for name in ("a", "b")]
    for membership in both:
        await shop.use_coupon(membership)
        await shop.memberships.sweep(CHAIN, REGION)
        await over(shop, membership)
    await shop.admin.add_fault(APPLY, "pending", times=2)
    await shop.settle_after(LATER)
    await shop.rows("UPDATE membership SET state = 'DUNNING' WHERE state = 'UNKNOWN' RETURNING id")
    overheard: Any = Overheard(shop.provider)
    late = LateMoney(shop.pool, lambda *_: overheard, wall=shop.clock)
    shop.clock.now += timedelta(minutes=10)
    assert await late.sweep(CHAIN, REGION) == 0
    assert overheard.calls == ["query_credit", "query_credit"], "asking for the money may take it"
    await shop.admin.pay_code(shop.customer("a"), trade_no=await shop.trade_no())
    shop.clock.now += timedelta(minutes=10)
    assert [await late.sweep(CHAIN, REGION) for _ in range(2)] == [1, 0]
    await shop.settle_after(0)
    states = "SELECT state, paid_fen FROM membership ORDER BY paid_fen"
    assert await shop.rows(states) == [("DUNNING", 0), ("CLOSED", 800)]
    shop.clock.now += timedelta(days=31)
    assert await late.sweep(CHAIN, REGION) == 0
    answers = "SELECT state, answer->>'answer' FROM settlement_call ORDER BY 2"
    assert await shop.rows(answers) == [("POSTED", "failed"), ("POSTED", "succeeded")], "a month is a no"
    assert (await shop.provider_net())["net_fen"] == 800
