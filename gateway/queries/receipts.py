"""Receipts in their stores' chains: by number, with their lines and what came back, held against what was chained."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.paging import cut, decode_cursor, encode_cursor
from gateway.queries.ledger_pages import psycopg_of
from gateway.queries.sales import sale_view
from gateway.views import Page, SaleView, View
from models.tables import receipts
from models.tables.sales import ReturnRow, SaleRow

FOUND_MAX = 100


class LinkView(View):
    """A link of a store's chain. `receipt`, `sale`: whose receipt, void or return it is; `fen` below 0 went back."""

    store: str
    n: int
    id: str
    kind: str
    at: datetime
    sha256: str
    receipt: str
    sale: str
    fen: int


class FaultView(View):
    """What is wrong: `kind` is missing, changed, out_of_place or no_receipt; `n` 0 where there is no link."""

    kind: str
    n: int
    id: str
    detail: str


class ChainCheckView(View):
    """A store's whole chain, verified. `head`: N:SHA256, worth noting elsewhere for the next time."""

    ok: bool
    store: str
    receipts: int
    head: str
    before_the_chain: int
    faults_total: int
    faults: list[FaultView]


class ReturnedView(View):
    """One return of a sale."""

    id: str
    n: int
    at: datetime
    store: str
    clerk: str | None
    due_fen: int
    reason: str
    lines: list[dict[str, Any]]
    tenders: list[dict[str, Any]]


class ReceiptView(View):
    """One link with everything that belongs to its sale; `faults`: what is wrong with this link alone."""

    link: LinkView
    faults: list[FaultView]
    sale: SaleView | None
    lines: list[dict[str, Any]]
    tenders: list[dict[str, Any]]
    vouchers: list[dict[str, Any]]
    rounding_fen: int
    returns: list[ReturnedView]
    links: list[LinkView]


@dataclass(frozen=True, slots=True)
class Noted:
    """A head that somebody noted before."""

    n: int
    sha256: bytes


def _link(one: receipts.Linked) -> LinkView:
    return LinkView(**asdict(one))


async def chain_page(session: AsyncSession, store: str, limit: int, cursor: str | None) -> Page[LinkView]:
    """A store's chain, the newest first."""
    key = decode_cursor(cursor, 1)
    before = int(key[0]) if key and key[0].isdecimal() else None
    found = await receipts.chain_links(await psycopg_of(session), store, limit=limit + 1, before=before)
    rows, more = cut(found, limit)
    return Page(items=[_link(one) for one in rows], next=encode_cursor([str(rows[-1].n)]) if more else None)


async def find(session: AsyncSession, text: str) -> list[LinkView]:
    """By a receipt's number or a sale's id, else by how numbers begin; with voids and returns."""
    return [_link(one) for one in await receipts.find_links(await psycopg_of(session), text, limit=FOUND_MAX)]


async def receipt(session: AsyncSession, store: str, n: int) -> ReceiptView | None:
    """The n-th receipt of a store."""
    conn = await psycopg_of(session)
    found = await receipts.load_link(conn, store, n)
    if found is None:
        return None
    link, faults = found
    row = await session.get(SaleRow, link.sale) if link.sale else None
    backs = (
        await session.exec(select(ReturnRow).where(col(ReturnRow.sale) == link.sale).order_by(col(ReturnRow.n)))
    ).all()
    return ReceiptView(
        link=_link(link),
        faults=[FaultView(**asdict(one)) for one in faults],
        sale=None if row is None else sale_view(row),
        lines=[] if row is None else list(row.lines),
        tenders=[] if row is None else list(row.tenders),
        vouchers=[] if row is None else list(row.vouchers),
        rounding_fen=0 if row is None else row.rounding_fen,
        returns=[
            ReturnedView(
                id=back.id,
                n=back.n,
                at=back.at,
                store=back.store,
                clerk=back.clerk,
                due_fen=back.due_fen,
                reason=back.reason,
                lines=list(back.lines),
                tenders=list(back.tenders),
            )
            for back in backs
        ],
        links=[] if row is None else [_link(one) for one in await receipts.find_links(conn, row.id, limit=FOUND_MAX)],
    )


async def check(session: AsyncSession, store: str, noted: Noted | None) -> ChainCheckView:
    """Every receipt of the store, from the first to the last. Streamed: it takes as long as the chain is."""
    conn = await psycopg_of(session)
    verifier = await receipts.verify_chain(conn, store, [(noted.n, noted.sha256)] if noted else [])
    return ChainCheckView(
        ok=not verifier.faults_total,
        store=store,
        receipts=verifier.receipts,
        head=f"{verifier.last}:{verifier.head.hex()}",
        before_the_chain=await receipts.unchained_total(conn, store),
        faults_total=verifier.faults_total,
        faults=[FaultView(**asdict(one)) for one in verifier.faults],
    )
