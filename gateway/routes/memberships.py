"""What may be done with a membership: what it would do, and doing it once per Idempotency-Key."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from gateway.auth import ConsoleSession
from gateway.console.render import page
from gateway.edge import EdgeOf, OfMembership
from gateway.errors import not_found
from gateway.queries import membership_actions
from gateway.routes.documented import problems
from gateway.views import TextView
from models.domain.events import ProviderAuth
from models.domain.membership_actions import Asked

router = APIRouter(tags=["members"])
API = "/api/v1/memberships/{membership}/actions/{verb}"

Membership = Annotated[str, Path(max_length=64)]
Verb = Annotated[
    Literal["cancel", "change", "renew", "suspend", "resume", "freeze", "lapse"],
    Path(description="`lapse`: the provider let the hold end; `freeze`: a new hold in its place"),
]
Key = Annotated[str, Header(alias="Idempotency-Key", min_length=8, max_length=64)]
CancelledBy = Literal["", "member", "merchant"]


class ActionBody(BaseModel):
    """What the verb needs. `by`: cancel. `plan`, `guarantee`: change. `on`: renew, false takes the wish back.

    `auth_code`: the member's payment code or face token, for a verb that freezes; without one the answer has the text
    of a code to scan.
    """

    model_config = ConfigDict(extra="forbid")

    by: CancelledBy = ""
    plan: Annotated[str, Field(max_length=48)] = ""
    guarantee: Annotated[str, Field(max_length=32)] = ""
    on: bool = True
    auth_code: Annotated[str, Field(max_length=64)] = ""


class ForeseenView(BaseModel):
    """The membership as it stands afterwards, in fen, and the sentence that says so."""

    state: str
    plan: str
    expires_at: datetime
    cutoff_at: datetime
    renews: bool
    used_fen: int
    fee_eff_fen: int
    charge_fen: int
    given_up_fen: int
    funder: str
    new_hold_fen: int
    release_fen: int
    sentence: TextView


class DoneView(BaseModel):
    """`state`: done, or pending until the member authorises the freeze: `code_text` is then the code to scan."""

    membership: str
    verb: str
    state: str
    code_text: str
    told: ForeseenView


@router.get("/memberships/{membership}/actions", include_in_schema=False)
async def actions(request: Request, database: OfMembership, membership: Membership) -> Response:
    """The buttons of a membership's detail: what makes sense in its state."""
    found = await membership_actions.buttons(database, membership)
    if found is None:
        raise not_found("membership", membership)
    return page(request, "parts/membership_actions.html", m=found.membership, acts=found.acts, plans=found.plans)


def _foreseen(told: Any) -> ForeseenView:
    fields = {name: told[name] for name in ForeseenView.model_fields if name in told}
    return ForeseenView(**fields, sentence=TextView(zh=told["zh"], en=told["en"]))


@router.get(API, response_model=ForeseenView, responses=problems(409))
async def foresee(
    edge: EdgeOf,
    membership: Membership,
    verb: Verb,
    by: CancelledBy = "",
    plan: Annotated[str, Query(max_length=48)] = "",
    guarantee: Annotated[str, Query(max_length=32)] = "",
    on: bool = True,
) -> ForeseenView:
    """What the action would do now. Nothing happens."""
    asked = Asked(verb, by, plan, guarantee, on)
    return _foreseen(await edge.require_memberships().foresee(membership, asked))


@router.post(API, response_model=DoneView, responses=problems(403, 409))
async def act(
    request: Request, edge: EdgeOf, membership: Membership, verb: Verb, body: ActionBody, key: Key
) -> Response:
    """Do it, once: the same key again changes nothing and gets the same answer, also after a restart."""
    session: ConsoleSession = request.state.session
    asked = Asked(verb, body.by, body.plan, body.guarantee, body.on)
    auth = ProviderAuth("alipay", body.auth_code) if body.auth_code else None
    done = await edge.require_memberships().do(f"api:{key}", membership, asked, by=f"console:{session.id}", auth=auth)
    view = DoneView(
        membership=membership, verb=verb, state=done.state, code_text=done.code_text, told=_foreseen(done.told)
    )
    return Response(view.model_dump_json(), media_type="application/json")
