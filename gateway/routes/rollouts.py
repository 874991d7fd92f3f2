"""Rollouts by the API: what stands, what a change would do, and everything that people tell one.

Who says it is who is signed in; no body names a person.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import sha256
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
from gateway.queries.rollout_evidence import StageEvidenceView, evidence
from gateway.queries.rollouts import EntryView, RolloutRowView, TargetDetailView, TargetView
from gateway.rollout_bodies import (
    KEPT,
    AttachBody,
    PlanBody,
    PlansBody,
    ReasonBody,
    StageBody,
    SupersedeBody,
    artefact_of,
    policy_of,
    selector_of,
)
from gateway.rollout_views import (
    ArtefactView,
    PlannedView,
    RolloutTurnView,
    RolloutView,
    artefact_view,
    planned_view,
    rollout_view,
    turn_view,
)
from gateway.rollouts import ChainDesk, Planned, reach
from gateway.routes.documented import problems
from gateway.views import Page, TextView, View
from models.domain.ids import ChainId, RegionId, StoreId
from models.domain.kill_switch import Place, Scope, ScopeKind
from models.domain.permissions import Permission
from models.domain.plans import PlanError
from models.domain.price_file import FILE_BYTES_MAX
from models.domain.rollout import PersonId, RolloutId, RolloutState, TargetState

router = APIRouter(tags=["rollouts"])
API = "/api/v1/rollouts"
TIMELINE_MAX = 200

Key = Annotated[str, Header(alias="Idempotency-Key", min_length=8, max_length=64)]
Number = Annotated[str, Path(max_length=64, pattern=KEPT)]
Word = Annotated[str, Query(max_length=64, pattern=KEPT)]
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
    return await evidence(session, rollout, stage=stage, points=points)


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
    desk, selector = await rollouts.of(chain), selector_of(body.selector)
    artefact = await artefact_of(body.artefact, rollouts, desk)
    planned = await desk.preview(policy, artefact, selector, _by(request), seed=body.seed, number=key)
    async with AsyncSession(queries.home_of(edge, chain)) as session:
        places = reach(planned.rollout)
        await permissions.require_each(session, _person(request), Permission.ROLLOUT_CREATE, places)
    return desk, planned


@router.post(API + "/candidates/plans", response_model=ArtefactView, responses=problems(403, 409))
async def candidate_plans(request: Request, edge: EdgeOf, body: PlansBody, key: Key) -> Response:
    """Keep plans as a candidate of the chain's book, in force nowhere. Needs rollout.create over the chain."""
    desk = await _of_chain(request, edge, _chosen(edge, body.chain))

    async def effect() -> bytes:
        try:
            return artefact_view(await desk.candidate_of_plans(body.plans)).model_dump_json().encode()
        except PlanError as error:
            raise Problem(422, "plan_wrong", str(error), "mend that entry") from error

    return await _once(request, edge, f"plans:{key}", body.model_dump_json(), effect)


@router.post(
    API + "/candidates/prices",
    response_model=ArtefactView,
    responses=problems(403, 409, 413),
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": f"CSV in UTF-8, at most {FILE_BYTES_MAX} bytes",
            "content": {"text/csv": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def candidate_prices(
    request: Request,
    edge: EdgeOf,
    key: Key,
    chain: Word = "",
    force: Annotated[bool, Query(description="take prices that jump, too")] = False,
) -> Response:
    """Keep a price file as a candidate of the chain's book, in force nowhere. Needs rollout.create over the chain."""
    desk = await _of_chain(request, edge, _chosen(edge, chain))
    body = await request.body()

    async def effect() -> bytes:
        return artefact_view(await desk.candidate_of_prices(body, force=force)).model_dump_json().encode()

    return await _once(request, edge, f"prices:{key}", f"{chain}/{force}/{sha256(body).hexdigest()}", effect)


async def _of_chain(request: Request, edge: Edge, chain: str) -> ChainDesk:
    async with AsyncSession(queries.home_of(edge, chain)) as session:
        whole = Scope(ScopeKind.CHAIN, chain)
        place = Place(ChainId(chain), RegionId(""), StoreId(""))
        await permissions.require_over(session, _person(request), Permission.ROLLOUT_CREATE, whole, place)
    return await edge.require_rollouts().of(chain)


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


@router.post(API + "/{rollout}/supersede", response_model=RolloutTurnView, responses=problems(403, 404, 409))
async def supersede(
    request: Request, edge: EdgeOf, session: OfRollout, rollout: Number, key: Key, body: SupersedeBody
) -> Response:
    """End this one and start the draft `successor`, which takes over what it changed. Needs rollout.create over both.

    Answers the successor. Its rollback gives back what stood before the first.
    """
    desk, chain = await _desk(edge, session, rollout)
    new = body.successor
    if await _chain(session, new) != chain:
        raise not_found("rollout of this chain", new)
    places = [*await queries.places_of(session, rollout), *await queries.places_of(session, new)]
    await permissions.require_each(session, _person(request), Permission.ROLLOUT_CREATE, places)

    async def effect() -> bytes:
        turn = await desk.supersede(RolloutId(rollout), RolloutId(new), _by(request))
        return turn_view(turn.rollout, turn.why).model_dump_json().encode()

    return await _once(request, edge, f"supersede:{key}", f"{rollout}/{new}", effect)


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
    desk, _ = await _desk(edge, session, rollout)
    await permissions.require_each(session, _person(request), permission, await queries.places_of(session, rollout))

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


async def _chain(session: AsyncSession, rollout: str) -> str:
    chain = await queries.chain_of(session, rollout)
    if chain is None:
        raise not_found("rollout", rollout)
    return chain


async def _desk(edge: Edge, session: AsyncSession, rollout: str) -> tuple[ChainDesk, str]:
    chain = await _chain(session, rollout)
    return await edge.require_rollouts().of(chain), chain
