"""Kill switches: the page and the same by the API. A switch asks for a reason and is confirmed; so is its lift."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.auth import ConsoleSession
from gateway.console.render import page
from gateway.edge import Edge, EdgeOf
from gateway.kill_switches import KillOrder, KillOutcome, ThrownSwitch
from gateway.queries import permissions
from gateway.routes.documented import problems
from gateway.views import View
from models.domain.ids import ChainId, RegionId, StoreId
from models.domain.kill_switch import REASON_CHARACTERS_MAX, Place, Scope, ScopeKind, Switch
from models.domain.permissions import Permission
from models.tables.registry import StoreRow

router = APIRouter(tags=["kill switches"])
API = "/api/v1/kill-switches"
SHOWN_MAX = 50

Key = Annotated[str, Header(alias="Idempotency-Key", min_length=8, max_length=64)]
Limit = Annotated[int, Query(ge=1, le=200)]


class KillBody(BaseModel):
    """Switch `switch` off for a store, region or chain; `lift`: on again. `until` or `minutes`: it ends by itself."""

    model_config = ConfigDict(extra="forbid")

    switch: Literal["face", "benefits", "offers"]
    scope: Literal["store", "region", "chain"]
    name: Annotated[str, Field(min_length=1, max_length=64)]
    reason: Annotated[str, Field(min_length=1, max_length=REASON_CHARACTERS_MAX)]
    until: AwareDatetime | None = None
    minutes: Annotated[int | None, Field(ge=1, le=525_600)] = None
    lift: bool = False


class KillRegionView(View):
    """What one database said. `code` empty: durable there."""

    regions: list[str]
    ok: bool
    changed: bool
    stores: int
    code: str
    message: str
    do: str


class KillOutcomeView(View):
    """An order, everywhere. Not `ok`: the same order again reaches the regions that were missed, and them alone."""

    ok: bool
    switch: str
    scope: str
    name: str
    lifted: bool
    until: datetime | None
    by: str
    regions: list[KillRegionView]


class ThrownSwitchView(View):
    """A switch, and how many connected terminals report the document that says so."""

    id: str
    switch: str
    scope: str
    name: str
    reason: str
    by: str
    at: datetime
    until: datetime | None
    standing: bool
    lifted_at: datetime | None
    lifted_by: str
    lifted_reason: str
    regions: list[str]
    terminals: int
    connected: int
    applied: int


@router.get("/switches", include_in_schema=False)
async def switches_page(request: Request, edge: EdgeOf) -> Response:
    """What is switched off, why, by whom, until when, and how far the terminals are."""
    found = await edge.require_kill_switches().switches(limit=SHOWN_MAX)
    return page(
        request,
        "switches.html",
        switches=[_view(one) for one in found],
        kinds=[str(one) for one in Switch],
        scopes=[str(one) for one in ScopeKind],
        chains=list(dict.fromkeys(str(one.chain) for one in edge.settings.regions)),
        reason_max=REASON_CHARACTERS_MAX,
        scope_label=None,
    )


@router.get(API, response_model=list[ThrownSwitchView], responses=problems())
async def list_switches(edge: EdgeOf, limit: Limit = SHOWN_MAX) -> list[ThrownSwitchView]:
    """Standing switches first, then past ones, the newest first."""
    return [_view(one) for one in await edge.require_kill_switches().switches(limit=limit)]


@router.post(API, response_model=KillOutcomeView, responses=problems(403, 409))
async def kill(request: Request, edge: EdgeOf, body: KillBody, key: Key) -> Response:
    """Throw a switch, or lift it: at its terminals within seconds, in the audit for ever.

    Needs the permission kill.switch over the whole scope.
    """
    session: ConsoleSession = request.state.session
    until = edge.now() + timedelta(minutes=body.minutes) if body.minutes is not None else body.until
    scope = Scope(ScopeKind(body.scope), body.name.strip())
    await _require(edge, session.person, scope)
    by = f"console:{session.person or session.id}"
    order = KillOrder(f"console:{key}", Switch(body.switch), scope, body.reason, by, until, body.lift)

    async def effect() -> bytes:
        return _outcome(await edge.require_kill_switches().order(order)).model_dump_json().encode()

    answer = await edge.calls.run(f"kill:{key}", body.model_dump_json().encode(), effect)
    return Response(answer, media_type="application/json")


async def _require(edge: Edge, person: str, scope: Scope) -> None:
    if scope.kind is ScopeKind.STORE:
        async with AsyncSession(await edge.database_with(StoreRow, scope.name)) as session:
            await permissions.require(session, person, Permission.KILL_SWITCH, scope.name)
        return
    region = scope.name if scope.kind is ScopeKind.REGION else ""
    chain = scope.name if scope.kind is ScopeKind.CHAIN else edge.settings.chain_of(region)
    place = Place(ChainId(chain), RegionId(region), StoreId(""))
    async with AsyncSession(edge.database_of(region)) as session:
        await permissions.require_over(session, person, Permission.KILL_SWITCH, scope, place)


def _outcome(outcome: KillOutcome) -> KillOutcomeView:
    order = outcome.order
    return KillOutcomeView(
        ok=outcome.ok,
        switch=order.switch,
        scope=order.scope.kind,
        name=order.scope.name,
        lifted=order.lift,
        until=order.until,
        by=order.by,
        regions=[
            KillRegionView(
                regions=list(one.regions),
                ok=one.ok,
                changed=one.changed,
                stores=one.stores,
                code=one.code,
                message=one.message,
                do=one.do,
            )
            for one in outcome.databases
        ],
    )


def _view(one: ThrownSwitch) -> ThrownSwitchView:
    thrown = one.thrown
    return ThrownSwitchView(
        id=thrown.id,
        switch=thrown.switch,
        scope=thrown.scope.kind,
        name=thrown.scope.name,
        reason=thrown.reason,
        by=thrown.by,
        at=thrown.at,
        until=thrown.until,
        standing=one.standing,
        lifted_at=thrown.lifted_at,
        lifted_by=thrown.lifted_by,
        lifted_reason=thrown.lifted_reason,
        regions=list(one.regions),
        terminals=one.terminals,
        connected=one.connected,
        applied=one.applied,
    )
