"""What happens to a membership besides its uses, over real PostgreSQL and the provider simulator over HTTP."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import deque
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest

from gateway.providers.port import PaymentProvider
from models.domain.errors import Refused
from models.domain.events import ProviderAuth
from models.domain.ids import MemberId, MembershipId, PlanId
from models.domain.membership import HOLD_TIMEOUT
from models.domain.membership_actions import Asked, Done
from models.domain.messages import EnrolAnswered, ReserveAnswered
from models.domain.payments import Answer, CreditOutcome, CreditResult, Succeeded, Unknown
from models.tables.plans import save_plan
from runtime.memberships import Memberships, NotYet
from tests.integration.money_shop import (
    CHAIN,
    FRANCHISED,
    PEPPER,
    PLAN,
    REGION,
    RunningSimulator,
    Shop,
    open_shop,
    running_simulator,
)

FREEZE, UNFREEZE = "alipay.fund.auth.order.freeze", "alipay.fund.auth.order.unfreeze"
LATER = 40  # days from enrolment: well after expiry and cutoff


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSimulator]:
    with running_simulator(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture
async def shop(migrated_database_url: str, simulator: RunningSimulator) -> AsyncIterator[Shop]:
    async with open_shop(migrated_database_url, simulator) as shop:
        yield shop


async def plan(shop: Shop, **changes: Any) -> PlanId:
    """A new plan of the chain beside the articles'. Versions never change, so each test has plans of its own."""
    document = PLAN | {"id": f"plan-{uuid.uuid4()}"} | changes
    async with shop.pool.connection() as conn, conn.cursor() as cur:
        return (await save_plan(cur, CHAIN, document)).id


async def do(shop: Shop, membership: MembershipId, verb: str, *, number: str = "", **asked: Any) -> Done:
    auth = asked.pop("auth", None)
    return await shop.memberships.life.do(
        number or str(uuid.uuid4()), membership, Asked(verb, **asked), by="test", auth=auth
    )


async def refusal(shop: Shop, membership: MembershipId, verb: str, **asked: Any) -> str:
    with pytest.raises(Refused) as refused:
        await do(shop, membership, verb, **asked)
    return refused.value.code


async def code_of(shop: Shop, user: str = "lin") -> ProviderAuth:
    return ProviderAuth("alipay", await shop.admin.payment_code(shop.customer(user)))


async def row(shop: Shop, membership: MembershipId, *names: str) -> tuple[Any, ...]:
    found = await shop.membership(membership)
    return tuple(found[name] for name in names)


# ---------------------------------------------------------------- cancel


async def test_a_merchants_cancel_is_prorated_and_its_funder_tops_the_store_up(shop: Shop) -> None:
    membership = await shop.member()
    use = await shop.use_coupon(membership, store=FRANCHISED, fen=700)
    shop.clock.now += timedelta(days=10)
    asked = Asked("cancel", "merchant")
    foreseen = await shop.memberships.life.foresee(membership, asked)
    assert (foreseen.charge_fen, foreseen.given_up_fen, foreseen.funder) == (322, 378, "chain")  # floor(1000 * 10 / 31)
    done = [await do(shop, membership, "cancel", by="merchant", number="c-1") for _ in range(3)]
    assert done[0] == done[1] == done[2]
    assert done[0].told["en"] == foreseen.text.en
    assert await row(shop, membership, "state", "fee_eff_fen", "cancelled_by") == ("EXPIRED", 322, "merchant")
    assert await shop.account("chain", "given_up:chain", "pending") == 378
    assert await shop.account("north", f"discount_given:{FRANCHISED}") == 0, "topped up"
    assert await shop.account("north", "due_from:chain") == 700
    await shop.settle_after(LATER)
    assert await row(shop, membership, "state", "charge_fen", "branch", "paid_fen") == ("CLOSED", 322, "FEE", 322)
    await shop.reverse(use)
    assert await shop.account("chain", "given_up:chain", "pending") == 0, "follows u"
    assert await shop.account("north", "due_from:chain") == 0
    assert await shop.account("north", f"discount_given:{FRANCHISED}") == 0
    await shop.settle_after(0)


