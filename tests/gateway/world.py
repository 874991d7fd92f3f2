"""Rows for gateway tests: stores, terminals, members in every state that a page shows, sales, a balanced ledger."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

from sqlalchemy import insert
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.ids import StoreId, derived_id, shard_of
from models.tables.books import EntryRow, TransactionRow
from models.tables.items import ItemRow
from models.tables.members import MemberRow, MembershipRow, PlanRow, SettlementCallRow, UsageRow
from models.tables.registry import BookRow, LayoutRow, LegalEntityRow, SlotRow, StoreEntityRow, StoreRow, TerminalRow
from models.tables.sales import SaleRow
from models.tables.twins import PresenceRow
from tests.domain.test_plans import shipped
from tests.gateway.shop import SHELF, tiles

NOW = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)
NAMES = (
    ("天河路店", "Tianhe Road"), ("体育西店", "Tiyu West"), ("珠江新城店", "Zhujiang New Town"),
    ("北京路店", "Beijing Road"),
    ("上下九店", "Shangxiajiu"), ("琶洲店", "Pazhou"), ("东山口店", "Dongshankou"), ("科韵路店", "Keyun Road"),
)  # fmt: skip
PEOPLE = (("张*", 5, "CLOSED"), ("李*", 1, "CLOSED"), ("王*", 0, "CLOSED"), ("陈*", 2, "EXPIRED"), ("刘*", 1, "ACTIVE"))

EXPIRES = {"CLOSED": -2, "EXPIRED": -0.5, "ACTIVE": 20}
"""Days from now to the expiry of a membership in that state."""


def registry_rows(stores: int) -> list[SQLModel]:
    """The chain, its stores in turn of the chain and of a franchisee, and three terminals in each."""
    rows: list[SQLModel] = [
        LegalEntityRow(id="chain", chain="chain", name_zh="连锁总部", name_en="The chain", provider_app="app-1"),
        LegalEntityRow(id="franchise", chain="chain", name_zh="加盟商", name_en="Franchisee", provider_app="app-2"),
        LayoutRow(region="local", layout=1, slots=1, dedicated=[], made_at=NOW),
        SlotRow(region="local", layout=1, k=0, epoch=3, claimed_at=NOW, holder="host/local/0"),
        BookRow(chain="chain", version=1, doc=book(), created_at=NOW),
        *(
            ItemRow(chain="chain", code=code, version=1, doc={"name": {"zh": zh, "en": zh}, "unit_fen": fen})
            for code, (zh, fen) in SHELF.items()
        ),
        PlanRow(id="light-10", version=1, chain="chain", owner="chain", doc=shipped()),
    ]
    for n in range(1, stores + 1):
        zh, en = NAMES[(n - 1) % len(NAMES)]
        again = (n - 1) // len(NAMES)
        store = f"s-{n:03}"
        rows.append(
            StoreRow(
                id=store,
                chain="chain",
                region="local",
                shard=shard_of(StoreId(store)),
                name_zh=f"{zh}{again + 1}" if again else zh,
                name_en=f"{en} {again + 1}" if again else en,
                zone="Asia/Shanghai",
                opened_at=NOW - timedelta(days=400),
                labels={"city": "guangzhou"},
            )
        )
        rows.append(StoreEntityRow(store=store, from_date="2025-01-01", entity="chain" if n % 2 else "franchise"))
    for tile in tiles(stores):
        rows.append(
            TerminalRow(
                id=tile.terminal,
                store=tile.store,
                lane=tile.lane,
                role=tile.role,
                profile=tile.profile,
                secret_sha256="",
                registered_at=NOW,
            )
        )
        rows.append(
            PresenceRow(terminal=tile.terminal, store=tile.store, online=True, software="1.0.0", changed_at=NOW)
        )
    return rows


def book() -> dict[str, object]:
    """Consent texts as a chain's book holds them."""
    return {
        "consents": [{"purpose": "recognise", "version": "2", "zh": "可以识别您吗？", "en": "May we recognise you?"}],
    }


def sale_rows(n: int, membership: str | None) -> list[SQLModel]:
    """One sale of 12.50 with a benefit of 8.00 when a member bought, and its balanced transaction."""
    sale, discount = str(uuid.uuid5(uuid.NAMESPACE_OID, f"sale {n}")), 800 if membership else 0
    lines = [
        {"line": 1, "code": "6901234567908", "name": "三明治", "quantity": 1, "unit_fen": 1250,
         "discount_fen": discount, "net_fen": 1250 - discount, "why": "轻会员：8 元优惠券" if membership else ""}
    ]  # fmt: skip
    due = 1250 - discount
    row = SaleRow(
        id=sale,
        receipt=f"s-001-1-{n:06}",
        session=str(uuid.uuid4()),
        store=f"s-{n % 3 + 1:03}",
        lane="lane-1",
        terminal=f"t-{n % 3 + 1:03}-1",
        entity="chain",
        business_date="2026-11-22",
        at=NOW - timedelta(minutes=7 * n),
        member=membership and f"m-{membership}",
        membership=membership,
        gross_fen=1250,
        discount_fen=discount,
        due_fen=due,
        rounding_fen=0,
        suspense_fen=0,
        agency_fen=0,
        lines=lines,
        tenders=[{"kind": ("cash", "face", "qr")[n % 3], "fen": due}],
        uses=[],
        vouchers=[],
    )
    return [
        row,
        *booking(
            "sale",
            sale,
            [("provider_clearing:alipay", due), ("discount_given:s-001", discount), ("sales_gross:s-001", -1250)],
        ),
    ]


