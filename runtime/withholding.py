"""Withholding agreements of members: signed on their phone, stored, paid under within our limits, ended.

The row is written before the provider is asked, so that whatever crashes the number is known and asked about again.
The limits are checked under the agreement's row lock, and a payment is counted before the provider is asked for it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import timedelta

from psycopg.errors import UniqueViolation

from actors.ports import PaymentRequest
from gateway.providers.port import Capability, PaymentProvider
from models.domain.errors import Refused, RetryLater
from models.domain.ids import LegalEntityId, derived_id
from models.domain.payments import (
    PROVIDERS,
    Answer,
    Failed,
    FailReason,
    PayResult,
    Pending,
    Succeeded,
    Unknown,
)
from models.domain.privacy import Detail
from models.tables import clock
from models.tables import member_money as table
from models.tables.member_money import Agreement
from models.tables.privacy import audit
from runtime.clock import Pool, Wall, wall_now

LOOK_EVERY = timedelta(seconds=15)
SIGN_WITHIN = timedelta(hours=1)
"""A page that nobody signed in this time is given up: the number is ended, so that another may be asked for."""
PAYMENT_FEN_MAX, DAY_FEN_MAX = 20_000, 50_000
"""What a member agrees to unless a clerk says less: 200 yuan at once, 500 a day."""
LIMIT_FEN_MAX = 100_000
SUBJECT = "会员免密支付"

ProviderOf = Callable[[LegalEntityId, str], PaymentProvider]
Paid = Answer[PayResult] | str
"""The provider's answer, or our own reason why it was not asked."""


