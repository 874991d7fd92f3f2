"""The asks of a simulated host: the real mapping of `runtime.asks.Ports`, over faces by script and books in memory."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

from actors.effects import Ask
from actors.ports import FindSale, ReserveVouchers, VoucherRequest
from gateway.providers.port import PaymentProvider
from models.domain.ids import ChainId, MemberId, RegionId, TerminalId
from models.domain.messages import (
    EnrolAnswered,
    FaceAnswered,
    FaceOutcome,
    KeyRow,
    PastReturn,
    ReleaseAnswered,
    ReserveAnswered,
    SaleFound,
    SealedTemplate,
    TemplateRow,
)
from models.domain.recognition import (
    ConsentToken,
    EnrolConsent,
    EnrolRequest,
    FaceAnswer,
    IdentifyRequest,
    RescoreRequest,
    ShotRequest,
)
from runtime.asks import Answered, FaceService, Ports, VisitMemory
from runtime.memberships import Memberships
from runtime.testing.journal import MemoryDatabase
from runtime.testing.memberships import MemberBooks, MemoryMemberships
from runtime.testing.provider import MemoryProvider

JPEG = b"\xff\xd8"


def photograph(who: str, twin: bool = False) -> bytes:
    """A frame that shows one person. A twin is in doubt: digits are asked for."""
    return JPEG + (b"twin:" if twin else b"face:") + who.encode()


class ScriptedFaces:
    """Face workers that read names instead of pixels. Seals are as good as the visit's key."""

    def __init__(self, database: MemoryDatabase, rng: random.Random, silent: int = 0) -> None:
        """`silent`: thousandths of the questions that are never answered."""
        self._database = database
        self._rng = rng
        self._silent = silent
        self._people: dict[str, MemberId] = {}

    async def identify(self, request: IdentifyRequest, consent: ConsentToken) -> FaceAnswer:
        consent.check(request.session)
        await self._work()
        who = request.jpeg[7:].decode()
        if request.jpeg[2:7] == b"twin:" and self._find(who) is not None:
            sealed = _seal(request.visit_key, who)
            return FaceAnswer(request.session, request.question, FaceOutcome.DIGITS, sealed=sealed)
        return self._answer(request, who)

    async def rescore(self, request: RescoreRequest, consent: ConsentToken) -> FaceAnswer:
        consent.check(request.session)
        await self._work()
        who = _unseal(request.visit_key, request.sealed)
        if who is None:
            return FaceAnswer(request.session, request.question, FaceOutcome.LOST)
        if request.digits_tail != tail_of(who):
            return FaceAnswer(request.session, request.question, FaceOutcome.NOT_RECOGNISED)
        return self._answer(request, who)

    async def shoot(self, request: ShotRequest, consent: EnrolConsent) -> FaceAnswer:
        consent.check(request.session)
        await self._work()
        sealed = _seal(request.visit_key, request.jpeg[7:].decode())
        return FaceAnswer(request.session, request.question, FaceOutcome.SHOT_TAKEN, sealed=sealed)

    async def enrol(self, request: EnrolRequest, consent: EnrolConsent) -> FaceAnswer:
        consent.check(request.session)
        await self._work()
        shots = {_unseal(request.visit_key, shot) for shot in request.shots}
        if None in shots:
            return FaceAnswer(request.session, request.question, FaceOutcome.LOST)
        if len(shots) > 1:
            return FaceAnswer(request.session, request.question, FaceOutcome.SHOTS_DISAGREE)
        name = shots.pop()
        assert name is not None
        row = TemplateRow(request.template_id, request.member, "net", name.encode(), request.template_id, "simulated")
        key = KeyRow(request.template_id, request.member, 1, b"wrapped")
        return FaceAnswer(
            request.session, request.question, FaceOutcome.ENROLLED, templates=(SealedTemplate(row, key),)
        )

    async def _work(self) -> None:
        await asyncio.sleep(self._rng.uniform(0.02, 0.2))
        if self._silent and self._rng.randrange(1000) < self._silent:
            await asyncio.sleep(3600)

    def _find(self, who: str) -> MemberId | None:
        for member, made in self._database.templates.items():
            if made.template.ciphertext == who.encode():
                return member
        return None

    def _answer(self, request: IdentifyRequest | RescoreRequest, who: str) -> FaceAnswer:
        member = self._find(who)
        outcome = FaceOutcome.NOT_RECOGNISED if member is None else FaceOutcome.ACCEPTED
        return FaceAnswer(request.session, request.question, outcome, member=member)