def booking(kind: str, number: str, legs: list[tuple[str, int]]) -> list[SQLModel]:
    """One transaction of entity `chain`."""
    txn = derived_id(number, kind)
    return [
        TransactionRow(id=txn, kind=kind, request_number=number, booked_at=NOW),
        *(
            EntryRow(txn=txn, leg=leg, entity="chain", account=account, amount_fen=fen, business_date="2026-11-22")
            for leg, (account, fen) in enumerate(entry for entry in legs if entry[1])
        ),
    ]  # fmt: skip


def member_rows() -> list[SQLModel]:
    """PEOPLE with their uses, each of 8.00 in a sale of its own; the closed ones settled."""
    rows: list[SQLModel] = []
    sale = 0
    for n, (name, uses, state) in enumerate(PEOPLE):
        membership, used = f"ms-{n}", 800 * uses
        charge = min(1000, used)
        settled = state == "CLOSED"
        rows.append(
            MemberRow(
                id=f"m-ms-{n}", chain="chain", region="local", home_store="s-001", name=name, phone_tail=f"{1000 + n}",
                joined_at=NOW - timedelta(days=32 - n),
            )
        )  # fmt: skip
        rows.append(
            MembershipRow(
                id=membership, enrol_key=membership, member=f"m-ms-{n}", chain="chain", region="local", store="s-001",
                terminal="t-001-1", plan="light-10", plan_version=1, owner="chain", state=state, fee_fen=1000,
                fee_eff_fen=1000, used_fen=used, guarantee="huabei_hold", hold_order=f"H{membership}", hold_fen=1000,
                enrolled_at=NOW - timedelta(days=32 - n), expires_at=NOW + timedelta(days=EXPIRES[state]),
                cutoff_at=NOW + timedelta(days=EXPIRES[state] + 1), charge_fen=charge if settled else None,
                branch=None if not settled or not charge else ("FEE" if charge == 1000 else "CLAWBACK"),
                settled_at=NOW if settled else None, paid_fen=charge if settled else 0,
            )
        )  # fmt: skip
        for use in range(uses):
            sale += 1
            made = sale_rows(sale, membership)
            assert isinstance(made[0], SaleRow)
            rows += made
            rows.append(
                UsageRow(
                    id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"use {n} {use}")), membership=membership, benefit="coupon8",
                    fen=800, class_="REGULAR", paid_fen=450, biz_time=made[0].at, received_at=made[0].at,
                    entity="chain", store=made[0].store, terminal=made[0].terminal, sale=made[0].id,
                )
            )  # fmt: skip
        if settled and charge:
            number = f"S{membership}G1"
            rows.append(
                SettlementCallRow(
                    membership=membership, chain="chain", region="local", owner="chain", kind="capture",
                    request_number=number, fen=charge, state="POSTED", not_before=NOW, answered_at=NOW, posted_at=NOW,
                )
            )  # fmt: skip
            rows += booking("hold_placed", f"H{membership}", [("hold:alipay", 1000), ("hold_contra", -1000)])
            rows += booking(
                "settled", number, [("provider_clearing:alipay", charge), ("membership_fee_income", -charge)]
            )
    for _ in range(4):
        sale += 1
        rows += sale_rows(sale, None)
    return rows


ORDER: tuple[tuple[type[SQLModel], ...], ...] = (
    (LegalEntityRow, LayoutRow, SlotRow, BookRow, ItemRow, PlanRow, StoreRow, MemberRow),
    (StoreEntityRow, TerminalRow, PresenceRow, MembershipRow, SaleRow),
    (UsageRow, SettlementCallRow),
)
"""Parents before children: the tables have foreign keys, and a unit of work knows no relationships."""


async def fill(session: AsyncSession, stores: int = 20) -> None:
    """Everything, committed."""
    rows = [*registry_rows(stores), *member_rows()]
    for kinds in ORDER:
        session.add_all([row for row in rows if isinstance(row, kinds)])
        await session.commit()
    session.add_all([row for row in rows if isinstance(row, TransactionRow)])
    await session.flush()
    entries = [row.model_dump() for row in rows if isinstance(row, EntryRow)]
    # One statement, in the transactions' own commit: the database refuses legs that are incomplete or come later.
    await session.exec(insert(EntryRow).values(entries))
    await session.commit()
