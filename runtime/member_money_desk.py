"""The desk of members' own means of payment: each member's lie in the database of their home region."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from models.domain.errors import Refused
from models.domain.member_balance import BalanceMove, BalanceStatement, CounterMove, MoveKind
from models.tables.member_money import Agreement
from runtime.plant import Plant, Providers, choose
from runtime.stored_value import StoredValue
from runtime.withholding import DAY_FEN_MAX, PAYMENT_FEN_MAX, Withholding

CONNECTIONS_MAX = 4


class MemberMoneyOfAHouse:
    """See gateway.member_money.MemberMoneyDesk. Belongs to one event loop; `aclose` ends its connections."""

    def __init__(self, plants: Sequence[Plant]) -> None:
        self._plants = plants
        self._pools: dict[str, AsyncConnectionPool[AsyncConnection[Any]]] = {}
        self._providers: dict[str, Providers] = {}

    async def balance(self, member: str) -> BalanceStatement:
        return await StoredValue((await self._of(member))[0]).show(member)

    async def move(self, kind: MoveKind, asked: CounterMove) -> BalanceMove:
        balances = StoredValue((await self._of(asked.member))[0])
        return await (balances.top_up if kind is MoveKind.TOP_UP else balances.pay_out)(asked)

    async def agreements(self, member: str) -> Sequence[Agreement]:
        return await (await self._withholding(member)).show(member)

    async def sign(
        self, request: str, member: str, *, by: str, entity: str = "", payment_fen_max: int = 0, day_fen_max: int = 0
    ) -> Agreement:
        return await (await self._withholding(member)).sign(
            request,
            member,
            by=by,
            entity=entity,
            payment_fen_max=payment_fen_max or PAYMENT_FEN_MAX,
            day_fen_max=day_fen_max or max(DAY_FEN_MAX, payment_fen_max),
        )

    async def look(self, member: str, number: str) -> Agreement:
        return await (await self._theirs(member, number)).look(number)

    async def unsign(self, member: str, number: str, *, by: str) -> Agreement:
        return await (await self._theirs(member, number)).unsign(number, by=by)

    async def aclose(self) -> None:
        """Close all connections. The desk cannot be used afterwards."""
        for providers in self._providers.values():
            await providers.aclose()
        for pool in self._pools.values():
            await pool.close()

    async def _theirs(self, member: str, number: str) -> Withholding:
        withholding = await self._withholding(member)
        if all(one.number != number for one in await withholding.show(member)):
            raise Refused("unknown_agreement", f"{member} has no agreement {number!r}", "see the member's page")
        return withholding

    async def _withholding(self, member: str) -> Withholding:
        pool, region, url = await self._of(member)
        plant = choose([one for one in self._plants if one.database_url == url], region)
        providers = self._providers.setdefault(plant.region, Providers(plant))
        return Withholding(pool, providers)

    async def _of(self, member: str) -> tuple[AsyncConnectionPool[AsyncConnection[Any]], str, str]:
        for url in dict.fromkeys(plant.database_url for plant in self._plants):
            pool = await self._pool(url)
            async with pool.connection() as conn:
                row = await (await conn.execute("SELECT region FROM member WHERE id = %s", (member,))).fetchone()
            if row is not None:
                return pool, str(row[0]), url
        raise Refused("unknown_member", f"there is no member {member!r}", "look them up in the console")

    async def _pool(self, url: str) -> AsyncConnectionPool[AsyncConnection[Any]]:
        if url not in self._pools:
            pool = self._pools[url] = AsyncConnectionPool[AsyncConnection[Any]](
                url, min_size=0, max_size=CONNECTIONS_MAX, open=False, check=AsyncConnectionPool.check_connection
            )
            await pool.open()
        return self._pools[url]


@asynccontextmanager
async def opened(plants: Sequence[Plant]) -> AsyncIterator[MemberMoneyOfAHouse]:
    """The desk for one call of the command line."""
    desk = MemberMoneyOfAHouse(plants)
    try:
        yield desk
    finally:
        await desk.aclose()
