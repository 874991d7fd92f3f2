"""Memberships secured by the member's own money: reserved in the balance, or left as cash; and by WeChat Pay."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.providers.port import PaymentProvider
from gateway.providers.wechat import WechatProvider
from gateway.providers.wechat_gateway import WechatGateway
from models.domain.errors import Refused
from models.domain.ids import LegalEntityId, MemberId, MembershipId, PlanId, TerminalId
from models.domain.member_balance import CounterMove, MoneyWay
from models.domain.membership_actions import Asked
from models.domain.messages import EnrolAnswered
from models.domain.payments import Succeeded
from models.tables.member_money import require_settled
from models.tables.plans import save_plan
from runtime.drawers import DrawersOfADatabase
from runtime.memberships import Memberships
from runtime.stored_value import StoredValue
from tests.gateway.providers.conftest import open_wechat
from tests.integration.money_shop import (
    CHAIN,
    FRANCHISED,
    OWN,
    PEPPER,
    PLAN,
    REGION,
    START,
    RunningSimulator,
    Shop,
    open_shop,
    running_simulator,
)

ANNA = MemberId("anna")
BOTH = {**PLAN, "id": "own-10", "guarantees": ["sesame_credit", "balance_hold", "cash_deposit"], "rule": "FEE_MIN"}


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSimulator]:
    with running_simulator(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture
async def shop(migrated_database_url: str, simulator: RunningSimulator) -> AsyncIterator[Shop]:
    async with open_shop(migrated_database_url, simulator) as shop:
        async with shop.pool.connection() as conn, conn.cursor() as cur:
            await cur.execute(
                "INSERT INTO member (id, chain, region, home_store, name, phone_tail, provider_user, joined_at)"
                " VALUES (%s, %s, %s, %s, '', '0815', '', %s)",
                (ANNA, CHAIN, REGION, OWN, START),
            )
            await cur.execute(
                """INSERT INTO terminal (id, store, lane, role, profile, secret_sha256, registered_at)
                   SELECT 't-' || s, s, 'lane-1', 'till', 'till', '', %s FROM unnest(%s::text[]) AS s""",
                (START, [OWN, FRANCHISED]),
            )
            await save_plan(cur, CHAIN, BOTH)
        yield shop
        await money_is_whole(shop)


async def money_is_whole(shop: Shop) -> None:
    """The liabilities are the balances and what is held; nothing lies between a payment and its booking."""
    fen, held = await shop.one(
        "SELECT (SELECT coalesce(sum(fen), 0)::bigint FROM member_balance),"
        " (SELECT coalesce(sum(fen), 0)::bigint FROM balance_hold WHERE state = 'held')"
    )
    assert fen == -await shop.account("chain", "member_balance")
    assert held == -await shop.account("chain", "member_deposit")
    assert held == await shop.account("chain", "hold:balance", "pending")
    assert await shop.account("chain", "provider_clearing:balance") == 0


def nobody(*_: object) -> Any:
    raise AssertionError("no provider is asked")


async def fen(shop: Shop) -> int:
    return (await StoredValue(shop.pool, shop.clock).show(ANNA)).fen


def clerk(amount_fen: int) -> CounterMove:
    return CounterMove(str(uuid.uuid4()), ANNA, amount_fen, OWN, "lane-1", MoneyWay.CASH, "clerk:7")


async def enrol(shop: Shop, guarantee: str, **changes: Any) -> EnrolAnswered:
    request = await shop.enrol_request(
        **{"plan": PlanId("own-10"), "guarantee": guarantee, "member": ANNA, "auth": None} | changes
    )
    answers = [await shop.ask(request, "ask-" + guarantee, attempts) for attempts in range(2)]
    answer = answers[0]
    assert isinstance(answer, EnrolAnswered)
    assert answers == [answer, answer], "asked again, answered again"
    return answer


def membership_of(answer: EnrolAnswered) -> MembershipId:
    assert answer.member is not None, answer.code
    assert answer.member.membership is not None
    return answer.member.membership.id


async def state(shop: Shop, membership: MembershipId) -> tuple[Any, ...]:
    row = await shop.membership(membership)
    return tuple(row[name] for name in ("state", "provider", "hold_state", "paid_fen", "refunded_fen"))


async def test_a_balance_secures_the_fee_and_pays_the_smaller_amount(shop: Shop) -> None:
    balances = StoredValue(shop.pool, shop.clock)
    short = await enrol(shop, "balance_hold")
    assert (short.member, short.code, short.instead) == (None, "balance_short", ("cash_deposit",))
    await balances.top_up(clerk(1500))
    answer = await shop.ask(
        await shop.enrol_request(plan=PlanId("own-10"), guarantee="balance_hold", member=ANNA, auth=None), "ask-2"
    )
    assert isinstance(answer, EnrolAnswered)
    membership = membership_of(answer)
    assert await state(shop, membership) == ("ACTIVE", "balance", "held", 0, 0)
    assert await fen(shop) == 500, "what is held cannot be spent"
    await money_is_whole(shop)
    with pytest.raises(Refused, match="has a balance"):
        async with shop.pool.connection() as conn:
            await require_settled(conn, ANNA)

    used = await shop.use_coupon(membership, FRANCHISED)
    calls = len(await shop.rows("SELECT 1 FROM settlement_call"))
    report = await shop.settle_after(40, providers=nobody)
    assert (report.ok, calls) == (True, 0)
    assert await state(shop, membership) == ("CLOSED", "balance", "ended", 800, 0)
    assert await fen(shop) == 700
    assert await shop.account("north", "due_from:chain") == 800, "the store's own entity has what it gave"
    await money_is_whole(shop)

    await shop.reverse(used, store=FRANCHISED)
    await shop.settle_after(0, providers=nobody)
    assert await state(shop, membership) == ("CLOSED", "balance", "ended", 0, 800)
    assert await fen(shop) == 1500


async def test_a_deposit_is_cash_in_the_drawer_and_its_rest_is_the_members(shop: Shop) -> None:
    nobody_there = await enrol(shop, "cash_deposit")
    assert (nobody_there.code, nobody_there.instead) == ("clerk_missing", ("balance_hold",))
    request = await shop.enrol_request(
        plan=PlanId("own-10"), guarantee="cash_deposit", store=FRANCHISED, terminal=TerminalId("t-s-north"),
        clerk="7", auth=None, phone="13800001234",
    )  # fmt: skip
    no_shift = await shop.ask(request, "ask-2")
    assert isinstance(no_shift, EnrolAnswered)
    assert (no_shift.member, no_shift.code, no_shift.instead) == (None, "no_open_shift", ("balance_hold",))
    assert await shop.rows("SELECT 1 FROM membership UNION ALL SELECT 1 FROM drawer_cash") == []
    desk = DrawersOfADatabase(shop.pool, shop.clock)
    await desk.open_shift("shift-1", FRANCHISED, "lane-1", 0, "clerk:7")
    answers = [await shop.ask(request, "ask-2", attempts) for attempts in range(2)]
    answer = answers[0]
    assert isinstance(answer, EnrolAnswered)
    assert answers[1] == answer, "asked again, no second note is taken"
    membership = membership_of(answer)
    assert answer.member is not None
    drawer = "till:s-north:lane-1"
    assert await shop.account("north", drawer) == 1000
    assert await shop.one("SELECT sum(fen)::bigint FROM drawer_cash WHERE store = 's-north'") == 1000
    assert await shop.account("north", "due_to:chain") == -1000
    await money_is_whole(shop)

    await shop.use_coupon(membership)
    await shop.settle_after(40, providers=nobody)
    assert await state(shop, membership) == ("CLOSED", "balance", "ended", 800, 0)
    balances = StoredValue(shop.pool, shop.clock)
    assert (await balances.show(answer.member.id)).fen == 200
    counted = await desk.count("count-1", FRANCHISED, "lane-1", 1000, "clerk:7")
    assert (counted.expected_fen, counted.over_short_fen) == (1000, 0), "somebody answers for it"
    again = replace(request, phone="13800005678")
    late = await shop.ask(again, "ask-3")
    assert isinstance(late, EnrolAnswered)
    assert late.code == "no_open_shift", "a counted drawer is the next shift's"
    out = CounterMove("out-1", answer.member.id, 200, FRANCHISED, "lane-1", MoneyWay.CASH, "clerk:7")
    await balances.pay_out(out)
    assert await shop.account("north", drawer) == 800


async def test_what_was_not_used_goes_back_whole_and_a_plan_changes_into_the_balance(shop: Shop) -> None:
    await StoredValue(shop.pool, shop.clock).top_up(clerk(5000))
    membership = await shop.member(member=ANNA, phone=None)
    asked = Asked("change", plan="own-10", guarantee="balance_hold")
    assert (await shop.memberships.life.do("n-1", membership, asked, by="console")).state == "done"
    assert (await state(shop, membership), await fen(shop)) == (("ACTIVE", "balance", "held", 0, 0), 4000)
    assert await shop.held_fen() == 0, "the provider's hold went back"
    with pytest.raises(Refused) as cash:
        await shop.memberships.life.do(
            "n-2", membership, Asked("change", plan="own-10", guarantee="cash_deposit"), by="console"
        )
    assert cash.value.code in ("guarantee_unavailable", "change_refused")
    await shop.settle_after(40, providers=nobody)
    assert (await state(shop, membership), await fen(shop)) == (("CLOSED", "balance", "ended", 0, 0), 5000)


async def test_a_renewal_out_of_the_balance_waits_for_it_and_then_gives_up(shop: Shop) -> None:
    balances = StoredValue(shop.pool, shop.clock)
    await balances.top_up(clerk(1000))
    membership = membership_of(await enrol(shop, "balance_hold"))
    await shop.memberships.life.do("n-1", membership, Asked("renew"), by="console")
    shop.clock.now = (await shop.membership(membership))["expires_at"]
    await shop.memberships.sweep(CHAIN, REGION)
    following = MembershipId(await shop.one("SELECT id FROM membership WHERE id <> %s", membership))
    assert (await state(shop, following))[:3] == ("HOLD_PENDING", "balance", "none")
    await balances.top_up(clerk(1000))
    await shop.memberships.sweep(CHAIN, REGION)
    assert (await state(shop, following))[:3] == ("ACTIVE", "balance", "held")
    assert await fen(shop) == 0


async def test_a_fee_that_wechat_vouches_for_is_settled_and_refunded_there(shop: Shop) -> None:
    plan = {**PLAN, "id": "score-10", "guarantees": ["pay_score", "cash_deposit"]}
    async with shop.pool.connection() as conn, conn.cursor() as cur:
        await save_plan(cur, CHAIN, plan)
    account = await open_wechat(shop.admin, shop.simulator.url, mchid=f"19{uuid.uuid4().int % 10**8:08d}")
    wechat = WechatProvider(WechatGateway(account))

    def providers(_entity: LegalEntityId, provider: str = "alipay", /) -> PaymentProvider:
        return shop.provider if provider == "alipay" else wechat

    shop.memberships = Memberships(shop.pool, providers, pepper=PEPPER, wall=shop.clock)
    request = await shop.enrol_request(plan=PlanId("score-10"), guarantee="pay_score", member=ANNA)
    other = await shop.ask(request, "ask-0")
    assert isinstance(other, EnrolAnswered)
    assert other.code == "guarantee_unavailable", "the customer showed Alipay's code"
    asked = await shop.ask(replace(request, auth=None), "ask-1")
    assert isinstance(asked, EnrolAnswered)
    assert asked.pending
    await shop.admin.authorise_freeze(shop.customer(), code=asked.code_text)
    [ended] = await shop.memberships.sweep(CHAIN, REGION)
    membership = membership_of(ended.answer)
    assert await state(shop, membership) == ("ACTIVE", "wechat", "held", 0, 0)
    assert await shop.account("chain", "hold:wechat", "pending") == 1000
    used = await shop.use_coupon(membership)
    assert (await shop.settle_after(40, providers=providers)).ok
    assert await state(shop, membership) == ("CLOSED", "wechat", "ended", 800, 0)
    assert await shop.account("chain", "provider_clearing:wechat") == 800
    await shop.reverse(used)
    await shop.settle_after(0, providers=providers)
    assert await state(shop, membership) == ("CLOSED", "wechat", "ended", 0, 800)
    assert await shop.account("chain", "provider_clearing:wechat") == 0
    number = await shop.one("SELECT request_number FROM settlement_call WHERE kind = 'refund'")
    order = str((await shop.membership(membership))["hold_order"])
    again = await wechat.query_refund(number=number, payment_number=order, amount_fen=800)
    assert isinstance(again, Succeeded)
    await wechat.aclose()


async def test_where_a_company_has_no_account_the_other_guarantees_are_named_and_one_is_taken(shop: Shop) -> None:
    """A life through the plan that is shipped with all of them."""
    shipped = Path(__file__).parents[2] / "configs" / "plans" / "neighbour-5.yaml"
    async with shop.pool.connection() as conn, conn.cursor() as cur:
        plan = await save_plan(cur, CHAIN, yaml.safe_load(shipped.read_text("utf-8")))

    def providers(_entity: LegalEntityId, provider: str = "alipay", /) -> PaymentProvider:
        return {"alipay": shop.provider}[provider]

    shop.memberships = Memberships(shop.pool, providers, pepper=PEPPER, wall=shop.clock)
    request = await shop.enrol_request(plan=plan.id, guarantee="pay_score", member=ANNA, auth=None)
    answer = await shop.ask(request, "ask-1")
    assert isinstance(answer, EnrolAnswered)
    assert (answer.code, answer.instead) == ("guarantee_unavailable", ("balance_hold", "cash_deposit"))
    assert await shop.rows("SELECT 1 FROM membership") == []
    await StoredValue(shop.pool, shop.clock).top_up(clerk(700))
    membership = membership_of(await enrol(shop, "balance_hold", plan=plan.id))
    assert await fen(shop) == 200
    use = replace(shop.use(membership, 300), benefit=plan.benefits[0].id)
    await shop.ask(shop.reserve_request(use, store=FRANCHISED))
    await shop.ask(shop.post_request(use, store=FRANCHISED))
    assert (await shop.settle_after(40, providers=nobody)).ok
    assert await state(shop, membership) == ("CLOSED", "balance", "ended", 300, 0)
    assert (await fen(shop), await shop.account("north", "due_from:chain")) == (400, 300)
