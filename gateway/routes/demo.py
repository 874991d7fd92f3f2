"""The demonstration's simulated customers, at the provider simulator. Answers 404 outside the demonstration."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx
from fastapi import APIRouter, Depends

from gateway.edge import EdgeOf
from gateway.errors import Problem
from gateway.routes.documented import problems
from gateway.views import FaceTokenRequest, FaceTokenView, PaidCodeView, PayCodeRequest
from models.domain.errors import Refused, RetryLater

TIMEOUT_S = 5.0


def demo_only(edge: EdgeOf) -> None:
    """Nothing here exists in production."""
    if not (edge.settings.demo and edge.settings.provider_url):
        raise Problem(404, "not_found", "this is part of the demonstration only", "start `storeops demo`")


router = APIRouter(prefix="/api/v1/demo", tags=["demo"], dependencies=[Depends(demo_only)])


async def _simulator(edge: EdgeOf, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    try:
        async with httpx.AsyncClient(base_url=edge.settings.provider_url, timeout=TIMEOUT_S, trust_env=False) as client:
            response = await client.post(path, json=body)
    except httpx.HTTPError as error:
        raise RetryLater("provider_away", "the provider simulator does not answer", "try again", after_s=2) from error
    if response.status_code >= 500:
        raise RetryLater("provider_away", f"the provider simulator answered {response.status_code}", "try again")
    if response.status_code >= 400:
        raise Refused("provider_refused", response.text[:200], "choose another customer")
    answer: dict[str, Any] = response.json()
    return answer


@router.post("/face-token", responses=problems(403, 404, 409))
async def face_token(edge: EdgeOf, request: FaceTokenRequest) -> FaceTokenView:
    """The simulated customer shows their face to the provider's own service, which gives a token."""
    answer = await _simulator(edge, f"/sim/users/{quote(request.user, safe='')}/face-token")
    return FaceTokenView(user=request.user, token=str(answer["token"]))


@router.post("/pay", responses=problems(403, 404, 409))
async def pay(edge: EdgeOf, request: PayCodeRequest) -> PaidCodeView:
    """The simulated customer scans a collection code with their phone and pays; repeating it has no effect."""
    answer = await _simulator(edge, "/sim/pay", {"user": request.user, "qr_code": request.qr_code})
    return PaidCodeView(user=request.user, fen=int(answer["fen"]))
