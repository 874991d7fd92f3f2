"""Rollouts by the API: what stands, what a change would do, and everything that people tell one.

Who says it is who is signed in; no body names a person.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic import BaseModel
from sqlmodel.ext.asyncio.session import AsyncSession

from actors import rollout_effects as effects
from gateway.auth import ConsoleSession
from gateway.edge import Edge, EdgeOf, OfRollout
from gateway.errors import Problem, not_found
from gateway.paging import Cursor, Limit, link_next
from gateway.queries import permissions
from gateway.queries import rollouts as queries
from gateway.queries.rollouts import EntryView, RolloutRowView, StageEvidenceView, TargetDetailView, TargetView
from gateway.rollout_bodies import (
    AttachBody,
    PlanBody,
    ReasonBody,
    StageBody,
    artefact_of,
    policy_of,
    selector_of,
)
from gateway.rollout_views import PlannedView, RolloutTurnView, RolloutView, planned_view, rollout_view, turn_view
from gateway.rollouts import ChainDesk, Planned
from gateway.routes.documented import problems
from gateway.views import Page, TextView, View
from models.domain.ids import ChainId, RegionId, StoreId
from models.domain.kill_switch import Place
from models.domain.permissions import Permission
from models.domain.rollout import PersonId, RolloutId, RolloutState, TargetState

router = APIRouter(tags=["rollouts"])
API = "/api/v1/rollouts"
TIMELINE_MAX = 200

Key = Annotated[str, Header(alias="Idempotency-Key", min_length=8, max_length=64)]
Number = Annotated[str, Path(max_length=64)]
Word = Annotated[str, Query(max_length=64)]
Stage = Annotated[int | None, Query(ge=1, le=16, description="1 is the first")]
States = Annotated[list[RolloutState] | None, Query(description="any of these; none: all")]
TargetStates = Annotated[list[TargetState] | None, Query(description="any of these; none: all")]


class PolicyView(View):
    """A policy that comes with the software; `yaml` is the text to start one's own from."""

    name: str
    title: TextView
    kinds: list[str]
    stages: list[str]
    yaml: str


# ---------------------------------------------------------------- what stands


@router.get(API, responses=problems())
async def list_rollouts(
    request: Request,
    response: Response,
    edge: EdgeOf,
    limit: Limit = 50,
    cursor: Cursor = None,
    state: States = None,
    chain: Word = "",
) -> Page[RolloutRowView]:
    """The newest first."""
    found = await queries.list_rollouts(queries.homes(edge), limit, cursor, states=state or (), chain=chain)
    link_next(request, response, found.next)
    return found


@router.get(API + "/policies", responses=problems())
async def list_policies(edge: EdgeOf) -> list[PolicyView]:
    """The policies that may be named."""
    return [
        PolicyView(
            name=one.policy.name,
            title=TextView(zh=one.policy.title.zh, en=one.policy.title.en),
            kinds=sorted(one.policy.kinds),
            stages=[stage.name for stage in one.policy.stages],
            yaml=one.text,
        )
        for one in edge.require_rollouts().policies()
    ]


@router.get(API + "/{rollout}", responses=problems(404))
async def get_rollout(edge: EdgeOf, session: OfRollout, rollout: Number) -> RolloutView:
    """One, held against what its terminals report now: the ladder, each gate, and what it waits for."""
    desk, _ = await _desk(edge, session, rollout)
    return rollout_view(await desk.show(RolloutId(rollout)))


@router.get(API + "/{rollout}/targets", responses=problems(404))
async def list_targets(
    request: Request,
    response: Response,
    session: OfRollout,
    rollout: Number,
    limit: Limit = 50,
    cursor: Cursor = None,
    state: TargetStates = None,
    stage: Stage = None,
    store: Word = "",
) -> Page[TargetView]:
    """Its terminals by stage, store and id, as the journal has them."""
    await _chain(session, rollout)
    found = await queries.list_targets(session, rollout, limit, cursor, states=state or (), stage=stage, store=store)
    link_next(request, response, found.next)
    return found


@router.get(API + "/{rollout}/targets/{terminal}", responses=problems(404))
async def get_target(edge: EdgeOf, session: OfRollout, rollout: Number, terminal: Number) -> TargetDetailView:
    """One terminal: what was asked, what it is to have, what it reports, and its entries."""
    await _chain(session, rollout)
    found = await queries.target(edge, session, rollout, terminal, TIMELINE_MAX)
    if found is None:
        raise not_found("terminal of this rollout", terminal)
    return found


