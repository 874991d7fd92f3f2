"""Pages and fragments: strict Jinja, nothing inline, the same shell around every page."""

from __future__ import annotations

import hashlib
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from gateway.console import icons
from gateway.console.language import language_of, local_time, text, text_or, texts_under, theme_of, yuan

if TYPE_CHECKING:  # the start-up page is shown before what these need is loaded
    from gateway.edge import Edge
    from gateway.views import ProblemView

HERE = Path(__file__).parent
STATIC = HERE / "static"

SCOPE_KEYS = ("region", "store")

NAVIGATION = (
    ("wall", "/wall"),
    ("members", "/members"),
    ("plans", "/plans"),
    ("prices", "/prices"),
    ("payments", "/payments"),
    ("receipts", "/receipts"),
    ("invoices", "/invoices"),
    ("drawers", "/drawers"),
    ("settlement", "/settlement"),
    ("reconciliation", "/reconciliation"),
    ("ledger", "/ledger"),
    ("stores", "/stores"),
    ("terminals", "/terminals"),
    ("faces", "/faces"),
    ("rollouts", "/rollouts"),
    ("switches", "/switches"),
    ("privacy", "/privacy"),
    ("system", "/system"),
)

environment = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@cache
def _digest(name: str) -> str:
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]


def static_url(name: str) -> str:
    """The address of a static file, with its content's digest so that a new version is fetched."""
    return f"/static/{name}?v={_digest(name)}"


def scope_query(request: Request, **changes: str | None) -> str:
    """The page's scope as a query, with `changes`; empty values leave."""
    values = {key: request.query_params.get(key, "") for key in SCOPE_KEYS} | changes
    query = urlencode({key: value for key, value in values.items() if value})
    return f"?{query}" if query else ""


def same_query(request: Request, **changes: str | None) -> str:
    """The page's whole query with `changes`; empty values leave."""
    values = dict(request.query_params) | changes
    query = urlencode({key: value for key, value in values.items() if value})
    return f"?{query}" if query else ""


def books_apart(edge: Edge, region: str) -> list[str]:
    """The regions whose books a page without a region shows, where others keep theirs in another database."""
    if region or len(edge.settings.regions) == 1 or getattr(edge, "database", None) is None:
        return []
    books = list(edge.books.values())
    return books[0] if len(books) > 1 else []


def is_fragment(request: Request) -> bool:
    """Asked for by htmx into a part of a page, not typed into the address bar."""
    return request.headers.get("hx-request") == "true"


def render(request: Request, template: str, **context: Any) -> str:
    """The template with what every page needs."""
    language = language_of(request)
    edge: Edge = request.app.state.edge
    session = getattr(request.state, "session", None)
    shared: dict[str, Any] = {
        "lang": language,
        "theme": theme_of(request),
        "t": partial(text, language),
        "t_or": partial(text_or, language),
        "texts_under": partial(texts_under, language),
        "yuan": yuan,
        "local_time": local_time,
        "static": static_url,
        "icon": lambda name: Markup(icons.svg(name)),  # noqa: S704 - our own drawings
        "csrf": session.csrf if session else "",
        "navigation": NAVIGATION,
        "path": request.url.path,
        "here": f"{request.url.path}{same_query(request)}",
        "scope_query": partial(scope_query, request),
        "same_query": partial(same_query, request),
        "scope": {key: request.query_params.get(key, "") for key in SCOPE_KEYS},
        "settings": edge.settings,
        "apart": books_apart(edge, request.query_params.get("region", "")),
        "fragment": is_fragment(request),
    }
    return environment.get_template(template).render(shared | context)


def page(request: Request, template: str, *, status: int = 200, **context: Any) -> Response:
    """A page or fragment, never cached: it shows what is true now."""
    response = HTMLResponse(render(request, template, **context), status)
    response.headers["Cache-Control"] = "no-store"
    response.headers["Vary"] = "HX-Request, Accept-Language, Cookie"
    return response


def error_page(request: Request, problem: ProblemView) -> Response:
    """An error as a person reads it: what happened, what to do."""
    return page(request, "error.html", status=problem.status, problem=problem)
