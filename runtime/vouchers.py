"""Vouchers of sales: reserved, posted, released, returned. Quotas are kept under the vouchers' row locks."""

from __future__ import annotations

from collections import Counter
from typing import Any

from psycopg import AsyncCursor

from actors.ports import PostVouchers, ReleaseVouchers, ReserveVouchers, ReturnVouchers, VoucherRequest
from models.domain.ids import ChainId, VoucherId, derived_id
from models.domain.messages import ReleaseAnswered, ReserveAnswered, SaleVoucher
from models.domain.points import POINTS
from models.tables import vouchers as rows
from models.tables.points import lock_points, spendable_points
from runtime.clock import Pool, Wall, wall_now
from runtime.uses import RESERVED_FOR


class Vouchers:
    """The vouchers port of one chain. `wall` times the reservations."""

    def __init__(self, chain: ChainId, pool: Pool, *, wall: Wall = wall_now) -> None:
        self._chain = chain
        self._pool = pool
        self._wall = wall

    async def ask(self, ask_id: str, request: VoucherRequest) -> ReserveAnswered | ReleaseAnswered:
        """Returns after the rows are durable. The same ask again changes nothing."""
        match request:
            case ReserveVouchers():
                return await self._reserve(ask_id, request)
            case PostVouchers():
                await self._post(request)
            case ReleaseVouchers():
                await self._release(request)
            case ReturnVouchers():
                await self._return(ask_id, request)
        return ReleaseAnswered(ask_id, request.session)

    async def _reserve(self, ask_id: str, request: ReserveVouchers) -> ReserveAnswered:
        async with self._pool.connection() as conn, conn.cursor() as cur:
            asked = [one.voucher for one in request.vouchers]
            quotas = await rows.lock_vouchers(cur, self._chain, asked)
            counted = [one for one, quota in quotas.items() if quota.counted]
            points_fen = sum(one.fen for one in request.vouchers if one.voucher == POINTS)
            if points_fen and request.member is not None:
                await lock_points(cur, request.member)
                counted.append(POINTS)
            if counted:
                await rows.release_expired(cur, self._chain, counted, self._wall())
                quotas = await rows.lock_vouchers(cur, self._chain, asked)
            states = await rows.states_of(cur, [one.use for one in request.vouchers])
            new = [one for one in request.vouchers if states.get(one.use) not in ("open", "posted")]
            gone = await self._gone(cur, quotas, new, request.member)
            if any(one.voucher == POINTS for one in new):
                member = request.member
                left = 0 if member is None else await spendable_points(cur, member, request.at)
                gone = (*gone, POINTS) if points_fen > left else gone
            if gone:
                return ReserveAnswered(ask_id, request.session, ok=False, code="voucher_used", gone=gone)
            of = rows.UseOf(self._chain, request.member, request.session, request.store, request.at)
            for one in request.vouchers:
                if states.get(one.use) != "posted":  # a till may be quicker
                    await rows.save_use(cur, of, one, "open", expires_at=self._wall() + RESERVED_FOR)
            for one in new:
                await rows.add_taken(cur, self._chain, one.voucher, 1)
        return ReserveAnswered(ask_id, request.session, ok=True)

    async def _gone(
        self, cur: AsyncCursor[Any], quotas: dict[str, rows.Quota], new: list[SaleVoucher], member: str | None
    ) -> tuple[VoucherId, ...]:
        """Those that have not so many uses left, in all or for this member; and those that no row defines."""
        wanted = Counter(one.voucher for one in new)
        of_member = [one for one in wanted if one in quotas and quotas[one].member_quota is not None]
        mine = await rows.taken_by(cur, self._chain, of_member, member) if of_member and member else Counter[str]()
        gone = []
        for one, count in wanted.items():
            quota = quotas.get(one)
            of_all = quota is None or (quota.quota is not None and quota.taken + count > quota.quota)
            each = None if quota is None else quota.member_quota
            if of_all or (each is not None and (member is None or mine[one] + count > each)):
                gone.append(one)
        return tuple(gone)

    async def _post(self, request: PostVouchers) -> None:
        """The sale happened: nothing is refused any more. What was not reserved and is beyond a quota is marked."""
        async with self._pool.connection() as conn, conn.cursor() as cur:
            quotas = await rows.lock_vouchers(cur, self._chain, [one.voucher for one in request.vouchers])
            states = await rows.states_of(cur, [one.use for one in request.vouchers])
            of = rows.UseOf(
                self._chain, request.member, request.session, request.store, request.at, request.sale, request.terminal
            )
            for one in request.vouchers:
                if states.get(one.use) in ("posted", "returned") or one.voucher not in quotas:
                    continue
                reserved = states.get(one.use) == "open"
                over = False if reserved else bool(await self._gone(cur, quotas, [one], request.member))
                back_fen = min(one.fen, await rows.returned_fen(cur, one.use))
                whole = back_fen == one.fen
                state = "returned" if whole else "posted"
                await rows.save_use(cur, of, one, state, returned_fen=back_fen, over=over)
                await rows.add_taken(cur, self._chain, one.voucher, (not whole) - reserved)

    async def _release(self, request: ReleaseVouchers) -> None:
        async with self._pool.connection() as conn, conn.cursor() as cur:
            await rows.lock_vouchers(cur, self._chain, [one.voucher for one in request.vouchers])
            for chain, voucher in await rows.release(cur, [one.use for one in request.vouchers]):
                await rows.add_taken(cur, chain, voucher, -1)

    async def _return(self, ask_id: str, request: ReturnVouchers) -> None:
        async with self._pool.connection() as conn, conn.cursor() as cur:
            await rows.lock_vouchers(cur, self._chain, [one.voucher for one in request.vouchers])
            for one in request.vouchers:
                if await rows.insert_return(cur, derived_id(ask_id, one.use), one.use, one.fen, request.at):
                    free = await rows.add_returned(cur, one.use, one.fen)
                    if free is not None:
                        await rows.add_taken(cur, *free, -1)
