"""The simulator's JSON calls: what its operator and its simulated customers do. Play money, no login, loopback."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from gateway.providers.signing import (
    generate_private_key,
    load_private_key,
    load_public_key,
    private_key_pem,
    public_key_pem,
)
from gateway.providers.simulator import faults, holds, trades, users
from gateway.providers.simulator.books import LIST_LIMIT_MAX, books, hold_view
from gateway.providers.simulator.calls import BusinessFailure
from gateway.providers.simulator.database import moment, one
from gateway.providers.simulator.faults import NOTIFY, CallStep, FaultKind
from gateway.providers.simulator.protocol import FAULTY, Simulator

USERS_MAX = 100_000
FEN_MAX = 10**12

UserId = Annotated[str, Path(pattern=users.USER_PATTERN)]
WhichProvider = Annotated[str, Query(pattern="^(alipay|wechat)$")]
UserField = Annotated[str, Field(pattern=users.USER_PATTERN)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class AppBody(_Body):
    """A merchant's app: its public key, and the account (seller) that receives its money."""

    app_id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    seller_id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    name: str = Field(default="", max_length=128)
    public_key_pem: str = Field(max_length=8192)
    notify_url: str = Field(default="", max_length=256, pattern=r"^(https?://.*)?$")
    """The app's gateway address, for messages that belong to no request."""


class UserBody(_Body):
    """A simulated customer."""

    user: UserField
    balance_fen: int = Field(default=users.BALANCE_FEN_DEFAULT, ge=0, le=FEN_MAX)
    huabei_limit_fen: int = Field(default=users.HUABEI_LIMIT_FEN_DEFAULT, ge=0, le=FEN_MAX)


class PayBody(_Body):
    """A customer pays a collection code, or confirms a waiting order by the provider's number."""

    user: UserField
    qr_code: str | None = Field(default=None, max_length=512)
    trade_no: str | None = Field(default=None, max_length=64)


class AuthoriseBody(_Body):
    """A customer authorises a hold: by its code's text or the provider's number."""

    user: UserField
    code: str | None = Field(default=None, max_length=512)
    auth_no: str | None = Field(default=None, max_length=64)


class FaultBody(_Body):
    """The next `times` calls of `method` (about `number`, if given), from the `call`-th on, go wrong in this way."""

    method: str
    kind: FaultKind = Field(strict=False)
    call: int = Field(default=1, ge=1, le=1_000_000)
    times: int = Field(default=1, ge=1, le=10_000)
    number: str = Field(default="", max_length=64)
    sub_code: str = Field(default="ACQ.BUYER_BALANCE_NOT_ENOUGH", min_length=1, max_length=64)
    value: int = Field(default=0, ge=0, le=10**9)


def simulator_of(request: Request) -> Simulator:
    """The process's simulator."""
    simulator: Simulator = request.app.state.simulator
    return simulator


def pay_as(simulator: Simulator, trade: sqlite3.Row | None, user: str) -> dict[str, Any]:
    """A customer pays a waiting order. 404 without one; 409 with the reason when it cannot be paid.

    The transaction is committed before a refusal is told, so that what it decided stays decided.
    """
    refused: BusinessFailure | None = None
    with simulator.database.transaction() as db:
        now = simulator.expire(db)
        if trade is None:
            raise HTTPException(404, {"code": "order_not_found"})
        users.ensure_user(db, user, now)
        row = trades.by_trade_no(db, str(trade["trade_no"]))
        if row["paid_at"] is None:
            try:
                trades.complete_payment(db, str(row["trade_no"]), user, now)
            except BusinessFailure as failure:
                refused = failure
        elif row["user_id"] != user:
            refused = BusinessFailure("ACQ.TRADE_HAS_SUCCESS", "paid by another customer")
        row = trades.by_trade_no(db, str(row["trade_no"]))
    if refused is not None:
        raise HTTPException(409, {"code": refused.sub_code, "message": refused.sub_msg})
    return {"trade_no": row["trade_no"], "status": row["status"], "fen": row["total_fen"]}


def authorise_as(simulator: Simulator, found: sqlite3.Row | None, user: str) -> dict[str, Any]:
    """A customer authorises a hold; idempotent for the same customer. 404 and 409 as for paying."""
    refused: BusinessFailure | None = None
    with simulator.database.transaction() as db:
        now = simulator.expire(db)
        if found is None:
            raise HTTPException(404, {"code": "hold_not_found"})
        users.ensure_user(db, user, now)
        row = one(db, "SELECT * FROM hold WHERE auth_no = ?", found["auth_no"])
        assert row is not None
        if row["frozen_at"] is None or row["user_id"] != user:
            try:
                holds.authorise(db, str(row["auth_no"]), user, now)
            except BusinessFailure as failure:
                refused = failure
        row = one(db, "SELECT * FROM hold WHERE auth_no = ?", found["auth_no"])
        assert row is not None
    if refused is not None:
        raise HTTPException(409, {"code": refused.sub_code, "message": refused.sub_msg})
    return hold_view(row)


def sim_router() -> APIRouter:
    """`/sim/...`: JSON in, JSON out."""
    router = APIRouter(prefix="/sim")
    router.include_router(_operator_router())
    router.include_router(_customer_router())
    return router


