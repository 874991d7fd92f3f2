"""Everything that is kept about one member: found, handed out, counted, and taken away. The ledger is not touched.

Rows speak of a member by an id made at random when they joined; what leads from it to a person is in `member`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from models.domain.membership import State
from models.domain.privacy import STANDING_PURPOSE, Age, RequestKind, RequestState, TemplateStanding

Connection = AsyncConnection[Any]

EXPORT_ROWS_AT_ONCE = 500
"""Rows of an export held at once, whatever a person has bought in their life."""


@dataclass(frozen=True, slots=True)
class Person:
    """Whom a member's id stands for. All texts are empty once the person is erased."""

    id: str
    chain: str
    name: str
    phone_tail: str
    known: bool
    """There is something left that leads to a person."""
    templates: int


async def find_person(conn: Connection, member: str, *, lock: bool = False) -> Person | None:
    """The member; with `lock` their row is held until the commit."""
    tail: LiteralString = " FOR UPDATE" if lock else ""
    cursor = await conn.execute(
        f"""SELECT id, chain, name, phone_tail, phone_sha256 IS NOT NULL OR name <> '' OR provider_user <> '',
              (SELECT count(*) FROM face_template WHERE face_template.member = member.id)
            FROM member WHERE id = %s{tail}""",
        (member,),
    )
    row = await cursor.fetchone()
    return None if row is None else Person(*row)


async def open_memberships(conn: Connection, member: str) -> list[tuple[str, State]]:
    """Every membership of the member and where it stands."""
    cursor = await conn.execute("SELECT id, state FROM membership WHERE member = %s ORDER BY id", (member,))
    return [(row[0], State(row[1])) for row in await cursor.fetchall()]


# ---------------------------------------------------------------- consent and age


async def end_standing_consent(conn: Connection, member: str, at: datetime, by: str) -> int:
    """Withdraw what is in force for the member's stored templates; 0: nothing was. The record stays.

    A visit that makes them a member just now may not have stored its template yet: its consent is withdrawn as well, so
    that the template is refused when it comes. The caller holds the member's row (`find_person(lock=True)`).
    """
    await conn.execute(
        """INSERT INTO member_consent (id, member, chain, purpose, text, session, store, terminal, given_at,
             withdrawn_at, withdrawn_by)
           SELECT DISTINCT ON (c.session) c.id || '/' || ms.member, ms.member, ms.chain, %(purpose)s, c.text, c.session,
             c.store, c.terminal, c.at, %(at)s, %(by)s
           FROM membership ms JOIN consent c ON c.session = ms.session AND c.purpose = 'recognise' AND c.granted
           WHERE ms.member = %(member)s AND ms.session <> '' AND NOT EXISTS (
             SELECT 1 FROM member_consent WHERE member = ms.member AND session = ms.session)
           ORDER BY c.session, c.at DESC ON CONFLICT DO NOTHING""",
        {"member": member, "purpose": STANDING_PURPOSE, "at": at, "by": by},
    )
    cursor = await conn.execute(
        """UPDATE member_consent SET withdrawn_at = %s, withdrawn_by = %s
           WHERE member = %s AND purpose = %s AND withdrawn_at IS NULL""",
        (at, by, member, STANDING_PURPOSE),
    )
    return cursor.rowcount


async def load_age(conn: Connection, member: str) -> Age | None:
    """What is known of the member's age; None: nothing."""
    cursor = await conn.execute(
        "SELECT birth_year, under_14, guardian_consent FROM member_age WHERE member = %s", (member,)
    )
    row = await cursor.fetchone()
    return None if row is None else Age(*row)


async def save_age(conn: Connection, member: str, age: Age, by: str, at: datetime) -> None:
    """Keep what is known now, in place of what was."""
    await conn.execute(
        """INSERT INTO member_age (member, birth_year, under_14, guardian_consent, marked_by, marked_at)
           VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (member) DO UPDATE SET birth_year = excluded.birth_year,
             under_14 = excluded.under_14, guardian_consent = excluded.guardian_consent,
             marked_by = excluded.marked_by, marked_at = excluded.marked_at""",
        (member, age.birth_year, age.marked_under_14, age.guardian_consent, by, at),
    )


# ---------------------------------------------------------------- requests


