"""The bound of a request's body, held where every request passes."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import Problem, answer


class BodyLimit:
    """Refuses a body that says it is too long, and stops reading one that turns out to be.

    Ours, because the framework's own limit answers in plain text where every other refusal is a problem document.
    """

    def __init__(self, app: ASGIApp, body_bytes_max: int) -> None:
        self._app = app
        self._body_bytes_max = body_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        too_large = f"a body is at most {self._body_bytes_max} bytes"
        declared = Headers(scope=scope).get("content-length", "0")
        if not declared.isdecimal() or int(declared) > self._body_bytes_max:
            problem = Problem(413, "too_large", too_large, "send less")
            await answer(Request(scope, receive), problem)(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b"")) if message["type"] == "http.request" else 0
            if received > self._body_bytes_max:
                # FastAPI passes an HTTPException on and turns any other error of reading into 400.
                raise HTTPException(413, too_large)
            return message

        await self._app(scope, counted, send)
