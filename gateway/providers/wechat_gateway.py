"""One signed call to WeChat Pay's v3 API and its verified answer; no business meaning here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO, Any
from urllib.parse import urlencode, urlsplit

import httpx
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.providers.wechat_signing import authorization, distrust
from models.domain.payments import Unknown

ANSWER_BYTES_MAX = 256 * 1024


@dataclass(frozen=True, slots=True)
class WechatAccount:
    """One legal entity's merchant account: who we are, where, and with which keys."""

    base_url: str
    """What comes before `/v3`."""
    mchid: str
    appid: str
    serial_no: str
    """Of our certificate: it tells the provider which of our keys signed."""
    private_key: rsa.RSAPrivateKey
    platform_serial: str
    platform_key: rsa.RSAPublicKey
    """The provider's: it signs every answer and notification for this merchant."""
    api_key: str = field(default="", repr=False)
    """APIv3 key, 32 letters and digits: notifications are sealed under it."""
    entity: str = ""
    """The legal entity whose account it is: statements are marked with it."""
    notify_url: str = ""
    """Where the provider is asked to send notifications; the API demands one for collection codes."""
    service_id: str = ""
    """Of the pay-score service; "" when the merchant has none."""
    confirm_url: str = ""
    """What a customer scans to confirm a service order: its `package` is put behind it."""


@dataclass(frozen=True, slots=True)
class WechatAnswer:
    """A verified answer: HTTP status, the provider's code and message when it refused, the fields when not."""

    status: int
    code: str
    message: str
    fields: Mapping[str, Any]

    @property
    def ok(self) -> bool:
        """True when the request was done."""
        return self.status in {200, 202, 204}


class WechatGateway:
    """Bounded connections for one merchant account. Belongs to one event loop."""

    def __init__(
        self,
        account: WechatAccount,
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
    def account(self) -> WechatAccount:
        """The account that signs."""
        return self._account

    def headers(self, method: str, url: str, body: str = "") -> dict[str, str]:
        """The headers of one request, signed."""
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        account = self._account
        return {
            "Authorization": authorization(
                method,
                target,
                body,
                mchid=account.mchid,
                serial_no=account.serial_no,
                key=account.private_key,
                now=self._clock(),
            ),
            "Accept": "application/json",
            "Content-Type": "application/json",
            "User-Agent": "storeops",
        }

    async def post(self, path: str, body: Mapping[str, object]) -> WechatAnswer | Unknown:
        """Ask once for an action, within call_timeout_s in all."""
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        return await self._call("POST", f"{self._account.base_url}{path}", text)

    async def get(self, path: str, query: Mapping[str, str]) -> WechatAnswer | Unknown:
        """Ask once for a state, within call_timeout_s in all."""
        return await self._call("GET", f"{self._account.base_url}{path}?{urlencode(query)}", "")

    async def download(self, url: str, into: IO[bytes], bytes_max: int) -> int:
        """Fetch a bill from the address of a verified answer; the HTTP status. 413 when larger than `bytes_max`.

        The file comes without a signature: its hash, which was signed, proves it. Raises httpx.HTTPError and
        httpx.InvalidURL. The caller bounds the time.
        """
        async with self._http.stream("GET", url, headers=self.headers("GET", url)) as response:
            received = 0
            async for chunk in response.aiter_raw():
                received += len(chunk)
                if received > bytes_max:
                    return int(httpx.codes.REQUEST_ENTITY_TOO_LARGE)
                into.write(chunk)
            return response.status_code

    async def _call(self, method: str, url: str, body: str) -> WechatAnswer | Unknown:
        try:
            async with asyncio.timeout(self._call_timeout_s):
                headers = self.headers(method, url, body)
                async with self._http.stream(method, url, headers=headers, content=body.encode()) as response:
                    told = bytearray()
                    async for chunk in response.aiter_bytes():
                        told += chunk
                        if len(told) > ANSWER_BYTES_MAX:
                            return Unknown("answer_too_large")
                    return self._verified(response.status_code, response.headers, bytes(told))
        except TimeoutError:
            return Unknown("timeout")
        except httpx.TransportError as error:
            return Unknown(f"transport:{type(error).__name__}")

    def _verified(self, status: int, headers: Mapping[str, str], body: bytes) -> WechatAnswer | Unknown:
        account = self._account
        why = distrust(headers, body, key=account.platform_key, serial=account.platform_serial, now=self._clock())
        if why:
            # Front ends answer errors without a signature: the status then says more than that it is missing.
            return Unknown(f"http_status:{status}" if status not in {200, 202, 204} else f"answer_{why}")
        try:
            fields = json.loads(body) if body else {}
        except (ValueError, RecursionError):
            return Unknown("answer_malformed")
        if not isinstance(fields, dict):
            return Unknown("answer_malformed")
        code, message = fields.get("code", ""), fields.get("message", "")
        if status in {200, 202, 204}:
            return WechatAnswer(status, "", "", fields)
        if not isinstance(code, str) or not code or not isinstance(message, str):
            return Unknown(f"http_status:{status}")
        return WechatAnswer(status, code, message, {})

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()
