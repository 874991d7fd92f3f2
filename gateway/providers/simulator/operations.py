"""More of the simulator's JSON calls: fault scripts, the clock, settings, notifications, signatures, bills."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from datetime import date, datetime, timedelta
from math import ceil
from typing import IO, Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from gateway.providers.simulator import agreements, bill, credit, faults, settings, users
from gateway.providers.simulator.calls import BusinessFailure
from gateway.providers.simulator.database import moment, one
from gateway.providers.simulator.protocol import FAULTY, Simulator
from gateway.providers.simulator.routes import simulator_of

CHUNK_BYTES = 256 * 1024
LIST_MAX = 500


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ScriptBody(_Body):
    """A fault script, YAML or JSON, as text."""

    script: str = Field(max_length=faults.SCRIPT_BYTES_MAX)


class ClockBody(_Body):
    """How far to move the clock on, or up to when; what is past already changes nothing."""

    advance_s: int = Field(default=0, ge=0, le=366 * 86_400)
    to: AwareDatetime | None = Field(default=None, strict=False)


class SettingBody(_Body):
    """One of the operator's settings."""

    name: str = Field(max_length=32)
    value: int


class SignBody(_Body):
    """A customer signs what a page shows, by its address or the last part of it."""

    user: str = Field(pattern=users.USER_PATTERN)
    code: str = Field(max_length=512)


class BillFaultBody(_Body):
    """Something wrong with the bill of a day: by the number of an order or refund, or by line (0 is the first)."""

    day: date = Field(strict=False)
    do: faults.BillFault = Field(strict=False)
    app_id: str = Field(default="", max_length=64)
    number: str = Field(default="", max_length=64)
    line: int = Field(default=0, ge=0)
    fen: int = 100


class NumberBody(_Body):
    """An agreement, by the provider's number."""

    number: str = Field(max_length=64)


def operations_router() -> APIRouter:
    """`/sim/...`: JSON in, JSON out; a bill is a zip."""
    router = APIRouter(prefix="/sim")
    router.include_router(_fault_router())
    router.include_router(_agreement_router())
    router.include_router(_notice_router())

    @router.post("/clock")
    async def advance(request: Request, body: ClockBody) -> dict[str, Any]:
        try:
            simulator = simulator_of(request)
            ahead = timedelta(0) if body.to is None else body.to - simulator.clock()
            # Whole seconds, upwards: who asks for midnight must not be left in the day before.
            now = simulator.advance(timedelta(seconds=max(body.advance_s, ceil(ahead.total_seconds()), 0)))
        except ValueError:
            raise HTTPException(422, {"code": "too_far"}) from None
        return {"now": moment(now)}

    @router.post("/settings")
    async def put_setting(request: Request, body: SettingBody) -> dict[str, Any]:
        if body.name == "clock_offset_s":
            raise HTTPException(422, {"code": "use_clock"})
        with simulator_of(request).database.transaction() as db:
            try:
                settings.put(db, body.name, body.value)
            except ValueError:
                raise HTTPException(422, {"code": "no_such_setting"}) from None
        return {"ok": True}

    @router.get("/bill/{token}")
    async def read_bill(request: Request, token: str) -> StreamingResponse:
        simulator = simulator_of(request)
        found = bill.behind(simulator.database.connection, token, simulator.clock())
        if found is None:
            raise HTTPException(403, {"code": "expired"})
        file = bill.write_bill(simulator.database.connection, *found)
        return StreamingResponse(_chunks(file), media_type="application/zip")

    return router


async def _chunks(file: IO[bytes]) -> AsyncIterator[bytes]:
    try:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
    finally:
        file.close()


def _fault_router() -> APIRouter:
    router = APIRouter()

    @router.post("/script")
    async def play(request: Request, body: ScriptBody) -> dict[str, Any]:
        try:
            script = faults.parse_script(body.script, FAULTY)
        except ValueError as error:
            raise HTTPException(422, {"code": "script_invalid", "message": str(error)}) from None
        with simulator_of(request).database.transaction() as db:
            faults.play(db, script)
        return {"ok": True, "faults": len(script.faults), "chances": len(script.chances)}

    @router.post("/bill-faults")
    async def add_bill_fault(request: Request, body: BillFaultBody) -> dict[str, Any]:
        step = faults.BillStep(of=faults.BILL, **body.model_dump())
        with simulator_of(request).database.transaction() as db:
            if not faults.add(db, step):
                raise HTTPException(429, {"code": "too_many_faults"})
        return {"ok": True}

    return router


