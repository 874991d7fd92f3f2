"""A shop for money tests: a migrated database, two legal entities, a plan, and the provider simulator over HTTP."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

from actors.ports import EnrolMember, MembershipRequest, PostUses, ReleaseUses, ReserveUses, ReverseUses
from gateway.providers.alipay import AlipayProvider
from gateway.providers.alipay_gateway import AlipayAccount, AlipayGateway
from gateway.providers.port import PaymentProvider, Scene
from gateway.providers.simulator import SimulatorAdmin, create_simulator_app
from gateway.providers.simulator.database import FILE_NAME
from models.domain.events import ProviderAuth
from models.domain.ids import (
    BenefitId,
    ChainId,
    MembershipId,
    PlanId,
    RegionId,
    SaleId,
    SessionId,
    StoreId,
    TerminalId,
    UsageId,
)
from models.domain.messages import EnrolAnswered, SaleUse
from models.domain.payments import answer_document
from models.domain.settlement import CallKind, NewCall
from models.tables.ledger_faults import verify
from models.tables.plans import save_plan
from models.tables.settlement import insert_calls
from runtime.explaining import explain_anywhere
from runtime.memberships import MembershipAnswer, Memberships, NotYet
from runtime.plant import Plant
from runtime.settlement import SettlementLimits, SettlementReport, SettlementRunner
from tests.gateway.providers.conftest import open_account, serve_in_thread

CHAIN, REGION = ChainId("demo"), RegionId("east")
OWN, FRANCHISED = StoreId("s-own"), StoreId("s-north")
PLAN: dict[str, Any] = {
    "id": "light-10",
    "version": 1,
    "name": {"zh": "十元轻会员", "en": "Light membership 10"},
    "owner_entity": "chain",
    "rule": "FEE_MIN",
    "fee_fen": 1000,
    "benefits": [
        {"id": "coupon8", "name": {"zh": "券", "en": "coupon"}, "kind": "fixed_coupon", "value_fen": 800, "quota": 5}
    ],
    "period_days": 30,
    "grace_days": 1,
    "cutoff_hour": 0,
    "zone": "Asia/Shanghai",
    "dunning_attempts": 2,
    "dunning_days": [1, 3],
    "on_merchant_cancel": "prorate",
    "guarantees": ["huabei_hold"],
    "enrol_again_after_days": 0,
    "funder_entity": "chain",
}
START = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
PEPPER = b"a deployment's own pepper"
GIVEN_UP_AFTER_S = 1.0
Pool = AsyncConnectionPool[AsyncConnection[Any]]


@dataclass
class Clock:
    """Wall time for tests; business time is the same, for the offset is 0."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now


class Overheard:
    """The real provider, and which calls went to it."""

    def __init__(self, provider: PaymentProvider) -> None:
        self._provider = provider
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.calls.append(name)
        return getattr(self._provider, name)


