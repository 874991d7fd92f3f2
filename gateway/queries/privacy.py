"""What the page Privacy & audit shows: stored faces, requests, the audit, and what a member may read of themselves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.paging import cut, decode_cursor, encode_cursor
from gateway.queries.members import membership_view
from gateway.views import AuditEventView, MembershipView, Page, PrivacyRequestView
from models.domain.privacy import FILING_FACES, FilingLevel, RequestState, filing_level
from models.tables.members import MemberRow, MembershipRow
from models.tables.memberships import masked_name
from models.tables.privacy import AuditEventRow, MemberConsentRow, PrivacyRequestRow
from models.tables.sales import TemplateTableRow

MEMBERSHIPS_SHOWN_MAX = 100


@dataclass(frozen=True, slots=True)
class Faces:
    """Members with a stored template, by chain and in all, against the threshold from which they must be filed."""

    chains: dict[str, int]

    @property
    def distinct(self) -> int:
        """In all chains of this database."""
        return sum(self.chains.values())

    @property
    def threshold(self) -> int:
        """See models.domain.privacy."""
        return FILING_FACES

    @property
    def level(self) -> FilingLevel:
        """How near."""
        return filing_level(self.distinct)


async def faces(session: AsyncSession) -> Faces:
    """Counted now."""
    members = func.count(func.distinct(col(TemplateTableRow.member)))
    found = await session.exec(
        select(TemplateTableRow.chain, members).group_by(TemplateTableRow.chain).order_by(TemplateTableRow.chain)
    )
    return Faces(dict(found.all()))


async def list_requests(
    session: AsyncSession, limit: int, cursor: str | None, state: str = "", member: str = ""
) -> Page[PrivacyRequestView]:
    """Requests, the newest first; of one state or member when asked so. Names are masked."""
    query = (
        select(PrivacyRequestRow, MemberRow.name, MemberRow.phone_tail)
        .join(MemberRow, col(MemberRow.id) == col(PrivacyRequestRow.member))
        .order_by(col(PrivacyRequestRow.asked_at).desc(), col(PrivacyRequestRow.id).desc())
        .limit(limit + 1)
    )
    if state:
        query = query.where(col(PrivacyRequestRow.state) == state)
    if member:
        query = query.where(col(PrivacyRequestRow.member) == member)
    if key := decode_cursor(cursor, 2):
        asked_at = datetime.fromisoformat(key[0])
        query = query.where(
            (col(PrivacyRequestRow.asked_at) < asked_at)
            | ((col(PrivacyRequestRow.asked_at) == asked_at) & (col(PrivacyRequestRow.id) < key[1]))
        )
    rows, more = cut((await session.exec(query)).all(), limit)
    views = [
        PrivacyRequestView(
            id=row.id,
            member=row.member,
            member_name=masked_name(name, tail),
            kind=row.kind,
            state=row.state,
            via=row.via,
            reason=row.reason,
            asked_by=row.asked_by,
            asked_at=row.asked_at,
            approved_by=row.approved_by,
            done_at=row.done_at,
        )
        for row, name, tail in rows
    ]
    return Page(items=views, next=encode_cursor([views[-1].asked_at.isoformat(), views[-1].id]) if more else None)


async def open_requests(session: AsyncSession) -> int:
    """How many wait for an officer."""
    found = await session.exec(
        select(func.count()).select_from(PrivacyRequestRow).where(col(PrivacyRequestRow.state) == RequestState.OPEN)
    )
    return int(found.one())


async def list_audit(
    session: AsyncSession, limit: int, cursor: str | None, kind: str = "", subject: str = ""
) -> Page[AuditEventView]:
    """Events, the newest first; of one kind or subject when asked so."""
    query = select(AuditEventRow).order_by(col(AuditEventRow.n).desc()).limit(limit + 1)
    if kind:
        query = query.where(col(AuditEventRow.kind) == kind)
    if subject:
        query = query.where(col(AuditEventRow.subject) == subject)
    if key := decode_cursor(cursor, 1):
        query = query.where(col(AuditEventRow.n) < (int(key[0]) if key[0].isdigit() else 0))
    rows, more = cut((await session.exec(query)).all(), limit)
    views = [
        AuditEventView(
            n=row.n, at=row.at, kind=row.kind, subject=row.subject, by=row.by, detail=row.detail, sha256=row.sha256
        )
        for row in rows
    ]
    return Page(items=views, next=encode_cursor([str(views[-1].n)]) if more else None)


async def audit_kinds(session: AsyncSession) -> list[str]:
    """Kinds of events that there are, for the filter."""
    found = await session.exec(select(AuditEventRow.kind).distinct().order_by(AuditEventRow.kind))
    return list(found.all())


@dataclass(frozen=True, slots=True)
class Statement:
    """What a member may read of themselves on their own page."""

    member: str
    name: str
    joined_at: datetime
    known: bool
    templates: int
    template_since: datetime | None
    consents: list[MemberConsentRow]
    memberships: list[MembershipView]
    requests: list[PrivacyRequestView]


async def statement(session: AsyncSession, member: str) -> Statement | None:
    """The member's own page; None: no such member."""
    row = await session.get(MemberRow, member)
    if row is None:
        return None
    stored = await session.exec(
        select(func.count(), func.min(TemplateTableRow.at)).where(col(TemplateTableRow.member) == member)
    )
    templates, since = stored.one()
    consents = await session.exec(
        select(MemberConsentRow).where(col(MemberConsentRow.member) == member).order_by(col(MemberConsentRow.given_at))
    )
    memberships = await session.exec(
        select(MembershipRow)
        .where(col(MembershipRow.member) == member)
        .order_by(col(MembershipRow.enrolled_at).desc())
        .limit(MEMBERSHIPS_SHOWN_MAX)
    )
    requests = await list_requests(session, MEMBERSHIPS_SHOWN_MAX, None, member=member)
    return Statement(
        member,
        masked_name(row.name, row.phone_tail),
        row.joined_at,
        bool(row.phone_sha256 or row.name or row.provider_user),
        templates,
        since,
        list(consents.all()),
        [membership_view(one, row.name, row.phone_tail) for one in memberships.all()],
        requests.items,
    )
