"""What each stage of a rollout was judged by: what was registered before the start, each look, each decision."""

from __future__ import annotations

from datetime import datetime

from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.queries.ledger_pages import psycopg_of
from gateway.rollout_views import (
    CountsView,
    GateView,
    OutlookView,
    counts_view,
    gate_view,
    outlook_view,
    text_view,
)
from gateway.views import TextView, View
from models.domain.evidence import Verdict
from models.domain.rollout import RolloutId
from models.tables import rollouts as table

DECISIONS_MAX = 500


class FindingView(View):
    """One safety test of a look (docs/rollout-evidence.md); rates in the metric's unit."""

    metric: str
    store: str | None
    before: float
    after: float
    p: float
    p_adjusted: float
    unsafe: bool
    mde: float | None


class PointView(View):
    """One store before and after, in the metric's unit."""

    store: str
    arm: str
    before: float
    after: float


class LookView(View):
    """One look at a stage's evidence. `estimate`, `low`, `high`, `mde`: ratios minus 1 where the metric is relative."""

    look: int
    looks: int
    at: datetime
    outcome: str
    metric: str | None
    estimate: float | None
    low: float | None
    high: float | None
    mde: float | None
    p: float | None
    sample_ratio_p: float | None
    treated: int
    controls: int
    why: TextView
    findings: list[FindingView]
    points: list[PointView]


class DecisionView(View):
    """What a gate decided, with the counts that it saw; `look`: of the evidence that it saw."""

    at: datetime
    gate: GateView
    counts: CountsView
    look: int | None


class StageEvidenceView(View):
    """A stage's series: what was registered before the start, each look, each decision."""

    stage: int
    name: str
    outlook: OutlookView | None
    looks: list[LookView]
    decisions: list[DecisionView]


async def evidence(
    session: AsyncSession, rollout: str, *, stage: int | None = None, points: bool = False
) -> list[StageEvidenceView]:
    """The series of each stage, or of one; with `points` each look has every store's before and after."""
    conn = await psycopg_of(session)
    names = [
        str(row[0])
        async for row in await conn.execute(
            """SELECT sg.s->>'name' FROM rollout r, jsonb_array_elements(r.plan->'stages') WITH ORDINALITY AS sg (s, n)
               WHERE r.id = %s ORDER BY sg.n""",
            (rollout,),
        )
    ]
    seen: dict[int, list[LookView]] = {}
    for look in await table.looks(conn, RolloutId(rollout)):
        seen.setdefault(look.stage, []).append(_look(look.at, look.verdict, points))
    decided: dict[int, list[DecisionView]] = {}
    for one in (await table.decisions(conn, RolloutId(rollout)))[-DECISIONS_MAX:]:
        decided.setdefault(one.stage, []).append(
            DecisionView(
                at=one.at,
                gate=gate_view(one.gate),
                counts=counts_view(one.counts),
                look=None if one.verdict is None else one.verdict.look,
            )
        )
    outlooks = await table.load_outlooks(conn, RolloutId(rollout))
    return [
        StageEvidenceView(
            stage=number + 1,
            name=name,
            outlook=outlook_view(outlook),
            looks=seen.get(number, []),
            decisions=decided.get(number, []),
        )
        for number, (name, outlook) in enumerate(zip(names, outlooks, strict=True))
        if stage is None or stage == number + 1
    ]


def _look(at: datetime, verdict: Verdict, points: bool) -> LookView:
    return LookView(
        look=verdict.look,
        looks=verdict.looks,
        at=at,
        outcome=verdict.outcome,
        metric=verdict.metric,
        estimate=verdict.estimate,
        low=verdict.low,
        high=verdict.high,
        mde=verdict.mde,
        p=verdict.p,
        sample_ratio_p=verdict.sample_ratio_p,
        treated=verdict.treated,
        controls=verdict.controls,
        why=text_view(verdict.why),
        findings=[
            FindingView(**{name: getattr(one, name) for name in FindingView.model_fields}) for one in verdict.findings
        ],
        points=[PointView(store=one.store, arm=one.arm, before=one.before, after=one.after) for one in verdict.points]
        if points
        else [],
    )