def tail_of(who: str) -> str:
    """The last four digits of somebody's phone."""
    return f"{int.from_bytes(hashlib.sha256(who.encode()).digest()[:4], 'big') % 10_000:04d}"


def phone_of(who: str) -> str:
    """Somebody's phone."""
    return f"1380000{tail_of(who)}"


def _seal(key: bytes, who: str) -> bytes:
    return hashlib.sha256(key).digest()[:8] + who.encode()


def _unseal(key: bytes, sealed: bytes) -> str | None:
    return sealed[8:].decode() if sealed[:8] == hashlib.sha256(key).digest()[:8] else None


class MemoryPorts(Ports):
    """The ports of one incarnation of a host. `asked` sees each ask before it is made."""

    def __init__(
        self,
        database: MemoryDatabase,
        books: MemberBooks,
        provider: MemoryProvider,
        memberships: MemoryMemberships,
        faces: FaceService,
        point: Callable[[str], None],
        asked: Callable[[Ask], None],
        wall: Callable[[], datetime],
    ) -> None:
        none: Any = None
        super().__init__(
            ChainId("acme"),
            none,
            faces,
            RegionId("north"),
            cast(Memberships, memberships),
            lambda _entity, _provider: cast(PaymentProvider, provider),
        )
        self._database = database
        self._books = books
        self._point = point
        self._asked = asked
        self._wall = wall

    async def ask(self, ask: Ask, attempts: int, memory: VisitMemory) -> Answered:
        self._point("before_ask")
        self._asked(ask)
        answered = await super().ask(ask, attempts, memory)
        self._point("after_ask")
        return answered

    async def resolved(self) -> list[tuple[TerminalId, EnrolAnswered]]:
        return []

    async def _as_message(self, answer: FaceAnswer) -> FaceAnswered:
        row = self._books.row_of(answer.member) if answer.member is not None else None
        outcome = answer.outcome
        if outcome is FaceOutcome.ACCEPTED and row is None:
            outcome = FaceOutcome.NOT_RECOGNISED
        return FaceAnswered(
            session=answer.session,
            question=answer.question,
            outcome=outcome,
            member=self._books.view(row, self._wall()) if row is not None else None,
            sealed=answer.sealed,
            templates=answer.templates,
        )

    async def _find_sale(self, question: str, request: FindSale) -> SaleFound:
        await asyncio.sleep(0.002)
        sale = self._database.sale_by_receipt(request.store, request.receipt)
        if sale is None:
            return SaleFound(question, None, request.receipt)
        return SaleFound(
            question=question,
            sale=sale.id,
            receipt=sale.receipt,
            store=sale.store,
            business_date=sale.business_date,
            voided=sale.id in self._database.voids,
            gross_fen=sale.gross_fen,
            discount_fen=sale.discount_fen,
            rounding_fen=sale.rounding_fen,
            tenders=sale.tenders,
            uses=sale.uses,
            entity=sale.entity,
            agency_fen=sale.agency_fen,
            lines=sale.lines,
            returns=tuple(
                PastReturn(back.lines, back.tenders, back.uses, back.vouchers)
                for back in self._database.returns_of(sale.id)
            ),
            vouchers=sale.vouchers,
            approved=bool(request.approver),
        )

    async def _keep_vouchers(self, ask: str, request: VoucherRequest) -> ReserveAnswered | ReleaseAnswered:
        """No quota here: every reservation is granted."""
        if isinstance(request, ReserveVouchers):
            return ReserveAnswered(ask, request.session, ok=True)
        return ReleaseAnswered(ask, request.session)
