"""Binds the actors' ports to what implements them: face workers, the members' tables, payment providers, sales."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from psycopg_pool import AsyncConnectionPool

from actors.effects import Ask
from actors.ports import (
    EnrolFace,
    FaceRequest,
    FindSale,
    IdentifyFace,
    PaymentRequest,
    PayVerb,
    PostVouchers,
    ReleaseVouchers,
    RescoreFace,
    ReserveVouchers,
    ReturnVouchers,
    TakeShot,
    VoucherRequest,
)
from gateway.providers.port import PaymentProvider, Scene
from models.domain.events import Purpose, TenderKind
from models.domain.face_quality import FaceKind
from models.domain.ids import (
    ChainId,
    LegalEntityId,
    MessageId,
    RegionId,
    SaleId,
    SessionId,
    StoreId,
    TerminalId,
    derived_id,
)
from models.domain.member_balance import BALANCE
from models.domain.messages import (
    EnrolAnswered,
    FaceAnswered,
    FaceOutcome,
    PastReturn,
    PaymentAnswered,
    PaymentOutcome,
    ReleaseAnswered,
    ReserveAnswered,
    ReturnedLine,
    SaleFound,
    SaleTender,
    SaleUse,
    SaleVoucher,
    SessionMessage,
)
from models.domain.payments import (
    Answer,
    CancelResult,
    Failed,
    FailReason,
    PayResult,
    Pending,
    RefundResult,
    Succeeded,
    Unknown,
)
from models.domain.permissions import Permission
from models.domain.recognition import (
    ConsentToken,
    EnrolConsent,
    EnrolRequest,
    FaceAnswer,
    IdentifyRequest,
    RescoreRequest,
    ShotRequest,
)
from models.domain.screen import ScreenLine
from models.tables.claims import claim_sale, sale_named
from models.tables.memberships import load_member_view
from models.tables.permissions import person_may
from runtime.clock import business_now
from runtime.memberships import Memberships, NotYet
from runtime.stored_value import StoredValue
from runtime.vouchers import Vouchers
from runtime.withholding import Withholding

VISITS_MAX = 20_000
"""Visits whose key is held in memory; the oldest is forgotten first."""
IMAGES_BYTES_MAX = 64 * 1024 * 1024
"""Images that wait for a face worker; beyond it the oldest is forgotten, and its customer asked to look again."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A port's answer as a message; `defer_s` set: progress only, ask again after so many seconds."""

    message: SessionMessage | None
    defer_s: float | None = None


class AskPorts(Protocol):
    """Performs one ask. Never raises for what the outside does; raises for bugs only."""

    async def ask(self, ask: Ask, attempts: int, memory: VisitMemory) -> Answered:
        """The answer, as a message for the entity that asked. `attempts` counts from 1."""
        ...

    async def resolved(self) -> list[tuple[TerminalId, EnrolAnswered]]:
        """Enrolments that waited for the customer's phone and ended now, for the lane of their terminal."""
        ...


class VisitMemory:
    """What lives only as long as this host: images until they are embedded, one sealing key per visit."""

    def __init__(self) -> None:
        self._images: OrderedDict[str, bytes] = OrderedDict()
        self._images_bytes = 0
        self._keys: OrderedDict[SessionId, bytes] = OrderedDict()

    def put_image(self, message: str, jpeg: bytes) -> None:
        """Keep an image until it is taken, or until newer ones need its room."""
        self.take_image(message)
        self._images[message] = jpeg
        self._images_bytes += len(jpeg)
        while self._images_bytes > IMAGES_BYTES_MAX:
            self.take_image(next(iter(self._images)))

    def take_image(self, message: str) -> bytes | None:
        """The image, which is forgotten now."""
        jpeg = self._images.pop(message, None)
        self._images_bytes -= len(jpeg or b"")
        return jpeg

    def key(self, session: SessionId) -> bytes:
        """The visit's key, made at its first use."""
        key = self._keys.get(session)
        if key is None:
            key = self._keys[session] = secrets.token_bytes(32)
            if len(self._keys) > VISITS_MAX:
                self._keys.popitem(last=False)
        return key


class FaceService(Protocol):
    """The face workers as the host sees them: async, over Ray or in process."""

    async def identify(self, request: IdentifyRequest, consent: ConsentToken) -> FaceAnswer: ...
    async def rescore(self, request: RescoreRequest, consent: ConsentToken) -> FaceAnswer: ...
    async def shoot(self, request: ShotRequest, consent: EnrolConsent) -> FaceAnswer: ...
    async def enrol(self, request: EnrolRequest, consent: EnrolConsent) -> FaceAnswer: ...


