"""A member's own page `/m/{token}`: what we hold about them, and what they can do about it. The token is the key."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

import segno
from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse
from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.auth import comes_from_us
from gateway.console.language import language_of
from gateway.console.render import page
from gateway.edge import Edge, EdgeOf
from gateway.errors import Problem
from gateway.queries import points, privacy
from models.domain.errors import Refused
from models.tables.members import MemberRow

router = APIRouter(include_in_schema=False)

Token = Annotated[str, Path(max_length=400)]
VIA = "member_page"
AGREEMENTS_MAX = 5
Verb = Annotated[Literal["look", "end"], Path()]
DONE = "^(|withdrawn|asked)$"


def _member(edge: Edge, token: str) -> str:
    """Whose page it is. Raises Problem 404 for a token that opens none, 410 for one that is over."""
    try:
        return edge.require_privacy().member_of(token, edge.now())
    except Refused as refused:
        raise Problem(410 if refused.code == "link_over" else 404, refused.code, refused.message, refused.do) from None


def _ours(request: Request) -> None:
    if not comes_from_us(request):
        raise Problem(403, "csrf", "this did not come from our own page", "open the link again")


@asynccontextmanager
async def _books(edge: Edge, member: str) -> AsyncIterator[AsyncSession]:
    async with AsyncSession(await edge.database_with(MemberRow, member), expire_on_commit=False) as session:
        yield session


@router.get("/m/{token}")
async def statement(
    request: Request, edge: EdgeOf, token: Token, done: Annotated[str, Query(pattern=DONE)] = ""
) -> Response:
    """The statement."""
    member = _member(edge, token)
    async with _books(edge, member) as database:
        found = await privacy.statement(database, member)
        accounts = await points.accounts(database, member, await edge.business_now(database))
    if found is None:
        raise Problem(404, "link_wrong", "this link is not one of ours", "ask at the store for a new one")
    money: dict[str, Any] = {"balance": None}
    if (desk := edge.member_money) is not None:
        agreements = await desk.agreements(member)
        code = next((one.code_text for one in agreements if one.state == "signing"), "")
        balance = await desk.balance(member)
        money = {"balance": balance, "agreements": agreements[:AGREEMENTS_MAX], "signing": _qr(code)}
    return page(request, "member.html", s=found, accounts=accounts, token=token, done=done, **money)


def _qr(text: str) -> str:
    """A code to scan, as an image that needs no other address: nobody is signed in here."""
    return "" if not text else segno.make_qr(text, error="m").svg_data_uri(scale=4, dark="#000", light="#fff")


@router.post("/m/{token}/agreement")
async def sign(request: Request, edge: EdgeOf, token: Token) -> Response:
    """The member asks for a withholding agreement; the page then shows the code. While one lives, it is that one."""
    _ours(request)
    member = _member(edge, token)
    await edge.require_member_money().sign(f"page:{secrets.token_hex(16)}", member, by=f"member:{member}")
    return RedirectResponse(f"/m/{token}#money", 303)


@router.post("/m/{token}/agreement/{number}/{verb}")
async def agreement(
    request: Request, edge: EdgeOf, token: Token, number: Annotated[str, Path(max_length=32)], verb: Verb
) -> Response:
    """The member signed, and wants to see it; or ends the agreement."""
    _ours(request)
    member = _member(edge, token)
    desk = edge.require_member_money()
    await (desk.look(member, number) if verb == "look" else desk.unsign(member, number, by=f"member:{member}"))
    return RedirectResponse(f"/m/{token}#money", 303)


@router.post("/m/{token}/withdraw")
async def withdraw(request: Request, edge: EdgeOf, token: Token) -> Response:
    """The member withdraws: templates and keys are gone before the page is back."""
    _ours(request)
    member = _member(edge, token)
    await edge.require_privacy().withdraw(member, by=f"member:{member}", via=VIA, reason="withdrawn by the member")
    return RedirectResponse(f"/m/{token}?done=withdrawn", 303)


@router.post("/m/{token}/erasure")
async def ask_erasure(request: Request, edge: EdgeOf, token: Token) -> Response:
    """The member asks to be erased; an officer approves. The face goes at once."""
    _ours(request)
    member = _member(edge, token)
    await edge.require_privacy().ask_erasure(member, by=f"member:{member}", via=VIA, reason="asked by the member")
    return RedirectResponse(f"/m/{token}?done=asked", 303)


@router.post("/m/{token}/export")
async def export(
    request: Request, edge: EdgeOf, token: Token, form: Annotated[str, Query(pattern="^(json|page)$")] = "page"
) -> Response:
    """Everything that is kept about the member, as a file."""
    _ours(request)
    member = _member(edge, token)
    language = language_of(request) if form == "page" else None
    pieces = await edge.require_privacy().export(
        member, by=f"member:{member}", via=VIA, reason="asked by the member", now=edge.now(), language=language
    )
    ending, kind = ("json", "application/json") if language is None else ("html", "text/html; charset=utf-8")
    headers = {"Content-Disposition": f'attachment; filename="my-data.{ending}"'}
    return StreamingResponse(pieces, media_type=kind, headers=headers)
