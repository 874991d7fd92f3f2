"""The page Rollouts: the list, one rollout with its ladder, one terminal of it, and the form for a new one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from sqlmodel import func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.auth import ConsoleSession
from gateway.console import rollout_charts
from gateway.console.charts import Chart
from gateway.console.render import page
from gateway.console.rollout_ladder import FOR_THE_START, STANDS, ladder
from gateway.console.texts.rollout_refusals import REFUSED_ZH
from gateway.edge import Database, Edge, EdgeOf, OfRollout
from gateway.errors import not_found
from gateway.paging import Cursor
from gateway.patch_text import PatchText, patch_from
from gateway.queries import rollouts as queries
from gateway.queries.ledger_pages import psycopg_of
from gateway.queries.rollout_evidence import FindingView, LookView, StageEvidenceView, evidence
from gateway.queries.rollouts import Kin, RolloutRowView
from gateway.rollout_bodies import KEPT
from gateway.rollout_views import OutlookView
from gateway.rollouts import Shown, reach
from gateway.routes.documented import problems
from models.domain.chain_settings import SETTINGS
from models.domain.errors import RetryLater
from models.domain.evidence import GateSpec
from models.domain.evidence_metrics import metric_of
from models.domain.permissions import Permission, uncovered
from models.domain.plan_reader import Text
from models.domain.price_file import JUMP_PERCENT
from models.domain.rollout import PersonId, RolloutId, RolloutState, StageState, TargetState, same_person
from models.domain.rollout_journal import Rollout
from models.domain.rollout_words import NEXT, ROLLOUT_STATES, in_short
from models.tables.permissions import load_grants
from models.tables.registry import StoreRow
from models.tables.software import list_images

router = APIRouter(tags=["rollouts"])

ENTRIES_SHOWN_MAX = 200
LOOKED_AT_MAX = 10
"""Rollouts of a list that are held against their terminals; several at a time are rare."""
FINDINGS_SHOWN_MAX = 40
TARGET_ENTRIES_MAX = 100
SHIPPED_STORES_MIN = 53
"""Two, fifty, and one that is left: with fewer the form begins with the rules for a small chain."""
TARGET_ROWS_MAX = 20
"""Other things stand below them."""
UNDER_WAY = tuple(state for state in RolloutState if state.active and state is not RolloutState.DRAFT)
FILTERS: dict[str, tuple[RolloutState, ...]] = {
    "": (),
    "draft": (RolloutState.DRAFT,),
    "active": UNDER_WAY,
    "over": tuple(state for state in RolloutState if not state.active),
}
GOING = (RolloutState.RUNNING, RolloutState.TAILING)
WORDS = {str(state): words for state, words in ROLLOUT_STATES.items()}
PERMISSIONS = (Permission.ROLLOUT_CREATE, Permission.ROLLOUT_PROMOTE, Permission.ROLLOUT_HALT)
Number = Annotated[str, Path(max_length=64, pattern=KEPT)]
Word = Annotated[str, Query(max_length=64, pattern=KEPT)]


@dataclass(frozen=True, slots=True)
class Deed:
    """A button. `missing`: the permission that whoever is signed in lacks; it is shown, and cannot be pressed."""

    verb: str
    needs: Permission
    primary: bool = False
    reasoned: bool = False
    missing: bool = False
    own: bool = False
    """Four eyes: the author may not."""
    over: str = ""
    """The rollout that ends by it, where that is another one than the page's."""

    @property
    def blocked(self) -> bool:
        """It cannot be pressed by who is signed in."""
        return self.missing or self.own


START = Deed("start", Permission.ROLLOUT_CREATE, primary=True)
PROMOTE = Deed("promote", Permission.ROLLOUT_PROMOTE, primary=True)
TAKE_OVER = Deed("supersede", Permission.ROLLOUT_CREATE, primary=True)
APPROVE = Deed("approve", Permission.ROLLOUT_PROMOTE)
RESUME = Deed("resume", Permission.ROLLOUT_PROMOTE, primary=True)
PAUSE = Deed("pause", Permission.ROLLOUT_HALT, reasoned=True)
HALT = Deed("halt", Permission.ROLLOUT_HALT, reasoned=True)
ROLL_BACK = Deed("rollback", Permission.ROLLOUT_HALT, reasoned=True)


