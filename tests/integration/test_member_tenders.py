"""A member's balance and withholding agreement on a real database, the agreement over the provider simulator."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest

from actors.effects import Ask
from actors.ports import FindMember, PaymentRequest, PayVerb
from models.domain.errors import Refused
from models.domain.events import TenderKind
from models.domain.ids import LegalEntityId, MemberId, SessionId, StoreId, TerminalId
from models.domain.ledger import Place, Taking, mirror, sale_paid
from models.domain.member_balance import BALANCE, BALANCE_FEN_MAX, CounterMove, MoneyWay
from models.domain.messages import PaymentAnswered, PaymentOutcome
from models.domain.notices import Notice, NoticeKind
from models.domain.payments import PROVIDERS
from models.tables.ledger import insert_transactions
from models.tables.member_money import require_settled
from models.tables.notices import keep_notice
from runtime.asks import Ports, VisitMemory
from tests.integration.money_shop import (
    CHAIN,
    FRANCHISED,
    OWN,
    REGION,
    START,
    RunningSimulator,
    Shop,
    open_shop,
    running_simulator,
)

ANNA = MemberId("anna")
PAID, FAILED = PaymentOutcome.SUCCEEDED, PaymentOutcome.FAILED
ENTITY = {OWN: LegalEntityId("chain"), FRANCHISED: LegalEntityId("north")}


class Counter:
    """The ports of a host, and a clerk beside it."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        faces: Any = None
        self.ports = Ports(CHAIN, shop.pool, faces, REGION, shop.memberships, lambda _entity, _name: shop.provider)
        self.ports._stored._wall = self.ports._withholding._wall = shop.clock
        self.balances, self.agreements = self.ports._stored, self.ports._withholding

    async def pay(
        self, verb: PayVerb, order: str, fen: int, kind: TenderKind, store: StoreId = OWN, refund: str = ""
    ) -> PaymentAnswered:
        request = PaymentRequest(
            verb, SessionId("v"), ENTITY[store], store, TerminalId("t-1"), order, fen, kind, "tea", refund_no=refund,
            member=ANNA, provider=BALANCE if kind is TenderKind.BALANCE else PROVIDERS[0],
        )  # fmt: skip
        return await self.ports._pay(str(uuid.uuid4()), request, 1)

    async def spend(self, order: str, fen: int, store: StoreId = OWN) -> PaymentAnswered:
        return await self.pay(PayVerb.PAY, order, fen, TenderKind.BALANCE, store)

    async def sell(self, order: str, fen: int, store: StoreId = OWN, provider: str = BALANCE, back: str = "") -> None:
        """What the host commits after a payment, or after a refund."""
        sale = sale_paid(
            order, place=Place(store, ENTITY[store]), takings=[Taking(fen, provider=provider)], due_fen=fen,
            business_date="2026-03-01",
        )  # fmt: skip
        sale = mirror(sale, back, "sale_refunded", "2026-03-01") if back else sale
        async with self.shop.pool.connection() as conn, conn.cursor() as cursor:
            await insert_transactions(cursor, [sale], self.shop.clock.now)

    def clerk(self, fen: int, number: str = "", store: StoreId = OWN, way: MoneyWay = MoneyWay.CASH) -> CounterMove:
        return CounterMove(number or str(uuid.uuid4()), ANNA, fen, store, "lane-1", way, "clerk:7")

    async def fen(self) -> int:
        """The balance: equal to the liability in the ledger, and to its moves."""
        found = (await self.balances.show(ANNA)).fen
        assert found == -await self.shop.account("chain", "member_balance")
        moves = await self.shop.rows("SELECT kind, sum(fen)::bigint FROM balance_move GROUP BY kind")
        by = dict(moves)
        assert found == sum(by.get(kind, 0) for kind in ("top_up", "undo", "refund")) - sum(
            by.get(kind, 0) for kind in ("spend", "pay_out")
        )
        assert found >= 0
        return found

    async def in_flight(self) -> int:
        """Taken from balances and in no sale yet."""
        return -sum([await self.shop.account(entity, "provider_clearing:balance") for entity in ("chain", "north")])


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSimulator]:
    with running_simulator(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture
async def counter(migrated_database_url: str, simulator: RunningSimulator) -> AsyncIterator[Counter]:
    async with open_shop(migrated_database_url, simulator) as shop:
        async with shop.pool.connection() as conn:
            await conn.execute(
                "INSERT INTO member (id, chain, region, home_store, name, phone_tail, provider_user, joined_at)"
                " VALUES (%s, %s, %s, %s, '', '0815', '', %s)",
                (ANNA, CHAIN, REGION, OWN, START),
            )
            await conn.execute(
                """INSERT INTO terminal (id, store, lane, role, profile, secret_sha256, registered_at)
                   SELECT 't-' || s, s, 'lane-1', 'till', 'till', '', %s FROM unnest(%s::text[]) AS s""",
                (START, [OWN, FRANCHISED]),
            )
        yield Counter(shop)


async def test_a_balance_is_topped_up_spent_given_back_and_paid_out(counter: Counter) -> None:
    top_up = counter.clerk(10_000)
    assert (await counter.balances.top_up(top_up)).left_fen == 10_000
    assert (await counter.balances.top_up(top_up)).left_fen == 10_000, "the same number is the same money"
    await counter.balances.top_up(counter.clerk(500, store=FRANCHISED, way=MoneyWay.CARD))
    assert await counter.fen() == 10_500
    assert await counter.shop.account("chain", "till:s-own:lane-1") == 10_000
    assert await counter.shop.account("north", "provider_clearing:till-card") == 500
    assert await counter.shop.account("north", "due_to:chain") == -500

    assert (await counter.spend("P1", 3_000, FRANCHISED)).outcome is PAID
    assert (await counter.spend("P1", 3_000, FRANCHISED)).outcome is PAID, "asked again after a crash"
    assert (await counter.fen(), await counter.in_flight()) == (7_500, 3_000)
    await counter.sell("P1", 3_000, FRANCHISED)
    assert await counter.in_flight() == 0
    short = await counter.spend("P2", 7_501)
    assert (short.outcome, short.code) == (FAILED, "balance_short")

    balance = TenderKind.BALANCE
    for number, fen, outcome in (("R1", 1_000, PAID), ("R1", 1_000, PAID), ("R2", 2_001, FAILED)):
        assert (await counter.pay(PayVerb.REFUND, "P1", fen, balance, FRANCHISED, number)).outcome is outcome
    await counter.sell("P1", 1_000, FRANCHISED, back="R1")
    assert (await counter.fen(), await counter.in_flight()) == (8_500, 0)

    assert (await counter.spend("P3", 500)).outcome is PAID
    for _ in range(2):
        assert (await counter.pay(PayVerb.CANCEL, "P3", 500, balance)).outcome is PAID
    assert (await counter.spend("P3", 500)).code == "closed", "a payment that comes after its cancel takes nothing"
    await counter.pay(PayVerb.CANCEL, "P4", 500, balance)
    assert (await counter.spend("P4", 500)).code == "closed"
    assert await counter.fen() == 8_500

    await counter.balances.pay_out(counter.clerk(8_500))
    assert await counter.fen() == 0
    with pytest.raises(Refused, match="smaller"):
        await counter.balances.pay_out(counter.clerk(1))
    await counter.balances.top_up(counter.clerk(BALANCE_FEN_MAX))
    with pytest.raises(Refused, match="at most"):
        await counter.balances.top_up(counter.clerk(1))
    kinds = await counter.shop.rows("SELECT kind FROM audit_event ORDER BY n")
    assert [kind for (kind,) in kinds] == ["balance_top_up", "balance_top_up", "balance_pay_out", "balance_top_up"]


async def test_one_balance_from_eight_places_is_never_overdrawn(counter: Counter) -> None:
    await counter.balances.top_up(counter.clerk(5_000))
    rng = random.Random(5)
    orders = [(f"P{n}", rng.randrange(200, 1_500)) for n in range(24)]
    gate = asyncio.Semaphore(8)

    async def one(order: str, fen: int) -> int:
        async with gate:
            paid = (await counter.spend(order, fen)).outcome is PAID
            if paid and rng.random() < 0.4:
                await counter.pay(PayVerb.CANCEL, order, fen, TenderKind.BALANCE)
                return 0
            if paid:
                await counter.sell(order, fen)
            return fen if paid else 0

    spent = sum(await asyncio.gather(*(one(order, fen) for order, fen in orders)))
    assert await counter.fen() == 5_000 - spent
    assert await counter.in_flight() == 0


async def test_an_agreement_is_signed_pays_within_its_limits_and_ends(counter: Counter) -> None:
    shop, agreements, kind = counter.shop, counter.agreements, TenderKind.AGREEMENT
    assert (await counter.pay(PayVerb.PAY, "A0", 100, kind)).code == "agreement_missing"
    asked = await agreements.sign("r-1", ANNA, by="clerk:7", payment_fen_max=2_000, day_fen_max=3_000)
    assert (asked.state, asked.code_text[:4]) == ("signing", "http")
    again = await agreements.sign("r-2", ANNA, by="clerk:7")
    assert again.number == asked.number, "one lives at a time"
    assert (await counter.pay(PayVerb.PAY, "A0", 100, kind)).code == "agreement_missing", "it is not signed yet"
    await shop.admin.create_user(shop.customer())
    await shop.admin.sign_agreement(shop.customer(), await shop.admin.open(asked.code_text))
    assert await agreements.sweep(CHAIN) == 1
    signed = await agreements.look(asked.number)
    assert (signed.state, bool(signed.agreement_no), signed.payment_fen_max) == ("active", True, 2_000)

    assert (await counter.pay(PayVerb.PAY, "A1", 2_001, kind)).code == "payment_limit"
    paid = await counter.pay(PayVerb.PAY, "A1", 2_000, kind)
    assert (paid.outcome, paid.receipt_fen, bool(paid.trade_no)) == (PAID, 2_000, True)
    assert (await counter.pay(PayVerb.PAY, "A1", 2_000, kind)).outcome is PAID, "asked again it is the same payment"
    assert (await counter.pay(PayVerb.PAY, "A2", 1_001, kind)).code == "day_limit"
    both = await asyncio.gather(*(counter.pay(PayVerb.PAY, f"A{n}", 600, kind) for n in (3, 4)))
    assert sorted(str(one.outcome) for one in both) == ["failed", "succeeded"], "the day's limit holds for both at once"
    order = next(one.order for one in both if one.outcome is PAID)
    assert (await counter.pay(PayVerb.CANCEL, order, 600, kind)).outcome is PAID
    assert (await counter.pay(PayVerb.PAY, "A5", 1_000, kind)).outcome is PAID, "what was cancelled makes room"
    await counter.sell("A1", 2_000, provider="alipay")
    await counter.sell("A5", 1_000, provider="alipay")
    assert (await counter.pay(PayVerb.REFUND, "A1", 500, kind, refund="R1")).outcome is PAID
    await counter.sell("A1", 500, provider="alipay", back="R1")

    ended = await agreements.unsign(signed.number, by="clerk:7")
    assert (ended.state, ended.ended_at is not None) == ("ended", True)
    assert (await counter.pay(PayVerb.PAY, "A6", 100, kind)).code == "agreement_missing"
    fresh = await agreements.sign("r-3", ANNA, by="clerk:7")
    assert fresh.number != signed.number


async def test_an_agreement_that_the_member_ended_on_the_phone_pays_nothing(counter: Counter) -> None:
    shop = counter.shop
    asked = await counter.agreements.sign("r-1", ANNA, by="clerk:7")
    await shop.admin.create_user(shop.customer())
    number = await shop.admin.sign_agreement(shop.customer(), await shop.admin.open(asked.code_text))
    await counter.agreements.look(asked.number)
    await shop.admin.end_agreement(number)
    assert (await counter.pay(PayVerb.PAY, "A1", 100, TenderKind.AGREEMENT)).code == "agreement_missing"
    assert (await counter.agreements.look(asked.number)).state == "ended"
    assert await shop.one("SELECT freed FROM agreement_payment") is True


async def test_digits_are_compared_with_the_member_that_was_named(counter: Counter) -> None:
    await counter.balances.top_up(counter.clerk(100))
    for tail, known in (("0815", True), ("0816", False)):
        request = FindMember(SessionId("v"), OWN, "tail", tail, ANNA)
        message: Any = (await counter.ports.ask(Ask("q", request), 1, VisitMemory())).message
        assert (message.member is not None) is known
        if known:
            assert message.member.tenders == (TenderKind.BALANCE,)


@pytest.mark.parametrize(("fen", "hastens"), [(800, True), (799, False)])
async def test_a_notification_hastens_an_unclear_call_of_settlement(counter: Counter, fen: int, hastens: bool) -> None:
    shop, now = counter.shop, counter.shop.clock.now
    later, membership = now + timedelta(minutes=2), await counter.shop.member()
    async with shop.pool.connection() as conn:
        await conn.execute(
            """INSERT INTO settlement_call (request_number, membership, chain, region, owner, kind, fen, state, attempt,
                 tries, not_before, lease_until)
               VALUES ('S1', %s, %s, %s, 'chain', 'capture', 800, 'UNKNOWN', 0, 1, %s, %s)""",
            (membership, CHAIN, REGION, now, later),
        )
        notice = Notice("n1", NoticeKind.PAYMENT, shop.app, "S1", "", "T1", "TRADE_SUCCESS", fen, now)
        assert await keep_notice(conn, "alipay", notice, now) is hastens
        cursor = await conn.execute("SELECT lease_until FROM settlement_call")
        assert await cursor.fetchone() == (now if hastens else later,)
        await conn.execute("DELETE FROM settlement_call")


async def test_a_notification_hastens_an_agreement_that_is_being_signed(counter: Counter) -> None:
    shop, now = counter.shop, counter.shop.clock.now
    asked = await counter.agreements.sign("r-1", ANNA, by="clerk:7")
    assert await counter.agreements.sweep(CHAIN) == 1, "the first look is at once"
    assert await counter.agreements.sweep(CHAIN) == 0, "the next one waits"
    notice = Notice("n1", NoticeKind.AGREEMENT, shop.app, asked.number, "", "", "NORMAL", None, now)
    async with shop.pool.connection() as conn:
        assert await keep_notice(conn, "alipay", notice, now)
    assert await counter.agreements.sweep(CHAIN) == 1
    shop.clock.now += timedelta(hours=1, seconds=1)
    assert await counter.agreements.sweep(CHAIN) == 1
    assert (await counter.agreements.look(asked.number)).state == "ended", "nobody signed it within the hour"


async def test_a_person_with_money_here_cannot_be_forgotten_yet(counter: Counter) -> None:
    pool = counter.shop.pool
    await counter.balances.top_up(counter.clerk(100))
    for settle in (counter.balances.pay_out(counter.clerk(100)), None):
        async with pool.connection() as conn:
            if settle is None:
                await require_settled(conn, ANNA)
                return
            with pytest.raises(Refused, match="balance of 100 fen"):
                await require_settled(conn, ANNA)
        await settle
