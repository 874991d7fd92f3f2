"""The simulated customer's phone, as a web page: orders, holds, and the buttons that a customer presses."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Form, HTTPException, Query, Request
from fastapi.responses import FileResponse, RedirectResponse, Response
from starlette.templating import Jinja2Templates

from gateway.providers.amounts import format_yuan
from gateway.providers.simulator import agreements, credit, holds, settings, trades, users
from gateway.providers.simulator.books import books, hold_view, trade_view
from gateway.providers.simulator.operations import notice_view, sign_as
from gateway.providers.simulator.routes import authorise_as, pay_as, simulator_of
from gateway.providers.simulator.texts import TEXTS, language

ROWS_MAX = 50
_HERE = Path(__file__).parent
_templates = Jinja2Templates(directory=_HERE / "templates")
_templates.env.filters["yuan"] = format_yuan

Code = Annotated[str, Form(max_length=512)]
User = Annotated[str, Form(pattern=users.USER_PATTERN)]
Lang = Annotated[str | None, Query(max_length=8)]


def pages_router() -> APIRouter:
    """The pages; no script, no cookie, nothing loaded from elsewhere."""
    router = APIRouter(default_response_class=Response)
    router.include_router(_signing_router())

    @router.get("/static/simulator.css")
    async def stylesheet() -> FileResponse:
        return FileResponse(_HERE / "static" / "simulator.css", media_type="text/css")

    @router.get("/")
    async def overview(request: Request, lang: Lang = None, said: str = "") -> Response:
        db = simulator_of(request).database.connection
        return _page(
            request,
            lang,
            "overview.html",
            {
                "said": said[:200],
                "books": books(db, None, 0, 0),
                "orders": [
                    trade_view(row) | {"code": row["qr_code"]}
                    for row in db.execute("SELECT * FROM trade ORDER BY id DESC LIMIT ?", (ROWS_MAX,))
                ],
                "holds": [
                    hold_view(row) | {"code": row["code"]}
                    for row in db.execute("SELECT * FROM hold ORDER BY id DESC LIMIT ?", (ROWS_MAX,))
                ],
                "users": db.execute("SELECT * FROM user ORDER BY rowid DESC LIMIT ?", (ROWS_MAX,)).fetchall(),
            }
            | _more(db),
        )

    @router.get(trades.COLLECT_PATH + "{code}")
    async def collect(request: Request, code: str, lang: Lang = None, said: str = "") -> Response:
        row = trades.by_code(simulator_of(request).database.connection, code)
        if row is None:
            raise HTTPException(404, {"code": "order_not_found"})
        view = trade_view(row) | {"open": row["status"] == "WAIT_BUYER_PAY", "title": row["subject"]}
        context = {"said": said[:200], "what": view, "code": code, "action": "/page/pay", "verb": "pay"}
        return _page(request, lang, "act.html", context)

    @router.get(holds.AUTHORISE_PATH + "{code}")
    async def authorise(request: Request, code: str, lang: Lang = None, said: str = "") -> Response:
        row = holds.by_code(simulator_of(request).database.connection, code)
        if row is None:
            raise HTTPException(404, {"code": "hold_not_found"})
        view = hold_view(row) | {"open": row["status"] == "INIT"}
        context = {"said": said[:200], "what": view, "code": code, "action": "/page/authorise", "verb": "authorise"}
        return _page(request, lang, "act.html", context)

    @router.post("/page/pay")
    async def press_pay(request: Request, code: Code, user: User, lang: Lang = None) -> Response:
        simulator = simulator_of(request)
        row = trades.by_code(simulator.database.connection, code)
        try:
            said = str(pay_as(simulator, row, user)["status"])
        except HTTPException as refused:
            said = _refusal(refused)
        return _back(trades.COLLECT_PATH + code if row else "/", lang, said)

    @router.post("/page/authorise")
    async def press_authorise(request: Request, code: Code, user: User, lang: Lang = None) -> Response:
        simulator = simulator_of(request)
        row = holds.by_code(simulator.database.connection, code)
        try:
            said = str(authorise_as(simulator, row, user)["status"])
        except HTTPException as refused:
            said = _refusal(refused)
        return _back(holds.AUTHORISE_PATH + code if row else "/", lang, said)

    @router.post("/page/code")
    async def press_code(
        request: Request, user: User, kind: Annotated[str, Form(pattern="^(face|payment)$")], lang: Lang = None
    ) -> Response:
        simulator = simulator_of(request)
        with simulator.database.transaction() as db:
            code = users.issue_code(db, user, kind, simulator.clock())
        return _back("/", lang, f"{user}: {code.code}")

    return router


def _signing_router() -> APIRouter:
    """What a customer signs: a withholding agreement, a credit membership."""
    router = APIRouter(default_response_class=Response)

    @router.get(agreements.SIGN_PATH + "{code}")
    async def agreement(request: Request, code: str, lang: Lang = None, said: str = "") -> Response:
        row = agreements.by_code(simulator_of(request).database.connection, code)
        if row is None:
            raise HTTPException(404, {"code": "agreement_not_found"})
        view = {
            "title": row["what"],
            "fen": settings.get(simulator_of(request).database.connection, "agreement_limit_fen"),
        }
        view |= {"status": row["status"], "user_id": row["user_id"], "open": row["status"] == "TEMP"}
        context = {"said": said[:200], "what": view, "code": code, "action": "/page/sign", "verb": "sign"}
        return _page(request, lang, "act.html", context)

    @router.get(credit.SIGN_PATH + "{code}")
    async def credit_agreement(request: Request, code: str, lang: Lang = None, said: str = "") -> Response:
        row = credit.by_code(simulator_of(request).database.connection, code)
        if row is None:
            raise HTTPException(404, {"code": "agreement_not_found"})
        view = {"title": row["template_id"], "fen": None, "status": row["status"], "user_id": row["user_id"]}
        view |= {"open": row["status"] == "TEMP"}
        context = {"said": said[:200], "what": view, "code": code, "action": "/page/sign-credit", "verb": "sign"}
        return _page(request, lang, "act.html", context)

    @router.post("/page/sign")
    async def press_sign(request: Request, code: Code, user: User, lang: Lang = None) -> Response:
        simulator = simulator_of(request)
        row = agreements.by_code(simulator.database.connection, code)
        try:
            said = str(sign_as(simulator, row, user, agreements.sign)["status"])
        except HTTPException as refused:
            said = _refusal(refused)
        return _back(agreements.SIGN_PATH + code if row else "/", lang, said)

    @router.post("/page/sign-credit")
    async def press_sign_credit(request: Request, code: Code, user: User, lang: Lang = None) -> Response:
        simulator = simulator_of(request)
        row = credit.by_code(simulator.database.connection, code)
        try:
            said = str(sign_as(simulator, row, user, credit.sign)["status"])
        except HTTPException as refused:
            said = _refusal(refused)
        return _back(credit.SIGN_PATH + code if row else "/", lang, said)

    return router


def _more(db: sqlite3.Connection) -> dict[str, Any]:
    """What merchants were told, what customers signed, and what goes wrong."""
    newest = "ORDER BY rowid DESC LIMIT ?"
    return {
        "notices": [notice_view(row) for row in db.execute(f"SELECT * FROM notice {newest}", (ROWS_MAX,))],
        "agreements": db.execute(f"SELECT * FROM agreement {newest}", (ROWS_MAX,)).fetchall(),
        "credits": [
            {"row": row, "sums": credit.sums(db, str(row["agreement_id"]))}
            for row in db.execute(f"SELECT * FROM credit {newest}", (ROWS_MAX,))
        ],
        "faults": db.execute("SELECT * FROM fault WHERE times_left > 0 ORDER BY id LIMIT ?", (ROWS_MAX,)).fetchall(),
        "bill_faults": db.execute("SELECT * FROM bill_fault ORDER BY id LIMIT ?", (ROWS_MAX,)).fetchall(),
    }


def _refusal(refused: HTTPException) -> str:
    detail: Any = refused.detail
    return str(detail["code"]) if isinstance(detail, dict) else "refused"


def _back(path: str, lang: str | None, said: str) -> Response:
    """See-other, so that reloading the page presses no button again."""
    return RedirectResponse(f"{path}?{urlencode({'lang': lang or '', 'said': said})}", status_code=303)


def _page(request: Request, lang: str | None, name: str, context: dict[str, Any]) -> Response:
    chosen = language(lang, request.headers.get("accept-language", ""))
    other = "zh" if chosen == "en" else "en"
    texts = {"t": TEXTS[chosen], "lang": chosen, "other_lang": other, "other_name": TEXTS[other]["language"]}
    return _templates.TemplateResponse(request, name, context | texts)
