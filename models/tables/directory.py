"""What a host knows before the first message: its terminals, its stores, and the chain's books."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, cast

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from models.domain.assortment import Assortment
from models.domain.barcode import read_layouts
from models.domain.book import ChainBook, ConsentText, StoreBook
from models.domain.device_score import SignedScores
from models.domain.events import Purpose, TenderKind
from models.domain.ids import ChainId, LaneId, LegalEntityId, PlanId, RegionId, StoreId, TerminalId
from models.domain.liveness import ChallengeMode, LivenessPolicy
from models.domain.plans import plan_from_dict
from models.domain.points import read_policy
from models.domain.pricing import Item
from models.domain.privacy import COVERED_BY_DEFAULT, FaceUse
from models.domain.registry import RegisteredTerminal
from models.domain.taxes import read_taxes
from models.domain.voucher_reader import read_vouchers
from models.tables.items import load_assortment
from models.tables.liveness_keys import load_keys


async def load_terminals(conn: AsyncConnection[TupleRow], region: RegionId) -> dict[TerminalId, RegisteredTerminal]:
    """All terminals of a region that are neither retired nor revoked."""
    cursor = await conn.execute(
        """SELECT t.id, t.store, t.lane, t.role, t.profile FROM terminal t JOIN store s ON s.id = t.store
           WHERE s.region = %s AND t.retired_at IS NULL AND t.revoked_at IS NULL""",
        (region,),
    )
    rows = await cursor.fetchall()
    keys = await load_keys(conn, region)
    terminals: dict[TerminalId, RegisteredTerminal] = {}
    for row in rows:
        terminal, store, lane, role, profile = map(sys.intern, row)  # each text once in memory
        terminals[TerminalId(terminal)] = RegisteredTerminal(
            TerminalId(terminal), StoreId(store), region, LaneId(lane), role, profile, keys.get(terminal, ())
        )
    return terminals


async def load_books(
    conn: AsyncConnection[TupleRow],
    region: RegionId,
    today: str,
    assortments: dict[ChainId, Assortment] | None = None,
) -> tuple[dict[StoreId, StoreBook], dict[tuple[ChainId, int], ChainBook]]:
    """The book of each store of the region, pinned or its chain's, and all versions of their chains' books.

    `assortments`: the articles that are known already; only what changed since is read, and put in.
    """
    cursor = await conn.execute(
        """SELECT b.chain, b.version, b.doc, b.candidate FROM book b
           WHERE b.chain IN (SELECT DISTINCT chain FROM store WHERE region = %s) ORDER BY b.chain, b.version""",
        (region,),
    )
    rows = await cursor.fetchall()
    known = {} if assortments is None else assortments
    for chain in dict.fromkeys(ChainId(row[0]) for row in rows):
        known[chain] = await load_assortment(conn, chain, known.get(chain))
    versions = {
        (ChainId(row[0]), row[1]): chain_book(ChainId(row[0]), row[1], row[2], known[row[0]].at(row[1])) for row in rows
    }
    in_force = {ChainId(row[0]): int(row[1]) for row in rows if not row[3]}  # the highest is the last
    owners = await load_owners(conn, region)
    cursor = await conn.execute(
        """SELECT s.id, s.chain, s.zone, s.cutoff_hour, s.basket_owner,
             (SELECT e.entity FROM store_entity e WHERE e.store = s.id AND e.from_date <= %s
              ORDER BY e.from_date DESC LIMIT 1), b.version, coalesce(b.gen, 0)
           FROM store s LEFT JOIN store_book b ON b.store = s.id WHERE s.region = %s""",
        (today, region),
    )
    stores = {
        StoreId(row[0]): StoreBook(
            chain_book=versions[ChainId(row[1]), row[6] or in_force[ChainId(row[1])]],
            store=StoreId(row[0]),
            region=region,
            entity=LegalEntityId(row[5]),
            zone=row[2],
            cutoff_hour=row[3],
            basket_owner=row[4],
            owners=owners.get(StoreId(row[0]), ()),
            gen=row[7],
        )
        for row in await cursor.fetchall()
        if ChainId(row[1]) in in_force and row[5] is not None
    }
    return stores, versions


async def load_owners(
    conn: AsyncConnection[TupleRow], region: RegionId
) -> dict[StoreId, tuple[tuple[str, LegalEntityId], ...]]:
    """Stores of the region that change hands at least once: each owner with its first business date, ascending."""
    cursor = await conn.execute(
        """SELECT e.store, array_agg(e.from_date ORDER BY e.from_date), array_agg(e.entity ORDER BY e.from_date)
           FROM store_entity e JOIN store s ON s.id = e.store WHERE s.region = %s
           GROUP BY e.store HAVING count(*) > 1""",
        (region,),
    )
    return {StoreId(row[0]): tuple(zip(row[1], row[2], strict=True)) for row in await cursor.fetchall()}


def chain_book(chain: ChainId, version: int, doc: Mapping[str, Any], items: Mapping[str, Item]) -> ChainBook:
    """A chain's book from its document. Raises PlanError, KeyError or ValueError naming what is wrong."""
    plans = [plan_from_dict(entry) for entry in cast(list[dict[str, Any]], doc["plans"])]
    consents = tuple(
        ConsentText(
            Purpose(entry["purpose"]),
            entry["version"],
            entry["zh"],
            entry["en"],
            tuple(FaceUse(use) for use in entry["covers"]) if "covers" in entry else COVERED_BY_DEFAULT,
        )
        for entry in cast(list[dict[str, Any]], doc["consents"])
    )
    return ChainBook(
        chain,
        version,
        items,
        {PlanId(plan.id): plan for plan in plans},
        consents,
        language=cast(str, doc.get("language", "zh")),
        tenders=frozenset(TenderKind(kind) for kind in doc.get("tenders", TenderKind)),
        age_check_to_enrol=bool(doc.get("age_check_to_enrol", False)),
        liveness=_liveness(cast(dict[str, Any], doc.get("faces", {})).get("liveness", {})),
        vouchers=read_vouchers(doc.get("vouchers", []), cast(str, doc.get("zone", "Asia/Shanghai"))),
        codes=read_layouts(cast(list[dict[str, Any]], doc.get("codes", []))),
        points=read_policy(doc["points"]) if doc.get("points") else None,
        taxes=read_taxes(doc.get("taxes", {})),
    )


def _liveness(doc: Mapping[str, Any]) -> LivenessPolicy:
    """What the chain says about liveness; what it does not say stands as in LivenessPolicy. Raises ValueError."""
    kinds: dict[str, type[StrEnum]] = {"challenge": ChallengeMode, "signed": SignedScores}
    named: dict[str, Any] = {name: kinds[name](value) if name in kinds else value for name, value in doc.items()}
    return LivenessPolicy(**named)