class Ports:
    """The real ports of one host."""

    def __init__(
        self,
        chain: ChainId,
        pool: AsyncConnectionPool[Any],
        faces: FaceService,
        region: RegionId,
        memberships: Memberships,
        provider_of: Callable[[LegalEntityId, str], PaymentProvider],
    ) -> None:
        self._chain = chain
        self._pool = pool
        self._faces = faces
        self._region = region
        self._memberships = memberships
        self._provider_of = provider_of
        self._stored = StoredValue(pool)
        self._withholding = Withholding(pool, provider_of)

    async def ask(self, ask: Ask, attempts: int, memory: VisitMemory) -> Answered:
        match ask.request:
            case IdentifyFace() | RescoreFace() | TakeShot() | EnrolFace() as request:
                return Answered(await self._face(ask.id, request, memory))
            case FindSale() as request:
                return Answered(await self._find_sale(ask.id, request))
            case PaymentRequest() as request:
                return Answered(await self._pay(ask.id, request, attempts))
            case ReserveVouchers() | PostVouchers() | ReleaseVouchers() | ReturnVouchers() as request:
                return Answered(await self._keep_vouchers(ask.id, request))
            case request:
                answer = await self._memberships.ask(ask.id, request, attempts - 1)
                if isinstance(answer, NotYet):
                    return Answered(None, answer.after_s)
                return Answered(answer)

    async def resolved(self) -> list[tuple[TerminalId, EnrolAnswered]]:
        await self._withholding.sweep(self._chain)
        ended = await self._memberships.sweep(self._chain, self._region)
        return [(TerminalId(one.terminal), one.answer) for one in ended]

    # ------------------------------------------------------------ faces

    async def _face(self, question: str, request: FaceRequest, memory: VisitMemory) -> FaceAnswered:
        key = memory.key(request.session)
        consent = ConsentToken(Purpose.RECOGNISE, request.session, MessageId(request.consent))
        match request:
            case IdentifyFace():
                jpeg = memory.take_image(request.image)
                if jpeg is None:
                    return _lost(request.session, question)
                identify = IdentifyRequest(
                    session=request.session,
                    question=question,
                    chain=self._chain,
                    store=request.store,
                    jpeg=jpeg,
                    kind=FaceKind(request.kind),
                    visit_key=key,
                    liveness_ppm=request.liveness_ppm,
                    liveness=request.liveness,
                    challenge=request.challenge,
                    device_score=request.device_score,
                    digits_required=request.digits_required,
                    amount_fen=request.amount_fen,
                )
                answer = await self._faces.identify(identify, consent)
            case RescoreFace():
                rescore = RescoreRequest(
                    request.session, question, self._chain, request.sealed, key, request.tail, request.store
                )
                answer = await self._faces.rescore(rescore, consent)
            case TakeShot():
                jpeg = memory.take_image(request.image)
                if jpeg is None:
                    return _lost(request.session, question)
                kind = FaceKind(request.kind)
                shot = ShotRequest(
                    request.session, question, jpeg, kind, key, request.store, mask_asked=request.mask_asked
                )
                answer = await self._faces.shoot(shot, _enrol_consent(request))
            case EnrolFace():
                template = derived_id(question, "template")
                enrol = EnrolRequest(
                    request.session, question, self._chain, request.member, template, request.shots, key, request.store
                )
                answer = await self._faces.enrol(enrol, _enrol_consent(request))
        return await self._as_message(answer)

    async def _as_message(self, answer: FaceAnswer) -> FaceAnswered:
        """The worker's answer, with the member's standing: one turn then knows all it needs."""
        member = None
        outcome = answer.outcome
        if answer.outcome is FaceOutcome.ACCEPTED and answer.member is not None:
            now = await business_now(self._pool)
            async with self._pool.connection() as conn:
                member = await load_member_view(conn, answer.member, now)
            if member is None:  # forgotten since the template was indexed
                outcome = FaceOutcome.NOT_RECOGNISED
        return FaceAnswered(
            session=answer.session,
            question=answer.question,
            outcome=outcome,
            member=member,
            # A prompt for the customer; for an image that could not be read, why: the terminal's maker must know.
            reason=answer.reason if outcome is FaceOutcome.LOST else answer.prompt or answer.reason,
            sealed=answer.sealed,
            decision=answer.decision,
            templates=answer.templates,
        )

    # ------------------------------------------------------------ vouchers

    async def _keep_vouchers(self, ask: str, request: VoucherRequest) -> ReserveAnswered | ReleaseAnswered:
        return await Vouchers(self._chain, self._pool).ask(ask, request)

    # ------------------------------------------------------------ sales

    async def _find_sale(self, question: str, request: FindSale) -> SaleFound:
        async with self._pool.connection() as conn:
            sale = await sale_named(conn, request.store, request.receipt)
            if sale is None:
                return SaleFound(question, None, request.receipt)
            if request.lane is not None and not await claim_sale(conn, sale, request.store, request.lane, question):
                return SaleFound(question, SaleId(sale), request.receipt, busy=True)
            asked = request.approver
            approved = bool(asked) and await person_may(conn, asked, Permission.RETURN_CASH, request.store)
            cursor = await conn.execute(
                """SELECT id, business_date, voided_at IS NOT NULL, gross_fen, discount_fen, rounding_fen, tenders,
                     uses, entity, agency_fen, lines, vouchers, store
                   FROM sale WHERE id = %s""",
                (sale,),
            )
            row = await cursor.fetchone()
            assert row is not None
            cursor = await conn.execute(
                "SELECT lines, tenders, uses, vouchers FROM sale_return WHERE sale = %s ORDER BY n", (row[0],)
            )
            returns = [
                PastReturn(
                    tuple(ReturnedLine(**line) for line in past[0]),
                    _tenders(past[1]),
                    _uses(past[2]),
                    _vouchers(past[3]),
                )
                for past in await cursor.fetchall()
            ]
        return SaleFound(
            question=question,
            sale=SaleId(row[0]),
            receipt=request.receipt,
            store=StoreId(row[12]),
            business_date=row[1],
            voided=row[2],
            gross_fen=row[3],
            discount_fen=row[4],
            rounding_fen=row[5],
            tenders=_tenders(row[6]),
            uses=_uses(row[7]),
            entity=row[8],
            agency_fen=row[9],
            lines=tuple(ScreenLine(**line) for line in row[10]),
            returns=tuple(returns),
            vouchers=_vouchers(row[11]),
            approved=approved,
        )

    # ------------------------------------------------------------ payments

    async def _pay(self, ask: str, request: PaymentRequest, attempts: int) -> PaymentAnswered:
        if request.provider == BALANCE:
            return await self._stored.ask(ask, request)
        try:
            provider = self._provider_of(request.entity, request.provider)
        except KeyError:  # nothing was ever asked there, so there is nothing to find out
            failed = Failed(FailReason.REFUSED, f"no_account:{request.provider}")
            return _payment_message(ask, request, failed)
        try:
            if request.kind is TenderKind.AGREEMENT:
                return await self._pay_agreed(ask, provider, request, attempts)
            answer = await _ask_provider(provider, request, attempts)
        except ValueError as error:  # a number or an amount that could never be sent
            answer = Unknown(str(error)) if request.verb is PayVerb.QUERY else _never(error)
        return _payment_message(ask, request, answer)

    async def _pay_agreed(
        self, ask: str, provider: PaymentProvider, request: PaymentRequest, attempts: int
    ) -> PaymentAnswered:
        """Under a withholding agreement: within our limits, and what came to nothing makes room within them again."""
        if request.verb is PayVerb.PAY:
            paid = await self._withholding.pay(
                request, lambda one: _pay_once(provider, request, attempts, one.agreement_no)
            )
            if isinstance(paid, str):
                return PaymentAnswered(
                    ask, request.session, request.order, str(request.verb), PaymentOutcome.FAILED, code=paid
                )
            return _payment_message(ask, request, paid)
        answer = await _ask_provider(provider, request, attempts)
        cancelled = request.verb is PayVerb.CANCEL and isinstance(answer, Succeeded)
        if cancelled or (request.verb is PayVerb.QUERY and isinstance(answer, Failed)):
            await self._withholding.freed(request.order)
        return _payment_message(ask, request, answer)


