"""Books for tests of the ledger: a month of two entities and three stores, through the production's own functions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import AsyncConnection

from models.domain import ledger
from models.domain.charging import Branch, UseClass
from models.domain.ids import LegalEntityId, StoreId
from models.domain.ledger import OwedAs, Place, Settlement, StoreShare, Taking, Transaction
from models.tables.ledger import insert_transactions

CHAIN, NORTH = LegalEntityId("chain"), LegalEntityId("north")
OWN, FRANCHISED, SECOND = StoreId("s-own"), StoreId("s-north"), StoreId("s-second")
PLACES = (Place(OWN, CHAIN), Place(FRANCHISED, NORTH), Place(SECOND, NORTH))
MOMENT = datetime(2026, 11, 2, 4, 0, tzinfo=UTC)


def story(
    seed: int, steps: int = 40, days: Sequence[str] = ("2026-10-31", "2026-11-02", "2026-11-17")
) -> list[Transaction]:
    """Sales, uses, settlements of every kind, reversals, top-ups and takings without an order, by seed."""
    rng = random.Random(seed)
    booked: list[Transaction] = []
    for n in range(steps):
        day, place, number = rng.choice(days), rng.choice(PLACES), f"{seed}-{n}"
        fen = rng.randrange(100, 3_000)
        sale = ledger.sale_paid(
            f"sale{number}", place=place, due_fen=fen, business_date=day,
            takings=[_taking(rng, place, fen)], other_discount_fen=rng.choice([0, 0, 120]),
        )  # fmt: skip
        booked.append(sale)
        if rng.random() < 0.2:
            booked.append(ledger.sale_voided(f"void{number}", sale, day))
        use_class = rng.choice([UseClass.REGULAR, UseClass.REGULAR, UseClass.LATE, UseClass.OVERUSE])
        booked.append(
            ledger.benefit_used(
                f"use{number}", place=place, fen=800, use_class=use_class, funder=CHAIN, business_date=day
            )
        )
        if rng.random() < 0.3:
            booked.append(
                ledger.benefit_reversed(
                    f"rev{number}", f"use{number}", place=place, fen=rng.choice([300, 800]), use_class=use_class,
                    funder=CHAIN, business_date=day,
                )
            )  # fmt: skip
        booked += _settled(rng, number, day)
        if rng.random() < 0.2:
            taking = _taking(rng, place, 500)
            booked.append(ledger.takings_without_order(f"odd{number}", place=place, taking=taking, business_date=day))
    return booked


def _taking(rng: random.Random, place: Place, fen: int) -> Taking:
    kind = rng.randrange(4)
    if kind == 0:
        return Taking(fen, drawer="lane-1")
    collector = CHAIN if kind == 1 else None
    funded = 50 if kind == 2 else 0
    return Taking(fen, provider="alipay", collector=collector, merchant_funded_fen=funded, provider_funded_fen=funded)


def _settled(rng: random.Random, number: str, day: str) -> list[Transaction]:
    membership, hold = f"m{number}", ledger.hold_placed(
        f"H{number}", entity=CHAIN, provider="alipay", hold_fen=1000, business_date=day
    )  # fmt: skip
    shares = tuple(StoreShare(place, rng.randrange(1, 900)) for place in rng.sample(PLACES, rng.randrange(1, 4)))
    total = sum(share.fen for share in shares)
    if rng.random() < 0.5:
        own = shares if rng.random() < 0.5 else ()
        charge = Settlement(membership, CHAIN, "alipay", Branch.FEE, min(1000, total), own)
    else:
        charge = Settlement(membership, CHAIN, "alipay", Branch.CLAWBACK, total, shares)
    excess = rng.choice([0, 0, 70])
    made = [hold]
    if rng.random() < 0.3:
        made.append(ledger.capture_failed(f"S{membership}", charge, business_date=day))
        made.append(
            ledger.receivable_collected(
                f"S{membership}A1", charge, captured_fen=charge.due_fen + excess, business_date=day
            )
        )
    else:
        settled = ledger.settled(f"S{membership}", charge, captured_fen=charge.due_fen + excess, business_date=day)
        made.append(settled)
    made.append(ledger.hold_ended(f"H{number}", entity=CHAIN, provider="alipay", hold_fen=1000, business_date=day))
    if charge.branch is Branch.CLAWBACK and rng.random() < 0.4:
        share = shares[0]
        made.append(
            ledger.due_reduced(
                f"red{number}", settlement=charge, fen=share.fen, place=share.place, owed_as=OwedAs.REFUND,
                business_date=day,
            )
        )  # fmt: skip
    elif rng.random() < 0.3:
        made.append(ledger.given_up(f"G{number}", funder=CHAIN, fen=300, topped_up=shares, business_date=day))
    return made


async def book_all(conn: AsyncConnection[Any], transactions: Sequence[Transaction], *, commits: int = 4) -> None:
    """Book these in a few commits, in order; each commit a minute after the one before."""
    size = max(1, -(-len(transactions) // commits))
    for n, start in enumerate(range(0, len(transactions), size)):
        async with conn.transaction(), conn.cursor() as cur:
            await insert_transactions(
                cur, transactions[start : start + size], MOMENT + timedelta(minutes=n), trace=f"trace-{n}"
            )


UNGUARDED = (
    "ALTER TABLE entry DISABLE TRIGGER ALL",
    "ALTER TABLE txn DISABLE TRIGGER USER",
    "ALTER TABLE entry DROP CONSTRAINT entry_bounded",
    "ALTER TABLE entry DROP CONSTRAINT entry_pkey",
    "ALTER TABLE txn DROP CONSTRAINT txn_request_number_kind_key",
    "ALTER TABLE txn DROP CONSTRAINT txn_pkey",
)
"""What a person with the owner's rights may do, and nobody else."""


def without_guards(url: str) -> None:
    """Every guard of the ledger off, in a database of a test."""
    with psycopg.connect(url, autocommit=True) as conn:
        for statement in UNGUARDED:
            conn.execute(statement)