@dataclass(frozen=True, slots=True)
class PrivacyRequest:
    """What was asked for a member, and what became of it."""

    id: str
    chain: str
    member: str
    kind: RequestKind
    state: RequestState
    via: str
    reason: str
    asked_by: str
    asked_at: datetime
    approved_by: str
    done_at: datetime | None
    result: dict[str, object] | None


_REQUEST = "id, chain, member, kind, state, via, reason, asked_by, asked_at, approved_by, done_at, result"


def request_of(row: Any) -> PrivacyRequest:
    """A row of these columns as a value."""
    ident, chain, member, kind, state, *rest = row
    return PrivacyRequest(ident, chain, member, RequestKind(kind), RequestState(state), *rest)


async def was_erased(conn: Connection, member: str) -> bool:
    """Whether a request to erase the person was approved."""
    cursor = await conn.execute(
        "SELECT 1 FROM privacy_request WHERE member = %s AND kind = %s AND state = %s LIMIT 1",
        (member, RequestKind.ERASE_PERSON.value, RequestState.DONE.value),
    )
    return await cursor.fetchone() is not None


async def add_request(conn: Connection, request: PrivacyRequest) -> PrivacyRequest:
    """Write a request; while another of its kind is open for the member, that one is the answer."""
    await conn.execute(
        f"""INSERT INTO privacy_request ({_REQUEST}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
            ON CONFLICT DO NOTHING""",
        (
            request.id,
            request.chain,
            request.member,
            request.kind.value,
            request.state.value,
            request.via,
            request.reason,
            request.asked_by,
            request.asked_at,
            request.approved_by,
            request.done_at,
            None if request.result is None else Jsonb(request.result),
        ),
    )
    cursor = await conn.execute(
        f"""SELECT {_REQUEST} FROM privacy_request
            WHERE id = %s OR (member = %s AND kind = %s AND state = 'open') ORDER BY (id = %s) DESC LIMIT 1""",
        (request.id, request.member, request.kind.value, request.id),
    )
    return request_of(await cursor.fetchone())


async def lock_request(conn: Connection, request: str) -> PrivacyRequest | None:
    """The request, held until the commit."""
    cursor = await conn.execute(f"SELECT {_REQUEST} FROM privacy_request WHERE id = %s FOR UPDATE", (request,))
    row = await cursor.fetchone()
    return None if row is None else request_of(row)


async def end_request(
    conn: Connection, request: str, state: RequestState, by: str, at: datetime, result: dict[str, object]
) -> None:
    """It was done or refused, by whom and with what result."""
    await conn.execute(
        """UPDATE privacy_request SET state = %s, approved_by = %s, approved_at = %s, done_at = %s, result = %s
           WHERE id = %s""",
        (state.value, by, at, at, Jsonb(result), request),
    )


# ---------------------------------------------------------------- erasing the person


async def erase_identity(conn: Connection, member: str) -> dict[str, int]:
    """Take away what leads from the member's id to a person; how many rows of each kind lost it.

    Sales, uses and the ledger stay to the fen, without a buyer. Consent records stay under the bare id: they prove
    that what was done was permitted. Templates and keys are not touched here (see runtime.erasure).
    """
    cursor = await conn.execute(
        """UPDATE member SET name = '', phone_sha256 = NULL, phone_tail = '', provider_user = '' WHERE id = %s""",
        (member,),
    )
    counts = {"members": cursor.rowcount}
    # The outbox keeps what an enrolment asked with: the number as it was typed, and the provider's authorisation.
    cursor = await conn.execute(
        """UPDATE outbox SET request = jsonb_set(jsonb_set(request, '{phone}', 'null'), '{auth}', 'null')
           WHERE port = 'memberships' AND request ? 'phone' AND id IN
             (SELECT enrol_key FROM membership WHERE member = %s)""",
        (member,),
    )
    counts["enrolments"] = cursor.rowcount
    # The provider's name of the customer is needed as long as something may be collected or told.
    await conn.execute(
        """UPDATE credit_agreement SET payer = '', code_text = '' WHERE membership IN (SELECT id FROM membership
           WHERE member = %s AND state IN ('CLOSED', 'REJECTED', 'ABANDONED', 'WRITTEN_OFF'))""",
        (member,),
    )
    for table, statement in _NAMELESS:
        cursor = await conn.execute(statement, (member,))
        counts[table] = cursor.rowcount
    return counts