@dataclass
class Shop:
    pool: Pool
    clock: Clock
    admin: SimulatorAdmin
    provider: AlipayProvider
    simulator: RunningSimulator
    app: str
    merchant: AlipayAccount
    memberships: Memberships = field(init=False)

    def __post_init__(self) -> None:
        self.memberships = Memberships(self.pool, lambda *_: self.provider, pepper=PEPPER, wall=self.clock)

    def customer(self, name: str = "lin") -> str:
        """The provider's id of a customer: one simulator serves many tests."""
        return f"{name}-{self.app}"

    @asynccontextmanager
    async def impatient(self) -> AsyncIterator[None]:
        """Calls to the provider are given up after GIVEN_UP_AFTER_S: for those that are scripted to get no answer.

        Everything else waits as long as the product does: a disk that stalls for a second is no lost answer.
        """
        patient = self.provider
        gateway = AlipayGateway(self.merchant, call_timeout_s=GIVEN_UP_AFTER_S)
        self.provider = AlipayProvider(gateway)
        try:
            yield
        finally:
            await self.provider.aclose()
            self.provider = patient

    async def held_fen(self, name: str = "lin") -> int:
        """What the provider holds on a customer's credit line."""
        await self.admin.create_user(self.customer(name))
        return int((await self.admin.user(self.customer(name)))["huabei_held_fen"])

    # ---------------------------------------------------------------- asks

    async def ask(self, request: MembershipRequest, ask_id: str = "", attempts: int = 0) -> MembershipAnswer | NotYet:
        return await self.memberships.ask(ask_id or str(uuid.uuid4()), request, attempts)

    async def enrol_request(self, user: str = "lin", **changes: Any) -> EnrolMember:
        auth = changes.pop("auth", None) or ProviderAuth("alipay", await self.admin.payment_code(self.customer(user)))
        request = EnrolMember(
            session=SessionId(str(uuid.uuid4())),
            store=OWN,
            terminal=TerminalId("t-1"),
            plan=PlanId("light-10"),
            guarantee="huabei_hold",
            at=self.clock.now,
            phone=None,
            auth=auth,
            member=None,
        )
        return replace(request, **changes)

    async def member(self, user: str = "lin", **changes: Any) -> MembershipId:
        answer = await self.ask(await self.enrol_request(user, **changes))
        assert isinstance(answer, EnrolAnswered), answer
        assert answer.member is not None, answer.code
        assert answer.member.membership is not None
        return answer.member.membership.id

    def use(self, membership: MembershipId, fen: int = 800) -> SaleUse:
        return SaleUse(UsageId(str(uuid.uuid4())), membership, BenefitId("coupon8"), fen)

    def reserve_request(self, *uses: SaleUse, **changes: Any) -> ReserveUses:
        request = ReserveUses(SessionId(str(uuid.uuid4())), OWN, uses[0].membership, uses, self.clock.now, rev=1)
        return replace(request, **changes)

    def post_request(self, *uses: SaleUse, store: StoreId = OWN, **changes: Any) -> PostUses:
        request = PostUses(
            session=SessionId(str(uuid.uuid4())),
            store=store,
            terminal=TerminalId("t-1"),
            sale=SaleId(str(uuid.uuid4())),
            paid_fen=1200,
            uses=uses,
            biz_time=self.clock.now,
            seq=1,
            clerk=None,
        )
        return replace(request, **changes)

    async def use_coupon(self, membership: MembershipId, store: StoreId = OWN, fen: int = 800) -> SaleUse:
        """Reserve, pay, post: the whole way of one coupon."""
        use = self.use(membership, fen)
        await self.ask(self.reserve_request(use, store=store))
        await self.ask(self.post_request(use, store=store))
        return use

    async def reverse(self, *uses: SaleUse, store: StoreId = OWN, ask_id: str = "") -> None:
        request = ReverseUses(SessionId("v"), store, SaleId(str(uuid.uuid4())), uses, self.clock.now)
        await self.ask(request, ask_id)

    async def release(self, *uses: SaleUse) -> None:
        await self.ask(ReleaseUses(SessionId("v"), uses))

    # ---------------------------------------------------------------- settlement

    def runner(self, **options: Any) -> SettlementRunner:
        limits = options.pop("limits", SettlementLimits(patience_s=0))
        options.setdefault("wall", self.clock)
        providers = options.pop("providers", lambda *_: self.provider)
        return SettlementRunner(CHAIN, REGION, self.pool, providers, limits, **options)

    async def settle_after(self, days: int, **options: Any) -> SettlementReport:
        """Moves the clock and settles."""
        self.clock.now += timedelta(days=days)
        return await self.runner(**options).run(self.clock.now)

    async def collect_again(self, membership: MembershipId, user: str, fen: int) -> None:
        """A second attempt whose answer was no, and which the provider collects all the same; its answer is kept."""
        number = f"S{membership}G1A1"
        code = await self.admin.payment_code(self.customer(user))
        answer = await self.provider.pay(
            number=number, amount_fen=fen, subject="x", auth_code=code, scene=Scene.PAYMENT_CODE
        )
        async with self.pool.connection() as conn, conn.cursor() as cur:
            await insert_calls(cur, [NewCall(membership, CallKind.CAPTURE, number, fen, self.clock.now, 1)])
            await cur.execute(
                "UPDATE settlement_call SET state = 'ANSWERED', answer = %s WHERE request_number = %s",
                (Jsonb(answer_document(answer)), number),
            )

    # ---------------------------------------------------------------- what the books say

    async def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        async with self.pool.connection() as conn:
            cur = await conn.execute(query, values)
            return list(await cur.fetchall())

    async def one(self, query: str, *values: object) -> Any:
        rows = await self.rows(query, *values)
        assert len(rows) == 1, rows
        return rows[0][0] if len(rows[0]) == 1 else rows[0]

    async def account(self, entity: str, account: str, book: str = "posted") -> int:
        return int(
            await self.one(
                "SELECT coalesce(sum(amount_fen), 0)::bigint FROM entry"
                " WHERE entity = %s AND account = %s AND book = %s",
                entity,
                account,
                book,
            )
        )

    async def membership(self, membership: MembershipId) -> dict[str, Any]:
        async with self.pool.connection() as conn:
            cur = await conn.execute("SELECT * FROM membership WHERE id = %s", (membership,))
            row = await cur.fetchone()
            assert row is not None
            assert cur.description is not None
            return dict(zip([column.name for column in cur.description], row, strict=True))

    async def auth_no(self) -> str:
        """The provider's number of its newest hold, as the customer's phone would show it."""
        with closing(sqlite3.connect(self.simulator.data_dir / FILE_NAME)) as db:
            return str(
                db.execute(
                    "SELECT auth_no FROM hold WHERE app_id = ? ORDER BY id DESC LIMIT 1", (self.app,)
                ).fetchone()[0]
            )

    async def trade_no(self) -> str:
        """The provider's number of its newest order."""
        with closing(sqlite3.connect(self.simulator.data_dir / FILE_NAME)) as db:
            return str(
                db.execute(
                    "SELECT trade_no FROM trade WHERE app_id = ? ORDER BY id DESC LIMIT 1", (self.app,)
                ).fetchone()[0]
            )

    async def provider_net(self) -> dict[str, Any]:
        return await self.admin.books(self.app)

    async def sentence(self, membership: str) -> str:
        """How the charge is explained, in English."""
        plant = Plant(Path("/"), database_url=str(self.pool.conninfo))
        return (await explain_anywhere([plant], membership)).sentence.en

    async def check_invariants(self) -> None:
        """What money.md demands after every step."""
        assert isinstance(self.pool.conninfo, str)
        async with await AsyncConnection.connect(self.pool.conninfo, autocommit=True) as conn:
            verified = await verify(conn)
        assert verified.ok, [fault for fault in verified.faults if fault.count]
        assert await self.one("SELECT coalesce(sum(amount_fen), 0)::bigint FROM entry") == 0
        assert await self.rows("SELECT txn FROM entry GROUP BY txn, entity, book HAVING sum(amount_fen) <> 0") == []
        assert (
            await self.rows("SELECT id FROM membership WHERE NOT (paid_fen BETWEEN 0 AND least(fee_eff_fen, used_fen))")
            == []
        )
        assert (
            await self.rows(
                "SELECT id FROM membership WHERE captured_number <> ''"
                " AND paid_fen <> least(charge_fen, fee_eff_fen, used_fen)"
            )
            == []
        ), "paid is not what is due"
        assert await self.rows("SELECT id FROM membership WHERE state = 'CLOSED' AND hold_state = 'held'") == []
        assert (
            await self.rows(
                "SELECT m.id FROM membership m WHERE m.used_fen <> (SELECT coalesce(sum(u.fen - u.reversed_fen), 0)"
                " FROM usage u WHERE u.membership = m.id AND u.class = 'REGULAR')"
            )
            == []
        ), "u is not its lines"
        clearing = await self.account("chain", "provider_clearing:alipay")
        open_calls = await self.one("SELECT count(*) FROM settlement_call WHERE state <> 'POSTED'")
        if not open_calls:
            assert clearing == (await self.provider_net())["net_fen"], "the provider's books differ from ours"
            held = await self.account("chain", "hold:alipay", "pending")
            assert held == (await self.provider_net())["held_fen"], "the provider holds something else"


