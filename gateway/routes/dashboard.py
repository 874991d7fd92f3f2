"""From the System page to Ray's dashboard, with its token: whoever is signed in here need not type it there."""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse

from gateway.edge import EdgeOf
from models.domain.errors import Refused

router = APIRouter()

DASHBOARD_COOKIE = "ray-authentication-token"
"""The cookie that Ray's own page sets once the token was typed in (Ray 2.60, dashboard/http_server_head.py)."""


@router.get("/system/ray-dashboard", include_in_schema=False)
async def ray_dashboard(request: Request, edge: EdgeOf) -> RedirectResponse:
    """To Ray's dashboard. Cookies do not know ports: under the same host name its token goes along.

    Raises Refused when this house runs without the dashboard.
    """
    address = edge.startup().links.get("ray_dashboard")
    if address is None:
        raise Refused("no_dashboard", "this house runs without Ray's dashboard", "set ray.dashboard to true")
    response = RedirectResponse(address, 303)
    if edge.dashboard_token and urlsplit(address).hostname == request.url.hostname:
        response.set_cookie(DASHBOARD_COOKIE, edge.dashboard_token, path="/", httponly=True, samesite="strict")
    return response
