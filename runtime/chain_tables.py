"""A chain's file -> the registry, the book and the plans in the database. Applying it twice changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from models.domain.chain_settings import Level
from models.domain.ids import ChainId, RegionId, StoreId, shard_of
from models.domain.plans import Text
from models.domain.points import points_voucher
from models.domain.pricing import Item
from models.domain.voucher_reader import read_vouchers
from models.tables.chain_books import save_book
from models.tables.config_layers import StoredLayer, save_file_layers
from models.tables.plans import save_plan
from models.tables.vouchers import save_vouchers
from runtime.chain_check import layers_of
from runtime.chains import ChainDoc, provider_app_of, read_plan_document, secret_sha256, terminals_of


async def apply_chain(conn: AsyncConnection[Any], doc: ChainDoc, region: RegionId, key: str) -> int:
    """Write the chain into the database: new rows only, and a new book version when its content changed. Labels and
    settings become what the file says; what was changed live since is laid over them as before.

    Returns the book's version. One transaction.
    """
    now = datetime.now(UTC)
    async with conn.transaction(), conn.cursor() as cur:
        for entity in doc.entities:
            await cur.execute(
                """INSERT INTO legal_entity (id, chain, name_zh, name_en, provider_app) VALUES (%s, %s, %s, %s, %s)
                   ON CONFLICT (id) DO NOTHING""",
                (entity.id, doc.chain, entity.name.zh, entity.name.en, provider_app_of(entity.id)),
            )
        await _save_stores(cur, doc, region, now)
        await cur.executemany(
            """INSERT INTO terminal (id, store, lane, role, profile, secret_sha256, registered_at)
               VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO NOTHING""",
            [
                (one.terminal, one.store, one.lane, one.role, one.profile, secret_sha256(one.secret), now)
                for one in terminals_of(doc, key)
            ],
        )
        await save_file_layers(cur, ChainId(doc.chain), _scopes(doc, region), _stored(doc, region), now)
        plans = [read_plan_document(plan) for plan in doc.plans]
        for plan in plans:
            await save_plan(cur, ChainId(doc.chain), plan)
        vouchers = list(read_vouchers(doc.vouchers, doc.zone).values())
        if (policy := doc.points_policy()) is not None:
            vouchers.append(points_voucher(policy))
        if vouchers:
            await save_vouchers(cur, doc.chain, vouchers)
        return await _save_book(cur, doc, plans, now)


async def _save_stores(cur: Any, doc: ChainDoc, region: RegionId, now: datetime) -> None:
    """Many at once: a chain may have thousands. Afterwards `storeops hosts dedicate` rules who has a host alone."""
    await cur.execute("SELECT id FROM store WHERE id = ANY(%s)", ([store.id for store in doc.stores],))
    known = {row[0] for row in await cur.fetchall()}
    await cur.executemany(
        """INSERT INTO store (id, chain, region, shard, name_zh, name_en, zone, cutoff_hour, basket_owner, opened_at,
             labels) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
           ON CONFLICT (id) DO UPDATE SET labels = excluded.labels WHERE store.labels <> excluded.labels""",
        [
            (
                store.id,
                doc.chain,
                region,
                shard_of(StoreId(store.id)),
                store.name.zh,
                store.name.en,
                doc.zone,
                doc.cutoff_hour,
                store.basket_owner,
                now,
                Jsonb(dict(store.labels)),
            )
            for store in doc.stores
        ],
    )
    await cur.executemany(
        "INSERT INTO dedicated_store (store) VALUES (%s)",
        [(store.id,) for store in doc.stores if store.placement == "dedicated" and store.id not in known],
    )
    await cur.executemany(
        "INSERT INTO store_entity (store, from_date, entity) VALUES (%s, '2000-01-01', %s) ON CONFLICT DO NOTHING",
        [(store.id, store.entity) for store in doc.stores],
    )


def _scopes(doc: ChainDoc, region: RegionId) -> list[str]:
    """Everything that the file could say something of here, as `level:scope`."""
    suffixes = [terminal.suffix for lane in doc.lanes for terminal in lane.terminals]
    return [
        f"{Level.CHAIN}:{doc.chain}",
        f"{Level.REGION}:{region}",
        *(f"{Level.STORE}:{store.id}" for store in doc.stores),
        *(f"{Level.TERMINAL}:{store.id}-{suffix}" for store in doc.stores for suffix in suffixes),
    ]


def _stored(doc: ChainDoc, region: RegionId) -> list[StoredLayer]:
    """The file's layers, as far as they concern this region."""
    return [
        StoredLayer(
            ChainId(doc.chain),
            level := Level(layer.level),
            layer.name,
            "" if level is Level.CHAIN else region,
            layer.patch,
            {".".join(path): place for path, place in layer.places.items()},
        )
        for layer, _ in layers_of(doc)
        if layer.level != Level.REGION or layer.name == region
    ]


async def _save_book(cur: Any, doc: ChainDoc, plans: list[dict[str, Any]], now: datetime) -> int:
    content: dict[str, Any] = {
        "language": doc.language,
        "plans": plans,
        "consents": [consent.model_dump(mode="json") for consent in doc.consents],
        "tenders": list(doc.tenders),
        "age_check_to_enrol": doc.age_check_to_enrol,
        "faces": doc.faces.model_dump(mode="json"),
    }
    if doc.vouchers:
        content |= {"vouchers": list(doc.vouchers), "zone": doc.zone}
    content |= {name: value for name, value in doc.book_parts().items() if value}
    items = [
        Item(one.code, Text(zh=one.name.zh, en=one.name.en), one.unit_fen, frozenset(one.flags), one.tax)
        for one in doc.items
    ]
    return await save_book(cur, doc.chain, content, items, now)
