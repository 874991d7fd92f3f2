"""Settlement on demand: the same run that the business clock starts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from gateway.edge import EdgeOf
from gateway.routes.documented import problems
from gateway.views import SettlementRunView
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