@router.get(API + "/{rollout}/journal", responses=problems(404))
async def list_journal(
    request: Request,
    response: Response,
    session: OfRollout,
    rollout: Number,
    limit: Limit = 50,
    cursor: Cursor = None,
    terminal: Annotated[str | None, Query(max_length=64, description="empty: entries about no terminal")] = None,
) -> Page[EntryView]:
    """What happened, in its order."""
    await _chain(session, rollout)
    found = await queries.journal(session, rollout, limit, cursor, terminal=terminal)
    link_next(request, response, found.next)
    return found


@router.get(API + "/{rollout}/evidence", responses=problems(404))
async def get_evidence(
    session: OfRollout, rollout: Number, stage: Stage = None, points: bool = False
) -> list[StageEvidenceView]:
    """By stage: what was registered before the start, each look, each decision. `points`: each look's stores too."""
    await _chain(session, rollout)
    return await queries.evidence(session, rollout, stage=stage, points=points)


# ---------------------------------------------------------------- a new one


@router.post(API + "/preview", response_model=PlannedView, responses=problems(403, 409))
async def preview(request: Request, edge: EdgeOf, body: PlanBody) -> PlannedView:
    """What a plan would be, by the real resolver: its hash, strata, stores of each stage, smallest detectable effect.

    Nothing is kept. Needs the permission rollout.create wherever the plan reaches.
    """
    _, planned = await _previewed(request, edge, body, None)
    return planned_view(planned, kept=False)


@router.post(API, response_model=PlannedView, responses=problems(403, 409))
async def plan(request: Request, edge: EdgeOf, body: PlanBody, key: Key) -> Response:
    """Resolve, freeze and keep a draft; nothing changes before `start`. Needs rollout.create wherever it reaches."""

    async def effect() -> bytes:
        desk, planned = await _previewed(request, edge, body, key)
        return planned_view(await desk.keep(planned), kept=True).model_dump_json().encode()

    return await _once(request, edge, f"plan:{key}", body.model_dump_json(), effect)


async def _previewed(request: Request, edge: Edge, body: PlanBody, key: str | None) -> tuple[ChainDesk, Planned]:
    rollouts = edge.require_rollouts()
    chain = _chosen(edge, body.chain)
    policy = policy_of(rollouts, body.policy, body.policy_yaml)
    artefact, selector = artefact_of(body.artefact), selector_of(body.selector)
    desk = await rollouts.of(chain)
    planned = await desk.preview(policy, artefact, selector, _by(request), seed=body.seed, number=key)
    stores = ((store.region, store.store) for stage in planned.rollout.plan.stages for store in stage.stores)
    places = _places(chain, stores, tail=policy.tail)
    async with AsyncSession(queries.home_of(edge, chain)) as session:
        await permissions.require_each(session, _person(request), Permission.ROLLOUT_CREATE, places)
    return desk, planned


# ---------------------------------------------------------------- told


@router.post(API + "/{rollout}/start", response_model=RolloutTurnView, responses=problems(403, 404, 409))
async def start(request: Request, edge: EdgeOf, session: OfRollout, rollout: Number, key: Key) -> Response:
    """Open the first stage. Needs rollout.create."""
    told = effects.Start(_by(request))
    return await _tell(request, edge, session, rollout, key, Permission.ROLLOUT_CREATE, told)


@router.post(API + "/{rollout}/promote", response_model=RolloutTurnView, responses=problems(403, 404, 409))
async def promote(
    request: Request, edge: EdgeOf, session: OfRollout, rollout: Number, key: Key, body: StageBody
) -> Response:
    """Approve what the stage's gate shows, and open the next one at once. Needs rollout.promote; not by the author."""
    told = effects.Promote(_by(request), body.stage - 1)
    return await _tell(request, edge, session, rollout, key, Permission.ROLLOUT_PROMOTE, told, body)


@router.post(API + "/{rollout}/approve", response_model=RolloutTurnView, responses=problems(403, 404, 409))
async def approve(
    request: Request, edge: EdgeOf, session: OfRollout, rollout: Number, key: Key, body: StageBody
) -> Response:
    """Approve what the stage's gate shows; the next one opens by itself. Needs rollout.promote; not by the author."""
    told = effects.Approve(_by(request), body.stage - 1)
    return await _tell(request, edge, session, rollout, key, Permission.ROLLOUT_PROMOTE, told, body)


@router.post(API + "/{rollout}/resume", response_model=RolloutTurnView, responses=problems(403, 404, 409))
async def resume(request: Request, edge: EdgeOf, session: OfRollout, rollout: Number, key: Key) -> Response:
    """Go on after a pause; the queues' clocks begin anew. Needs rollout.promote."""
    told = effects.Resume(_by(request))
    return await _tell(request, edge, session, rollout, key, Permission.ROLLOUT_PROMOTE, told)


