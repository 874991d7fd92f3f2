"""Credit memberships as rows: what the member signed with the provider, and each use that the provider is told of.

A row is written only under its membership's row lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncCursor
from sqlalchemy import BigInteger, Index, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from models.domain.notices import NoticeKind
from models.domain.payments import CreditTotals, FailReason
from models.tables.base import fen_column, instant


class CreditAgreementRow(SQLModel, table=True):
    """An agreement of one membership. `number` is ours; the rest is the provider's, and empty until it told us.

    `code_text` opens the page on which the member signs. `ends_at`: when the provider's period is over, as agreed.
    """

    __tablename__ = "credit_agreement"
    __table_args__ = (Index("credit_agreement_number", "number", unique=True),)
    membership: str = Field(primary_key=True, foreign_key="membership.id")
    number: str
    code_text: str = ""
    agreement_no: str = ""
    payer: str = ""
    settlement_no: str = ""
    ends_at: datetime = instant()


class CreditUseRow(SQLModel, table=True):
    """One REGULAR use, or a reversal of it (`reverses`), as the provider is told. `state`: open, done, failed (`why`).

    `n` is the order in which they are told; `not_before` is wall time.
    """

    __tablename__ = "credit_use"
    __table_args__ = (
        UniqueConstraint("number"),
        Index("credit_use_membership", "membership"),
        Index("credit_use_usage", "usage"),
        Index("credit_use_open", "chain", "region", "not_before", postgresql_where=text("state = 'open'")),
        Index("credit_use_failed", "chain", "region", postgresql_where=text("state = 'failed'")),
    )
    n: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": True})
    number: str
    membership: str = Field(foreign_key="membership.id")
    chain: str
    region: str
    usage: str
    reverses: str
    discount_fen: int = fen_column()
    paid_fen: int = fen_column()
    tasks: int
    at: datetime = instant()
    state: str = "open"
    tries: int = 0
    not_before: datetime = instant()
    why: str = ""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What the provider and we call one membership's agreement; "" where the provider has not told it yet."""

    membership: str
    number: str
    code_text: str
    agreement_no: str
    payer: str
    settlement_no: str
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class CreditUse:
    """One use (`reverses` empty) or a reversal of the one numbered `reverses`."""

    number: str
    membership: str
    usage: str
    reverses: str
    totals: CreditTotals
    at: datetime
    tries: int = 0


_AGREEMENT = "c.membership, c.number, c.code_text, c.agreement_no, c.payer, c.settlement_no, c.ends_at"
_USE = "u.number, u.membership, u.usage, u.reverses, u.discount_fen, u.paid_fen, u.tasks, u.at, u.tries"


async def insert_agreement(cur: AsyncCursor[Any], agreement: Agreement) -> None:
    """An agreement that the member is to sign; one that is there already stays."""
    await cur.execute(
        "INSERT INTO credit_agreement (membership, number, code_text, agreement_no, payer, settlement_no, ends_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (
            agreement.membership, agreement.number, agreement.code_text, agreement.agreement_no, agreement.payer,
            agreement.settlement_no, agreement.ends_at,
        ),
    )  # fmt: skip


async def load_agreements(cur: AsyncCursor[Any], memberships: Sequence[str]) -> dict[str, Agreement]:
    """The agreements of those of these memberships that have one."""
    await cur.execute(f"SELECT {_AGREEMENT} FROM credit_agreement c WHERE c.membership = ANY(%s)", (list(memberships),))
    return {row[0]: Agreement(*row) for row in await cur.fetchall()}


async def save_signed(cur: AsyncCursor[Any], membership: str, agreement_no: str, payer: str) -> None:
    """The member has signed."""
    await cur.execute(
        "UPDATE credit_agreement SET agreement_no = %s, payer = %s WHERE membership = %s",
        (agreement_no, payer, membership),
    )