def _tenders(document: list[dict[str, Any]]) -> tuple[SaleTender, ...]:
    return tuple(SaleTender(**{**tender, "kind": TenderKind(tender["kind"])}) for tender in document)


def _uses(document: list[dict[str, Any]]) -> tuple[SaleUse, ...]:
    return tuple(SaleUse(**use) for use in document)


def _vouchers(document: list[dict[str, Any]]) -> tuple[SaleVoucher, ...]:
    return tuple(SaleVoucher(**{**one, "lines": tuple((n, fen) for n, fen in one["lines"])}) for one in document)


def _never(error: ValueError) -> Failed:
    return Failed(FailReason.REFUSED, str(error))


async def _ask_provider(
    provider: PaymentProvider, request: PaymentRequest, attempts: int
) -> Answer[PayResult] | Answer[CancelResult] | Answer[RefundResult]:
    match request.verb:
        case PayVerb.PAY:
            return await _pay_once(provider, request, attempts)
        case PayVerb.PRECREATE:
            return await provider.precreate(number=request.order, amount_fen=request.fen, subject=request.subject)
        case PayVerb.QUERY:
            return await provider.query_payment(number=request.order, amount_fen=request.fen)
        case PayVerb.CANCEL:
            return await provider.cancel(number=request.order)
        case PayVerb.REFUND:
            return await provider.refund(
                number=request.refund_no, payment_number=request.order, amount_fen=request.fen, reason="void"
            )


