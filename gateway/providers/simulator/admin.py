"""A client of the simulator's JSON calls: for whoever registers merchant apps, and for tests and demos."""

from __future__ import annotations

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

    def __init__(self, base_url: str, *, timeout_s: float = 5.0) -> None:
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

    async def register_app(self, *, app_id: str, seller_id: str, public_key_pem: str, name: str = "") -> str:
        """The provider's public key (PEM) for this app. Repeated: the same key; ours is replaced by this one."""
        body: dict[str, object] = {
            "app_id": app_id,
            "seller_id": seller_id,
            "name": name,
            "public_key_pem": public_key_pem,
        }
        return str((await self._post("/sim/apps", body))["provider_public_key_pem"])

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

    async def payment_code(self, user: str) -> str:
        """The payment code on this customer's phone: once, within two minutes."""
        return str((await self._post(f"/sim/users/{user}/payment-code", None))["token"])

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
        self, method: str, kind: str, *, times: int = 1, number: str = "", sub_code: str | None = None
    ) -> None:
        """Make the next `times` calls of `method` go wrong; `number` narrows it to one request number."""
        body: dict[str, object] = {"method": method, "kind": kind, "times": times, "number": number}
        if sub_code is not None:
            body["sub_code"] = sub_code
        await self._post("/sim/faults", body)

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
