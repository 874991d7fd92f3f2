"""Privacy & audit: the officer's page and the same by the API. Every action says why, and the audit says who."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.auth import ConsoleSession
from gateway.console.render import page
from gateway.edge import Database, Edge, EdgeOf
from gateway.paging import Cursor, Limit, link_next
from gateway.privacy import REASON_CHARACTERS_MAX
from gateway.queries import members, privacy
from gateway.queries.registry import Scope
from gateway.routes.documented import problems
from gateway.views import AuditCheckView, AuditEventView, MemberView, Page, PrivacyRequestView
from models.domain.privacy import Age, is_same_officer, require_officer
from models.tables.persons import PrivacyRequest

router = APIRouter(tags=["privacy"])
API = "/api/v1/privacy"
VIA = "console"

Effect = Callable[[], Awaitable[bytes]]
Member = Annotated[str, Path(max_length=64)]
RequestId = Annotated[str, Path(max_length=64)]
Key = Annotated[str, Header(alias="Idempotency-Key", min_length=8, max_length=64)]
State = Annotated[str, Query(pattern="^(|open|done|refused)$")]
Word = Annotated[str, Query(max_length=64)]


class Reason(BaseModel):
    """Why; kept with the request, never in the audit."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(min_length=1, max_length=REASON_CHARACTERS_MAX)]


class AgeBody(BaseModel):
    """What is known of a member's age. `guardian_consent`: the record of a guardian's consent."""

    model_config = ConfigDict(extra="forbid")

    birth_year: Annotated[int | None, Field(ge=1900, le=2200)] = None
    under_14: bool = False
    guardian_consent: Annotated[str, Field(max_length=120)] = ""

    @model_validator(mode="after")
    def _says_something(self) -> AgeBody:
        if not self.model_fields_set:
            raise ValueError("say birth_year, under_14 or guardian_consent: it takes the place of what was known")
        return self


class AgeAnswer(BaseModel):
    """How many templates had to go."""

    templates_erased: int


class LinkAnswer(BaseModel):
    """The address of a member's own page; it expires."""

    url: str


def _by(request: Request) -> str:
    """Whoever signed in by this session."""
    session: ConsoleSession = request.state.session
    return f"console:{session.person or session.id}"


def _officer(request: Request) -> str:
    """The same, for what takes two people. Raises Refused `four_eyes` when nobody in particular is signed in."""
    session: ConsoleSession = request.state.session
    require_officer(session.person)
    return _by(request)


# ---------------------------------------------------------------- the page


@router.get("/privacy", include_in_schema=False)
async def privacy_page(
    request: Request,
    database: Database,
    edge: EdgeOf,
    cursor: Cursor = None,
    state: State = "",
    kind: Word = "",
    subject: Word = "",
    q: Word = "",
    tab: Annotated[str, Query(pattern="^(people|requests|audit)$")] = "people",
) -> Response:
    """Counts, people, requests and the audit."""
    rows = edge.settings.page_rows
    return page(
        request,
        "privacy.html",
        tab=tab,
        faces=await privacy.faces(database),
        waiting=await privacy.open_requests(database),
        people=await _people(database, rows, q.strip()) if tab == "people" else None,
        requests=await privacy.list_requests(database, rows, cursor, state) if tab == "requests" else None,
        audit=await privacy.list_audit(database, rows, cursor, kind, subject.strip()) if tab == "audit" else None,
        kinds=await privacy.audit_kinds(database) if tab == "audit" else [],
        mine=lambda asked_by: is_same_officer(asked_by, _by(request)),
        state=state,
        kind=kind,
        subject=subject,
        q=q,
        scope_label=None,
    )


async def _people(database: AsyncSession, rows: int, q: str) -> Page[MemberView]:
    """By the exact id or the last four digits of the phone; nobody is listed who was not looked for."""
    if not q:
        return Page(items=[], next=None)
    return await members.list_members(database, Scope(), rows, None, q)


# ---------------------------------------------------------------- the API


@router.post(API + "/members/{member}/withdraw", response_model=PrivacyRequestView, responses=problems(403, 409))
async def withdraw(request: Request, edge: EdgeOf, member: Member, body: Reason, key: Key) -> Response:
    """Withdraw the member's consent: every template and key of theirs is erased before the answer."""
    by = _by(request)

    async def effect() -> bytes:
        done = await edge.require_privacy().withdraw(member, by=by, via=VIA, reason=body.reason)
        return _view(done).model_dump_json().encode()

    return await _once(edge, f"withdraw:{key}", member, body, effect)


@router.post(API + "/members/{member}/erasure", response_model=PrivacyRequestView, responses=problems(403, 409))
async def ask_erasure(request: Request, edge: EdgeOf, member: Member, body: Reason, key: Key) -> Response:
    """Ask for the whole person to be erased. The face goes at once, the rest when another person approves. Both are
    signed in by name (`storeops login --as NAME`)."""
    by = _officer(request)

    async def effect() -> bytes:
        asked = await edge.require_privacy().ask_erasure(member, by=by, via=VIA, reason=body.reason)
        return _view(asked).model_dump_json().encode()

    return await _once(edge, f"erasure:{key}", member, body, effect)


