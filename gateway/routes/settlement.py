"""Settlement on demand: the same run that the business clock starts."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Response

from gateway.edge import EdgeOf
from gateway.routes.documented import problems
from gateway.views import SettlementRunView
from models.domain.errors import RetryLater

router = APIRouter(prefix="/api/v1/settlement", tags=["members"])


@router.post("/runs", response_model=SettlementRunView, responses=problems(403, 409))
async def run_settlement(
    edge: EdgeOf, idempotency_key: Annotated[str, Header(min_length=8, max_length=64)]
) -> Response:
    """Settle everything that is due by the business clock, to the end; answers the run's control totals."""
    settle = edge.settle
    if settle is None:
        raise RetryLater("starting", "settlement is not connected yet", "try again in a moment", after_s=2)

    async def effect() -> bytes:
        return SettlementRunView(totals=dict(await settle())).model_dump_json().encode()

    answer = await edge.calls.run(f"settlement:{idempotency_key}", b"", effect)
    return Response(answer, media_type="application/json")
