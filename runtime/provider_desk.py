"""The providers' desk of a house: notifications verified with each merchant account's key, kept, and acted upon."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from gateway.providers.alipay_notices import AlipayNotifications, account_of
from gateway.providers.port import Notifications
from gateway.providers.signing import load_public_key
from gateway.providers.wechat_notices import WechatNotifications, serial_of
from models.domain.notices import Distrusted
from models.domain.payments import PROVIDERS
from models.tables.notices import forget_notices, keep_notice
from runtime.plant import WECHAT, MerchantAccount, Plant

log = structlog.get_logger()

CONNECTIONS_MAX = 2
CONNECTION_WAIT_S = 5.0
FORGET_EVERY = 1_000
"""Notifications between two looks for what is too old to keep."""


def _key_of(account: MerchantAccount) -> tuple[str, str]:
    """By what a notification is told apart: the app that it names, or the provider's key that signed it."""
    return account.provider, account.provider_serial if account.provider == WECHAT else account.app_id


class ProvidersOfAHouse:
    """See gateway.notices.ProviderDesk. Keys are parsed once. Belongs to one event loop."""

    def __init__(self, plants: Sequence[Plant], now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self._readers: dict[tuple[str, str], Notifications] = {}
        self._databases: dict[tuple[str, str], list[str]] = {}
        self._pools: dict[str, AsyncConnectionPool[AsyncConnection[Any]]] = {}
        self._received = 0
        for plant in plants:
            for account in plant.accounts:
                if not account.provider_public_key_pem:
                    continue  # nothing of this account could be believed
                key = _key_of(account)
                if key not in self._readers:
                    self._readers[key] = self._reader(account)
                urls = self._databases.setdefault(key, [])
                if plant.database_url not in urls:
                    urls.append(plant.database_url)

    def _reader(self, account: MerchantAccount) -> Notifications:
        key = load_public_key(account.provider_public_key_pem)
        if account.provider == WECHAT:
            return WechatNotifications(
                account.app_id, account.seller_id, account.api_key, account.provider_serial, key, clock=self._now
            )
        return AlipayNotifications(account.app_id, account.seller_id, key)

    async def receive(self, provider: str, headers: Mapping[str, str], body: bytes) -> bytes | Distrusted | None:
        """See ProviderDesk."""
        if provider not in PROVIDERS:
            return None
        account = (provider, (serial_of(headers) if provider == WECHAT else account_of(body)) or "")
        reader = self._readers.get(account)
        if reader is None:
            return Distrusted("another_app")
        notice = reader.notification(headers, body)
        if isinstance(notice, Distrusted):
            return notice
        # A number does not say which region's order it is: each database with this account keeps the notification,
        # and the one that waits for the order hastens it.
        hastened = False
        for url in self._databases[account]:
            async with (await self._pool(url)).connection(CONNECTION_WAIT_S) as conn:
                hastened |= await keep_notice(conn, provider, notice, self._now())
                if self._received % FORGET_EVERY == 0:
                    await forget_notices(conn, self._now())
        self._received += 1
        log.info("notified", trace=notice.number, kind=str(notice.kind), status=notice.status, hastened=hastened)
        return reader.accepted()

    async def aclose(self) -> None:
        """Close all connections. The desk cannot be used afterwards."""
        for pool in self._pools.values():
            await pool.close()

    async def _pool(self, url: str) -> AsyncConnectionPool[AsyncConnection[Any]]:
        if url not in self._pools:
            pool = self._pools[url] = AsyncConnectionPool[AsyncConnection[Any]](
                url, min_size=0, max_size=CONNECTIONS_MAX, open=False, check=AsyncConnectionPool.check_connection
            )
            await pool.open()
        return self._pools[url]
