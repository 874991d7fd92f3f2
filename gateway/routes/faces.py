"""Face decisions and calibration: the page Faces, and the API behind it."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from gateway.console import face_charts
from gateway.console.render import page
from gateway.edge import Database, EdgeOf
from gateway.face_views import FacesView
from gateway.queries import registry
from gateway.queries.faces import OUTCOMES, faces, window
from gateway.routes.documented import problems
from gateway.routes.registry import ScopeOf
from models.faces import calibration

router = APIRouter()

WINDOWS = (7, 30, 90)
DAYS = 30
REPORTS_SHOWN = 3

Days = Annotated[int, Query(ge=1, le=90)]


@router.get("/api/v1/faces/decisions", tags=["faces"], responses=problems())
async def decisions(database: Database, edge: EdgeOf, scope: ScopeOf, days: Days = DAYS) -> FacesView:
    """Face decisions of the last days by outcome, reason and scope, score bins, and gallery sizes. Of nobody."""
    return await faces(database, scope, window(await edge.business_now(database), days))


@router.get("/faces", include_in_schema=False)
async def faces_page(
    request: Request, database: Database, edge: EdgeOf, scope: ScopeOf, days: Days | None = None
) -> Response:
    """How recognition does: decisions, scores, galleries, and the calibration reports that are kept.

    Without `days`: 30, or 90 where only the longer span shows something (the demonstration's clock jumps by months).
    """
    now, asked = await edge.business_now(database), days
    days = asked or DAYS
    view = await faces(database, scope, window(now, days))
    if asked is None and not view.decisions:
        longer = await faces(database, scope, window(now, WINDOWS[-1]))
        view, days = (longer, WINDOWS[-1]) if longer.decisions else (view, days)
    outcomes, reasons, scopes = Counter[str](), Counter[tuple[str, str]](), Counter[str]()
    for one in view.decisions:
        outcomes[one.outcome] += one.count
        reasons[one.outcome, one.reason] += one.count
        if one.scope:
            scopes[one.scope] += one.count
    store = await registry.get_store(database, scope.store) if scope.store else None
    reports = calibration.kept()[:REPORTS_SHOWN]
    return page(
        request,
        "faces.html",
        view=view,
        days=days,
        windows=WINDOWS,
        kinds=OUTCOMES,
        outcomes=outcomes,
        total=outcomes.total(),
        reasons=reasons.most_common(),
        scopes=scopes.most_common(),
        by_day=face_charts.by_day(view),
        scores=face_charts.scores(view),
        reports=[
            (name, report, face_charts.histogram(report), face_charts.roc(report), face_charts.thresholds(report))
            for name, report in reports
        ],
        scope_label=None if store is None else {"zh": store.name_zh, "en": store.name_en},
    )
