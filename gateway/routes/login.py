"""Coming in and going out, and the two switches that need no session: language and colours."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from gateway.auth import ConsoleSession, cookie_name, end_session, redeem, set_session_cookie
from gateway.console.language import LANGUAGES, THEMES
from gateway.console.render import page
from gateway.edge import EdgeOf
from gateway.errors import not_found

router = APIRouter(include_in_schema=False)

YEAR_S = 365 * 24 * 3600


@router.get("/login")
async def login(request: Request) -> Response:
    """How to get a link."""
    return page(request, "login.html", failed=False, waiting=False)


@router.get("/login/{secret}")
async def open_link(request: Request, edge: EdgeOf, secret: str) -> Response:
    """Spends the link and signs this browser in. A browser that only looks ahead does not spend it."""
    if edge.database is None:
        return page(request, "starting.html", startup=edge.startup())
    if "prefetch" in request.headers.get("sec-purpose", ""):
        return Response(status_code=204)
    session = await redeem(edge.database, edge.settings, secret, edge.now())
    if session is None:
        return page(request, "login.html", status=403, failed=True, waiting=False)
    response = RedirectResponse("/wall", 303)
    set_session_cookie(response, edge.settings, session)
    return response


@router.post("/logout")
async def logout(request: Request, edge: EdgeOf) -> Response:
    """Ends this session; the page goes to the login page by itself."""
    current: ConsoleSession = request.state.session
    await end_session(edge.require_database(), current.id, edge.now())
    response = Response(status_code=204, headers={"HX-Redirect": "/login"})
    response.delete_cookie(cookie_name(edge.settings), path="/", secure=edge.settings.secure, httponly=True)
    return response


def _back(target: str) -> RedirectResponse:
    """Only to an address of ours: `//elsewhere` would leave."""
    ours = target.startswith("/") and not target.startswith(("//", "/\\"))
    return RedirectResponse(target if ours else "/wall", 303)


@router.get("/language/{language}")
async def choose_language(language: str, edge: EdgeOf, back: str = "/wall") -> Response:
    """Remember the language and go back."""
    if language not in LANGUAGES:
        raise not_found("language", language)
    response = _back(back)
    response.set_cookie("lang", language, max_age=YEAR_S, path="/", secure=edge.settings.secure, samesite="lax")
    return response


@router.get("/theme/{theme}")
async def choose_theme(theme: str, edge: EdgeOf, back: str = "/wall") -> Response:
    """Remember light, dark or the system's colours and go back."""
    if theme not in THEMES:
        raise not_found("theme", theme)
    response = _back(back)
    response.set_cookie("theme", theme, max_age=YEAR_S, path="/", secure=edge.settings.secure, samesite="lax")
    return response