_NAMELESS: tuple[tuple[str, LiteralString], ...] = (
    ("sales", "UPDATE sale SET member = NULL WHERE member = %s"),
    ("points", "UPDATE points_move SET member = NULL WHERE member = %s"),
    ("decisions", "UPDATE face_decision SET member = NULL WHERE member = %s"),
    ("agreements", "UPDATE member_agreement SET payer = '', agreement_no = '', code_text = '' WHERE member = %s"),
    ("ages", "DELETE FROM member_age WHERE member = %s"),
)


# ---------------------------------------------------------------- the export

_SESSIONS = """(SELECT session FROM sale WHERE member = %(member)s UNION SELECT session FROM membership
    WHERE member = %(member)s UNION SELECT session FROM face_decision WHERE member = %(member)s
    UNION SELECT session FROM member_consent WHERE member = %(member)s)"""

_SECTIONS: tuple[tuple[str, LiteralString], ...] = (
    (
        "profile",
        """SELECT id, chain, region, home_store, name, phone_tail, phone_sha256 IS NOT NULL AS phone_on_file,
             provider_user, joined_at FROM member WHERE id = %(member)s""",
    ),
    (
        "age",
        "SELECT birth_year, under_14, guardian_consent, marked_by, marked_at FROM member_age WHERE member = %(member)s",
    ),
    (
        "standing_consents",
        """SELECT purpose, text, session, store, terminal, given_at, withdrawn_at, withdrawn_by FROM member_consent
           WHERE member = %(member)s ORDER BY given_at""",
    ),
    (
        "consents",
        f"""SELECT purpose, text, granted, session, store, terminal, at FROM consent
            WHERE member = %(member)s OR session IN {_SESSIONS} ORDER BY at, id""",
    ),
    (
        "memberships",
        """SELECT id, plan, plan_version, state, store, clerk, fee_fen, fee_eff_fen, used_fen, charge_fen, paid_fen,
             refunded_fen, receivable_fen, guarantee, enrolled_at, expires_at, settled_at
           FROM membership WHERE member = %(member)s ORDER BY enrolled_at, id""",
    ),
    (
        "usage",
        """SELECT u.id, u.membership, u.benefit, u.fen, u.reversed_fen, u.class, u.biz_time, u.store, u.sale
           FROM usage u JOIN membership m ON m.id = u.membership WHERE m.member = %(member)s
           ORDER BY u.biz_time, u.id""",
    ),
    (
        "sales",
        """SELECT receipt, store, at, gross_fen, discount_fen, due_fen, lines, tenders, voided_at FROM sale
           WHERE member = %(member)s ORDER BY at, id""",
    ),
    (
        "points",
        """SELECT at, kind, points, sale, store, expires_at FROM points_move WHERE member = %(member)s
           ORDER BY at, id""",
    ),
    (
        "balance",
        """SELECT at, kind, fen, left_fen, store, by FROM balance_move WHERE member = %(member)s AND fen > 0
           ORDER BY at, number""",
    ),
    (
        "agreements",
        """SELECT number, entity, provider, agreement_no, payer, payment_fen_max, day_fen_max, state, asked_at,
             signed_at, ended_at FROM member_agreement WHERE member = %(member)s ORDER BY asked_at""",
    ),
    (
        "face_templates",
        """SELECT id, at AS made_at, store, net_sha256, policy FROM face_template WHERE member = %(member)s
           ORDER BY at, id""",
    ),
    (
        "face_decisions",
        """SELECT at, store, outcome, templates_searched, threshold_ppm, best_ppm, second_ppm, net_sha256, reason
           FROM face_decision WHERE member = %(member)s ORDER BY at, id""",
    ),
    (
        "requests",
        """SELECT kind, state, via, reason, asked_by, asked_at, approved_by, done_at FROM privacy_request
           WHERE member = %(member)s ORDER BY asked_at, id""",
    ),
    (
        "audit",
        """SELECT n, at, kind, by, detail, prev_sha256, sha256 FROM audit_event
           WHERE subject = %(member)s ORDER BY n""",
    ),
)
"""Of the face nothing but that a template is stored: its bytes say nothing to a person and must not travel."""

SECTIONS = tuple(name for name, _ in _SECTIONS)


