"""Settlement: a run on demand, how it stands, its switch, a forecast, and what waits for a person."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from actors.settlement_items import Action
from gateway.auth import ConsoleSession
from gateway.edge import Edge, EdgeOf
from gateway.routes.documented import problems
from gateway.settlements import Settlements
from gateway.views import SettlementRunView, View
from models.domain.errors import Refused, RetryLater

router = APIRouter(prefix="/api/v1/settlement", tags=["members"])


@router.post("/runs", response_model=SettlementRunView, responses=problems(403, 409))
async def run_settlement(
    edge: EdgeOf,
    idempotency_key: Annotated[str, Header(min_length=8, max_length=64)],
    region: Annotated[str, Query(max_length=48)] = "",
) -> Response:
    """Settle everything that is due by the business clock, to the end; answers the run's control totals.

    Without `region` all regions at once: `totals` are their sums, and `regions` has each by itself.
    """
    settle = edge.settle
    if settle is None:
        raise RetryLater("starting", "settlement is not connected yet", "try again in a moment", after_s=2)
    names = [served.name for served in edge.settings.regions if region in {"", served.name}]
    if not names:
        raise Refused("region_not_served", f"region {region!r} is not served here", "see the list of regions")

    async def effect() -> bytes:
        reports = await asyncio.gather(*(settle(name) for name in names))
        runs = {name: dict(report) for name, report in zip(names, reports, strict=True)}
        several = runs if len(runs) > 1 else None
        view = SettlementRunView(totals=_sums([*runs.values()]), regions=several)
        return view.model_dump_json(exclude_none=True).encode()

    answer = await edge.calls.run(f"settlement:{idempotency_key}", region.encode(), effect)
    return Response(answer, media_type="application/json")


def _sums(runs: Sequence[Mapping[str, int | str]]) -> dict[str, int | str]:
    """Numbers are added; what is no number is kept where all runs agree on it. `ok` holds where it holds for all."""
    if len(runs) == 1:
        return dict(runs[0])
    totals: dict[str, int | str] = {}
    for name in runs[0]:
        values = [run.get(name, 0) for run in runs]
        if name == "ok":
            totals[name] = all(values)
        elif all(isinstance(value, int) for value in values):
            totals[name] = sum(int(value) for value in values)
        elif len(set(values)) == 1:
            totals[name] = values[0]
    return totals


# ---------------------------------------------------------------- how it stands, and what waits

Key = Annotated[str, Header(alias="Idempotency-Key", min_length=8, max_length=64)]
Region = Annotated[str, Path(max_length=48)]
REASON_CHARACTERS_MAX = 400


class SwitchBody(BaseModel):
    """Pause or resume."""

    model_config = ConfigDict(extra="forbid")
    paused: bool
    reason: Annotated[str, Field(max_length=REASON_CHARACTERS_MAX)] = ""


class ActionBody(BaseModel):
    """One action with a parked membership, and why."""

    model_config = ConfigDict(extra="forbid")
    action: Action
    reason: Annotated[str, Field(min_length=1, max_length=REASON_CHARACTERS_MAX)]


class SwitchView(View):
    """Whether a region is paused, since when (wall time), by whom and why."""

    paused: bool
    by: str
    why: str
    at: datetime | None


class RunView(View):
    """A run. `at` is the business time that it settled; the other instants are wall time."""

    id: str
    at: datetime
    business_date: str
    started_by: str
    state: str
    due: int
    expired: int
    cut_off: int
    woken: int
    booked: int
    reserved: int
    open_calls: bool
    totals: Mapping[str, object] | None
    problem: str
    started_at: datetime
    seen_at: datetime
    ended_at: datetime | None


class StatusView(View):
    """How a region's settlement stands at business time `now`."""

    region: str
    now: datetime
    switch: SwitchView
    due: int
    parked: int
    dunning: int
    written_off: int
    holes: Sequence[str]
    runs: Sequence[RunView]


class ItemView(View):
    """A membership that waits for a person, or for the member's money."""

    membership: str
    member: str
    plan: str
    state: str
    why: str
    charge_fen: int
    receivable_fen: int
    hold_state: str
    hold_fen: int
    next_at: datetime | None


class ForecastView(View):
    """What a run would fix now; `calls` to the provider."""

    region: str
    now: datetime
    expired: int
    cut_off: int
    reserved: int
    calls: int
    nothing: int
    fee: int
    fee_fen: int
    clawback: int
    clawback_fen: int


class ResolvedView(View):
    """A membership's state after an action."""

    membership: str
    state: str


@router.get("/{region}", responses=problems())
async def settlement_status(edge: EdgeOf, region: Region) -> StatusView:
    """Paused or not, what is due, what waits for people, the last runs."""
    found = asdict(await desk_of(edge).status(region))
    runs = [RunView(**{name: run[name] for name in RunView.model_fields}) for run in found["runs"]]
    plain = {name: found[name] for name in ("region", "now", "due", "parked", "dunning", "written_off", "holes")}
    return StatusView(**plain, switch=SwitchView(**found["switch"]), runs=runs)


@router.get("/{region}/forecast", responses=problems())
async def settlement_forecast(edge: EdgeOf, region: Region) -> ForecastView:
    """What would be charged now, by branch. Nothing changes; the provider is not asked."""
    found = await desk_of(edge).forecast(region)
    return ForecastView.model_validate({name: found[name] for name in ForecastView.model_fields})


@router.put("/{region}/switch", response_model=SwitchView, responses=problems(403, 409))
async def settlement_switch(request: Request, edge: EdgeOf, region: Region, body: SwitchBody, key: Key) -> Response:
    """Pause a region between two chunks, or let it go on. Audited."""
    by = _by(request)

    async def effect() -> bytes:
        done = await desk_of(edge).switch(region, body.paused, by, body.reason)
        return SwitchView(**asdict(done)).model_dump_json().encode()

    return await _once(edge, f"switch:{key}", f"{region}\n{body.model_dump_json()}", effect)


@router.get("/{region}/items", responses=problems())
async def settlement_items(
    edge: EdgeOf, region: Region, stage: Annotated[str, Query(pattern="^(parked|owing)$")] = "parked"
) -> list[ItemView]:
    """What is parked; or who owes, in dunning and written off."""
    return [ItemView(**asdict(one)) for one in await desk_of(edge).items(region, stage)]


@router.post("/{region}/items/{membership}/actions", response_model=ResolvedView, responses=problems(403, 409))
async def settlement_action(
    request: Request,
    edge: EdgeOf,
    region: Region,
    membership: Annotated[str, Path(max_length=64)],
    body: ActionBody,
    key: Key,
) -> Response:
    """Do one thing with a parked membership. Audited, with the reason."""
    by = _by(request)

    async def effect() -> bytes:
        state = await desk_of(edge).resolve(region, membership, body.action, body.reason, by)
        return ResolvedView(membership=membership, state=state).model_dump_json().encode()

    return await _once(edge, f"item:{key}", f"{region}/{membership}\n{body.model_dump_json()}", effect)


def desk_of(edge: Edge) -> Settlements:
    """Settlement, or RetryLater while it starts."""
    if edge.settlements is None:
        raise RetryLater("starting", "settlement is not connected yet", "try again in a moment", after_s=2)
    return edge.settlements


def _by(request: Request) -> str:
    session: ConsoleSession = request.state.session
    return f"console:{session.id}"


async def _once(edge: Edge, key: str, what: str, effect: Callable[[], Awaitable[bytes]]) -> Response:
    return Response(await edge.calls.run(key, what.encode(), effect), media_type="application/json")
