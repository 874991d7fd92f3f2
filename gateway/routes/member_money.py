"""A member's own means of payment: balance and withholding agreements, for the console and the API."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from gateway.auth import ConsoleSession
from gateway.console.render import page
from gateway.edge import EdgeOf
from gateway.routes.documented import problems
from gateway.views import View
from models.domain.member_balance import MOVE_FEN_MAX, BalanceMove, CounterMove, MoneyWay, MoveKind
from models.tables.member_money import Agreement

router = APIRouter(tags=["members"])
BALANCE = "/api/v1/members/{member}/balance"
AGREEMENTS = "/api/v1/members/{member}/agreements"
SHOWN = 20

Member = Annotated[str, Path(max_length=64)]
Number = Annotated[str, Path(max_length=32)]
Verb = Annotated[Literal["top-up", "pay-out"], Path()]
Key = Annotated[str, Header(alias="Idempotency-Key", min_length=8, max_length=64)]


class MoveBody(BaseModel):
    """So much, at this store's drawer, in cash or by card."""

    model_config = ConfigDict(extra="forbid")

    fen: Annotated[int, Field(ge=1, le=MOVE_FEN_MAX)]
    store: Annotated[str, Field(max_length=48)]
    drawer: Annotated[str, Field(max_length=48)]
    way: MoneyWay = MoneyWay.CASH


class MoveView(View):
    """One change of a balance, and what it left."""

    number: str
    kind: str
    fen: int
    left_fen: int
    order: str
    store: str
    at: datetime
    by: str


class BalanceView(View):
    """What a member has with us; `owner` owes it."""

    member: str
    fen: int
    owner: str
    moves: list[MoveView]


class SignBody(BaseModel):
    """Whose account (default: of the home store's company), and our limits; 0 is the usual one."""

    model_config = ConfigDict(extra="forbid")

    entity: Annotated[str, Field(max_length=48)] = ""
    payment_fen_max: Annotated[int, Field(ge=0)] = 0
    day_fen_max: Annotated[int, Field(ge=0)] = 0


class AgreementView(View):
    """`state`: signing (the member scans `code_text`), active, ended."""

    number: str
    entity: str
    provider: str
    agreement_no: str
    payment_fen_max: int
    day_fen_max: int
    state: str
    code_text: str
    asked_at: datetime
    signed_at: datetime | None
    ended_at: datetime | None


class AgreementsView(View):
    """A member's agreements, the newest first."""

    items: list[AgreementView]


def _move(move: BalanceMove) -> MoveView:
    fields = asdict(move)
    return MoveView(**{name: fields[name] for name in MoveView.model_fields})


def _agreement(one: Agreement) -> AgreementView:
    return AgreementView(**{name: getattr(one, name) for name in AgreementView.model_fields})


def _who(request: Request) -> str:
    session: ConsoleSession = request.state.session
    return f"console:{session.id}"


@router.get("/members/{member}/money", include_in_schema=False)
async def part(request: Request, edge: EdgeOf, member: Member) -> Response:
    """The balance and agreements in a member's detail, with their buttons."""
    desk = edge.require_member_money()
    balance, agreements = await desk.balance(member), await desk.agreements(member)
    return page(
        request, "parts/member_money.html", member=member, balance=balance, moves=balance.moves[:SHOWN],
        agreements=agreements,
    )  # fmt: skip


@router.get(BALANCE, response_model=BalanceView, responses=problems(409))
async def balance(edge: EdgeOf, member: Member) -> BalanceView:
    """What the member has with us, and the newest moves."""
    found = await edge.require_member_money().balance(member)
    return BalanceView(member=member, fen=found.fen, owner=found.owner, moves=[_move(one) for one in found.moves])


@router.post(BALANCE + "/{verb}", response_model=MoveView, responses=problems(403, 409))
async def move(request: Request, edge: EdgeOf, member: Member, verb: Verb, body: MoveBody, key: Key) -> MoveView:
    """Top up or pay out, once: the same key again changes nothing and gets the same answer."""
    asked = CounterMove(f"api:{key}", member, body.fen, body.store, body.drawer, body.way, _who(request))
    kind = MoveKind.TOP_UP if verb == "top-up" else MoveKind.PAY_OUT
    return _move(await edge.require_member_money().move(kind, asked))


@router.get(AGREEMENTS, response_model=AgreementsView, responses=problems(409))
async def agreements(edge: EdgeOf, member: Member) -> AgreementsView:
    """The member's withholding agreements."""
    found = await edge.require_member_money().agreements(member)
    return AgreementsView(items=[_agreement(one) for one in found])


@router.post(AGREEMENTS, response_model=AgreementView, responses=problems(403, 409))
async def sign(request: Request, edge: EdgeOf, member: Member, body: SignBody, key: Key) -> AgreementView:
    """Ask the member for an agreement; while one lives, it is the answer."""
    desk = edge.require_member_money()
    one = await desk.sign(
        f"api:{key}", member, by=_who(request), entity=body.entity, payment_fen_max=body.payment_fen_max,
        day_fen_max=body.day_fen_max,
    )  # fmt: skip
    return _agreement(one)


@router.post(AGREEMENTS + "/{number}/look", response_model=AgreementView, responses=problems(403, 409))
async def look(edge: EdgeOf, member: Member, number: Number) -> AgreementView:
    """Ask the provider now whether it was signed."""
    return _agreement(await edge.require_member_money().look(member, number))


@router.delete(AGREEMENTS + "/{number}", response_model=AgreementView, responses=problems(403, 409))
async def unsign(request: Request, edge: EdgeOf, member: Member, number: Number) -> AgreementView:
    """End it: at the provider, then here."""
    return _agreement(await edge.require_member_money().unsign(member, number, by=_who(request)))
