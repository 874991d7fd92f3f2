"""What every hosted process needs to know to connect: plain values that travel to Ray actors and children."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from devices.mqtt import LinkConfig
from gateway.providers.alipay import AlipayProvider
from gateway.providers.alipay_gateway import AlipayAccount, AlipayGateway
from gateway.providers.port import PaymentProvider
from gateway.providers.signing import load_private_key, load_public_key
from gateway.providers.wechat import WechatProvider
from gateway.providers.wechat_gateway import WechatAccount, WechatGateway
from models.domain.errors import NeedsOperator
from models.domain.ids import ChainId, LegalEntityId, RegionId
from models.domain.payments import PROVIDERS
from models.domain.privacy import RETENTION_DEFAULT, RetentionPolicy
from models.tables.columns import quick_columns
from runtime.broker import TerminalDoor
from runtime.datadir import PLANT_FILE, write_private

# A host frozen inside a transaction must not block its successor (architecture: fencing).
HOST_DATABASE_OPTIONS = "-c idle_in_transaction_session_timeout=2000 -c statement_timeout=2000"
# A host finds its rows by their keys. In a table that grew since it was last analysed the planner would read all of it.
HOST_PLANNER_OPTIONS = "-c enable_seqscan=off -c enable_bitmapscan=off -c enable_hashjoin=off -c enable_mergejoin=off"
POOL_CONNECTIONS_MAX = 4
NOTIFY_PATH = "/api/v1/providers/{provider}/notify"
NO_GATEWAY = "http://127.0.0.1:9"
"""Where nobody listens: WeChat's collection codes demand an address to tell."""
WECHAT = PROVIDERS[1]
NO_CHAIN, NO_REGION = ChainId(""), RegionId("")
NO_DOOR = TerminalDoor("", 0)
"""Of what is the same in every region: see `furnish.plants_of`."""


@dataclass(frozen=True, slots=True)
class MerchantAccount:
    """A legal entity's account with a provider: our key to sign, the provider's to verify.

    At WeChat `app_id` is the merchant's number (mchid) and `seller_id` its app (appid).
    """

    entity: LegalEntityId
    app_id: str
    seller_id: str
    private_key_pem: str = field(repr=False)
    provider_public_key_pem: str = ""
    credit_template: str = ""
    """The entity's template of the provider's credit product; "" when it has none."""
    provider: str = PROVIDERS[0]
    serial_no: str = ""
    """Of our certificate, where requests name it."""
    provider_serial: str = ""
    """Of the provider's key, where answers name it."""
    service_id: str = ""
    """Of WeChat's pay score; "" when it has none."""
    confirm_url: str = ""
    """What customers scan to confirm a service order; its package comes behind it."""
    api_key: str = field(default="", repr=False)
    """What notifications are sealed under, where they are."""


@dataclass(frozen=True, slots=True)
class Plant:
    """Where everything is, for one region of one chain."""

    data_dir: Path
    chain: ChainId = NO_CHAIN
    region: RegionId = NO_REGION
    slots: int = 1
    database_url: str = field(default="", repr=False)
    broker_host: str = ""
    broker_port: int = 0
    broker_embedded: bool = True
    broker_user: str | None = None
    broker_password: str | None = field(default=None, repr=False)
    broker_tls: bool = False
    broker_ca: str | None = None
    terminals: TerminalDoor = NO_DOOR
    """Where the region's terminals come in."""
    provider_url: str = ""
    provider_follows: bool = False
    """The provider is the house's own simulator, and its clock goes where the business clock is moved to."""
    provider_statements_daily: bool = True
    provider_fee_bps: int | None = 60
    provider_calls_per_s_max: float = 200.0
    provider_calls_in_flight_max: int = 16
    accounts: tuple[MerchantAccount, ...] = ()
    faces_policy: str = "production"
    faces_recognisers: dict[str, str] = field(default_factory=dict)
    """By chain, by their names in the catalogue; a chain that is not here has the catalogue's default."""
    faces_adaptive: bool = False
    faces_workers_min: int = 1
    faces_workers_max: int | None = None
    faces_idle_s: float = 60.0
    faces_device: str = "auto"
    retention: RetentionPolicy = RETENTION_DEFAULT
    member_link_hours: int = 72
    faces_cache: Path = Path()
    pepper: bytes = field(default=b"", repr=False)
    ray_address: str = ""
    ray_token_path: str = ""
    gateway_port: int = 0
    gateway_url: str = ""
    """Where terminals find the gateway."""
    demo: bool = False

    def link_config(self, k: int) -> LinkConfig:
        """How a host connects: a fixed client id, so that the broker resumes its session."""
        return LinkConfig(
            host=self.broker_host,
            port=self.broker_port,
            client_id=f"host-{self.region}-{k}",
            username=self.broker_user,
            password=self.broker_password,
            tls=ssl.create_default_context(cadata=self.broker_ca) if self.broker_tls else None,
            reconnect_s_min=0.2,
            reconnect_s_max=2.0,
        )


