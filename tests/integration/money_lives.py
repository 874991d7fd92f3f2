"""Lives of tests/cases/light_membership.json through the real system: ports, PostgreSQL, provider simulator over HTTP.

What the file calls a use is reserved and posted, a reversal reversed, a cancel asked of the membership's life; cutoff,
attempts and answers are runs of settlement. What the provider is to say is scripted at the simulator.
"""

from __future__ import annotations

import uuid
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from actors.ports import EnrolMember, PostUses, ReserveUses, ReverseUses
from gateway.providers.port import PaymentProvider
from models.domain.charging import request_number
from models.domain.errors import Refused
from models.domain.events import ProviderAuth
from models.domain.ids import BenefitId, MembershipId, PlanId, RegionId, SaleId, SessionId, StoreId, TerminalId, UsageId
from models.domain.membership_actions import Asked
from models.domain.messages import EnrolAnswered, ReserveAnswered, SaleUse
from models.domain.notices import Notice, NoticeKind
from models.domain.payments import Answer, Failed, FailReason, PayResult, Unknown
from models.tables.notices import keep_notice
from models.tables.plans import save_plan
from runtime.late_money import LateMoney
from runtime.settlement import SettlementLimits, SettlementRunner
from tests.domain.lives import Life, enrolled, event_of, plan_of
from tests.integration.money_shop import CHAIN, Shop

PAY = "alipay.trade.pay"
LOST, BROKE = "ACQ.SYSTEM_ERROR", "ACQ.BUYER_BALANCE_NOT_ENOUGH"
"""The first leaves open what happened, the second does not; under both nothing was collected."""
ANSWERS: dict[str, Answer[PayResult]] = {
    "unknown": Unknown("heard nothing"),
    "failed": Failed(FailReason.NOT_ENOUGH_FUNDS, "heard no"),
}


class HardOfHearing:
    """The real provider, heard as the script says for some numbers though it took the money.

    For lives in which a provider said no and had collected after all.
    """

    def __init__(self, provider: PaymentProvider) -> None:
        self._provider = provider
        self.heard: dict[str, deque[str]] = {}
        self.said: dict[str, Answer[PayResult]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._provider, name)

    async def capture(self, *, number: str, **request: Any) -> Answer[PayResult]:
        return self._as_heard(number, await self._provider.capture(number=number, **request))

    async def query_payment(self, *, number: str, amount_fen: int) -> Answer[PayResult]:
        return self._as_heard(number, await self._provider.query_payment(number=number, amount_fen=amount_fen))

    def _as_heard(self, number: str, answer: Answer[PayResult]) -> Answer[PayResult]:
        if not self.heard.get(number):
            return answer
        self.said[number] = answer
        return ANSWERS[self.heard[number].popleft()]


def collected_after_all(case: dict[str, Any]) -> set[int]:
    """The attempts (0, 1, …) that failed by their answer and were collected nevertheless."""
    life = Life(enrolled(plan_of(case["plan"]), datetime.fromisoformat(case["enrolled_at"])))
    late = set()
    for data in case["events"]:
        attempt = life.membership.attempt
        if life.meet(event_of(data)).collected_fen and attempt is not None and not attempt.open:
            late.add(attempt.retry)
    return late