async def test_what_arrives_within_the_grace_days_moves_what_is_given_up(shop: Shop) -> None:
    light = await plan(shop, on_merchant_cancel="zero", grace_days=3)
    membership = await shop.member(plan=light)
    await shop.use_coupon(membership, store=FRANCHISED, fen=300)
    shop.clock.now += timedelta(days=2)
    await do(shop, membership, "cancel", by="merchant")
    assert await shop.account("chain", "given_up:chain", "pending") == 300
    late = shop.use(membership, 800)
    earlier = shop.clock.now - timedelta(days=1)
    await shop.ask(shop.post_request(late, store=FRANCHISED, biz_time=earlier, unreserved=True))
    assert await shop.account("chain", "given_up:chain", "pending") == 1000, "min(F, 1100)"
    assert await shop.account("north", f"discount_given:{FRANCHISED}") == 1100, "with u >= F the charge was fee income"
    await shop.settle_after(LATER)
    assert await row(shop, membership, "state", "charge_fen", "paid_fen") == ("CLOSED", 0, 0)


async def test_a_members_cancel_ends_it_at_its_instant_and_leaves_the_fee(shop: Shop) -> None:
    membership = await shop.member()
    await shop.use_coupon(membership)
    shop.clock.now += timedelta(days=5)
    await do(shop, membership, "cancel", by="member")
    answer = await shop.ask(shop.reserve_request(shop.use(membership)))
    assert isinstance(answer, ReserveAnswered)
    assert answer.code == "benefit_gone"
    late = shop.use(membership)
    await shop.ask(shop.post_request(late, biz_time=shop.clock.now, unreserved=True))
    assert await shop.one("SELECT class FROM usage WHERE id = %s", late.usage) == "OVERUSE"
    await shop.settle_after(1)
    assert await row(shop, membership, "state", "charge_fen", "renews") == ("CLOSED", 800, False)
    assert await refusal(shop, membership, "cancel", by="member", number="again") == "cancel_refused"
    assert await refusal(shop, membership, "cancel", by="member", number="again") == "cancel_refused"
    assert await shop.one("SELECT count(*) FROM membership_request WHERE code = 'cancel_refused'") == 1


async def test_a_number_belongs_to_what_it_asked_for_first(shop: Shop) -> None:
    membership = await shop.member()
    await do(shop, membership, "suspend", number="n-1")
    assert await refusal(shop, membership, "resume", number="n-1") == "number_reused"
    assert await refusal(shop, MembershipId("none"), "resume") == "unknown_membership"
    assert await refusal(shop, membership, "explode") == "unknown_action"
    assert await refusal(shop, membership, "cancel", by="nobody") == "unknown_action"


# ---------------------------------------------------------------- suspend, resume


async def test_a_suspended_membership_is_not_used_online_and_offline_uses_still_count(shop: Shop) -> None:
    membership = await shop.member()
    await do(shop, membership, "suspend")
    assert await refusal(shop, membership, "suspend") == "suspend_refused"
    answer = await shop.ask(shop.reserve_request(shop.use(membership)))
    assert isinstance(answer, ReserveAnswered)
    assert not answer.ok
    await shop.ask(shop.post_request(shop.use(membership), unreserved=True))
    await do(shop, membership, "resume")
    assert await refusal(shop, membership, "resume") == "resume_refused"
    await shop.use_coupon(membership)
    assert await row(shop, membership, "state", "used_fen") == ("ACTIVE", 1600)
    await do(shop, membership, "suspend")
    await shop.settle_after(LATER)
    assert await row(shop, membership, "state", "charge_fen") == ("CLOSED", 1000)


# ---------------------------------------------------------------- change of plan


async def test_an_upgrade_freezes_the_new_fee_before_it_releases_the_old(shop: Shop) -> None:
    membership = await shop.member()
    await shop.use_coupon(membership)
    light20 = await plan(shop, fee_fen=2000)
    done = await do(shop, membership, "change", plan=light20, number="up", auth=await code_of(shop))
    assert done.state == "done"
    assert (done.told["new_hold_fen"], done.told["release_fen"]) == (2000, 1000)
    assert await shop.held_fen() == 2000
    assert await row(shop, membership, "plan", "fee_fen", "hold_fen", "used_fen") == (light20, 2000, 2000, 800)
    assert await do(shop, membership, "change", plan=light20, number="up") == done
    assert await shop.account("chain", "hold:alipay", "pending") == 2000
    for _ in range(2):
        await shop.use_coupon(membership)
    await shop.settle_after(LATER)
    assert await row(shop, membership, "state", "charge_fen", "paid_fen") == ("CLOSED", 2000, 2000)
    assert await shop.held_fen() == 0


