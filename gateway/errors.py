"""Errors as RFC 9457 problems: a stable code and what to do next. HTTP numbers live in this table only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from sqlalchemy.exc import InterfaceError, OperationalError
from starlette.exceptions import HTTPException

from gateway.views import FieldProblemView, ProblemView
from models.domain.errors import NeedsOperator, Refused, RetryLater, StoreOpsError

log = structlog.get_logger()

PROBLEM_JSON = "application/problem+json"


class Problem(StoreOpsError):
    """An error of the HTTP edge itself, with its status; `errors` name what is wrong one by one."""

    def __init__(
        self, status: int, code: str, message: str, do: str = "", errors: Sequence[FieldProblemView] = ()
    ) -> None:
        super().__init__(code, message, do)
        self.status = status
        self.errors = list(errors)


def not_found(what: str, name: str) -> Problem:
    """404 for a thing that does not exist."""
    return Problem(404, "not_found", f"there is no {what} {name!r}", "check the id, or search the list")


def status_of(error: StoreOpsError) -> int:
    """The HTTP status of an error, by what to do next."""
    match error:
        case Problem():
            return error.status
        case Refused():
            return 409
        case RetryLater():
            return 503
        case NeedsOperator():
            return 500
        case _:
            return 500


_HTTP_CODES = {
    400: ("bad_request", "mend the request"),
    404: ("not_found", "check the address"),
    405: ("method_not_allowed", "see /api/v1/docs for the methods of this address"),
    413: ("too_large", "send less"),
}


def is_api(path: str) -> bool:
    """Answers with documents, not pages."""
    return path.startswith("/api/") or path in {"/metrics", "/startup.json", "/healthz", "/readyz"}


ErrorPage = Callable[[Request, ProblemView], Response]


def _respond(request: Request, view: ProblemView, retry_after_s: float | None = None) -> Response:
    """The document for a machine; for a person's browser the same as a page."""
    headers = {} if retry_after_s is None else {"Retry-After": str(max(1, math.ceil(retry_after_s)))}
    if is_api(request.url.path):
        body = view.model_dump(mode="json", exclude_none=True)
        return JSONResponse(body, view.status, headers=headers, media_type=PROBLEM_JSON)
    error_page: ErrorPage = request.app.state.error_page
    response = error_page(request, view)
    response.headers.update(headers)
    return response


def answer(request: Request, error: StoreOpsError) -> Response:
    """The response to one of our own errors."""
    status, code = status_of(error), error.code
    errors = error.errors if isinstance(error, Problem) else []
    view = ProblemView(
        status=status,
        code=code,
        title=code.replace("_", " "),
        detail=error.message,
        do=error.do,
        errors=errors or None,
    )
    return _respond(request, view, error.after_s if isinstance(error, RetryLater) else None)


def database_away() -> RetryLater:
    """What an unreachable database means to the caller."""
    return RetryLater("database_away", "the database does not answer", "try again in a moment", after_s=2)


async def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, StoreOpsError)
    return answer(request, error)


async def _database(request: Request, error: Exception) -> Response:
    log.warning("database_away", error=str(error))
    return answer(request, database_away())


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [
        FieldProblemView(field=".".join(str(part) for part in entry["loc"]), problem=entry["msg"])
        for entry in error.errors()
    ]
    view = ProblemView(
        status=422,
        code="invalid_request",
        title="invalid request",
        detail="the request is not valid",
        do="mend the named fields",
        errors=errors,
    )
    return _respond(request, view)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code, do = _HTTP_CODES.get(error.status_code, ("http_error", ""))
    response = answer(request, Problem(error.status_code, code, str(error.detail), do))
    response.headers.update(error.headers or {})
    return response


async def _bug(request: Request, error: Exception) -> Response:
    log.error("unhandled", path=request.url.path, error=repr(error))
    return answer(
        request, Problem(500, "bug", "something went wrong on our side", "try again; if it stays, see the log")
    )


def install_errors(app: FastAPI, error_page: ErrorPage) -> None:
    """Every error that leaves the app is a problem document, or a page that says the same."""
    app.state.error_page = error_page
    app.add_exception_handler(StoreOpsError, _ours)
    app.add_exception_handler(OperationalError, _database)
    app.add_exception_handler(InterfaceError, _database)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _bug)
