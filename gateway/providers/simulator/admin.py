"""A client of the simulator's JSON calls: for whoever registers merchant apps, and for tests and demos."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import httpx


class SimulatorError(Exception):
    """The simulator refused a call; `code` says why, in its own words."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{code} (HTTP {status})")
        self.status = status
        self.code = code


class SimulatorAdmin:
    """Speaks `/sim/...`. Raises SimulatorError when refused, httpx.TransportError when unreachable."""

    def __init__(self, base_url: str, *, timeout_s: float = 30.0) -> None:
        self._http = httpx.AsyncClient(base_url=base_url, timeout=timeout_s, trust_env=False)

    async def __aenter__(self) -> SimulatorAdmin:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def healthy(self) -> bool:
        """True when the simulator answers. Never raises."""
        try:
            return (await self._http.get("/sim/health")).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    async def register_app(
        self, *, app_id: str, seller_id: str, public_key_pem: str, name: str = "", notify_url: str = ""
    ) -> str:
        """The provider's public key (PEM) for this app. Repeated: the same key; ours is replaced by this one."""
        body: dict[str, object] = {
            "app_id": app_id,
            "seller_id": seller_id,
            "name": name,
            "public_key_pem": public_key_pem,
            "notify_url": notify_url,
        }
        return str((await self._post("/sim/apps", body))["provider_public_key_pem"])

    async def register_wechat(
        self,
        *,
        mchid: str,
        appid: str,
        serial_no: str,
        api_key: str,
        public_key_pem: str,
        service_id: str = "",
        name: str = "",
    ) -> tuple[str, str]:
        """WeChat's public key (PEM) and its serial for this merchant. Repeated: the same; what is ours is replaced."""
        body: dict[str, object] = {
            "mchid": mchid,
            "appid": appid,
            "serial_no": serial_no,
            "api_key": api_key,
            "public_key_pem": public_key_pem,
            "service_id": service_id,
            "name": name,
        }
        answer = await self._post("/sim/wechat/merchants", body)
        return str(answer["platform_public_key_pem"]), str(answer["platform_serial"])

    async def create_user(
        self, user: str, *, balance_fen: int | None = None, huabei_limit_fen: int | None = None
    ) -> dict[str, Any]:
        """A simulated customer with these means (generous ones by default); an existing one is left as it is."""
        body: dict[str, object] = {"user": user}
        if balance_fen is not None:
            body["balance_fen"] = balance_fen
        if huabei_limit_fen is not None:
            body["huabei_limit_fen"] = huabei_limit_fen
        return await self._post("/sim/users", body)

    async def user(self, user: str) -> dict[str, Any]:
        """balance_fen, huabei_limit_fen, huabei_used_fen, huabei_held_fen."""
        return self._checked(await self._http.get(f"/sim/users/{user}"))

    async def face_token(self, user: str) -> str:
        """A token of the provider's face payment for this customer: once, within two minutes."""
        return str((await self._post(f"/sim/users/{user}/face-token", None))["token"])

    async def payment_code(self, user: str, provider: str = "alipay") -> str:
        """The payment code on this customer's phone, alipay's or wechat's: once, within two minutes."""
        return str((await self._post(f"/sim/users/{user}/payment-code?provider={provider}", None))["token"])

    async def authorise_freeze(
        self, user: str, *, code: str | None = None, auth_no: str | None = None
    ) -> dict[str, Any]:
        """The customer authorises a hold, by its code's text or the provider's number."""
        return await self._post("/sim/holds/authorise", {"user": user, "code": code, "auth_no": auth_no})

    async def pay_code(self, user: str, *, qr_code: str | None = None, trade_no: str | None = None) -> dict[str, Any]:
        """The customer pays a collection code, or confirms an order that waits for confirmation."""
        return await self._post("/sim/pay", {"user": user, "qr_code": qr_code, "trade_no": trade_no})

    async def books(self, app_id: str | None = None, *, after: int = 0, limit: int = 100) -> dict[str, Any]:
        """The provider's totals for one app, or for all: captured_fen, refunded_fen, net_fen, held_fen, orders."""
        params: dict[str, str | int] = {"after": after, "limit": limit}
        if app_id is not None:
            params["app_id"] = app_id
        return self._checked(await self._http.get("/sim/books", params=params))

    async def add_fault(
        self,
        method: str,
        kind: str,
        *,
        call: int = 1,
        times: int = 1,
        number: str = "",
        sub_code: str | None = None,
        value: int = 0,
    ) -> None:
        """Make `times` calls of `method` go wrong, from the `call`-th on; `number` narrows it to one request number."""
        body: dict[str, object] = {"method": method, "kind": kind, "times": times, "number": number}
        body |= {"call": call, "value": value}
        if sub_code is not None:
            body["sub_code"] = sub_code
        await self._post("/sim/faults", body)

    async def add_bill_fault(
        self, day: date, do: str, *, number: str = "", line: int = 0, fen: int = 100, app_id: str = ""
    ) -> None:
        """Make the bill of a day wrong: missing_line, extra_line, wrong_amount, wrong_fee, duplicate, other_date."""
        body: dict[str, object] = {"day": day.isoformat(), "do": do, "number": number, "line": line, "fen": fen}
        await self._post("/sim/bill-faults", body | {"app_id": app_id})

    async def play(self, script: str) -> dict[str, Any]:
        """Begin a fault script (YAML or JSON), in place of the faults before."""
        return await self._post("/sim/script", {"script": script})

    async def advance(self, seconds: int) -> None:
        """Move the provider's clock on."""
        await self._post("/sim/clock", {"advance_s": seconds})

    async def advance_to(self, at: datetime) -> datetime:
        """Move the provider's clock on to an instant with a zone; it never goes back. What it says then."""
        return datetime.fromisoformat((await self._post("/sim/clock", {"to": at.isoformat()}))["now"])

    async def set(self, name: str, value: int) -> None:
        """One of the provider's settings, by its name in `simulator/settings.py`."""
        await self._post("/sim/settings", {"name": name, "value": value})

    async def sign_agreement(self, user: str, code: str) -> str:
        """The customer signs a withholding agreement, by its page's address; the agreement's number."""
        return str((await self._post("/sim/agreements/sign", {"user": user, "code": code}))["agreement_no"])

    async def end_agreement(self, agreement_no: str) -> None:
        """The customer ends a withholding agreement."""
        await self._post("/sim/agreements/end", {"number": agreement_no})

    async def sign_credit(self, user: str, code: str) -> str:
        """The customer signs a credit membership, by its page's address; the agreement's number."""
        return str((await self._post("/sim/credits/sign", {"user": user, "code": code}))["agreement_no"])

    async def lapse_credit(self, agreement_no: str) -> str:
        """A credit membership's time is over now; the number of its settlement."""
        return str((await self._post("/sim/credits/lapse", {"number": agreement_no}))["withhold_plan_no"])

    async def open(self, url: str) -> str:
        """A customer's browser opens an address of ours: where it was sent."""
        response = await self._http.get(url, follow_redirects=False)
        return str(response.headers.get("location", ""))

    async def notifications(self, number: str = "") -> list[dict[str, Any]]:
        """What merchants were told, newest first; `number` narrows it."""
        answer = self._checked(await self._http.get("/sim/notifications", params={"number": number}))
        return list(answer["notifications"])

    async def deliver(self) -> int:
        """Send the notifications that are due now; how many were sent."""
        return int((await self._post("/sim/notifications/deliver", None))["sent"])

    async def clear_faults(self) -> None:
        """Forget all scripted faults."""
        self._checked(await self._http.delete("/sim/faults"))

    async def _post(self, path: str, body: dict[str, object] | None) -> dict[str, Any]:
        return self._checked(await self._http.post(path, json=body))

    @staticmethod
    def _checked(response: httpx.Response) -> dict[str, Any]:
        if response.status_code != httpx.codes.OK:
            try:
                detail = response.json()["detail"]
                code = detail["code"] if isinstance(detail, dict) else "invalid_request"
            except (ValueError, KeyError, TypeError):
                code = "no_json"
            raise SimulatorError(response.status_code, str(code))
        document: dict[str, Any] = response.json()
        return document