def deeds(rollout: Rollout, *, own: bool, missing: frozenset[Permission], rivals: Sequence[Kin] = ()) -> list[Deed]:
    """What can be done with it in the state that it is in (actors.rollout_commands). `rivals`: which it may take over
    from, while it is a draft."""
    state = rollout.state
    if state is RolloutState.DRAFT:
        found = [replace(START, primary=not rivals), *(replace(TAKE_OVER, over=one.id) for one in rivals)]
    elif state is RolloutState.PAUSED:
        found = [RESUME, HALT, ROLL_BACK]
    elif state in GOING:
        asked = [replace(PROMOTE, own=own), replace(APPROVE, own=own)] if _awaits(rollout) else []
        found = [*asked, PAUSE, HALT, ROLL_BACK]
    elif state in (RolloutState.HALTED, RolloutState.COMPLETED, RolloutState.ROLLBACK_STUCK):
        found = [ROLL_BACK]
    else:
        found = []
    return [replace(one, missing=one.needs in missing) for one in found]


def _awaits(rollout: Rollout) -> bool:
    return rollout.stage >= 0 and rollout.stages[rollout.stage].state is StageState.AWAITS_APPROVAL


@dataclass(frozen=True, slots=True)
class StageEvidence:
    """What one stage is judged by, drawn: the rule, what was known before, its looks."""

    number: int
    name: str
    rule: GateSpec
    outlook: OutlookView | None
    looks: Sequence[LookView]
    chart: Chart | None
    findings: Sequence[FindingView]
    more: int
    """Findings of the last look that are not shown."""

    @property
    def last(self) -> LookView | None:
        """The latest look."""
        return self.looks[-1] if self.looks else None


def drawn(found: Sequence[StageEvidenceView], rollout: Rollout) -> list[StageEvidence]:
    """Stages with evidence; harm comes first among the findings."""
    made = []
    for one in found:
        rule = rollout.policy.stages[one.stage - 1].policy.evidence
        if rule is None:
            continue
        findings = sorted(one.looks[-1].findings, key=lambda f: (not f.unsafe, f.p_adjusted)) if one.looks else []
        shown = findings[:FINDINGS_SHOWN_MAX]
        chart = rollout_charts.looks(one.looks)
        more = len(findings) - len(shown)
        made.append(StageEvidence(one.stage, one.name, rule, one.outlook, one.looks, chart, shown, more))
    return made


# ---------------------------------------------------------------- pages


@router.get("/rollouts", include_in_schema=False)
async def rollouts_page(
    request: Request,
    edge: EdgeOf,
    state: Annotated[str, Query(pattern="^(|draft|active|over)$")] = "",
    cursor: Cursor = None,
) -> Response:
    """All rollouts, the newest first."""
    rows = edge.settings.page_rows
    found = await queries.list_rollouts(queries.homes(edge), rows, cursor, states=FILTERS[state])
    return page(
        request,
        "rollouts.html",
        rollouts=found,
        whys=await _whys(edge, found.items),
        state=state,
        words_of=WORDS,
        scope_label=None,
    )


async def _whys(edge: Edge, rows: Sequence[RolloutRowView]) -> dict[str, Text]:
    """What each waits for at this moment; of those that are over, and of older ones, what was written last."""
    draft = RolloutState.DRAFT
    found = {one.id: FOR_THE_START if one.state == draft else Text(one.why.zh, one.why.en) for one in rows}
    moving = [one for one in rows if RolloutState(one.state).active and one.state != draft]
    for one in moving[:LOOKED_AT_MAX]:
        with suppress(RetryLater):
            turn = (await (await edge.require_rollouts().of(one.chain)).show(RolloutId(one.id))).turn
            if turn.why.en:
                found[one.id] = turn.why
    return found


@router.get("/rollouts/new", include_in_schema=False)
async def new_rollout_page(request: Request, edge: EdgeOf, database: Database) -> Response:
    """The form: what changes, for whom, by which rules."""
    policies = edge.require_rollouts().policies()
    images = await list_images(await psycopg_of(database))
    return page(
        request,
        "rollout_new.html",
        chains=list(dict.fromkeys(one.chain for one in edge.settings.regions)),
        regions=[one.name for one in edge.settings.regions],
        kinds=("config", "flag", "software", "prices", "plan", "book"),
        policies=policies,
        few=(await database.exec(select(func.count()).select_from(StoreRow))).one() < SHIPPED_STORES_MIN,
        policy_texts={one.policy.name: one.text for one in policies},
        releases=[one.version for one in images],
        names=[one.path for one in SETTINGS],
        refused=REFUSED_ZH,
        jump_percent=JUMP_PERCENT,
        scope_label=None,
    )


@router.post("/api/v1/rollouts/patch", responses=problems(403))
async def patch_of_text(body: PatchText) -> dict[str, Any]:
    """A merge patch that was written as YAML, as a plan's artefact takes it. Refused with its line and column."""
    return patch_from(body.text)


