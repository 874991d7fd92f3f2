"""What a deployment's databases and provider are told before its hosts start: chains, the clock's rule, accounts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from psycopg import AsyncConnection

from gateway.providers.signing import generate_private_key, load_private_key, private_key_pem, public_key_pem
from gateway.providers.simulator import SimulatorAdmin
from gateway.providers.wechat_signing import generate_api_key
from models.domain.errors import NeedsOperator
from models.domain.ids import ChainId, LegalEntityId, RegionId
from models.domain.payments import PROVIDERS
from models.tables.clock import set_movable
from models.tables.deployment import stores_of
from runtime.chain_tables import apply_chain
from runtime.chains import provider_app_of
from runtime.datadir import DataDir, write_private
from runtime.deployment import Place
from runtime.plant import NOTIFY_PATH, WECHAT, MerchantAccount, Plant
from runtime.servers import Brokers


async def furnish(
    data: DataDir,
    places: Sequence[Place],
    urls: Mapping[RegionId, str],
    *,
    provider_url: str,
    may_jump: bool,
    key: str,
    gateway_url: str = "",
) -> dict[ChainId, tuple[MerchantAccount, ...]]:
    """Every region's chain into its database, and an account with the provider for each legal entity.

    `key` derives the secrets of a demonstration's terminals; at `gateway_url` the provider tells what nobody asked for.
    Raises NeedsOperator `store_twice` or `store_elsewhere`
    when the databases say otherwise than the chains' files.
    """
    entities: dict[ChainId, dict[str, str]] = {}
    for url in dict.fromkeys(urls.values()):
        async with await AsyncConnection.connect(url, autocommit=True) as conn:
            await set_movable(conn, may_jump)
            for place in places:
                if urls[place.name] != url:
                    continue
                if place.doc is not None:
                    await apply_chain(conn, place.doc, place.name, key)
                cursor = await conn.execute("SELECT id, name_en FROM legal_entity WHERE chain = %s", (place.chain,))
                entities.setdefault(place.chain, {}).update(await cursor.fetchall())
    await _check_stores(places, urls)
    named = {
        place.chain: {entity.id: entity.accounts for entity in place.doc.entities}
        for place in places
        if place.doc is not None
    }
    async with SimulatorAdmin(provider_url) as admin:
        return {
            chain: await _accounts(data, admin, owners, named.get(chain, {}), gateway_url, provider_url)
            for chain, owners in entities.items()
        }


def plants_of(
    everywhere: Plant,
    places: Sequence[Place],
    urls: Mapping[RegionId, str],
    brokers: Brokers,
    accounts: Mapping[ChainId, tuple[MerchantAccount, ...]],
) -> tuple[Plant, ...]:
    """A plant for each region: `everywhere`, and what is the region's own."""
    plants = []
    for place in places:
        info = brokers.info(place.name)
        plants.append(
            replace(
                everywhere,
                chain=place.chain,
                region=place.name,
                slots=place.slots,
                database_url=urls[place.name],
                broker_host=info.host,
                broker_port=info.port,
                broker_embedded=info.kind != "url",
                broker_user=info.username,
                broker_password=info.password,
                broker_tls=info.tls,
                broker_ca=info.ca,
                terminals=brokers.door(place.name),
                accounts=accounts.get(place.chain, ()),
            )
        )
    return tuple(plants)


async def _check_stores(places: Sequence[Place], urls: Mapping[RegionId, str]) -> None:
    """Store ids are unique in a deployment, and a store stands where its chain's file says."""
    homes: dict[str, tuple[str, str, str]] = {}
    for url in dict.fromkeys(urls.values()):
        async with await AsyncConnection.connect(url, autocommit=True) as conn:
            for store, (region, chain) in (await stores_of(conn)).items():
                if store in homes:
                    raise NeedsOperator(
                        "store_twice",
                        f"store {store!r}: in region {homes[store][0]} and, in another database, in region {region}",
                        "store ids are unique in a deployment: remove one of the two",
                    )
                homes[store] = (region, chain, url)
    for place in places:
        for store_doc in place.doc.stores if place.doc is not None else ():
            region, chain, url = homes[store_doc.id]
            if (region, chain, url) != (place.name, place.chain, urls[place.name]):
                raise NeedsOperator(
                    "store_elsewhere",
                    f"store {store_doc.id!r} stands in region {region} of chain {chain}, "
                    f"and the file puts it into region {place.name} of chain {place.chain}",
                    "a store keeps its region: give the new one an id of its own",
                )


