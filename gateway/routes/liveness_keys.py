"""Keys for signed liveness by the API; the terminal's page has a form for the same."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from gateway.auth import ConsoleSession
from gateway.edge import EdgeOf, OfTerminal
from gateway.errors import not_found
from gateway.liveness_keys import LivenessKeysChange
from gateway.queries.twins import list_liveness_keys
from gateway.routes.documented import problems
from gateway.twin_views import LivenessKeyView
from gateway.views import View
from models.tables.registry import TerminalRow

router = APIRouter(tags=["registry"])
API = "/api/v1/terminals/{terminal}/liveness-keys"

Key = Annotated[str, Header(alias="Idempotency-Key", min_length=8, max_length=64)]
Name = Annotated[str, Path(max_length=48)]


class RegisterBody(BaseModel):
    """An Ed25519 public key: base64, 64 hex digits or PEM. `replace`: the keys that counted until now end at once."""

    model_config = ConfigDict(extra="forbid")

    key: Annotated[str, Field(min_length=1, max_length=4_096)]
    replace: bool = False


class RevokeBody(BaseModel):
    """One key by its fingerprint; null: all of the terminal's."""

    model_config = ConfigDict(extra="forbid")

    fingerprint: Annotated[str, Field(pattern="^[0-9a-f]{16}$")] | None = None


class ChangeView(View):
    """What was done. `told`: its host knows already; otherwise it sees it within seconds, or when it is back."""

    terminal: str
    added: str
    ended: list[str]
    told: bool


@router.get(API, responses=problems(404))
async def list_keys(database: OfTerminal, terminal: Name) -> list[LivenessKeyView]:
    """All that were ever registered, those that count first."""
    if await database.get(TerminalRow, terminal) is None:
        raise not_found("terminal", terminal)
    return await list_liveness_keys(database, terminal)


@router.post(API, response_model=ChangeView, responses=problems(403, 409))
async def register_key(request: Request, edge: EdgeOf, terminal: Name, body: RegisterBody, key: Key) -> Response:
    """From now on only scores that a registered key signed are read of the terminal. In the audit for ever."""

    async def effect() -> bytes:
        desk = edge.require_liveness_keys()
        return _answer(await desk.register(terminal, body.key, _by(request), replace=body.replace))

    called = f"{terminal} {body.model_dump_json()}".encode()
    answer = await edge.calls.run(f"liveness-key:{key}", called, effect)
    return Response(answer, media_type="application/json")


@router.post(f"{API}/revoke", response_model=ChangeView, responses=problems(403, 409))
async def revoke_key(request: Request, edge: EdgeOf, terminal: Name, body: RevokeBody, key: Key) -> Response:
    """What this key signs counts no more. A revoked key does not come back."""

    async def effect() -> bytes:
        return _answer(await edge.require_liveness_keys().revoke(terminal, body.fingerprint, _by(request)))

    called = f"{terminal} {body.model_dump_json()}".encode()
    answer = await edge.calls.run(f"liveness-key-revoke:{key}", called, effect)
    return Response(answer, media_type="application/json")


def _by(request: Request) -> str:
    session: ConsoleSession = request.state.session
    return f"console:{session.person or session.id}"


def _answer(change: LivenessKeysChange) -> bytes:
    view = ChangeView(terminal=change.terminal, added=change.added, ended=list(change.ended), told=change.told)
    return view.model_dump_json().encode()