@dataclass
class RealLife:
    """One case in a region, a store and a plan of its own, with a funder of its own."""

    shop: Shop
    name: str
    case: dict[str, Any]
    membership: MembershipId = field(init=False)
    classes: dict[str, str] = field(default_factory=dict)
    refused_cancels: int = 0
    now: datetime = field(default=datetime.min.replace(tzinfo=UTC))

    def __post_init__(self) -> None:
        self.store, self.region = StoreId(f"s-{self.name}"), RegionId(f"r-{self.name}")
        self.funder, self.plan = f"f-{self.name}", PlanId(f"p-{self.name}")
        self.events = deque(self.case["events"])
        self.late = collected_after_all(self.case)
        self.provider = HardOfHearing(self.shop.provider)
        self.runner = SettlementRunner(
            CHAIN,
            self.region,
            self.shop.pool,
            lambda *_: self.provider,
            SettlementLimits(patience_s=0, calls_per_s_max=10_000),
            wall=self.shop.clock,
            between_steps=self._between_steps,
        )

    async def told(self) -> dict[str, Any]:
        """Live it to the end, and say what became of it in the words of a case's `expect`."""
        await self._enrol()
        while self.events:
            await self._meet(self.events.popleft())
        await self._settle()
        return await self._told()

    # ------------------------------------------------------------ enrolment

    async def _enrol(self) -> None:
        data = self.case["plan"]
        document = {
            **data,
            "id": self.plan,
            "version": 1,
            "name": {"zh": "测试", "en": "case"},
            "owner_entity": "chain",
            "funder_entity": self.funder,
            "zone": "Asia/Shanghai",
            "guarantees": ["huabei_hold"],
            "dunning_days": [1] * data["dunning_attempts"],
            "benefits": [{**benefit, "name": {"zh": "券", "en": "coupon"}} for benefit in data["benefits"]],
        }
        at = self._at({"at": self.case["enrolled_at"]})
        async with self.shop.pool.connection() as conn, conn.cursor() as cur:
            await cur.execute(
                "INSERT INTO legal_entity (id, chain, name_zh, name_en, provider_app) VALUES (%s, %s, '', '', '')",
                (self.funder, CHAIN),
            )
            await cur.execute(
                "INSERT INTO store (id, chain, region, shard, name_zh, name_en, zone, cutoff_hour, basket_owner,"
                " opened_at) VALUES (%s, %s, %s, 0, '', '', 'Asia/Shanghai', 0, 'storeops', %s)",
                (self.store, CHAIN, self.region, at),
            )
            await cur.execute("INSERT INTO store_entity VALUES (%s, '2020-01-01', 'chain')", (self.store,))
            await save_plan(cur, CHAIN, document)
        auth = None
        if data["fee_fen"]:
            auth = ProviderAuth("alipay", await self.shop.admin.payment_code(self.shop.customer(self.name)))
        request = EnrolMember(
            session=SessionId(self.name),
            store=self.store,
            terminal=TerminalId("t-1"),
            plan=self.plan,
            guarantee="huabei_hold",
            at=at,
            phone=None,
            auth=auth,
            member=None,
        )
        answer = await self.shop.ask(request, self._id("enrol"))
        assert isinstance(answer, EnrolAnswered)
        assert answer.member is not None, answer.code
        assert answer.member.membership is not None
        self.membership = answer.member.membership.id

    def _id(self, name: str) -> str:
        return f"{self.name}:{name}"

    def _at(self, data: dict[str, Any]) -> datetime:
        """The clock goes on to the event's instant; never back, for an attempt may have been due later."""
        self.now = self.shop.clock.now = max(self.now, datetime.fromisoformat(data["at"]).astimezone(UTC))
        return self.now

    # ------------------------------------------------------------ events

    async def _meet(self, data: dict[str, Any]) -> None:
        at = self._at(data)
        match data["type"]:
            case "use":
                await self._use(data, at)
            case "reverse":
                use = SaleUse(UsageId(self._id(data["refers_to"])), self.membership, BenefitId("any"), data["fen"])
                request = ReverseUses(SessionId("v"), self.store, SaleId("any"), (use,), at)
                await self.shop.ask(request, self._id(data["id"]))
            case "cancel":
                await self._cancel(data)
            case "provider":
                self.events.appendleft(data)
                await self._wait_until_due("UNKNOWN")
                await self._settle()
                if self.events and self.events[0] is data:  # no attempt was open
                    self.events.popleft()
                    await self._hear_of_late_money(data)
            case _:  # expire, cutoff, attempt: whatever is due now
                await self._wait_until_due("NEW")
                await self._settle()

    async def _use(self, data: dict[str, Any], at: datetime) -> None:
        name, usage = data["id"], UsageId(self._id(data["id"]))
        use = SaleUse(usage, self.membership, BenefitId(data["benefit"]), data["fen"])
        biz_time = datetime.fromisoformat(data["biz_time"])
        if not data["offline"] and not await self.shop.rows("SELECT 1 FROM usage WHERE id = %s", usage):
            reserve = ReserveUses(SessionId(name), self.store, self.membership, (use,), biz_time, rev=1)
            answer = await self.shop.ask(reserve, self._id(f"reserve {name}"))
            assert isinstance(answer, ReserveAnswered)
            if not answer.ok:
                assert self.classes.setdefault(name, "REFUSED") == "REFUSED"
                return
        post = PostUses(
            session=SessionId(name),
            store=self.store,
            terminal=TerminalId("t-1"),
            sale=SaleId(self._id(f"sale {name}")),
            paid_fen=1200,
            uses=(use,),
            biz_time=biz_time,
            seq=1,
            clerk=None,
            unreserved=data["offline"],
        )
        await self.shop.ask(post, self._id(f"post {name}"))
        use_class = await self.shop.one("SELECT class FROM usage WHERE id = %s", usage)
        assert self.classes.setdefault(name, use_class) == use_class, "a duplicate gets the first answer"

    async def _cancel(self, data: dict[str, Any]) -> None:
        life, number = self.shop.memberships.life, self._id(f"cancel {data['at']}")
        for _ in range(2):  # the same number again changes nothing
            with suppress(Refused):
                await life.do(number, self.membership, Asked("cancel", data["by"]), by="test")
        code = await self.shop.one("SELECT code FROM membership_request WHERE number = %s", number)
        assert code in ("", "cancel_refused")
        self.refused_cancels += code != ""

    # ------------------------------------------------------------ settlement and what the provider says

    async def _settle(self) -> None:
        await self.runner.run(self.shop.clock.now)

    async def _wait_until_due(self, state: str) -> None:
        """The case's timers count from the first answer of an attempt, the system's from its definite one."""
        due = await self.shop.rows(
            "SELECT CASE state WHEN 'NEW' THEN not_before ELSE lease_until END FROM settlement_call"
            " WHERE membership = %s AND kind = 'capture' AND state = %s",
            self.membership,
            state,
        )
        for (at,) in due:
            self._at({"at": at.isoformat()})

    async def _between_steps(self, step: str) -> None:
        """A capture is claimed and not yet asked for: what the case tells until the answer happens meanwhile."""
        if step != "claimed":
            return
        calls = await self.shop.rows(
            "SELECT request_number, state, attempt FROM settlement_call WHERE membership = %s AND kind = 'capture'"
            " AND state IN ('NEW', 'UNKNOWN') AND lease_until > %s",
            self.membership,
            self.shop.clock.now,
        )
        if not calls:
            return
        [(number, state, attempt)] = calls
        while self.events[0]["type"] != "provider":
            await self._meet(self.events.popleft())
        said = self.events.popleft()
        self._at(said)
        if attempt in self.late:
            self.provider.heard.setdefault(number, deque()).append(said["answer"])
        elif state == "NEW":
            await self._script(said["answer"])

    async def _script(self, answer: str) -> None:
        """What the simulator does with the first request of a number; its queries tell the same."""
        if answer == "failed":
            await self.shop.admin.add_fault(PAY, "fail", sub_code=BROKE)
        elif answer == "unknown":
            final = next(event["answer"] for event in self.events if event["type"] == "provider")
            if final == "succeeded":
                await self.shop.admin.add_fault(PAY, "http_500")
            else:
                await self.shop.admin.add_fault(PAY, "fail", sub_code=LOST)

    async def _hear_of_late_money(self, data: dict[str, Any]) -> None:
        """A success after the failure: a notification makes us ask again, and the answer to that is booked."""
        if data["answer"] != "succeeded" or not self.late:
            return
        [attempt] = self.late
        number, now = request_number(self.membership, 1, attempt), self.shop.clock.now
        notice = Notice(str(uuid.uuid4()), NoticeKind.PAYMENT, "", number, "", "", "TRADE_SUCCESS", None, now)
        async with self.shop.pool.connection() as conn:
            await keep_notice(conn, "alipay", notice, now)
        late = LateMoney(self.shop.pool, lambda *_: self.provider, wall=self.shop.clock)
        assert await late.sweep(CHAIN, self.region) == 1
        await self._settle()

    # ------------------------------------------------------------ what became of it

    async def _told(self) -> dict[str, Any]:
        row = await self.shop.membership(self.membership)
        assert row["hold_state"] != "held", "captured or released before the end"
        refunds = await self.shop.rows(
            "SELECT fen FROM settlement_call WHERE membership = %s AND kind = 'refund' AND state = 'POSTED'"
            " ORDER BY not_before, fen",
            self.membership,
        )
        absorbed = await self.shop.one(
            "SELECT coalesce(sum(fen - reversed_fen), 0)::bigint FROM usage WHERE membership = %s"
            " AND class IN ('LATE', 'OVERUSE')",
            self.membership,
        )
        assert await self.shop.account(self.funder, f"absorbed:{self.funder}") == absorbed, "absorbed by its funder"
        return {
            "state": row["state"],
            "used_fen": row["used_fen"],
            "charge_fen": row["charge_fen"],
            "paid_fen": row["paid_fen"],
            "refunds_fen": [fen for (fen,) in refunds],
            "absorbed_fen": absorbed,
            "given_up_fen": await self.shop.account(self.funder, f"given_up:{self.funder}", "pending"),
            "branch": row["branch"],
            "classes": self.classes,
            "refused_cancels": self.refused_cancels,
        }
