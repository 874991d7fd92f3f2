"""What a deployment's databases and provider are told before its hosts start: chains, the clock's rule, accounts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from psycopg import AsyncConnection

from gateway.providers.signing import generate_private_key, load_private_key, private_key_pem, public_key_pem
from gateway.providers.simulator import SimulatorAdmin
from models.domain.errors import NeedsOperator
from models.domain.ids import ChainId, LegalEntityId, RegionId
from models.tables.clock import set_movable
from models.tables.deployment import stores_of
from runtime.chain_tables import apply_chain
from runtime.chains import provider_app_of
from runtime.datadir import DataDir, write_private
from runtime.deployment import Place
from runtime.plant import MerchantAccount, Plant
from runtime.servers import Brokers


async def furnish(
    data: DataDir, places: Sequence[Place], urls: Mapping[RegionId, str], *, provider_url: str, may_jump: bool, key: str
) -> dict[ChainId, tuple[MerchantAccount, ...]]:
    """Every region's chain into its database, and an account with the provider for each legal entity.

    `key` derives the secrets of a demonstration's terminals. Raises NeedsOperator `store_twice` or `store_elsewhere`
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
    async with SimulatorAdmin(provider_url) as admin:
        return {
            chain: tuple([await _account(data, admin, entity, name) for entity, name in owners.items()])
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


async def _account(data: DataDir, admin: SimulatorAdmin, entity: str, name: str) -> MerchantAccount:
    path = data.secrets / f"merchant-{entity}.pem"
    if not path.exists():
        write_private(path, private_key_pem(generate_private_key()))
    pem = path.read_text()
    public = public_key_pem(load_private_key(pem).public_key())
    app, seller = provider_app_of(entity), f"seller-{entity}"
    provider_key = await admin.register_app(app_id=app, seller_id=seller, public_key_pem=public, name=name)
    return MerchantAccount(LegalEntityId(entity), app, seller, pem, provider_key)
