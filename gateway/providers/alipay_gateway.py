"""One signed call to Alipay's OpenAPI gateway and its verified answer; no business meaning here.

Our own client: the official one is 181 MB, blocking, and signs 13-23 requests a second (money.md).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import httpx
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.providers.signing import NODE_SUFFIX, response_node, sign, signing_text, verify
from models.domain.payments import Unknown

ANSWER_BYTES_MAX = 256 * 1024
PROVIDER_ZONE = ZoneInfo("Asia/Shanghai")
"""The gateway reads timestamps in Beijing time, whatever the store's zone."""
NOTIFYING = frozenset(
    {
        "alipay.trade.pay",
        "alipay.trade.precreate",
        "alipay.fund.auth.order.freeze",
        "alipay.fund.auth.order.voucher.create",
        "alipay.user.agreement.page.sign",
    }
)
"""Methods whose outcome the provider tells to a `notify_url` that came with them."""


@dataclass(frozen=True, slots=True)
class AlipayAccount:
    """One legal entity's merchant account: who we are, where, and with which keys."""

    gateway_url: str
    app_id: str
    seller_id: str
    private_key: rsa.RSAPrivateKey
    """Ours; the provider holds its public half."""
    provider_key: rsa.RSAPublicKey
    """The provider's, for this app: it signs every answer."""
    entity: str = ""
    """The legal entity whose account it is: statements are marked with it."""
    notify_url: str = ""
    """Where the provider is asked to send notifications; "" asks for none."""
    credit_template: str = ""
    """The merchant's template of the credit product; "" when it has none."""


@dataclass(frozen=True, slots=True)
class AlipayAnswer:
    """A verified answer. `code` 10000 success, 10003 waiting for the user, 40004 business failure, others refused."""

    code: str
    sub_code: str
    fields: Mapping[str, Any]


class AlipayGateway:
    """Bounded connections to one gateway for one merchant account. Belongs to one event loop."""

    def __init__(
        self,
        account: AlipayAccount,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        connect_timeout_s: float = 2.0,
        call_timeout_s: float = 10.0,
        connections_max: int = 16,
    ) -> None:
        self._account = account
        self._clock = clock
        self._call_timeout_s = call_timeout_s
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(call_timeout_s, connect=connect_timeout_s),
            limits=httpx.Limits(max_connections=connections_max, max_keepalive_connections=connections_max),
            follow_redirects=False,
            trust_env=False,  # where payments go is configuration, never an environment variable
        )

    @property
    def account(self) -> AlipayAccount:
        """The account that signs."""
        return self._account

    def signed_form(self, method: str, biz: Mapping[str, object]) -> dict[str, str]:
        """The form of one request, signed."""
        form = {
            "app_id": self._account.app_id,
            "method": method,
            "format": "JSON",
            "charset": "utf-8",
            "sign_type": "RSA2",
            "timestamp": self._clock().astimezone(PROVIDER_ZONE).strftime("%Y-%m-%d %H:%M:%S"),
            "version": "1.0",
            "biz_content": json.dumps(biz, ensure_ascii=False, separators=(",", ":")),
        }
        # A capture from a hold is settlement's, which asks by itself: a million of them need no second message each.
        if self._account.notify_url and method in NOTIFYING and "auth_no" not in biz:
            form["notify_url"] = self._account.notify_url
        form["sign"] = sign(signing_text(form), self._account.private_key)
        return form

    def signed_url(self, method: str, biz: Mapping[str, object]) -> str:
        """The address of a page of the provider's that the customer opens: the signed form as a query."""
        return f"{self._account.gateway_url}?{urlencode(self.signed_form(method, biz))}"

    async def download(self, url: str, into: IO[bytes], bytes_max: int) -> int:
        """Fetch what a verified answer pointed to; the HTTP status. 413 when it is larger than `bytes_max`.

        Raises httpx.HTTPError and httpx.InvalidURL. The caller bounds the time.
        """
        async with self._http.stream("GET", url) as response:
            received = 0
            async for chunk in response.aiter_bytes():
                received += len(chunk)
                if received > bytes_max:
                    return int(httpx.codes.REQUEST_ENTITY_TOO_LARGE)
                into.write(chunk)
            return response.status_code

    async def call(self, method: str, biz: Mapping[str, object]) -> AlipayAnswer | Unknown:
        """Ask once, within call_timeout_s in all. Unknown: no answer, or one that its signature does not prove."""
        try:
            async with asyncio.timeout(self._call_timeout_s):
                status, body = await self._post(self.signed_form(method, biz))
        except TimeoutError:
            return Unknown("timeout")
        except httpx.TransportError as error:
            return Unknown(f"transport:{type(error).__name__}")
        if status != httpx.codes.OK:
            return Unknown(f"http_status:{status}")
        if body is None:
            return Unknown("answer_too_large")
        return self._verified(method, body)

    async def _post(self, form: dict[str, str]) -> tuple[int, bytes | None]:
        async with self._http.stream("POST", self._account.gateway_url, data=form) as response:
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > ANSWER_BYTES_MAX:
                    return response.status_code, None
            return response.status_code, bytes(body)

    def _verified(self, method: str, body: bytes) -> AlipayAnswer | Unknown:
        try:
            raw, fields, signature = response_node(body.decode("utf-8"), method.replace(".", "_") + NODE_SUFFIX)
        except ValueError:
            return Unknown("answer_malformed")
        if not verify(raw, signature, self._account.provider_key):
            return Unknown("answer_signature")
        code, sub_code = fields.get("code"), fields.get("sub_code", "")
        if not isinstance(code, str) or not isinstance(sub_code, str):
            return Unknown("answer_malformed")
        return AlipayAnswer(code, sub_code, fields)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()
