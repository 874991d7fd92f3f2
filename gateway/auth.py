"""Who may come in: a one-time link from the command line becomes an opaque session cookie.

Nothing secret is stored: links and sessions are found by the SHA-256 of 256 random bits. Every address that is
not named in OPEN_PATHS needs a session, and every request with an effect must come from our own pages.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import col, delete, select, update
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.edge import Edge, wall_clock
from gateway.errors import Problem, answer, database_away, is_api
from gateway.settings import GatewaySettings
from models.domain.errors import RetryLater
from models.tables.registry import LoginRow

OPEN_PATHS = ("/healthz", "/readyz", "/login", "/static", "/language", "/theme", "/startup.json", "/m", "/images")
"""Each with everything below it; below `/m` a member's own signed token is the key. The rest needs a session: deny by
default."""
OPEN_POSTS = frozenset({"/terminals/enrol", "/terminals/rotate"})
"""A terminal that shows a one-time code has no session. Nothing else of these addresses is open."""
NOTIFICATIONS = re.compile(r"/api/v1/providers/[a-z0-9-]{1,32}/notify")
"""A payment provider has no session either: its signature is checked there."""
METRICS_PATH = "/metrics"

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
CSRF_HEADER = "x-csrf-token"


@dataclass(frozen=True, slots=True)
class ConsoleSession:
    """A signed-in console. `csrf` must accompany every request with an effect; `person`: "" nobody in particular."""

    id: str
    csrf: str
    person: str = ""


def cookie_name(settings: GatewaySettings) -> str:
    """`__Host-` binds a cookie to this host and path, but browsers accept it only with Secure, hence by TLS.

    On http://127.0.0.1 the plain name is used: Chromium takes Secure cookies from the loopback, Safari does not.
    """
    return "__Host-storeops" if settings.secure else "storeops"


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def csrf_token(secret: str) -> str:
    """Derived from the session's secret, so that it needs no store and ends with the session."""
    return base64.urlsafe_b64encode(hmac.digest(secret.encode(), b"csrf", "sha256")).rstrip(b"=").decode()


async def _remember(session: AsyncSession, kind: str, expires_at: datetime, person: str) -> str:
    secret = secrets.token_urlsafe(32)
    row = LoginRow(id=str(uuid.uuid4()), kind=kind, secret_sha256=_digest(secret), expires_at=expires_at, person=person)
    session.add(row)
    return secret


async def make_login_link(
    database: AsyncEngine, settings: GatewaySettings, now: datetime | None = None, person: str = ""
) -> str:
    """A link that signs one browser in, once, within `login_link_minutes`, as `person`. Returns after it is stored."""
    now = now or wall_clock()
    async with AsyncSession(database) as session:
        await session.exec(delete(LoginRow).where(col(LoginRow.expires_at) < now - timedelta(days=1)))
        secret = await _remember(session, "link", now + timedelta(minutes=settings.login_link_minutes), person)
        await session.commit()
    return f"{settings.base_url}/login/{secret}"


async def redeem(database: AsyncEngine, settings: GatewaySettings, link_secret: str, now: datetime) -> str | None:
    """A new session's secret for a link that was not used yet and has not expired; None for any other."""
    async with AsyncSession(database) as session:
        used = await session.exec(
            update(LoginRow)
            .where(
                col(LoginRow.secret_sha256) == _digest(link_secret),
                col(LoginRow.kind) == "link",
                col(LoginRow.used_at).is_(None),
                col(LoginRow.expires_at) > now,
            )
            .values(used_at=now)
            .returning(col(LoginRow.person))
        )
        person = used.scalar_one_or_none()
        if person is None:
            return None
        secret = await _remember(session, "session", now + timedelta(hours=settings.session_hours), person)
        await session.commit()
    return secret