def _agreement_router() -> APIRouter:
    router = APIRouter()

    @router.post("/agreements/sign")
    async def sign_agreement(request: Request, body: SignBody) -> dict[str, Any]:
        simulator = simulator_of(request)
        row = agreements.by_code(simulator.database.connection, body.code)
        return sign_as(simulator, row, body.user, agreements.sign)

    @router.post("/agreements/end")
    async def end_agreement(request: Request, body: NumberBody) -> dict[str, Any]:
        simulator = simulator_of(request)
        with simulator.database.transaction() as db:
            now = simulator.expire(db)
            row = one(db, "SELECT * FROM agreement WHERE agreement_no = ? AND status = 'NORMAL'", body.number)
            if row is None:
                raise HTTPException(404, {"code": "agreement_not_found"})
            agreements.end(db, row, now)
        return {"ok": True}

    @router.post("/credits/sign")
    async def sign_credit(request: Request, body: SignBody) -> dict[str, Any]:
        simulator = simulator_of(request)
        row = credit.by_code(simulator.database.connection, body.code)
        return sign_as(simulator, row, body.user, credit.sign)

    @router.post("/credits/lapse")
    async def lapse_credit(request: Request, body: NumberBody) -> dict[str, Any]:
        simulator = simulator_of(request)
        with simulator.database.transaction() as db:
            now = simulator.expire(db)
            row = one(db, "SELECT * FROM credit WHERE agreement_id = ? AND status = 'Y'", body.number)
            if row is None:
                raise HTTPException(404, {"code": "agreement_not_found"})
            credit.lapse(db, row, now)
            row = one(db, "SELECT * FROM credit WHERE agreement_id = ?", body.number)
            assert row is not None
        return {"withhold_plan_no": row["plan_no"]}

    return router


def sign_as(
    simulator: Simulator,
    found: sqlite3.Row | None,
    user: str,
    sign: Callable[[sqlite3.Connection, sqlite3.Row, str, datetime], None],
) -> dict[str, Any]:
    """A customer signs; idempotent for the same customer. 404 without a page, 409 with the reason when refused."""
    if found is None:
        raise HTTPException(404, {"code": "agreement_not_found"})
    table, key = ("agreement", "agreement_no") if "agreement_no" in found.keys() else ("credit", "agreement_id")  # noqa: SIM118 - a Row is no dict
    with simulator.database.transaction() as db:
        now = simulator.expire(db)
        users.ensure_user(db, user, now)
        row = one(db, f"SELECT * FROM {table} WHERE {key} = ?", found[key])
        if row is None:
            raise HTTPException(404, {"code": "agreement_not_found"})
        try:
            sign(db, row, user, now)
        except BusinessFailure as failure:
            raise HTTPException(409, {"code": failure.sub_code, "message": failure.sub_msg}) from None
        row = one(db, f"SELECT * FROM {table} WHERE {key} = ?", found[key])
        assert row is not None
    return {"agreement_no": row[key], "status": row["status"], "user": row["user_id"]}


def _notice_router() -> APIRouter:
    router = APIRouter()

    @router.get("/notifications")
    async def read_notices(
        request: Request,
        number: Annotated[str, Query(max_length=64)] = "",
        limit: Annotated[int, Query(ge=1, le=LIST_MAX)] = 100,
    ) -> dict[str, Any]:
        rows = simulator_of(request).database.connection.execute(
            "SELECT * FROM notice WHERE ?1 IN ('', number) ORDER BY id DESC LIMIT ?2", (number, limit)
        )
        return {"notifications": [notice_view(row) for row in rows]}

    @router.post("/notifications/deliver")
    async def deliver(request: Request) -> dict[str, Any]:
        return {"sent": await simulator_of(request).courier.deliver()}

    return router


def notice_view(row: sqlite3.Row) -> dict[str, Any]:
    """One notification as JSON."""
    names = ("id", "notify_id", "app_id", "kind", "number", "url", "sends", "state", "said", "next_at", "created_at")
    return {name: row[name] for name in names}