async def save_settlement_no(cur: AsyncCursor[Any], membership: str, settlement_no: str) -> None:
    """Its time is over at the provider: under this number it may be settled."""
    await cur.execute(
        "UPDATE credit_agreement SET settlement_no = %s WHERE membership = %s", (settlement_no, membership)
    )


@dataclass(frozen=True, slots=True)
class Heard:
    """An agreement of which the provider told something that is not in our row yet."""

    agreement: Agreement
    owner: str
    agreement_no: str
    settlement_no: str


async def heard(cur: AsyncCursor[Any], chain: str, region: str, since: datetime, *, limit: int) -> list[Heard]:
    """What notifications since then say of agreements and we do not know yet; the latest number of each."""
    await cur.execute(
        f"SELECT DISTINCT ON (c.membership, n.agreement ->> 'settlement_no' IS NULL) {_AGREEMENT}, m.owner,"
        " n.agreement ->> 'agreement_no', coalesce(n.agreement ->> 'settlement_no', '')"
        " FROM provider_notice n JOIN credit_agreement c ON c.number = n.number"
        " JOIN membership m ON m.id = c.membership"
        " WHERE n.received_at > %(since)s AND n.kind = %(kind)s AND n.agreement IS NOT NULL"
        " AND m.chain = %(chain)s AND m.region = %(region)s AND (c.agreement_no = ''"
        " OR (c.settlement_no = '' AND n.agreement ->> 'settlement_no' <> ''))"
        " ORDER BY c.membership, n.agreement ->> 'settlement_no' IS NULL, n.at DESC LIMIT %(limit)s",
        {"since": since, "kind": NoticeKind.AGREEMENT.value, "chain": chain, "region": region, "limit": limit},
    )
    return [Heard(Agreement(*row[:7]), *row[7:]) for row in await cur.fetchall()]


# ---------------------------------------------------------------- uses that the provider is told of


async def insert_uses(cur: AsyncCursor[Any], chain: str, region: str, uses: Sequence[CreditUse], now: datetime) -> None:
    """To be told from now on (wall time); in the commit of the uses themselves."""
    for use in uses:
        await cur.execute(
            "INSERT INTO credit_use (number, membership, chain, region, usage, reverses, discount_fen, paid_fen, tasks,"
            ' "at", not_before, state, tries, why)'
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 'open', 0, '') ON CONFLICT (number) DO NOTHING",
            (
                use.number, use.membership, chain, region, use.usage, use.reverses, use.totals.discount_fen,
                use.totals.paid_fen, use.totals.tasks, use.at, now,
            ),
        )  # fmt: skip


async def told_of(cur: AsyncCursor[Any], usage: str) -> CreditUse | None:
    """The row of a use itself, or None: the provider is not told of it."""
    await cur.execute(f"SELECT {_USE} FROM credit_use u WHERE u.usage = %s AND u.reverses = ''", (usage,))
    row = await cur.fetchone()
    return None if row is None else _use(row)


async def sale_told(cur: AsyncCursor[Any], membership: str, sale: str) -> bool:
    """Whether a use of this sale that stands carries what the sale took: it counts once."""
    await cur.execute(
        "SELECT EXISTS (SELECT 1 FROM credit_use u JOIN usage s ON s.id = u.usage WHERE u.membership = %s"
        " AND u.reverses = '' AND u.paid_fen > 0 AND s.sale = %s)",
        (membership, sale),
    )
    row = await cur.fetchone()
    assert row is not None
    return bool(row[0])