async def _pay_once(
    provider: PaymentProvider, request: PaymentRequest, attempts: int, agreement_no: str = ""
) -> Answer[PayResult]:
    """Pay under one number. After a lost answer query first; only a number the provider never saw is sent again."""
    if attempts > 1:
        known = await provider.query_payment(number=request.order, amount_fen=request.fen)
        if not (isinstance(known, Unknown) and known.absent):
            return known
    answer = await _send_pay(provider, request, agreement_no)
    if not isinstance(answer, Unknown):
        return answer
    known = await provider.query_payment(number=request.order, amount_fen=request.fen)
    if isinstance(known, Unknown) and known.absent:
        return await _send_pay(provider, request, agreement_no)
    return known


async def _send_pay(provider: PaymentProvider, request: PaymentRequest, agreement_no: str) -> Answer[PayResult]:
    if agreement_no:
        return await provider.pay_agreement(
            number=request.order, agreement_no=agreement_no, amount_fen=request.fen, subject=request.subject
        )
    assert request.auth is not None
    scene = Scene.FACE if request.kind is TenderKind.FACE else Scene.PAYMENT_CODE
    return await provider.pay(
        number=request.order,
        amount_fen=request.fen,
        subject=request.subject,
        auth_code=request.auth.token,
        scene=scene,
    )


def _payment_message(
    ask: str, request: PaymentRequest, answer: Answer[PayResult] | Answer[CancelResult] | Answer[RefundResult]
) -> PaymentAnswered:
    verb = str(request.verb)
    match answer:
        case Succeeded(result=PayResult() as result):
            return PaymentAnswered(
                ask,
                request.session,
                request.order,
                verb,
                PaymentOutcome.SUCCEEDED,
                trade_no=result.provider_trade_no,
                payer_fen=result.payer_fen,
                receipt_fen=result.receipt_fen,
                invoiceable_fen=result.invoiceable_fen,
            )
        case Succeeded():
            return PaymentAnswered(ask, request.session, request.order, verb, PaymentOutcome.SUCCEEDED)
        case Pending() if request.verb is PayVerb.PRECREATE and answer.code_text:
            return PaymentAnswered(
                ask,
                request.session,
                request.order,
                verb,
                PaymentOutcome.SUCCEEDED,
                collection_code=answer.code_text,
            )
        case Pending():
            return PaymentAnswered(ask, request.session, request.order, verb, PaymentOutcome.PENDING)
        case Failed():
            return PaymentAnswered(
                ask, request.session, request.order, verb, PaymentOutcome.FAILED, code=str(answer.reason)
            )
        case Unknown():
            outcome = PaymentOutcome.ABSENT if answer.absent else PaymentOutcome.UNKNOWN
            return PaymentAnswered(ask, request.session, request.order, verb, outcome, code=answer.why)


def _enrol_consent(request: TakeShot | EnrolFace) -> EnrolConsent:
    return EnrolConsent(Purpose.RECOGNISE, request.session, MessageId(request.consent), MessageId(request.membership))


def _lost(session: SessionId, question: str) -> FaceAnswered:
    return FaceAnswered(session, question, FaceOutcome.LOST, reason="image_gone")
