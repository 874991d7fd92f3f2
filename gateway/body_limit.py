"""The bound of a request's body, held where every request passes."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import Problem, answer
from gateway.prices import PATH_ENDING


class BodyLimit:
    """Refuses a body that says it is too long, and stops reading one that turns out to be.

    Ours, because the framework's own limit answers in plain text where every other refusal is a problem document.
    """

    def __init__(self, app: ASGIApp, body_bytes_max: int, file_bytes_max: int) -> None:
        """`file_bytes_max`: of a price file, the one body that is long."""
        self._app = app
        self._file_bytes_max = file_bytes_max
        self._body_bytes_max = body_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._file_bytes_max if scope["path"].endswith(PATH_ENDING) else self._body_bytes_max
        too_large = f"a body is at most {limit} bytes"
        declared = Headers(scope=scope).get("content-length", "0")
        if not declared.isdecimal() or int(declared) > limit:
            problem = Problem(413, "too_large", too_large, "send less")
            await answer(Request(scope, receive), problem)(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b"")) if message["type"] == "http.request" else 0
            if received > limit:
                # FastAPI passes an HTTPException on and turns any other error of reading into 400.
                raise HTTPException(413, too_large)
            return message

        await self._app(scope, counted, send)