async def lock_open(
    cur: AsyncCursor[Any], chain: str, region: str, wall_now: datetime, until: datetime, *, limit: int
) -> list[tuple[CreditUse, Agreement, str]]:
    """Uses that are due to be told, leased until `until` (wall time), with their agreement and the account's owner.

    A reversal comes only after its use is told.
    """
    await cur.execute(
        "WITH due AS (SELECT u.number FROM credit_use u WHERE u.chain = %(chain)s AND u.region = %(region)s"
        " AND u.state = 'open' AND u.not_before <= %(now)s AND (u.reverses = '' OR EXISTS (SELECT 1 FROM credit_use b"
        " WHERE b.number = u.reverses AND b.state = 'done'))"
        " ORDER BY u.not_before, u.n LIMIT %(limit)s FOR UPDATE SKIP LOCKED)"
        " UPDATE credit_use u SET tries = u.tries + 1, not_before = %(until)s"
        " FROM due, credit_agreement c, membership m WHERE u.number = due.number AND c.membership = u.membership"
        " AND m.id = u.membership"
        f" RETURNING {_USE}, {_AGREEMENT}, m.owner",
        {"chain": chain, "region": region, "now": wall_now, "until": until, "limit": limit},
    )
    return [(_use(row[:9]), Agreement(*row[9:16]), row[16]) for row in await cur.fetchall()]


async def save_told(
    cur: AsyncCursor[Any], number: str, state: str, not_before: datetime | None = None, why: str = ""
) -> None:
    """What became of telling it: done, failed, or open and tried again at `not_before` (wall time)."""
    await cur.execute(
        "UPDATE credit_use SET state = %s, why = %s, not_before = coalesce(%s, not_before) WHERE number = %s"
        " AND state = 'open'",
        (state, why, not_before, number),
    )


async def lock_untold(cur: AsyncCursor[Any], chain: str, region: str, *, limit: int) -> list[tuple[str, str]]:
    """EXPIRED memberships with a use that the provider did not take, locked: (membership, why)."""
    await cur.execute(
        "SELECT m.id, (SELECT min(u.number || ': ' || u.why) FROM credit_use u WHERE u.membership = m.id"
        " AND u.state = 'failed') FROM membership m WHERE m.state = 'EXPIRED' AND m.id IN (SELECT u.membership"
        " FROM credit_use u WHERE u.chain = %s AND u.region = %s AND u.state = 'failed') LIMIT %s"
        " FOR UPDATE OF m SKIP LOCKED",
        (chain, region, limit),
    )
    return [(row[0], row[1]) for row in await cur.fetchall()]


async def tell_again(cur: AsyncCursor[Any], membership: str, wall_now: datetime) -> int:
    """What failed is told again, under the same numbers; how many."""
    await cur.execute(
        "UPDATE credit_use SET state = 'open', tries = 0, not_before = %s, why = '' WHERE membership = %s"
        " AND state = 'failed'",
        (wall_now, membership),
    )
    return cur.rowcount


async def settle_again(cur: AsyncCursor[Any], membership: str) -> bool:
    """A settlement that the provider's records did not agree with is asked for again, under its number."""
    await cur.execute(
        "UPDATE settlement_call SET state = 'UNKNOWN', posted_at = NULL, lease_until = NULL WHERE membership = %s"
        " AND kind = 'capture' AND state = 'POSTED' AND answer ->> 'reason' = %s",
        (membership, FailReason.RECORDS_DIFFER.value),
    )
    return cur.rowcount > 0


async def totals_told(cur: AsyncCursor[Any], memberships: Sequence[str]) -> dict[str, CreditTotals]:
    """The sums of what the provider was told of each of these, reversals taken off."""
    await cur.execute(
        "SELECT membership, sum(s * discount_fen)::bigint, sum(s * paid_fen)::bigint, sum(s * tasks)::int FROM"
        " (SELECT *, CASE WHEN reverses = '' THEN 1 ELSE -1 END AS s FROM credit_use WHERE membership = ANY(%s)"
        " AND state = 'done') AS told GROUP BY membership",
        (list(memberships),),
    )
    return {row[0]: CreditTotals(*row[1:]) for row in await cur.fetchall()}


def _use(row: tuple[Any, ...]) -> CreditUse:
    return CreditUse(row[0], row[1], row[2], row[3], CreditTotals(*row[4:7]), row[7], row[8])