def connector(plant: Plant) -> Callable[[], Awaitable[AsyncConnection[tuple[Any, ...]]]]:
    """Opens a host's own connection, with the time limits of a host."""

    async def connect() -> AsyncConnection[tuple[Any, ...]]:
        options = f"{HOST_DATABASE_OPTIONS} {HOST_PLANNER_OPTIONS}"
        conn = await AsyncConnection.connect(plant.database_url, autocommit=True, options=options, connect_timeout=5)
        try:
            await limit_transactions(conn)
            quick_columns(conn)
        except BaseException:  # a host that stops at this moment would leave it open
            await conn.close()
            raise
        return conn

    return connect


async def limit_transactions(conn: AsyncConnection[Any]) -> None:
    """Bound a host's whole transactions, where the server can: `transaction_timeout` exists since PostgreSQL 17.

    An older one bounds each statement and each pause between two, by HOST_DATABASE_OPTIONS.
    """
    if conn.info.server_version >= 170_000:
        await conn.execute("SET transaction_timeout = 2000")
        await conn.commit()


def open_pool(plant: Plant, connections_max: int = POOL_CONNECTIONS_MAX) -> AsyncConnectionPool[Any]:
    """A pool for ports; opened by the caller with `await pool.open()`."""
    return AsyncConnectionPool(
        plant.database_url, min_size=1, max_size=connections_max, open=False, check=AsyncConnectionPool.check_connection
    )


@dataclass(frozen=True, slots=True)
class _Plants:
    """The file: one for each region of the deployment."""

    plants: tuple[Plant, ...]


def write_plants(secrets: Path, plants: Sequence[Plant]) -> None:
    """Say where everything is. Contains passwords: 0600 in a 0700 folder."""
    write_private(secrets / PLANT_FILE, msgspec.json.encode(_Plants(tuple(plants)), enc_hook=str).decode())


def read_plants(data_dir: Path) -> tuple[Plant, ...]:
    """Every region's. Raises NeedsOperator `not_running` when nothing runs on this data folder."""
    try:
        return msgspec.json.decode(
            (data_dir / "secrets" / PLANT_FILE).read_bytes(), type=_Plants, dec_hook=_path
        ).plants
    except FileNotFoundError:
        raise NeedsOperator(
            "not_running", f"nothing runs on {data_dir}", "start it: storeops up (or name its folder with --data)"
        ) from None


def read_plant(data_dir: Path, region: str | None = None) -> Plant:
    """One region's, by name; without a name the only one. Raises as `read_plants` and `choose`."""
    return choose(read_plants(data_dir), region)


def choose(plants: Sequence[Plant], region: str | None = None) -> Plant:
    """The region's; without a name the only one. Raises NeedsOperator `which_region`, naming the choices."""
    names = ", ".join(plant.region for plant in plants)
    if region is None and len(plants) == 1:
        return plants[0]
    if region is None:
        raise NeedsOperator("which_region", f"several regions run here: {names}", "name one: --region")
    for plant in plants:
        if plant.region == region:
            return plant
    raise NeedsOperator("which_region", f"no region {region!r} runs here", f"one of {names}")


def _path(kind: type, value: Any) -> Any:
    return Path(value) if kind is Path else value


class ProviderOf(Protocol):
    """The account of a legal entity at a provider, at the first of PROVIDERS where none is named. Raises KeyError."""

    def __call__(self, entity: LegalEntityId, provider: str = PROVIDERS[0], /) -> PaymentProvider: ...


class Providers:
    """One provider client for each legal entity and provider, made at its first use."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._accounts = {(account.entity, account.provider): account for account in plant.accounts}
        self._open: dict[tuple[LegalEntityId, str], PaymentProvider] = {}

    def __call__(self, entity: LegalEntityId, provider: str = PROVIDERS[0]) -> PaymentProvider:
        """The entity's account there. Raises KeyError when it has none."""
        key = (entity, provider)
        if key not in self._open:
            account = self._accounts[key]
            self._open[key] = self._wechat(account) if provider == WECHAT else self._alipay(account)
        return self._open[key]

    def _alipay(self, account: MerchantAccount) -> AlipayProvider:
        return AlipayProvider(
            AlipayGateway(
                AlipayAccount(
                    gateway_url=f"{self._plant.provider_url}/gateway.do",
                    app_id=account.app_id,
                    seller_id=account.seller_id,
                    private_key=load_private_key(account.private_key_pem),
                    provider_key=load_public_key(account.provider_public_key_pem),
                    entity=account.entity,
                    notify_url=self._notify_url(account) if self._plant.gateway_url else "",
                    credit_template=account.credit_template,
                )
            )
        )

    def _wechat(self, account: MerchantAccount) -> WechatProvider:
        return WechatProvider(
            WechatGateway(
                WechatAccount(
                    base_url=f"{self._plant.provider_url}/wechat",
                    mchid=account.app_id,
                    appid=account.seller_id,
                    serial_no=account.serial_no,
                    private_key=load_private_key(account.private_key_pem),
                    platform_serial=account.provider_serial,
                    platform_key=load_public_key(account.provider_public_key_pem),
                    api_key=account.api_key,
                    entity=account.entity,
                    notify_url=self._notify_url(account),
                    service_id=account.service_id,
                    confirm_url=account.confirm_url,
                )
            )
        )

    def _notify_url(self, account: MerchantAccount) -> str:
        return (self._plant.gateway_url or NO_GATEWAY) + NOTIFY_PATH.format(provider=account.provider)

    async def aclose(self) -> None:
        """Close all connections."""
        for provider in self._open.values():
            await provider.aclose()