@router.post(API + "/{rollout}/pause", response_model=RolloutTurnView, responses=problems(403, 404, 409))
async def pause(
    request: Request, edge: EdgeOf, session: OfRollout, rollout: Number, key: Key, body: ReasonBody
) -> Response:
    """Ask nobody else; what is under way goes on. Needs rollout.halt."""
    told = effects.Pause(_by(request), body.reason)
    return await _tell(request, edge, session, rollout, key, Permission.ROLLOUT_HALT, told, body)


@router.post(API + "/{rollout}/halt", response_model=RolloutTurnView, responses=problems(403, 404, 409))
async def halt(
    request: Request, edge: EdgeOf, session: OfRollout, rollout: Number, key: Key, body: ReasonBody
) -> Response:
    """Stop: nothing more is asked of anybody. Needs rollout.halt."""
    told = effects.Halt(_by(request), body.reason)
    return await _tell(request, edge, session, rollout, key, Permission.ROLLOUT_HALT, told, body)


@router.post(API + "/{rollout}/rollback", response_model=RolloutTurnView, responses=problems(403, 404, 409))
async def rollback(
    request: Request, edge: EdgeOf, session: OfRollout, rollout: Number, key: Key, body: ReasonBody
) -> Response:
    """Give every terminal back what it had, the last asked first; also after completion. Needs rollout.halt."""
    told = effects.RollBack(_by(request), body.reason)
    return await _tell(request, edge, session, rollout, key, Permission.ROLLOUT_HALT, told, body)


@router.post(API + "/{rollout}/attach", response_model=RolloutTurnView, responses=problems(403, 404, 409))
async def attach(
    request: Request, edge: EdgeOf, session: OfRollout, rollout: Number, key: Key, body: AttachBody
) -> Response:
    """Attach a document that a stage requires. Needs rollout.create."""
    told = effects.Attach(_by(request), body.name, body.reference)
    return await _tell(request, edge, session, rollout, key, Permission.ROLLOUT_CREATE, told, body)


async def _tell(
    request: Request,
    edge: Edge,
    session: AsyncSession,
    rollout: str,
    key: str,
    permission: Permission,
    told: effects.RolloutCommand,
    body: BaseModel | None = None,
) -> Response:
    desk, chain = await _desk(edge, session, rollout)
    places = _places(chain, await queries.places_of(session, rollout), tail=False)
    await permissions.require_each(session, _person(request), permission, places)

    async def effect() -> bytes:
        turn = await desk.tell(RolloutId(rollout), told)
        return turn_view(turn.rollout, turn.why).model_dump_json().encode()

    verb = type(told).__name__.lower()
    what = f"{rollout}/{verb}\n" + ("" if body is None else body.model_dump_json())
    return await _once(request, edge, f"{verb}:{key}", what, effect)


async def _once(request: Request, edge: Edge, key: str, what: str, effect: Callable[[], Awaitable[bytes]]) -> Response:
    """Keys are each person's own."""
    answer = await edge.calls.run(f"rollout:{_by(request)}:{key}", what.encode(), effect)
    return Response(answer, media_type="application/json")


# ---------------------------------------------------------------- who, and where


def _person(request: Request) -> str:
    session: ConsoleSession = request.state.session
    return session.person


def _by(request: Request) -> PersonId:
    session: ConsoleSession = request.state.session
    return PersonId(f"console:{session.person or session.id}")


def _chosen(edge: Edge, chain: str) -> str:
    chains = list(dict.fromkeys(one.chain for one in edge.settings.regions))
    if chain in chains or (not chain and len(chains) == 1):
        return chain or chains[0]
    message = f"no chain {chain!r}" if chain else "which chain?"
    raise Problem(422, "which_chain", message, f"one of: {', '.join(chains)}")


def _places(chain: str, stores: Iterable[tuple[RegionId, StoreId]], *, tail: bool) -> list[Place]:
    """Where a permission must hold; with a tail over the whole chain: nobody knows which stores will open."""
    found = [Place(ChainId(chain), region, store) for region, store in stores]
    return [Place(ChainId(chain), RegionId(""), StoreId("")), *found] if tail else found


async def _chain(session: AsyncSession, rollout: str) -> str:
    chain = await queries.chain_of(session, rollout)
    if chain is None:
        raise not_found("rollout", rollout)
    return chain


async def _desk(edge: Edge, session: AsyncSession, rollout: str) -> tuple[ChainDesk, str]:
    chain = await _chain(session, rollout)
    return await edge.require_rollouts().of(chain), chain
