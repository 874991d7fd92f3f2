"""Business facts as rows, and what each means in the ledger. Repeating a fact writes nothing: ids are its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from models.domain.drawer_postings import given_back_at, paid_from
from models.domain.events import TenderKind
from models.domain.facts import (
    ConsentGiven,
    ConsentStands,
    FaceDecided,
    Fact,
    Incident,
    SaleMade,
    SaleReturned,
    SaleVoided,
    TemplateMade,
)
from models.domain.ids import LegalEntityId
from models.domain.ledger import Place, Taking, Transaction, sale_paid, sale_refunded, sale_voided, transaction_id
from models.domain.messages import SaleTender
from models.domain.payments import PROVIDERS
from models.domain.points import POINTS
from models.domain.privacy import STANDING_PURPOSE
from models.domain.returns import cash_out_fen
from models.domain.twin import CommandAnswered, CommandRecord, DesiredRecord, FamilyChanged, TerminalRetired
from models.tables.claims import release_sale
from models.tables.keys import add_key
from models.tables.ledger import Booking, load_transaction
from models.tables.templates import add_template, hold_member
from models.tables.terminals import save_twin

PROVIDER = PROVIDERS[0]
"""Of what names none: memberships' guarantees, and tenders of sales from before there were two."""


async def save_facts(conn: AsyncConnection[TupleRow], facts: Sequence[tuple[Fact, str]]) -> None:
    """Write the facts' rows inside the caller's transaction; statements only, so that it may run in a pipeline."""
    sales = [fact for fact, _ in facts if isinstance(fact, SaleMade)]
    if sales:
        await _sales(conn, sales)
    for fact, _ in facts:
        match fact:
            case SaleMade():
                pass  # all of them at once, above
            case SaleVoided():
                await _void(conn, fact)
            case SaleReturned():
                await _return(conn, fact)
            case ConsentGiven():
                await _consent(conn, fact)
            case FaceDecided():
                await _decision(conn, fact)
            case ConsentStands():
                await _standing(conn, fact)
            case TemplateMade():
                await _template(conn, fact)
            case DesiredRecord() | CommandRecord() | CommandAnswered() | FamilyChanged() | TerminalRetired():
                await save_twin(conn, fact)
            case Incident():
                await conn.execute(
                    """INSERT INTO incident (id, store, terminal, kind, at, detail)
                       VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO NOTHING""",
                    (fact.id, fact.store, fact.terminal, fact.kind, fact.at, fact.detail),
                )


async def bookings_of(conn: AsyncConnection[TupleRow], facts: Sequence[tuple[Fact, str]]) -> list[Booking]:
    """What the facts mean in the ledger. A void mirrors what its sale booked, which is read here: it never changes."""
    bookings: list[Booking] = []
    for fact, trace in facts:
        if isinstance(fact, SaleMade):
            bookings.append(Booking(sale_transaction(fact), fact.at, trace))
        elif isinstance(fact, SaleReturned):
            bookings.append(Booking(return_transaction(fact), fact.at, trace))
        elif isinstance(fact, SaleVoided):
            async with conn.cursor() as cursor:
                sale = await load_transaction(cursor, transaction_id(fact.sale, "sale_paid"))
            if sale is not None:
                undone = sale_voided(fact.id, sale, fact.business_date)
                bookings.append(Booking(given_back_at(undone, fact.store, fact.lane or ""), fact.at, trace))
    return bookings


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
        other_discount_fen=sum(one.fen for one in sale.vouchers),
        funded=_funded(sale),
    )


def return_transaction(back: SaleReturned) -> Transaction:
    """The ledger's view of a return: money back to the tenders, cash out of the drawer of the lane it came back to."""
    takings = [_taking(back, tender) for tender in back.tenders]
    sold = Place(back.sold_at or back.store, back.entity)
    rounded_fen = sum(tender.fen - cash_out_fen(tender) for tender in back.tenders)
    mirrored = sale_refunded(
        back.id,
        back.sale,
        place=sold,
        takings=[taking for taking in takings if taking.fen],
        due_fen=back.due_fen,
        business_date=back.business_date,
        rounding_fen=back.rounding_fen + rounded_fen,
        suspense_fen=back.suspense_fen,
        other_discount_fen=sum(one.fen for one in back.vouchers),
        funded=_funded(back),
    )
    return paid_from(mirrored, sold, Place(back.store, back.paid_by or back.entity))


def _funded(sale: SaleMade | SaleReturned) -> list[tuple[LegalEntityId, int]]:
    """What of the vouchers' discount another entity than the store's bears, by funder."""
    fen: Counter[LegalEntityId] = Counter()
    for one in sale.vouchers:
        if one.funder != sale.entity and one.voucher != POINTS:  # points have a posting of their own
            fen[one.funder] += one.fen
    return sorted(fen.items())


def _taking(sale: SaleMade | SaleReturned, tender: SaleTender) -> Taking:
    if tender.kind is TenderKind.CASH:
        return Taking(cash_out_fen(tender), drawer=sale.lane)
    # What a till collected by itself did not go through our merchant account: it has a clearing of its own.
    provider = (tender.provider or PROVIDER) if tender.order else f"till-{tender.kind}"
    # What the provider gives itself reaches our account; only the merchant's own promotion there lessens the receipt.
    ours_fen = 0 if tender.receipt_fen is None else tender.fen - tender.receipt_fen
    return Taking(tender.fen, provider=provider, merchant_funded_fen=ours_fen)


