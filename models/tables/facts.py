"""Business facts as rows, and what each means in the ledger. Repeating a fact writes nothing: ids are its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from models.domain.events import TenderKind
from models.domain.facts import (
    ConsentGiven,
    FaceDecided,
    Fact,
    Incident,
    SaleMade,
    SaleVoided,
    TemplateMade,
)
from models.domain.ledger import Place, Taking, Transaction, sale_paid, sale_voided, transaction_id
from models.domain.messages import SaleTender
from models.tables.ledger import insert_transactions, load_transaction

PROVIDER = "alipay"
"""The provider of the slice; a sale's tender will carry its own when there are several."""


async def save_facts(conn: AsyncConnection[TupleRow], facts: Sequence[tuple[Fact, str]]) -> None:
    """Write the facts' rows inside the caller's transaction; statements only, so that it may run in a pipeline."""
    for fact, _ in facts:
        match fact:
            case SaleMade():
                await _sale(conn, fact)
            case SaleVoided():
                await _void(conn, fact)
            case ConsentGiven():
                await _consent(conn, fact)
            case FaceDecided():
                await _decision(conn, fact)
            case TemplateMade():
                await _template(conn, fact)
            case Incident():
                await conn.execute(
                    """INSERT INTO incident (id, store, terminal, kind, at, detail)
                       VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO NOTHING""",
                    (fact.id, fact.store, fact.terminal, fact.kind, fact.at, fact.detail),
                )


async def book_facts(conn: AsyncConnection[TupleRow], facts: Sequence[tuple[Fact, str]]) -> None:
    """Book what the facts mean in the ledger, in the same transaction; `trace` is the message that caused it."""
    async with conn.cursor() as cursor:
        for fact, trace in facts:
            if isinstance(fact, SaleMade):
                await insert_transactions(cursor, [sale_transaction(fact)], fact.at, trace)
            elif isinstance(fact, SaleVoided):
                sale = await load_transaction(cursor, transaction_id(fact.sale, "sale_paid"))
                if sale is not None:
                    voided = sale_voided(fact.id, sale, fact.business_date)
                    await insert_transactions(cursor, [voided], fact.at, trace)


def sale_transaction(sale: SaleMade) -> Transaction:
    """The ledger's view of a sale: takings against sales; the light benefit is posted when its use is."""
    takings = [_taking(sale, tender) for tender in sale.tenders if tender.kind is not TenderKind.COUPON]
    return sale_paid(
        sale.id,
        place=Place(sale.store, sale.entity),
        takings=[taking for taking in takings if taking.fen],
        due_fen=sale.due_fen,
        business_date=sale.business_date,
        rounding_fen=sale.rounding_fen,
        suspense_fen=sale.suspense_fen,
        agency_fen=sale.agency_fen,
    )


def _taking(sale: SaleMade, tender: SaleTender) -> Taking:
    if tender.kind is TenderKind.CASH:
        return Taking(tender.fen, drawer=sale.lane)
    # What a till collected by itself did not go through our merchant account: it has a clearing of its own.
    return Taking(tender.fen, provider=PROVIDER if tender.order else f"till-{tender.kind}")


def plain(values: Sequence[Any]) -> list[dict[str, Any]]:
    """Dataclass values as JSON objects."""
    return [asdict(value) for value in values]


async def _sale(conn: AsyncConnection[TupleRow], sale: SaleMade) -> None:
    await conn.execute(
        """INSERT INTO sale (id, receipt, session, store, lane, terminal, clerk, entity, business_date, at, member,
             membership, gross_fen, discount_fen, due_fen, rounding_fen, suspense_fen, agency_fen, lines, tenders,
             uses, till_txn)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
           ON CONFLICT (id) DO NOTHING""",
        (
            sale.id,
            sale.receipt,
            sale.session,
            sale.store,
            sale.lane,
            sale.terminal,
            sale.clerk,
            sale.entity,
            sale.business_date,
            sale.at,
            sale.member,
            sale.membership,
            sale.gross_fen,
            sale.discount_fen,
            sale.due_fen,
            sale.rounding_fen,
            sale.suspense_fen,
            sale.agency_fen,
            Jsonb(plain(sale.lines)),
            Jsonb(plain(sale.tenders)),
            Jsonb(plain(sale.uses)),
            sale.till_txn,
        ),
    )


async def _void(conn: AsyncConnection[TupleRow], void: SaleVoided) -> None:
    await conn.execute(
        """INSERT INTO sale_void (id, sale, store, terminal, business_date, at) VALUES (%s, %s, %s, %s, %s, %s)
           ON CONFLICT (id) DO NOTHING""",
        (void.id, void.sale, void.store, void.terminal, void.business_date, void.at),
    )
    await conn.execute("UPDATE sale SET voided_at = %s WHERE id = %s AND voided_at IS NULL", (void.at, void.sale))


async def _consent(conn: AsyncConnection[TupleRow], fact: ConsentGiven) -> None:
    await conn.execute(
        """INSERT INTO consent (id, session, store, terminal, purpose, text, granted, at, member)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO NOTHING""",
        (
            fact.id,
            fact.session,
            fact.store,
            fact.terminal,
            str(fact.purpose),
            fact.text,
            fact.granted,
            fact.at,
            fact.member,
        ),
    )


async def _decision(conn: AsyncConnection[TupleRow], fact: FaceDecided) -> None:
    decision = fact.decision
    await conn.execute(
        """INSERT INTO face_decision (id, session, store, at, outcome, member, templates_searched, threshold_ppm,
             best_ppm, second_ppm, net_sha256, reason)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO NOTHING""",
        (
            fact.id,
            fact.session,
            fact.store,
            fact.at,
            fact.outcome,
            fact.member,
            decision.templates_searched,
            decision.threshold_ppm,
            decision.best_ppm,
            decision.second_ppm,
            decision.net_sha256,
            decision.reason,
        ),
    )


async def _template(conn: AsyncConnection[TupleRow], fact: TemplateMade) -> None:
    template = fact.template
    await conn.execute(
        """INSERT INTO face_template (id, member, chain, store, net_sha256, policy, consent, ciphertext, wrapped_key,
             at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO NOTHING""",
        (
            template.id,
            template.member,
            fact.chain,
            fact.store,
            template.net_sha256,
            template.policy,
            fact.consent,
            template.ciphertext,
            template.wrapped_key,
            fact.at,
        ),
    )