async def find_session(database: AsyncEngine, secret: str, now: datetime) -> ConsoleSession | None:
    """The session of a cookie, while it lasts."""
    async with AsyncSession(database) as session:
        found = await session.exec(
            select(LoginRow.id, LoginRow.person).where(
                col(LoginRow.secret_sha256) == _digest(secret),
                col(LoginRow.kind) == "session",
                col(LoginRow.used_at).is_(None),
                col(LoginRow.expires_at) > now,
            )
        )
        row = found.first()
    return None if row is None else ConsoleSession(row[0], csrf_token(secret), row[1])


async def end_session(database: AsyncEngine, session_id: str, now: datetime) -> None:
    """Sign out: the cookie is worth nothing from now on."""
    async with AsyncSession(database) as session:
        await session.exec(update(LoginRow).where(col(LoginRow.id) == session_id).values(used_at=now))
        await session.commit()


def set_session_cookie(response: Response, settings: GatewaySettings, secret: str) -> None:
    """Sign the browser in."""
    response.set_cookie(
        cookie_name(settings),
        secret,
        max_age=settings.session_hours * 3600,
        path="/",
        secure=settings.secure,
        httponly=True,
        samesite="lax",
    )


def comes_from_us(request: Request) -> bool:
    """The browser says that a page of ours sent this. Neither header: not a browser, so no cookie was stolen."""
    site = request.headers.get("sec-fetch-site")
    if site is not None and site != "same-origin":
        return False
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


def is_open(path: str) -> bool:
    """Reachable without a session."""
    return any(path == opened or path.startswith(f"{opened}/") for opened in OPEN_PATHS)


def _enrols(scope: Scope) -> bool:
    if scope["method"] != "POST":
        return False
    return scope["path"] in OPEN_POSTS or NOTIFICATIONS.fullmatch(scope["path"]) is not None


class SessionGate:
    """Lets nobody past without a session, and no effect happen without our own token."""

    def __init__(self, app: ASGIApp, edge: Edge, starting: Callable[[Request], Response]) -> None:
        self._app = app
        self._edge = edge
        self._starting = starting

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_open(scope["path"]) or _enrols(scope):
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        refusal = None if self._scrapes(request) else await self._refusal(request)
        await (self._app if refusal is None else refusal)(scope, receive, send)

    async def _refusal(self, request: Request) -> Response | None:
        edge, path = self._edge, request.url.path
        if edge.database is None or (edge.hosts is None and not is_api(path)):
            if is_api(path):
                return answer(request, RetryLater("starting", "still starting", "try again in a moment", after_s=1))
            return self._starting(request)
        secret = request.cookies.get(cookie_name(edge.settings), "")
        try:
            session = await find_session(edge.database, secret, edge.now()) if secret else None
        except (OperationalError, InterfaceError):
            return answer(request, database_away())
        if session is None:
            if is_api(path):
                return answer(request, Problem(401, "not_signed_in", "this needs a session", "run `storeops login`"))
            if request.headers.get("hx-request") == "true":
                return Response(status_code=401, headers={"HX-Redirect": "/login"})
            return RedirectResponse("/login", 303)
        if request.method not in SAFE_METHODS and not self._is_ours(request, session):
            return answer(request, Problem(403, "csrf", "this did not come from our own page", f"send {CSRF_HEADER}"))
        request.scope.setdefault("state", {})["session"] = session
        return None

    def _scrapes(self, request: Request) -> bool:
        """Prometheus, with its own token: it reads the counts and nothing else."""
        token, shown = self._edge.metrics_token, request.headers.get("authorization", "")
        right = bool(token) and hmac.compare_digest(shown.encode(), f"Bearer {token}".encode())
        return right and request.url.path == METRICS_PATH and request.method in SAFE_METHODS

    @staticmethod
    def _is_ours(request: Request, session: ConsoleSession) -> bool:
        token = request.headers.get(CSRF_HEADER, "")
        return comes_from_us(request) and hmac.compare_digest(token.encode(), session.csrf.encode())