async def test_a_change_that_makes_no_sense_holds_nothing(shop: Shop) -> None:
    membership = await shop.member()
    for _ in range(2):
        await shop.use_coupon(membership)
    cheap = await plan(shop, fee_fen=500)
    foreign = await plan(shop, owner_entity="north")
    trusting = await plan(shop, guarantees=["merchant_trust"])
    assert await refusal(shop, membership, "change", plan=cheap) == "change_refused", "it would lower what is owed"
    assert await refusal(shop, membership, "change", plan=foreign) == "change_refused"
    assert await refusal(shop, membership, "change", plan=trusting) == "guarantee_unavailable"
    assert await refusal(shop, membership, "change", plan="light-10") == "change_refused"
    assert await refusal(shop, membership, "change", plan="none") == "unknown_plan"
    poor = ProviderAuth("alipay", "280000000000000000")
    assert await refusal(shop, membership, "change", plan=await plan(shop, fee_fen=2000), auth=poor) == "hold_refused"
    assert await shop.held_fen() == 1000
    done = await do(shop, membership, "change", plan=trusting, guarantee="merchant_trust")
    assert (done.state, await shop.held_fen()) == ("done", 0)
    assert await row(shop, membership, "plan", "guarantee", "hold_state") == (trusting, "merchant_trust", "none")


async def test_a_freeze_that_comes_after_the_cancel_goes_back(shop: Shop) -> None:
    membership = await shop.member()
    light20 = await plan(shop, fee_fen=2000)
    pending = await do(shop, membership, "change", plan=light20, number="up")
    assert pending.state == "pending"
    assert pending.code_text, "without the member's code there is one to scan"
    await do(shop, membership, "cancel", by="member")
    await shop.admin.authorise_freeze(shop.customer("lin"), code=pending.code_text)
    assert await shop.held_fen() == 3000
    assert await shop.memberships.life.sweep(CHAIN, REGION) == 0  # the hold is booked, its release follows
    await shop.memberships.life.sweep(CHAIN, REGION)
    assert await shop.held_fen() == 1000
    assert await shop.one("SELECT state FROM membership_request WHERE number = 'up'") == "refused"
    assert await row(shop, membership, "plan") == ("light-10",)
    await shop.settle_after(LATER)


async def test_a_change_that_nobody_authorises_ends_and_one_that_is_authorised_takes_effect(shop: Shop) -> None:
    first, second = await shop.member("a"), await shop.member("b")
    light20 = await plan(shop, fee_fen=2000)
    waits = await do(shop, first, "change", plan=light20, number="one")
    await do(shop, second, "change", plan=light20, number="two")
    await shop.admin.authorise_freeze(shop.customer("a"), code=waits.code_text)
    await shop.memberships.life.sweep(CHAIN, REGION)
    await shop.memberships.life.sweep(CHAIN, REGION)
    assert (await do(shop, first, "change", plan=light20, number="one")).state == "done"
    shop.clock.now += HOLD_TIMEOUT
    await shop.memberships.life.sweep(CHAIN, REGION)
    assert await refusal(shop, second, "change", plan=light20, number="two") == "hold_refused"
    assert (await shop.held_fen("a"), await shop.held_fen("b")) == (2000, 1000)


async def test_a_release_without_an_answer_is_made_again_under_its_number(shop: Shop) -> None:
    membership = await shop.member()
    await shop.admin.add_fault(UNFREEZE, "http_500")
    done = await do(
        shop, membership, "change", plan=await plan(shop, fee_fen=2000), number="up", auth=await code_of(shop)
    )
    assert done.state == "done", "the change took effect; the old hold is on its way back"
    assert await shop.one("SELECT state FROM membership_request WHERE number = 'up'") == "releasing"
    shop.clock.now += timedelta(minutes=1)
    assert await shop.memberships.life.sweep(CHAIN, REGION) == 1
    assert await shop.account("chain", "hold:alipay", "pending") == await shop.held_fen() == 2000