@dataclass(frozen=True)
class RunningSimulator:
    """Where it answers and where its books lie. Its clock is real time, whatever ours says."""

    url: str
    data_dir: Path


@contextmanager
def running_simulator(data_dir: Path) -> Iterator[RunningSimulator]:
    """The provider over HTTP, until the end of the block."""
    server, thread, url = serve_in_thread(create_simulator_app(data_dir))
    try:
        yield RunningSimulator(url, data_dir)
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@asynccontextmanager
async def open_shop(database_url: str, simulator: RunningSimulator) -> AsyncIterator[Shop]:
    """The shop over a fresh, migrated database, with a merchant account of its own; its invariants hold at the end."""
    app = f"2026{uuid.uuid4().int % 10**12:012d}"
    async with (
        AsyncConnectionPool(database_url, min_size=1, max_size=8, open=False) as pool,
        SimulatorAdmin(simulator.url) as admin,
    ):
        await seed(pool)
        account = await open_account(admin, simulator.url, app, f"2088{app[4:]}")
        account = replace(account, credit_template=f"ZMGO_{app}")
        provider = AlipayProvider(AlipayGateway(account))
        try:
            shop = Shop(pool, Clock(), admin, provider, simulator, app, account)
            yield shop
            await shop.check_invariants()
        finally:
            await admin.clear_faults()
            await provider.aclose()


async def seed(pool: Pool) -> None:
    """Two legal entities, a store of each, and the articles' plan."""
    async with pool.connection() as conn, conn.cursor() as cur:
        await cur.execute(
            "INSERT INTO legal_entity (id, chain, name_zh, name_en, provider_app)"
            " VALUES ('chain', %(chain)s, '', '', ''), ('north', %(chain)s, '', '', '')",
            {"chain": CHAIN},
        )
        await cur.execute(
            "INSERT INTO store (id, chain, region, shard, name_zh, name_en, zone, cutoff_hour, basket_owner, opened_at)"
            " SELECT id, %s, %s, 0, '', '', 'Asia/Shanghai', 0, 'storeops', %s FROM unnest(%s::text[]) AS s(id)",
            (CHAIN, REGION, START, [OWN, FRANCHISED]),
        )
        await cur.execute(
            "INSERT INTO store_entity VALUES (%s, '2020-01-01', 'chain'), (%s, '2020-01-01', 'north')",
            (OWN, FRANCHISED),
        )
        await save_plan(cur, CHAIN, PLAN)
