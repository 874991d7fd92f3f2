"""What the routes share: the settings, and the parts of the house as they become available."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from actors.hosts import Hosts
from gateway.drawers import Drawers
from gateway.enrolment import Enrols, GuessLimit
from gateway.errors import not_found
from gateway.face_figures import AskDesk
from gateway.idempotency import IdempotentCalls
from gateway.kill_switches import KillSwitches
from gateway.live import Wall
from gateway.liveness_keys import LivenessKeys
from gateway.member_money import MemberMoneyDesk
from gateway.memberships import MembershipDesk
from gateway.notices import ProviderDesk
from gateway.prices import PriceDesk
from gateway.privacy import PrivacyDesk
from gateway.reconciliation import Reconciliation
from gateway.rollouts import Rollouts
from gateway.settings import GatewaySettings
from gateway.settlements import Settlements
from gateway.startup import StartupReport, nothing_starts
from models.domain.errors import RetryLater
from models.tables.members import MembershipRow
from models.tables.registry import ClockRow, StoreRow, TerminalRow
from models.tables.rollouts import RolloutRow
from models.tables.sales import SaleRow

Settle = Callable[[str], Awaitable[Mapping[str, int | str]]]
"""Runs settlement of everything due now in a region to its end; answers its control totals, named with their unit."""


def wall_clock() -> datetime:
    """Now, in UTC."""
    return datetime.now(UTC)


@dataclass(slots=True)
class Edge:
    """One gateway. `hosts`, `database` and `settle` are set when they become available, in any order."""

    settings: GatewaySettings
    hosts: Hosts | None = None
    database: AsyncEngine | None = None
    """Where people sign in, and the books of every region that is not in `databases`."""
    databases: Mapping[str, AsyncEngine] = field(default_factory=dict)
    """By region; regions that share one have the same engine."""
    settle: Settle | None = None
    startup: StartupReport = nothing_starts
    now: Callable[[], datetime] = wall_clock
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    wall: Wall = field(init=False)
    calls: IdempotentCalls = field(init=False)
    responses: dict[str, int] = field(default_factory=dict)
    """Responses so far by status class, "2xx" and so on."""
    metrics_token: str = ""
    """Lets Prometheus read `/metrics` without a session; empty: nobody."""
    enrols: Enrols | None = None
    """Trades one-time codes for credentials."""
    guesses: GuessLimit = field(default_factory=GuessLimit)
    privacy: PrivacyDesk | None = None
    """Consent, erasure and export of people's data."""
    reconciliation: Reconciliation | None = None
    """Statements against the ledger, and the close of a day."""
    settlements: Settlements | None = None
    """How settlement stands, its switch, and what waits for a person."""
    kill_switches: KillSwitches | None = None
    """What is switched off at once, and where."""
    liveness_keys: LivenessKeys | None = None
    """Who may sign a terminal's liveness scores."""
    rollouts: Rollouts | None = None
    """Changes on their way through a chain, in stages."""
    images: Path | None = None
    """Folder of terminals' software, by SHA-256."""
    drawers: Drawers | None = None
    """Cash drawers and their shifts."""
    memberships: MembershipDesk | None = None
    """What may be done with a membership."""
    member_money: MemberMoneyDesk | None = None
    """Members' balances and withholding agreements."""
    prices: PriceDesk | None = None
    """Takes price files."""
    providers: ProviderDesk | None = None
    """Receives the notifications of payment providers."""
    face_desks: AskDesk | None = None
    """Asks a region's face desk for its figures."""
    people_counted: tuple[datetime, dict[str, int], int] | None = None
    """When stored faces (by chain) and open requests were counted last, for the metrics."""
    dashboard_token: str = ""
    """Of Ray's dashboard, for whoever is signed in here."""

    def __post_init__(self) -> None:
        self.wall = Wall(self.settings, lambda: self.hosts)
        self.calls = IdempotentCalls(self.settings.idempotency_keys_max)

    @property
    def ready(self) -> bool:
        """Pages can be shown: there are a database and hosts."""
        return self.hosts is not None and self.database is not None

    def require_hosts(self) -> Hosts:
        """The hosts, or RetryLater while they start."""
        if self.hosts is None:
            raise RetryLater("starting", "the hosts are still starting", "try again in a moment", after_s=1)
        return self.hosts

    def require_database(self) -> AsyncEngine:
        """The database, or RetryLater while it starts."""
        if self.database is None:
            raise RetryLater("starting", "the database is still starting", "try again in a moment", after_s=1)
        return self.database

    def require_privacy(self) -> PrivacyDesk:
        """The privacy desk, or RetryLater while it starts."""
        if self.privacy is None:
            raise RetryLater("starting", "the privacy desk is still starting", "try again in a moment", after_s=1)
        return self.privacy

    def require_memberships(self) -> MembershipDesk:
        """The memberships' desk, or RetryLater while it starts."""
        if self.memberships is None:
            raise RetryLater("starting", "the memberships' desk is still starting", "try again in a moment", after_s=1)
        return self.memberships

    def require_member_money(self) -> MemberMoneyDesk:
        """The desk of members' own means of payment, or RetryLater while it starts."""
        if self.member_money is None:
            raise RetryLater("starting", "the members' desk is still starting", "try again in a moment", after_s=1)
        return self.member_money

    def require_kill_switches(self) -> KillSwitches:
        """The kill switches' desk, or RetryLater while it starts."""
        if self.kill_switches is None:
            raise RetryLater("starting", "the kill switches are still starting", "try again in a moment", after_s=1)
        return self.kill_switches

    def require_liveness_keys(self) -> LivenessKeys:
        """The desk of terminals' keys, or RetryLater while it starts."""
        if self.liveness_keys is None:
            raise RetryLater("starting", "the terminals' keys are still starting", "try again in a moment", after_s=1)
        return self.liveness_keys

    def require_rollouts(self) -> Rollouts:
        """The rollouts' desks, or RetryLater while they start."""
        if self.rollouts is None:
            raise RetryLater("starting", "the rollouts' desk is still starting", "try again in a moment", after_s=1)
        return self.rollouts

    def require_drawers(self) -> Drawers:
        """The drawers' desk, or RetryLater while it starts."""
        if self.drawers is None:
            raise RetryLater("starting", "the drawers' desk is still starting", "try again in a moment", after_s=1)
        return self.drawers

    def require_prices(self) -> PriceDesk:
        """The price desk, or RetryLater while it starts."""
        if self.prices is None:
            raise RetryLater("starting", "the price desk is still starting", "try again in a moment", after_s=1)
        return self.prices

    def require_reconciliation(self) -> Reconciliation:
        """Reconciliation, or RetryLater while it starts."""
        if self.reconciliation is None:
            raise RetryLater("starting", "reconciliation is still starting", "try again in a moment", after_s=1)
        return self.reconciliation

    def database_of(self, region: str) -> AsyncEngine:
        """A region's books; without a region those where people sign in. RetryLater while they start."""
        return self.databases.get(region) or self.require_database()

    @property
    def books(self) -> dict[AsyncEngine, list[str]]:
        """Each distinct database, and the regions whose books it keeps."""
        found: dict[AsyncEngine, list[str]] = {}
        for region in self.settings.regions:
            found.setdefault(self.database_of(region.name), []).append(region.name)
        return found

    async def database_with(self, row: type[SQLModel], key: str) -> AsyncEngine:
        """The database that has this row: ids are unique in a deployment. Any of them when none has it.

        One that does not answer is passed over; what was to be found there raises its error.
        """
        books = list(self.books)
        away: OperationalError | InterfaceError | None = None
        for engine in books if len(books) > 1 else ():
            try:
                async with AsyncSession(engine) as session:
                    if await session.get(row, key) is not None:
                        return engine
            except (OperationalError, InterfaceError) as error:
                away = error
        if away is not None:
            raise away
        return books[0]

    def close(self) -> None:
        """Ends every stream and long poll at once, so that the server can stop."""
        self.stopping.set()
        self.wall.close()

    async def business_now(self, session: AsyncSession) -> datetime:
        """The business clock: wall time plus the offset of its row."""
        row = await session.get(ClockRow, 1)
        return self.now() + timedelta(microseconds=row.offset_us if row else 0)