# ---------------------------------------------------------------- holds that lapse


async def test_a_hold_that_lapsed_is_frozen_again_else_the_capture_fails_like_any_other(shop: Shop) -> None:
    again, never = await shop.member("a"), await shop.member("b")
    assert await refusal(shop, again, "freeze") == "freeze_refused"
    for membership in (again, never):
        await shop.use_coupon(membership)
        await shop.provider.cancel_freeze(number=(await shop.membership(membership))["hold_order"])
        await do(shop, membership, "lapse")
    assert await refusal(shop, again, "lapse") == "lapse_refused"
    assert await shop.account("chain", "hold:alipay", "pending") == 0
    await do(shop, again, "freeze", auth=await code_of(shop, "a"))
    assert await row(shop, again, "hold_state", "hold_fen") == ("held", 1000)
    await shop.settle_after(LATER)
    assert await row(shop, again, "state", "paid_fen") == ("CLOSED", 800)
    assert await row(shop, never, "state", "receivable_fen", "hold_state") == ("DUNNING", 800, "lapsed")


async def test_a_hold_that_the_provider_let_end_is_noticed_and_a_false_alarm_is_not_believed(shop: Shop) -> None:
    gone, closed, stands = [await shop.member(user) for user in ("a", "b", "c")]
    hold_no = (await shop.membership(gone))["hold_no"]
    await shop.provider.unfreeze(number="by-themselves", hold_no=hold_no, amount_fen=1000, remark="its life is over")
    await shop.provider.cancel_freeze(number=(await shop.membership(closed))["hold_order"])
    for membership in (gone, closed, stands):
        await shop.rows(
            "INSERT INTO provider_notice (provider, id, account, kind, number, request_no, provider_no, status, at,"
            " received_at) VALUES ('alipay', %s, '', 'release', %s, '', '', '', %s, %s) RETURNING 1",
            str(uuid.uuid4()),
            (await shop.membership(membership))["hold_order"],
            shop.clock.now,
            shop.clock.now,
        )
    for expected in (2, 0):
        assert await shop.memberships.life.sweep(CHAIN, REGION) == expected
    assert await row(shop, gone, "hold_state") == await row(shop, closed, "hold_state") == ("lapsed",)
    assert await row(shop, stands, "hold_state") == ("held",)
    assert (await do(shop, gone, "freeze", auth=await code_of(shop, "a"))).state == "done"


# ---------------------------------------------------------------- renewal


async def test_a_cycle_opens_its_next_generation_with_its_own_hold_once_this_one_is_settled(shop: Shop) -> None:
    membership = await shop.member(plan=await plan(shop, rule="CYCLE"))
    await shop.use_coupon(membership)
    await shop.memberships.sweep(CHAIN, REGION)
    assert await shop.one("SELECT count(*) FROM membership") == 1
    await shop.settle_after(33)
    for _ in range(2):
        await shop.memberships.sweep(CHAIN, REGION)
    following = await shop.one("SELECT id FROM membership WHERE generation = 2")
    assert await row(shop, following, "state", "used_fen", "cycle") == ("HOLD_PENDING", 0, 2)
    assert await shop.one("SELECT count(*) FROM membership") == 2
    [offered] = (await shop.memberships.life.show(following)).requests
    await shop.admin.authorise_freeze(shop.customer("lin"), code=offered.code_text)
    await shop.memberships.sweep(CHAIN, REGION)
    assert await row(shop, following, "state", "hold_fen", "renews") == ("ACTIVE", 1000, True)
    first, second = await shop.membership(membership), await shop.membership(following)
    assert second["expires_at"] - first["expires_at"] == timedelta(days=30), "the row has no drift"
    await do(shop, following, "cancel", by="member")
    await shop.settle_after(LATER)
    await shop.memberships.sweep(CHAIN, REGION)
    assert await shop.one("SELECT count(*) FROM membership") == 2, "cancelled: no third one"


