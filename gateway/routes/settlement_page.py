"""The page Settlement: each region's switch, progress and last runs, and what waits for a person."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from actors.settlement_items import Action
from gateway.console.render import page
from gateway.edge import EdgeOf
from gateway.routes.settlement import desk_of

router = APIRouter(tags=["members"])


@router.get("/settlement", include_in_schema=False)
async def settlement_page(
    request: Request, edge: EdgeOf, region: Annotated[str, Query(max_length=48)] = ""
) -> Response:
    """One region, or all of them; the figures are asked again every two seconds while the page is open."""
    desk = desk_of(edge)
    names = [served.name for served in edge.settings.regions if region in {"", served.name}]
    found = [
        (await desk.status(name), await desk.items(name, "parked"), await desk.items(name, "owing")) for name in names
    ]
    return page(request, "settlement.html", regions=found, actions=[str(one) for one in Action], scope_label=None)