def plain(values: Sequence[Any]) -> list[dict[str, Any]]:
    """Dataclass values as JSON objects."""
    return [asdict(value) for value in values]


_SALE = """id, receipt, session, store, lane, terminal, clerk, entity, business_date, at, member, membership, gross_fen,
  discount_fen, due_fen, rounding_fen, suspense_fen, agency_fen, lines, tenders, uses, till_txn, received_at,
  vouchers"""
"""Columns of the table and fields of the fact, both under these names."""
_SALE_ON_OPEN_DAY = _SALE.replace(
    "business_date", "CASE WHEN closed >= business_date THEN next_day ELSE business_date END"
)
"""What comes late for a closed day belongs to the next one, as its entries do (models.tables.ledger)."""


async def _sales(conn: AsyncConnection[TupleRow], sales: Sequence[SaleMade]) -> None:
    """All sales of a batch by one statement."""
    await conn.execute(
        f"""INSERT INTO sale ({_SALE}) SELECT {_SALE_ON_OPEN_DAY} FROM json_populate_recordset(NULL::sale, %s::json) s
            LEFT JOIN LATERAL (SELECT day AS closed, next_day FROM closed_through c WHERE c.entity = s.entity) c ON true
            ON CONFLICT (id) DO NOTHING""",
        (msgspec.json.encode(sales).decode(),),
    )


async def _void(conn: AsyncConnection[TupleRow], void: SaleVoided) -> None:
    await conn.execute(
        """INSERT INTO sale_void (id, sale, store, terminal, business_date, at) VALUES (%s, %s, %s, %s, %s, %s)
           ON CONFLICT (id) DO NOTHING""",
        (void.id, void.sale, void.store, void.terminal, void.business_date, void.at),
    )
    await release_sale(conn, void.sale)
    await conn.execute("UPDATE sale SET voided_at = %s WHERE id = %s AND voided_at IS NULL", (void.at, void.sale))


async def _return(conn: AsyncConnection[TupleRow], back: SaleReturned) -> None:
    """Repeated it writes nothing; another return under the same number of the sale is refused by the database."""
    await conn.execute(
        """INSERT INTO sale_return (id, sale, n, store, lane, terminal, clerk, entity, business_date, at, due_fen,
             discount_fen, rounding_fen, suspense_fen, lines, tenders, uses, reason, vouchers)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
           ON CONFLICT (id) DO NOTHING""",
        (
            back.id,
            back.sale,
            back.n,
            back.store,
            back.lane,
            back.terminal,
            back.clerk,
            back.entity,
            back.business_date,
            back.at,
            back.due_fen,
            back.discount_fen,
            back.rounding_fen,
            back.suspense_fen,
            Jsonb(plain(back.lines)),
            Jsonb(plain(back.tenders)),
            Jsonb(plain(back.uses)),
            back.reason,
            Jsonb(plain(back.vouchers)),
        ),
    )
    await release_sale(conn, back.sale)


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


_DECISION = """templates_searched, threshold_ppm, best_ppm, second_ppm, net_sha256, reason, scope, looks, floor_ppm,
  margin_ppm, liveness, partial, digits_given, digits_required, amount_limited, elsewhere, calibration,
  device_score"""
"""Columns of the table and fields of the decision, both under these names."""


async def _standing(conn: AsyncConnection[TupleRow], fact: ConsentStands) -> None:
    """One that is in force already stays as it is; one of a visit whose consent was withdrawn does not come back."""
    await hold_member(conn, fact.member)
    await conn.execute(
        """INSERT INTO member_consent (id, member, chain, purpose, text, session, store, terminal, given_at,
             withdrawn_by) SELECT %s, %s, %s, %s, %s, %s, %s, %s, %s, '' WHERE NOT EXISTS (
               SELECT 1 FROM member_consent WHERE member = %s AND session = %s AND withdrawn_at IS NOT NULL)
           ON CONFLICT DO NOTHING""",
        (
            fact.id,
            fact.member,
            fact.chain,
            STANDING_PURPOSE,
            fact.text,
            fact.session,
            fact.store,
            fact.terminal or "",
            fact.at,
            fact.member,
            fact.session,
        ),
    )


async def _decision(conn: AsyncConnection[TupleRow], fact: FaceDecided) -> None:
    await conn.execute(
        f"""INSERT INTO face_decision (id, session, store, at, outcome, member, {_DECISION})
            SELECT %s, %s, %s, %s, %s, %s, {_DECISION} FROM json_populate_record(NULL::face_decision, %s::json)
            ON CONFLICT (id) DO NOTHING""",
        (
            fact.id,
            fact.session,
            fact.store,
            fact.at,
            fact.outcome,
            fact.member,
            msgspec.json.encode(fact.decision).decode(),
        ),
    )


async def _template(conn: AsyncConnection[TupleRow], fact: TemplateMade) -> None:
    await add_template(conn, fact.template, chain=fact.chain, store=fact.store, consent=fact.consent, at=fact.at)
    await add_key(conn, fact.key, fact.at)