async def export_rows(conn: Connection, member: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Every row that is kept about the member, by section, in one snapshot and bounded memory.

    The caller's transaction should be REPEATABLE READ, so that the sections agree.
    """
    for section, query in _SECTIONS:
        async with conn.cursor(name=f"export_{section}", row_factory=dict_row) as cursor:
            cursor.itersize = EXPORT_ROWS_AT_ONCE
            await cursor.execute(query, {"member": member})
            async for row in cursor:
                yield section, row


# ---------------------------------------------------------------- retention

_STANDINGS = """
SELECT t.member, t.chain, t.made_at,
    greatest((SELECT max(at) FROM sale s WHERE s.member = t.member), seen.at, given.at),
    ended.at, given.at, a.birth_year, a.under_14, a.guardian_consent
FROM (SELECT member, chain, min(at) AS made_at FROM face_template
      WHERE member > %(after)s GROUP BY member, chain ORDER BY member LIMIT %(limit)s) t
LEFT JOIN LATERAL (SELECT max(d.at) AS at FROM face_decision d WHERE d.member = t.member) seen ON true
LEFT JOIN LATERAL (SELECT max(c.at) AS at FROM consent c WHERE c.member = t.member AND c.purpose = 'recognise'
    AND c.granted) given ON true
LEFT JOIN LATERAL (SELECT CASE WHEN bool_and(m.state IN ('CLOSED', 'WRITTEN_OFF', 'REJECTED', 'ABANDONED'))
        THEN max(m.expires_at) END AS at
    FROM membership m WHERE m.member = t.member) ended ON true
LEFT JOIN member_age a ON a.member = t.member
ORDER BY t.member
"""


async def template_standings(conn: Connection, after: str, limit: int) -> list[tuple[str, str, TemplateStanding]]:
    """(member, chain, what decides over their templates) of the next members that have some, by rising id."""
    cursor = await conn.execute(_STANDINGS, {"after": after, "limit": limit})
    return [
        (
            row[0],
            row[1],
            TemplateStanding(
                made_at=row[2],
                last_visit_at=row[3],
                membership_ended_at=row[4],
                consented_at=row[5],
                age=None if row[8] is None else Age(row[6], row[7], row[8]),
            ),
        )
        for row in await cursor.fetchall()
    ]


async def forget_decisions(conn: Connection, before: datetime, rows_max: int) -> int:
    """Add old face decisions to their store's daily counts, then delete them; at most `rows_max` at once."""
    cursor = await conn.execute(
        """WITH gone AS (
               DELETE FROM face_decision WHERE id IN
                   (SELECT id FROM face_decision WHERE at < %s ORDER BY at LIMIT %s)
               RETURNING store, at, outcome, reason
           ), counted AS (
               INSERT INTO face_decision_day (store, day, outcome, reason, decisions)
               SELECT store, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD'), outcome, reason, count(*) FROM gone
               GROUP BY 1, 2, 3, 4 ON CONFLICT (store, day, outcome, reason)
               DO UPDATE SET decisions = face_decision_day.decisions + excluded.decisions
           ) SELECT count(*) FROM gone""",
        (before, rows_max),
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def forget_numbers(conn: Connection, before: datetime) -> int:
    """Take the phone numbers and authorisations out of enrolments that were answered before this instant."""
    cursor = await conn.execute(
        """UPDATE outbox SET request = jsonb_set(jsonb_set(request, '{phone}', 'null'), '{auth}', 'null')
           WHERE port = 'memberships' AND request ? 'phone' AND done_at < %s
             AND (request->>'phone' IS NOT NULL OR request->>'auth' IS NOT NULL)""",
        (before,),
    )
    return cursor.rowcount


# ---------------------------------------------------------------- counts


async def distinct_faces(conn: Connection) -> dict[str, int]:
    """How many members have a stored template, by chain."""
    cursor = await conn.execute("SELECT chain, count(DISTINCT member) FROM face_template GROUP BY chain ORDER BY chain")
    return dict(await cursor.fetchall())


async def request_counts(conn: Connection) -> dict[str, int]:
    """How many requests stand where, as `kind.state`."""
    cursor = await conn.execute("SELECT kind || '.' || state, count(*) FROM privacy_request GROUP BY kind, state")
    return dict(await cursor.fetchall())
