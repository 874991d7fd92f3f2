"""The providers' desk of a house: notifications verified with each merchant account's key, kept, and acted upon."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import structlog
from psycopg import AsyncConnection

from gateway.providers.alipay_notices import AlipayNotifications, account_of
from gateway.providers.port import Notifications
from gateway.providers.signing import load_public_key
from models.domain.notices import Distrusted
from models.tables.notices import forget_notices, keep_notice
from runtime.plant import Plant

log = structlog.get_logger()

ALIPAY = "alipay"
CONNECT_TIMEOUT_S = 5


class ProvidersOfAHouse:
    """See gateway.notices.ProviderDesk. Keys are parsed once; connections are opened for each notification."""

    def __init__(self, plants: Sequence[Plant], now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self._readers: dict[str, Notifications] = {}
        self._databases: dict[str, list[str]] = {}
        for plant in plants:
            for account in plant.accounts:
                if account.app_id not in self._readers:
                    key = load_public_key(account.provider_public_key_pem)
                    self._readers[account.app_id] = AlipayNotifications(account.app_id, account.seller_id, key)
                urls = self._databases.setdefault(account.app_id, [])
                if plant.database_url not in urls:
                    urls.append(plant.database_url)

    async def receive(self, provider: str, headers: Mapping[str, str], body: bytes) -> bytes | Distrusted | None:
        """See ProviderDesk."""
        if provider != ALIPAY:
            return None
        app_id = account_of(body)
        reader = self._readers.get(app_id or "")
        if app_id is None or reader is None:
            return Distrusted("another_app")
        notice = reader.notification(headers, body)
        if isinstance(notice, Distrusted):
            return notice
        # A number does not say which region's order it is: each database with this account keeps the notification,
        # and the one that waits for the order hastens it.
        hastened = False
        for url in self._databases[app_id]:
            async with await AsyncConnection.connect(url, connect_timeout=CONNECT_TIMEOUT_S) as conn:
                hastened |= await keep_notice(conn, provider, notice, self._now())
                await forget_notices(conn, self._now())
        log.info("notified", trace=notice.number, kind=str(notice.kind), status=notice.status, hastened=hastened)
        return reader.accepted()