async def _accounts(
    data: DataDir,
    admin: SimulatorAdmin,
    owners: Mapping[str, str],
    named: Mapping[str, tuple[str, ...]],
    gateway_url: str,
    provider_url: str,
) -> tuple[MerchantAccount, ...]:
    """An account at each provider that the chain's file names for an entity; one that was opened before stays."""
    accounts = []
    for entity, name in owners.items():
        at = named.get(entity, PROVIDERS[:1])
        if PROVIDERS[0] in at or _key_path(data, entity, PROVIDERS[0]).exists():
            accounts.append(await _alipay_account(data, admin, entity, name, gateway_url))
        if WECHAT in at or _key_path(data, entity, WECHAT).exists():
            accounts.append(await _wechat_account(data, admin, entity, name, provider_url))
    return tuple(accounts)


async def _alipay_account(
    data: DataDir, admin: SimulatorAdmin, entity: str, name: str, gateway_url: str
) -> MerchantAccount:
    """With the simulator's credit product, whose agreements are told of at the address that is registered here."""
    pem, public = _own_key(_key_path(data, entity, PROVIDERS[0]))
    app, seller = provider_app_of(entity), f"seller-{entity}"
    notify_url = gateway_url + NOTIFY_PATH.format(provider=PROVIDERS[0]) if gateway_url else ""
    provider_key = await admin.register_app(
        app_id=app, seller_id=seller, public_key_pem=public, name=name, notify_url=notify_url
    )
    return MerchantAccount(LegalEntityId(entity), app, seller, pem, provider_key, credit_template=f"ZMGO_{app}")


async def _wechat_account(
    data: DataDir, admin: SimulatorAdmin, entity: str, name: str, provider_url: str
) -> MerchantAccount:
    """With the simulator's pay score, whose orders a customer confirms on its page."""
    pem, public = _own_key(_key_path(data, entity, WECHAT))
    digest = hashlib.sha256(public.encode()).hexdigest()
    api_path = data.secrets / f"merchant-{entity}.wechat.key"
    if not api_path.exists():
        write_private(api_path, generate_api_key())
    mchid = f"19{int(hashlib.sha256(entity.encode()).hexdigest(), 16) % 10**14:014d}"
    appid, serial = f"wx{digest[:16]}", digest[:40].upper()
    api_key = api_path.read_text()
    provider_key, provider_serial = await admin.register_wechat(
        mchid=mchid,
        appid=appid,
        serial_no=serial,
        api_key=api_key,
        public_key_pem=public,
        service_id=mchid,
        name=name,
    )
    return MerchantAccount(
        LegalEntityId(entity),
        mchid,
        appid,
        pem,
        provider_key,
        provider=WECHAT,
        serial_no=serial,
        provider_serial=provider_serial,
        service_id=mchid,
        confirm_url=f"{provider_url}/sim/authorise/",
        api_key=api_key,
    )


def _key_path(data: DataDir, entity: str, provider: str) -> Path:
    """Where our key of an account lies: the first provider's have been there longer than there were two."""
    return data.secrets / f"merchant-{entity}{'' if provider == PROVIDERS[0] else '.' + provider}.pem"


def _own_key(path: Path) -> tuple[str, str]:
    """Our key of an account, made at its first use: private and public, PEM."""
    if not path.exists():
        write_private(path, private_key_pem(generate_private_key()))
    pem = path.read_text()
    return pem, public_key_pem(load_private_key(pem).public_key())