@router.post(API + "/requests/{request_id}/approve", response_model=PrivacyRequestView, responses=problems(403, 409))
async def approve(request: Request, edge: EdgeOf, request_id: RequestId, key: Key) -> Response:
    """Erase the person of an open request. Not by whoever asked, from whichever session or the command line."""
    by = _officer(request)

    async def effect() -> bytes:
        return _view(await edge.require_privacy().approve(request_id, by=by)).model_dump_json().encode()

    return Response(await edge.calls.run(f"approve:{key}", request_id.encode(), effect), media_type="application/json")


@router.post(API + "/requests/{request_id}/refuse", response_model=PrivacyRequestView, responses=problems(403, 409))
async def refuse(request: Request, edge: EdgeOf, request_id: RequestId, body: Reason, key: Key) -> Response:
    """Refuse an open request, with the reason that the person is told."""
    by = _by(request)

    async def effect() -> bytes:
        done = await edge.require_privacy().refuse(request_id, by=by, reason=body.reason)
        return _view(done).model_dump_json().encode()

    return await _once(edge, f"refuse:{key}", request_id, body, effect)


@router.post(API + "/members/{member}/age", response_model=AgeAnswer, responses=problems(403, 409))
async def mark_age(request: Request, edge: EdgeOf, member: Member, body: AgeBody) -> AgeAnswer:
    """Keep what is known of the member's age; a child's templates are erased. Repeating it changes nothing."""
    age = Age(body.birth_year, body.under_14, body.guardian_consent)
    return AgeAnswer(templates_erased=await edge.require_privacy().mark_age(member, age, by=_by(request)))


@router.post(API + "/members/{member}/export", response_class=StreamingResponse, responses=problems(403, 409))
async def export(
    request: Request,
    edge: EdgeOf,
    member: Member,
    body: Reason,
    language: Annotated[str | None, Query(pattern="^(zh|en)$", description="a page to read, not JSON")] = None,
) -> Response:
    """Everything that is kept about the member: JSON, or with `language` a page to read."""
    pieces = await edge.require_privacy().export(
        member, by=_by(request), via=VIA, reason=body.reason, now=edge.now(), language=language
    )
    ending, kind = ("json", "application/json") if language is None else ("html", "text/html; charset=utf-8")
    name = f"member-{member}.{ending}"
    return StreamingResponse(pieces, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})


@router.post(API + "/members/{member}/link", response_model=LinkAnswer, responses=problems(403))
async def member_link(edge: EdgeOf, member: Member) -> LinkAnswer:
    """A link to the member's own page, to hand to the person who proved who they are."""
    token = edge.require_privacy().link(member, edge.now())
    return LinkAnswer(url=f"{edge.settings.base_url}/m/{token}")


@router.get(API + "/requests", response_model=Page[PrivacyRequestView], responses=problems())
async def list_requests(
    request: Request,
    response: Response,
    database: Database,
    limit: Limit = 50,
    cursor: Cursor = None,
    state: State = "",
) -> Page[PrivacyRequestView]:
    """Requests, the newest first."""
    found = await privacy.list_requests(database, limit, cursor, state)
    link_next(request, response, found.next)
    return found


@router.get(API + "/audit", response_model=Page[AuditEventView], responses=problems())
async def list_audit(
    request: Request,
    response: Response,
    database: Database,
    limit: Limit = 50,
    cursor: Cursor = None,
    kind: Word = "",
    subject: Word = "",
) -> Page[AuditEventView]:
    """The audit, the newest event first."""
    found = await privacy.list_audit(database, limit, cursor, kind, subject)
    link_next(request, response, found.next)
    return found


@router.post(API + "/audit/verify", response_model=list[AuditCheckView], responses=problems(403))
async def verify(edge: EdgeOf) -> list[AuditCheckView]:
    """Walk every database's audit: each event there, unchanged, following the one before, none cut off since the
    checkpoint that is kept outside of it."""
    checks = await edge.require_privacy().verify()
    return [
        AuditCheckView(events=one.events, head_sha256=one.head_sha256, fault=one.fault, checkpoint=one.checkpoint)
        for one in checks
    ]


async def _once(edge: Edge, key: str, what: str, body: Reason, effect: Effect) -> Response:
    answer = await edge.calls.run(key, f"{what}\n{body.reason}".encode(), effect)
    return Response(answer, media_type="application/json")


def _view(request: PrivacyRequest) -> PrivacyRequestView:
    return PrivacyRequestView(
        id=request.id,
        member=request.member,
        member_name="",
        kind=request.kind,
        state=request.state,
        via=request.via,
        reason=request.reason,
        asked_by=request.asked_by,
        asked_at=request.asked_at,
        approved_by=request.approved_by,
        done_at=request.done_at,
    )