async def test_a_trusted_member_renews_without_any_call_and_a_renewal_nobody_authorises_is_abandoned(
    shop: Shop,
) -> None:
    light = await plan(shop, guarantees=["merchant_trust", "huabei_hold"])
    trusted = await shop.member("a", plan=light, guarantee="merchant_trust")
    held = await shop.member("b", plan=light)
    for membership in (trusted, held):
        await do(shop, membership, "renew")
    await do(shop, held, "renew", on=False)
    await do(shop, held, "renew")
    await shop.settle_after(LATER)
    await shop.memberships.sweep(CHAIN, REGION)
    states = await shop.rows("SELECT guarantee, state FROM membership WHERE generation = 2 ORDER BY guarantee")
    assert states == [("huabei_hold", "HOLD_PENDING"), ("merchant_trust", "ACTIVE")]
    shop.clock.now += HOLD_TIMEOUT
    assert await shop.memberships.sweep(CHAIN, REGION) == [], "no terminal waits for it"
    assert await shop.one("SELECT state FROM membership WHERE generation = 2 AND guarantee = 'huabei_hold'") == (
        "ABANDONED"
    )
    assert (await shop.held_fen("b"), (await shop.membership(held))["renews"]) == (0, False)

    await do(shop, held, "renew")
    await shop.memberships.sweep(CHAIN, REGION)
    [(again, key)] = await shop.rows("SELECT id, enrol_key FROM membership WHERE state = 'HOLD_PENDING'")
    code = await shop.one("SELECT code_text FROM membership_request WHERE number = %s", key)
    await shop.admin.authorise_freeze(shop.customer("b"), code=code)
    await shop.memberships.sweep(CHAIN, REGION)
    assert (await shop.membership(again))["state"] == "ACTIVE", "wished for again, it is tried again"
    await do(shop, held, "renew")
    await shop.memberships.sweep(CHAIN, REGION)
    assert (
        await shop.one(
            "SELECT count(*) FROM membership WHERE member = (SELECT member FROM membership WHERE id = %s)", held
        )
        == 3
    ), "one lives already"


# ---------------------------------------------------------------- guarantees and tasks


async def test_a_trusted_member_who_used_nothing_costs_no_call_at_all(shop: Shop) -> None:
    light = await plan(shop, guarantees=["merchant_trust"])
    nothing = await shop.member("a", plan=light, guarantee="merchant_trust")
    something = await shop.member("b", plan=light, guarantee="merchant_trust")
    await shop.use_coupon(something)
    await shop.settle_after(LATER)
    assert await row(shop, nothing, "state", "charge_fen") == ("CLOSED", 0)
    assert await shop.rows("SELECT 1 FROM settlement_call WHERE membership = %s", nothing) == []
    assert await row(shop, something, "state", "receivable_fen") == ("DUNNING", 800)


class Vouching:
    """The real provider, but for what it says about a person's credit."""

    def __init__(self, provider: PaymentProvider, *answers: Answer[CreditResult]) -> None:
        self._provider = provider
        self._answers = deque(answers)
        self.asked: list[str | None] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._provider, name)

    async def consult_credit(self, *, payer: str | None = None, **_request: Any) -> Answer[CreditResult]:
        self.asked.append(payer)
        return self._answers.popleft()


async def test_a_credit_opens_a_membership_asks_for_a_hold_or_refuses(shop: Shop) -> None:
    said = [Succeeded(CreditResult(outcome)) for outcome in CreditOutcome]  # admitted, a hold needed, refused
    provider = Vouching(shop.provider, Unknown("nothing heard"), *said)
    shop.memberships = Memberships(shop.pool, lambda *_: provider, pepper=PEPPER, wall=shop.clock)
    light = await plan(shop, guarantees=["sesame_credit"])
    nobody = await shop.ask(await shop.enrol_request(plan=light, guarantee="sesame_credit"))
    assert isinstance(nobody, EnrolAnswered)
    assert nobody.code == "guarantee_unavailable", "about whom?"
    phones = [f"1380000000{n}" for n in range(3)]
    found: list[Any] = []
    for phone in phones:
        request = await shop.enrol_request(f"user-{phone}", plan=light, guarantee="sesame_credit", phone=phone)
        answer = await shop.ask(request, phone)
        if isinstance(answer, NotYet):
            await shop.memberships.sweep(CHAIN, REGION)
            answer = await shop.ask(request, phone, 1)
        assert isinstance(answer, EnrolAnswered)
        found.append((answer.member is not None, answer.code, await shop.held_fen(f"user-{phone}")))
    assert found == [(False, "", 0), (True, "", 1000), (False, "enrol_refused", 0)], "the first is to sign"
    assert provider.asked == [phones[0], *phones], "asked again under the same number"
    await shop.settle_after(LATER)
    assert await shop.rows("SELECT kind FROM settlement_call") == [("release",)], "nothing used: the hold goes back"