@router.get("/rollouts/{rollout}", include_in_schema=False)
async def rollout_page(
    request: Request,
    edge: EdgeOf,
    session: OfRollout,
    rollout: Number,
    stage: Annotated[str, Query(pattern="^[0-9]{0,2}$")] = "",
    state: Word = "",
    shop: Word = "",
    cursor: Cursor = None,
) -> Response:
    """One rollout: ladder, gates, terminals, journal, plan."""
    shown = await _shown(edge, session, rollout)
    wanted = [TargetState(state)] if state in set(TargetState) else []
    number = int(stage) if stage else None
    rows = min(TARGET_ROWS_MAX, edge.settings.page_rows)
    targets = await queries.list_targets(
        session, rollout, rows, cursor, states=wanted, stage=number, store=shop.strip()
    )
    entries = await queries.journal(session, rollout, ENTRIES_SHOWN_MAX, terminal="")
    artefact = shown.turn.rollout.artefact
    return page(
        request,
        "rollout.html",
        **await _live(request, edge, session, shown),
        targets=targets,
        entries=entries.items[::-1],
        evidence=drawn(await evidence(session, rollout), shown.turn.rollout),
        metric_of=metric_of,
        payload=json.dumps(json.loads(artefact.payload), ensure_ascii=False, indent=2),
        states=[str(one) for one in TargetState],
        stage=number,
        state=state,
        shop=shop,
        refused=REFUSED_ZH,
        scope_label=None,
    )


@router.get("/rollouts/{rollout}/live", include_in_schema=False)
async def rollout_live(request: Request, edge: EdgeOf, session: OfRollout, rollout: Number) -> Response:
    """The part of the page that moves, for whoever watches it."""
    shown = await _shown(edge, session, rollout)
    return page(request, "parts/rollout_live.html", **await _live(request, edge, session, shown))


@router.get("/rollouts/{rollout}/terminals/{terminal}", include_in_schema=False)
async def rollout_terminal(
    request: Request, edge: EdgeOf, session: OfRollout, rollout: Number, terminal: Number
) -> Response:
    """One terminal: asked, desired, reported, and what happened, in the drawer."""
    shown = await _shown(edge, session, rollout)
    found = await queries.target(edge, session, rollout, terminal, TARGET_ENTRIES_MAX)
    if found is None:
        raise not_found("terminal of this rollout", terminal)
    payload = shown.turn.rollout.artefact.payload
    return page(
        request, "parts/rollout_terminal.html", rollout=rollout, detail=found, payload=payload, scope_label=None
    )


# ---------------------------------------------------------------- what they share


async def _shown(edge: Edge, session: AsyncSession, rollout: str) -> Shown:
    chain = await queries.chain_of(session, rollout)
    if chain is None:
        raise not_found("rollout", rollout)
    return await (await edge.require_rollouts().of(chain)).show(RolloutId(rollout))


async def _live(request: Request, edge: Edge, session: AsyncSession, shown: Shown) -> dict[str, Any]:
    rollout, signed_in = shown.turn.rollout, _session(request)
    me = f"console:{signed_in.person or signed_in.id}"
    own = same_person(rollout.author, PersonId(me))
    grants = await load_grants(await psycopg_of(session), signed_in.person)
    places = reach(rollout)
    missing = frozenset(one for one in PERMISSIONS if uncovered(grants, signed_in.person, one, places) is not None)
    wanted: dict[str, list[str]] = {}
    for one in rollout.policy.stages:
        for name in one.policy.attachments:
            wanted.setdefault(name, []).append(one.name)
    draft = rollout.state is RolloutState.DRAFT
    kin = []
    if rollout.state.active:
        kin = await queries.kin(session, rollout.id, UNDER_WAY if draft else (RolloutState.DRAFT,))
    return {
        "header": shown.header,
        "rollout": rollout,
        "change": in_short(rollout.artefact.kind, rollout.artefact.version, rollout.artefact.payload),
        "why": _why(shown),
        "next": NEXT.get(rollout.state),
        "kin": kin,
        "rungs": ladder(rollout, shown.turn.stages, edge.now()),
        "stands": STANDS,
        "words_of": WORDS,
        "deeds": deeds(rollout, own=own, missing=missing, rivals=kin if draft else ()),
        "may_promote": Permission.ROLLOUT_PROMOTE not in missing,
        "waits_for_person": rollout.state in GOING and _awaits(rollout),
        "own": own,
        "me": me,
        "person": signed_in.person,
        "papers": [(name, stages, rollout.attachments.get(name)) for name, stages in wanted.items()],
        "may_attach": rollout.state.active and Permission.ROLLOUT_CREATE not in missing,
        "live": rollout.state.active and rollout.state is not RolloutState.DRAFT,
    }


def _why(shown: Shown) -> Text:
    state, why = shown.turn.rollout.state, shown.turn.why
    if state is RolloutState.DRAFT:
        return FOR_THE_START
    return why if why.en else ROLLOUT_STATES[state]


def _session(request: Request) -> ConsoleSession:
    session: ConsoleSession = request.state.session
    return session