def edge_of(request: Request) -> Edge:
    """The edge of the app that serves this request."""
    edge: Edge = request.app.state.edge
    return edge


async def database_session(request: Request, edge: Annotated[Edge, Depends(edge_of)]) -> AsyncIterator[AsyncSession]:
    """A session for reading, closed after the response was made: in the database of the query's `region`."""
    engine = edge.database_of(request.query_params.get("region", ""))
    async with AsyncSession(engine, expire_on_commit=False) as session:
        yield session


def session_with(row: type[SQLModel], parameter: str) -> Callable[..., AsyncIterator[AsyncSession]]:
    """A dependency: a session in whichever database has the row that `parameter` of the path names."""

    async def session(request: Request, edge: Annotated[Edge, Depends(edge_of)]) -> AsyncIterator[AsyncSession]:
        name = str(request.path_params[parameter])
        if "\0" in name:  # no table keeps it
            raise not_found(parameter, name)
        engine = await edge.database_with(row, name)
        async with AsyncSession(engine, expire_on_commit=False) as opened:
            yield opened

    return session


EdgeOf = Annotated[Edge, Depends(edge_of)]
Database = Annotated[AsyncSession, Depends(database_session, scope="function")]
OfStore = Annotated[AsyncSession, Depends(session_with(StoreRow, "store"), scope="function")]
OfTerminal = Annotated[AsyncSession, Depends(session_with(TerminalRow, "terminal"), scope="function")]
OfMembership = Annotated[AsyncSession, Depends(session_with(MembershipRow, "membership"), scope="function")]
OfSale = Annotated[AsyncSession, Depends(session_with(SaleRow, "sale"), scope="function")]
OfRollout = Annotated[AsyncSession, Depends(session_with(RolloutRow, "rollout"), scope="function")]
