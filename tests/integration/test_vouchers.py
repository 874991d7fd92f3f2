"""Quotas of vouchers on a real database: reserved, booked, given back, and never more than there are."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from psycopg_pool import AsyncConnectionPool

from actors.ports import PostVouchers, ReleaseVouchers, ReserveVouchers, ReturnVouchers
from models.domain.ids import LegalEntityId, MemberId, SaleId, SessionId, TerminalId, UsageId, VoucherId
from models.domain.messages import ReserveAnswered, SaleVoucher
from models.tables.vouchers import save_vouchers
from runtime.uses import RESERVED_FOR
from runtime.vouchers import Vouchers
from tests.domain.baskets import voucher
from tests.integration.money_shop import CHAIN, OWN, Clock, Pool

ANNA, BO = MemberId("anna"), MemberId("bo")


def use(name: str, fen: int = 500) -> SaleVoucher:
    return SaleVoucher(UsageId(str(uuid.uuid4())), VoucherId(name), fen, LegalEntityId("chain"), ((1, fen),))


class Desk:
    """The port over a database."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.clock = Clock()
        self.port = Vouchers(CHAIN, pool, wall=self.clock)

    async def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        async with self.pool.connection() as conn:
            cur = await conn.execute(query, values)
            return list(await cur.fetchall())

    async def one(self, query: str, *values: object) -> Any:
        ((value,),) = await self.rows(query, *values)
        return value

    async def reserve(self, *uses: SaleVoucher, member: MemberId | None = None, ask: str = "") -> ReserveAnswered:
        request = ReserveVouchers(SessionId(str(uuid.uuid4())), OWN, member, uses, self.clock.now)
        answer = await self.port.ask(ask or str(uuid.uuid4()), request)
        assert isinstance(answer, ReserveAnswered)
        return answer

    async def post(self, *uses: SaleVoucher, member: MemberId | None = None) -> None:
        session, sale = SessionId("v"), SaleId(str(uuid.uuid4()))
        request = PostVouchers(session, OWN, TerminalId("t-1"), sale, member, uses, self.clock.now)
        await self.port.ask(str(uuid.uuid4()), request)

    async def release(self, *uses: SaleVoucher) -> None:
        await self.port.ask(str(uuid.uuid4()), ReleaseVouchers(SessionId("v"), uses))

    async def bring_back(self, *uses: SaleVoucher, ask: str = "") -> None:
        request = ReturnVouchers(SessionId("v"), OWN, uses, self.clock.now)
        await self.port.ask(ask or str(uuid.uuid4()), request)

    async def taken(self, name: str) -> int:
        """The count; it must be what the uses say."""
        taken = int(await self.one("SELECT taken FROM voucher WHERE id = %s", name))
        uses = "SELECT count(*) FROM voucher_use WHERE voucher = %s AND state IN ('open', 'posted')"
        assert taken == await self.one(uses, name)
        return taken

    async def state(self, one: SaleVoucher) -> str:
        return str(await self.one("SELECT state FROM voucher_use WHERE id = %s", one.use))


@pytest.fixture
async def desk(migrated_database_url: str) -> AsyncIterator[Desk]:
    async with AsyncConnectionPool(migrated_database_url, min_size=1, max_size=8, open=False) as pool:
        async with pool.connection() as conn, conn.cursor() as cur:
            few, each = voucher("few", quota=2), voucher("each", member_quota=1)
            await save_vouchers(cur, CHAIN, [few, each, voucher("free")])
        yield Desk(pool)


async def test_a_quota_is_reserved_booked_and_freed(desk: Desk) -> None:
    first, second, third = use("few"), use("few"), use("few")
    assert (await desk.reserve(first)).ok
    assert (await desk.reserve(first)).ok, "asked again it is the same reservation"
    assert (await desk.reserve(second)).ok
    refused = await desk.reserve(third)
    assert (refused.ok, refused.code, refused.gone) == (False, "voucher_used", ("few",))
    await desk.post(first)
    await desk.post(first)
    await desk.release(second, first)
    assert (await desk.state(first), await desk.state(second), await desk.taken("few")) == ("posted", "released", 1)
    assert (await desk.reserve(third)).ok
    await desk.bring_back(replace(first, fen=200), ask="back-1")
    await desk.bring_back(replace(first, fen=200), ask="back-1")
    assert await desk.taken("few") == 2, "part of it stays used"
    await desk.bring_back(replace(first, fen=300), ask="back-2")
    assert (await desk.state(first), await desk.taken("few")) == ("returned", 1)


async def test_one_for_each_member(desk: Desk) -> None:
    assert not (await desk.reserve(use("each"))).ok, "nobody was recognised"
    assert (await desk.reserve(use("each"), member=ANNA)).ok
    assert not (await desk.reserve(use("each"), member=ANNA)).ok
    assert not (await desk.reserve(use("each"), use("each"), member=BO)).ok
    assert (await desk.reserve(use("each"), member=BO)).ok
    assert await desk.taken("each") == 2


async def test_what_was_taken_without_asking_is_booked_and_marked(desk: Desk) -> None:
    uses = [use("few") for _ in range(3)]
    await desk.post(*uses[:2])
    await desk.post(uses[2])
    marks = await desk.rows("SELECT over FROM voucher_use WHERE state = 'posted' ORDER BY over")
    assert [over for (over,) in marks] == [False, False, True]
    assert await desk.taken("few") == 3


async def test_a_reservation_that_ran_out_is_somebody_elses_and_a_late_payment_still_counts(desk: Desk) -> None:
    slow, other, third = use("few"), use("few"), use("few")
    await desk.reserve(slow)
    desk.clock.now += RESERVED_FOR + timedelta(seconds=1)
    assert (await desk.reserve(other, third)).ok
    assert await desk.state(slow) == "released"
    await desk.post(slow)
    assert (await desk.state(slow), await desk.taken("few")) == ("posted", 3)
    assert await desk.one("SELECT over FROM voucher_use WHERE id = %s", slow.use)


async def test_a_return_that_comes_before_its_sale_frees_the_place_at_once(desk: Desk) -> None:
    early = use("few")
    await desk.bring_back(early, ask="void")
    await desk.post(early)
    assert (await desk.state(early), await desk.taken("few")) == ("returned", 0)


async def test_a_voucher_without_quota_is_only_written_down(desk: Desk) -> None:
    many = [use("free") for _ in range(5)]
    assert (await desk.reserve(*many)).ok
    await desk.post(*many)
    assert await desk.one("SELECT count(*) FROM voucher_use WHERE voucher = 'free'") == 5
    assert await desk.one("SELECT taken FROM voucher WHERE id = 'free'") == 0
    unknown = await desk.reserve(use("no-such"))
    assert unknown.gone == ("no-such",)


async def test_twelve_lanes_want_two(desk: Desk) -> None:
    answers = await asyncio.gather(*(desk.reserve(use("few"), use("each"), member=MemberId(str(n))) for n in range(12)))
    assert sum(answer.ok for answer in answers) == 2
    assert (await desk.taken("few"), await desk.taken("each")) == (2, 2)