TASKS = [
    ("TASK_TIMES", 2, 2, (2, 0, None)),
    ("TASK_TIMES", 2, 1, (1, 800, "CLAWBACK")),
    ("TASK_TIMES", 4, 3, (3, 1000, "FEE")),
    ("TASK_AMOUNT", 2400, 2, (2400, 0, None)),
    ("TASK_AMOUNT", 2401, 2, (2400, 1000, "FEE")),
]


async def test_a_task_that_was_kept_costs_nothing_and_a_missed_one_the_smaller_amount(shop: Shop) -> None:
    memberships = []
    for n, (rule, target, coupons, _) in enumerate(TASKS):
        membership = await shop.member(f"user{n}", plan=await plan(shop, rule=rule, task_target=target))
        for _ in range(coupons):
            await shop.use_coupon(membership)
        undone = await shop.use_coupon(membership)
        await shop.reverse(undone)  # a sale that was taken back does not count
        memberships.append(membership)
    await shop.settle_after(LATER)
    found = [await row(shop, membership, "task_done", "charge_fen", "branch") for membership in memberships]
    assert found == [expected for *_, expected in TASKS]
    assert await shop.rows("SELECT 1 FROM membership WHERE state <> 'CLOSED'") == []


# ---------------------------------------------------------------- many at once


async def test_eight_clients_enrol_use_reverse_cancel_and_settle_one_membership_at_once(shop: Shop) -> None:
    rng = random.Random(8)
    requests = [await shop.enrol_request(phone="13800001234") for _ in range(8)]
    answers = await asyncio.gather(*(shop.ask(request, f"enrol {n}") for n, request in enumerate(requests)))
    made = [answer.member for answer in answers if isinstance(answer, EnrolAnswered) and answer.member is not None]
    assert len(made) == 1, "one membership, whoever asks at the same moment"
    assert made[0].membership is not None
    membership = made[0].membership.id
    assert await shop.held_fen() == 1000
    posted: list[str] = []
    back: list[str] = []

    async def client(n: int) -> None:
        for k in range(6):
            use = shop.use(membership, rng.choice((300, 800)))
            reserved = await shop.ask(shop.reserve_request(use))
            assert isinstance(reserved, ReserveAnswered)
            offline = not reserved.ok
            post = shop.post_request(use, unreserved=offline)
            for _ in range(1 + rng.randrange(2)):  # an answer may be lost: the same again
                await shop.ask(post, f"post {n} {k}")
            posted.append(use.usage)
            if rng.random() < 0.3:
                await asyncio.gather(*(shop.reverse(use, ask_id=f"back {n} {k}") for _ in range(2)))
                back.append(use.usage)
            if n == 7 and k == 3:
                await asyncio.gather(*(do(shop, membership, "cancel", by="member", number="end") for _ in range(3)))
            if n == 6:
                await shop.settle_after(0)

    await asyncio.gather(*(client(n) for n in range(8)))
    lines = await shop.rows("SELECT id, class, fen, reversed_fen FROM usage WHERE membership = %s", membership)
    assert sorted(line[0] for line in lines) == sorted(posted), "nothing lost, nothing twice"
    assert all(line[3] == (line[2] if line[0] in back else 0) for line in lines)
    assert sum(1 for line in lines if line[1] == "REGULAR" and line[3] < line[2]) <= 5, "never more than the quota"
    await asyncio.gather(*(shop.settle_after(2) for _ in range(3)))
    await shop.settle_after(0)
    assert (await shop.membership(membership))["state"] == "CLOSED"
    await shop.check_invariants()


async def test_a_member_of_two_plans_does_not_change_into_the_one_that_is_there(shop: Shop) -> None:
    light20 = await plan(shop, fee_fen=2000)
    first = await shop.member(phone="13800001234")
    member = MemberId((await shop.membership(first))["member"])
    await shop.member(member=member, plan=light20)
    assert await refusal(shop, first, "change", plan=light20) == "already_member"