def _operator_router() -> APIRouter:
    """Health, merchant apps, books, faults."""
    router = APIRouter()

    @router.get("/health")
    async def health(request: Request) -> dict[str, Any]:
        one(simulator_of(request).database.connection, "SELECT 1")
        return {"ok": True}

    @router.post("/apps")
    async def register_app(request: Request, body: AppBody) -> dict[str, Any]:
        simulator = simulator_of(request)
        try:
            load_public_key(body.public_key_pem)
        except ValueError:
            raise HTTPException(422, {"code": "public_key_invalid"}) from None
        row = one(simulator.database.connection, "SELECT * FROM app WHERE app_id = ?", body.app_id)
        if row is not None and row["seller_id"] != body.seller_id:
            raise HTTPException(409, {"code": "app_has_another_seller"})
        fresh_pem = "" if row else private_key_pem(await asyncio.to_thread(generate_private_key))
        with simulator.database.transaction() as db:
            db.execute(
                "INSERT INTO app (app_id, seller_id, name, merchant_public_pem, provider_private_pem, created_at, "
                "notify_url) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (app_id) DO UPDATE SET "
                "name = excluded.name, merchant_public_pem = excluded.merchant_public_pem, "
                "notify_url = excluded.notify_url",
                (
                    body.app_id,
                    body.seller_id,
                    body.name,
                    body.public_key_pem,
                    fresh_pem,
                    moment(simulator.clock()),
                    body.notify_url,
                ),
            )
            stored = one(db, "SELECT provider_private_pem FROM app WHERE app_id = ?", body.app_id)
        assert stored is not None
        simulator.forget_app(body.app_id)
        key = load_private_key(str(stored["provider_private_pem"])).public_key()
        return {"app_id": body.app_id, "seller_id": body.seller_id, "provider_public_key_pem": public_key_pem(key)}

    @router.get("/books")
    async def read_books(
        request: Request,
        app_id: Annotated[str | None, Query(max_length=64)] = None,
        after: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=0, le=LIST_LIMIT_MAX)] = 100,
    ) -> dict[str, Any]:
        return books(simulator_of(request).database.connection, app_id, after, limit)

    @router.post("/faults")
    async def add_fault(request: Request, body: FaultBody) -> dict[str, Any]:
        simulator = simulator_of(request)
        if body.method not in {*FAULTY, NOTIFY}:
            raise HTTPException(422, {"code": "no_such_method", "methods": sorted(FAULTY)})
        fields = body.model_dump(exclude={"method", "kind"})
        try:
            step = CallStep(of=body.method, do=body.kind, **fields)
        except ValueError:
            raise HTTPException(422, {"code": "fault_does_not_fit"}) from None
        with simulator.database.transaction() as db:
            if not faults.add(db, step):
                raise HTTPException(429, {"code": "too_many_faults"})
        return {"ok": True}

    @router.delete("/faults")
    async def clear_faults(request: Request) -> dict[str, Any]:
        with simulator_of(request).database.transaction() as db:
            faults.clear(db)
        return {"ok": True}

    return router


def _customer_router() -> APIRouter:
    """What simulated customers do."""
    router = APIRouter()

    @router.post("/users")
    async def create_user(request: Request, body: UserBody) -> dict[str, Any]:
        simulator = simulator_of(request)
        with simulator.database.transaction() as db:
            count = one(db, "SELECT count(*) AS n FROM user")
            if count is not None and count["n"] >= USERS_MAX:
                raise HTTPException(429, {"code": "too_many_users"})
            users.ensure_user(db, body.user, simulator.clock(), body.balance_fen, body.huabei_limit_fen)
        return _user_view(simulator, body.user)

    @router.get("/users/{user}")
    async def read_user(request: Request, user: UserId) -> dict[str, Any]:
        return _user_view(simulator_of(request), user)

    @router.post("/users/{user}/face-token")
    async def face_token(request: Request, user: UserId) -> dict[str, Any]:
        return _code_view(simulator_of(request), user, "face")

    @router.post("/users/{user}/payment-code")
    async def payment_code(request: Request, user: UserId, provider: WhichProvider = "alipay") -> dict[str, Any]:
        return _code_view(simulator_of(request), user, "payment", provider)

    @router.post("/pay")
    async def pay(request: Request, body: PayBody) -> dict[str, Any]:
        simulator = simulator_of(request)
        db = simulator.database.connection
        if body.qr_code is not None:
            trade = trades.by_code(db, body.qr_code)
        else:
            trade = one(db, "SELECT * FROM trade WHERE trade_no = ?", body.trade_no)
        return pay_as(simulator, trade, body.user)

    @router.post("/holds/authorise")
    async def authorise(request: Request, body: AuthoriseBody) -> dict[str, Any]:
        simulator = simulator_of(request)
        db = simulator.database.connection
        if body.code is not None:
            found = holds.by_code(db, body.code)
        else:
            found = one(db, "SELECT * FROM hold WHERE auth_no = ?", body.auth_no)
        return authorise_as(simulator, found, body.user)

    return router


def _user_view(simulator: Simulator, user: str) -> dict[str, Any]:
    row = one(simulator.database.connection, "SELECT * FROM user WHERE user_id = ?", user)
    if row is None:
        raise HTTPException(404, {"code": "user_not_found"})
    return {
        "user": row["user_id"],
        "balance_fen": row["balance_fen"],
        "huabei_limit_fen": row["huabei_limit_fen"],
        "huabei_used_fen": row["huabei_used_fen"],
        "huabei_held_fen": row["huabei_held_fen"],
    }


def _code_view(simulator: Simulator, user: str, kind: str, provider: str = "alipay") -> dict[str, Any]:
    with simulator.database.transaction() as db:
        code = users.issue_code(db, user, kind, simulator.clock(), provider)
    return {"user": user, "token": code.code, "kind": kind, "expires_at": moment(code.expires_at)}