class Withholding:
    """The agreements of one database. Belongs to one event loop; any number may run beside it."""

    def __init__(self, pool: Pool, providers: ProviderOf, wall: Wall = wall_now) -> None:
        self._pool, self._providers, self._wall = pool, providers, wall

    async def show(self, member: str) -> list[Agreement]:
        """A member's agreements, the newest first."""
        async with self._pool.connection() as conn:
            return await table.agreements_of(conn, member)

    async def sign(
        self,
        request: str,
        member: str,
        *,
        by: str,
        entity: str = "",
        payment_fen_max: int = PAYMENT_FEN_MAX,
        day_fen_max: int = DAY_FEN_MAX,
    ) -> Agreement:
        """Ask the member for an agreement with `entity` (the owner of their home store): `code_text` is what they scan.

        Asked again with the same `request` it is the same agreement; while one lives it is the answer. Raises Refused:
        unknown_member, bad_limit, no_agreements (the account has no such product); RetryLater.
        """
        if not 0 < payment_fen_max <= day_fen_max <= LIMIT_FEN_MAX:
            most = f"{LIMIT_FEN_MAX // 100} yuan"
            raise Refused("bad_limit", "a payment's limit is at most the day's", f"limits from 0.01 to {most}")
        number = re.sub("[^0-9a-z]", "", derived_id(request, f"agreement:{member}"))
        async with self._pool.connection() as conn:
            cursor = await conn.execute(
                """SELECT m.chain, e.entity FROM member m JOIN store_entity e ON e.store = m.home_store
                   WHERE m.id = %s ORDER BY e.from_date DESC LIMIT 1""",
                (member,),
            )
            row = await cursor.fetchone()
            if row is None:
                raise Refused("unknown_member", f"there is no member {member!r}", "look them up in the console")
            chain, owner = row[0], LegalEntityId(entity or row[1])
            one = await table.agreement_named(conn, number) or await table.live_agreement(conn, member, owner)
        provider = self._provider(owner)
        if one is None:
            now = self._wall()
            one = Agreement(
                number, chain, member, owner, PROVIDERS[0], "", "", payment_fen_max, day_fen_max, "signing", "", now,
                None, None,
            )  # fmt: skip
            try:
                async with self._pool.connection() as conn:
                    await table.add_agreement(conn, one, by)
                    said: Detail = {"agreement": number, "payment_fen_max": payment_fen_max, "day_fen_max": day_fen_max}
                    await audit(conn, "agreement_asked", member, said, by, now)
            except UniqueViolation:  # somebody else asks at this moment
                raise RetryLater(
                    "agreement_asked", "an agreement is being asked for", "look again", after_s=1
                ) from None
        if one.state != "signing":
            return one
        answer = await provider.sign(number=one.number, limit_fen=one.payment_fen_max, subject=SUBJECT)
        if isinstance(answer, Pending) and answer.code_text:
            async with self._pool.connection() as conn:
                await table.note_code(conn, one.number, answer.code_text)
        elif isinstance(answer, Unknown):
            raise RetryLater("provider_silent", "the provider did not answer", "ask again with the same number")
        else:
            await self._learn(one, answer)
        return await self._again(one)

    async def look(self, number: str) -> Agreement:
        """Ask the provider what became of a signing. Raises Refused `unknown_agreement`."""
        one = await self._named(number)
        if one.state == "signing":
            await self._learn(one, await self._provider(one.entity).query_agreement(number=number))
        return await self._again(one)

    async def unsign(self, number: str, *, by: str) -> Agreement:
        """End it at the provider, then here. Raises Refused `unknown_agreement`; RetryLater when nobody answered."""
        one = await self._named(number)
        if one.state == "active":
            answer = await self._provider(one.entity).unsign(number=number, agreement_no=one.agreement_no)
            if not isinstance(answer, Succeeded):
                raise RetryLater("provider_silent", "the provider did not end it", "try again: it still stands")
        if one.state != "ended":
            async with self._pool.connection() as conn:
                await table.note_ended(conn, number, self._wall())
                await audit(conn, "agreement_ended", one.member, {"agreement": number}, by, self._wall())
        return await self._again(one)

    async def sweep(self, chain: str) -> int:
        """Ask about those that are being signed and whose time has come; how many. Call every few seconds."""
        async with self._pool.connection() as conn:
            due = await table.claim_signing(conn, chain, self._wall(), LOOK_EVERY)
        for one in due:
            answer = await self._provider(one.entity).query_agreement(number=one.number)
            late = self._wall() - one.asked_at > SIGN_WITHIN
            await self._learn(one, answer, over=late and isinstance(answer, Unknown) and answer.absent)
        return len(due)

    # ------------------------------------------------------------ as a tender

    async def pay(self, request: PaymentRequest, once: Callable[[Agreement], Awaitable[Answer[PayResult]]]) -> Paid:
        """Check and count under the lock, then `once` asks the provider. What failed for good counts no more."""
        async with self._pool.connection() as conn:
            one = await table.live_agreement(conn, request.member or "", request.entity, lock=True)
            if one is None or one.state != "active":
                return "agreement_missing"
            counted = await table.payment_under(conn, request.order)
            if counted:
                return str(FailReason.CLOSED)
            if counted is None:
                async with conn.cursor() as cursor:
                    now = await clock.business_now(cursor, self._wall())
                day = await table.business_day(conn, request.store, now)
                if request.fen > one.payment_fen_max:
                    return "payment_limit"
                if await table.paid_on(conn, one.number, day) + request.fen > one.day_fen_max:
                    return "day_limit"
                await table.add_payment(conn, request.order, one.number, request.fen, day, now)
        answer = await once(one)
        if isinstance(answer, Failed):
            await self.freed(request.order)
            if answer.reason is FailReason.AGREEMENT_GONE:
                async with self._pool.connection() as conn:
                    await table.note_ended(conn, one.number, self._wall())
                return "agreement_missing"
            if answer.reason is FailReason.LIMIT_EXCEEDED:
                return "payment_limit"
        return answer

    async def freed(self, order: str) -> None:
        """Nothing is kept of this order: it makes room within the day's limit."""
        async with self._pool.connection() as conn:
            await table.free_payment(conn, order)

    # ------------------------------------------------------------ inside

    def _provider(self, entity: LegalEntityId) -> PaymentProvider:
        try:
            provider = self._providers(entity, PROVIDERS[0])
        except KeyError:
            raise Refused("no_agreements", f"{entity} has no merchant account", "pay otherwise") from None
        if Capability.AGREEMENTS not in provider.capabilities:
            raise Refused("no_agreements", f"the account of {entity} has no withholding", "pay otherwise")
        return provider

    async def _learn(self, one: Agreement, answer: object, *, over: bool = False) -> None:
        async with self._pool.connection() as conn:
            if isinstance(answer, Succeeded):
                result = answer.result
                await table.note_signed(conn, one.number, result.agreement_no, result.payer, self._wall())
            elif isinstance(answer, Failed) or over:
                await table.note_ended(conn, one.number, self._wall())

    async def _named(self, number: str) -> Agreement:
        async with self._pool.connection() as conn:
            one = await table.agreement_named(conn, number)
        if one is None:
            raise Refused("unknown_agreement", f"there is no agreement {number!r}", "see the member's page")
        return one

    async def _again(self, one: Agreement) -> Agreement:
        return await self._named(one.number)
