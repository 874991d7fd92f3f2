"""Memberships as rows: enrolled, locked, read for a screen. Uses of benefits are in `models.tables.usage`.

Whoever changes a membership holds its row lock (`lock_membership`) until the commit: reservations, postings,
reversals and settlement exclude each other by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from psycopg import AsyncConnection, AsyncCursor

from models.domain.calendar import business_date
from models.domain.charging import Branch
from models.domain.ids import BenefitId, ChainId, MemberId, PlanId, RegionId, StoreId
from models.domain.ledger import Place
from models.domain.membership import HoldState, State
from models.domain.messages import BenefitLeft, MembershipView, MemberView
from models.domain.privacy import Age, template_permitted
from models.domain.settlement import Standing
from models.tables.member_money import own_tenders
from models.tables.plans import load_plan
from models.tables.points import spendable_points

MEMBERS_BY_TAIL_MAX = 10_000

NEVER_ACTIVE = (State.ADMITTING, State.HOLD_PENDING, State.REJECTED, State.ABANDONED)
LIVE = (State.ADMITTING, State.HOLD_PENDING, State.ACTIVE, State.SUSPENDED)


@dataclass(frozen=True, slots=True)
class StoreRecord:
    """What a booking needs to know of a store."""

    id: StoreId
    chain: ChainId
    region: RegionId
    zone: str
    cutoff_hour: int
    channel: str
    """How it sells (models.domain.benefits.Scope)."""

    def business_date(self, at: datetime) -> date:
        """The store's business date at `at`."""
        return business_date(at, self.zone, self.cutoff_hour)


STANDING_COLUMNS = (
    "id, enrol_key, member, chain, region, store, terminal, session, plan, plan_version, owner, generation, state,"
    " fee_fen, fee_eff_fen, used_fen, hold_order, hold_no, hold_fen, hold_state, enrolled_at, expires_at, cutoff_at,"
    " charge_fen, branch, paid_fen, refunded_fen, receivable_fen, captured_number, attempts, task_target, task_done,"
    " guarantee, renews, first_at, cycle, cancelled_by, provider"
)


async def standing_from(cur: AsyncCursor[Any], row: tuple[Any, ...]) -> Standing:
    """A row of STANDING_COLUMNS as a value; loads its plan when it is not cached."""
    plan = await load_plan(cur, row[8], row[9])
    branch = None if row[24] is None else Branch(row[24])
    fields = (*row[:8], plan, *row[10:12], State(row[12]), *row[13:19], HoldState(row[19]), *row[20:24], branch)
    return Standing(*fields, *row[25:])


async def lock_membership(cur: AsyncCursor[Any], membership: str) -> Standing | None:
    """Hold the row until the commit; None when there is no such membership."""
    await cur.execute(f"SELECT {STANDING_COLUMNS} FROM membership WHERE id = %s FOR UPDATE", (membership,))
    row = await cur.fetchone()
    return None if row is None else await standing_from(cur, row)


async def find_by_enrol_key(cur: AsyncCursor[Any], enrol_key: str) -> Standing | None:
    """The membership that this ask made; None when it made none yet."""
    await cur.execute(f"SELECT {STANDING_COLUMNS} FROM membership WHERE enrol_key = %s FOR UPDATE", (enrol_key,))
    row = await cur.fetchone()
    return None if row is None else await standing_from(cur, row)


async def load_store(cur: AsyncCursor[Any], store: str) -> StoreRecord | None:
    """A store, or None."""
    await cur.execute("SELECT id, chain, region, zone, cutoff_hour, basket_owner FROM store WHERE id = %s", (store,))
    row = await cur.fetchone()
    return None if row is None else StoreRecord(*row)


async def place_of(cur: AsyncCursor[Any], store: StoreId, on: str) -> Place:
    """The store with the legal entity that owned it on the business date `on`."""
    await cur.execute(
        "SELECT entity FROM store_entity WHERE store = %s AND from_date <= %s ORDER BY from_date DESC LIMIT 1",
        (store, on),
    )
    row = await cur.fetchone()
    assert row is not None, f"store {store} belongs to no legal entity on {on}"
    return Place(store, row[0])


# ---------------------------------------------------------------- enrolment


@dataclass(frozen=True, slots=True)
class Phone:
    """A phone number as it is kept: a keyed digest to find it again, and its last four digits."""

    digest: str
    tail: str


async def lock_member(
    cur: AsyncCursor[Any],
    store: StoreRecord,
    *,
    new_id: MemberId,
    member: MemberId | None,
    phone: Phone | None,
    at: datetime,
) -> MemberId | None:
    """The member given, found by phone, or new under `new_id`; the row is locked. None: no such member."""
    if member is None:
        await cur.execute(
            "INSERT INTO member (id, chain, region, home_store, name, phone_sha256, phone_tail, provider_user,"
            " joined_at) VALUES (%s, %s, %s, %s, '', %s, %s, '', %s) ON CONFLICT DO NOTHING",
            (new_id, store.chain, store.region, store.id, phone and phone.digest, phone.tail if phone else "", at),
        )
    # Two asks for one phone number meet here: the second finds the first one's member and waits for its lock.
    column, key = ("phone_sha256", phone.digest) if member is None and phone else ("id", member or new_id)
    await cur.execute(
        f"SELECT id, phone_sha256 FROM member WHERE chain = %s AND {column} = %s FOR UPDATE", (store.chain, key)
    )
    row = await cur.fetchone()
    if row is None:
        return None
    if phone is not None and row[1] is None:
        await cur.execute(
            "UPDATE member SET phone_sha256 = %(digest)s, phone_tail = %(tail)s WHERE id = %(id)s"
            " AND NOT EXISTS (SELECT 1 FROM member WHERE chain = %(chain)s AND phone_sha256 = %(digest)s)",
            {"digest": phone.digest, "tail": phone.tail, "id": row[0], "chain": store.chain},
        )
    return MemberId(row[0])


@dataclass(frozen=True, slots=True)
class Earlier:
    """What a member had of a plan before: whether one lives, owes, when the last one ended, how many there were."""

    live: bool
    owing: bool
    last_ended_at: datetime | None
    generations: int


async def earlier_memberships(cur: AsyncCursor[Any], member: MemberId, plan: PlanId, *, renewing: str = "") -> Earlier:
    """Read under the member's lock, so that two enrolments at once cannot both pass. `renewing` lives on as the next
    one."""
    await cur.execute(
        "SELECT coalesce(bool_or(plan = %(plan)s AND state = ANY(%(live)s) AND id <> %(renewing)s), false),"
        " coalesce(bool_or(state IN ('DUNNING', 'WRITTEN_OFF', 'PARKED')), false),"
        " max(expires_at) FILTER (WHERE plan = %(plan)s AND NOT state = ANY(%(never)s)),"
        " count(*) FILTER (WHERE plan = %(plan)s AND NOT state = ANY(%(never)s))"
        " FROM membership WHERE member = %(member)s",
        {"member": member, "plan": plan, "live": list(LIVE), "never": list(NEVER_ACTIVE), "renewing": renewing},
    )
    row = await cur.fetchone()
    assert row is not None
    return Earlier(*row)


async def insert_membership(cur: AsyncCursor[Any], standing: Standing, *, clerk: str | None) -> None:
    """A new membership as `standing` says."""
    await cur.execute(
        "INSERT INTO membership (id, enrol_key, member, chain, region, store, terminal, session, clerk, plan,"
        " plan_version, owner, generation, state, fee_fen, fee_eff_fen, used_fen, guarantee, hold_order, hold_no,"
        " hold_fen, hold_state, enrolled_at, expires_at, cutoff_at, cancelled_by, paid_fen, refunded_fen,"
        " receivable_fen, captured_number, attempts, parked_why, task_target, renews, first_at, cycle, provider)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 0, %s, %s, '', 0, 'none',"
        " %s, %s, %s, '', 0, 0, 0, '', 0, '', %s, %s, %s, %s, %s)",
        (
            standing.id, standing.enrol_key, standing.member, standing.chain, standing.region, standing.store,
            standing.terminal, standing.session, clerk, standing.plan.id, standing.plan.version, standing.owner,
            standing.generation, standing.state, standing.fee_fen, standing.fee_eff_fen, standing.guarantee,
            standing.hold_order, standing.enrolled_at, standing.expires_at, standing.cutoff_at, standing.task_target,
            standing.renews, standing.first_at, standing.cycle, standing.provider,
        ),
    )  # fmt: skip


async def save_admission(
    cur: AsyncCursor[Any], membership: str, state: State, state_until: datetime | None = None
) -> None:
    """The state of an application; `state_until` is wall time."""
    await cur.execute(
        "UPDATE membership SET state = %s, state_until = %s WHERE id = %s", (state, state_until, membership)
    )


async def save_hold(cur: AsyncCursor[Any], membership: str, hold_no: str, hold_fen: int) -> None:
    """The provider froze `hold_fen` under `hold_no`."""
    await cur.execute(
        "UPDATE membership SET hold_no = %s, hold_fen = %s, hold_state = 'held' WHERE id = %s",
        (hold_no, hold_fen, membership),
    )


async def pending_holds(
    cur: AsyncCursor[Any], chain: str, region: str, *, limit: int
) -> list[tuple[str, datetime | None]]:
    """Applications that wait for a credit's answer or a freeze, oldest deadline first: (enrol key, wall deadline)."""
    await cur.execute(
        "SELECT enrol_key, state_until FROM membership WHERE chain = %s AND region = %s"
        " AND stage = 'pending'"
        " ORDER BY state_until LIMIT %s",
        (chain, region, limit),
    )
    return [(row[0], row[1]) for row in await cur.fetchall()]


# ---------------------------------------------------------------- cancel, change, renewal


async def save_cancelled(cur: AsyncCursor[Any], standing: Standing, by: str) -> None:
    """EXPIRED from `expires_at` on, which is the cancel's own instant now; it does not renew."""
    await cur.execute(
        "UPDATE membership SET state = 'EXPIRED', cancelled_by = %s, cancelled_at = %s, expires_at = %s,"
        " cutoff_at = %s, fee_eff_fen = %s, renews = false WHERE id = %s",
        (
            by, standing.expires_at, standing.expires_at, standing.cutoff_at, standing.fee_eff_fen, standing.id,
        ),
    )  # fmt: skip


async def save_state(cur: AsyncCursor[Any], membership: str, state: State) -> None:
    """Suspended, or active again."""
    await cur.execute("UPDATE membership SET state = %s WHERE id = %s", (state, membership))


async def save_hold_state(cur: AsyncCursor[Any], membership: str, hold_state: HoldState) -> None:
    """What became of the hold."""
    await cur.execute("UPDATE membership SET hold_state = %s WHERE id = %s", (hold_state, membership))


async def save_renews(cur: AsyncCursor[Any], membership: str, renews: bool) -> None:
    """Whether the next generation opens when this one expires."""
    await cur.execute("UPDATE membership SET renews = %s WHERE id = %s", (renews, membership))


async def save_terms(cur: AsyncCursor[Any], standing: Standing) -> None:
    """The plan, its fee, its dates and the guarantee that stand from now on."""
    await cur.execute(
        "UPDATE membership SET plan = %s, plan_version = %s, fee_fen = %s, fee_eff_fen = %s, expires_at = %s,"
        " cutoff_at = %s, task_target = %s, renews = %s, guarantee = %s, hold_order = %s, hold_no = %s, hold_fen = %s,"
        " hold_state = %s, cycle = %s, provider = %s WHERE id = %s",
        (
            standing.plan.id, standing.plan.version, standing.fee_fen, standing.fee_eff_fen, standing.expires_at,
            standing.cutoff_at, standing.task_target, standing.renews, standing.guarantee, standing.hold_order,
            standing.hold_no, standing.hold_fen, standing.hold_state, standing.cycle, standing.provider, standing.id,
        ),
    )  # fmt: skip


RENEWS_FROM = (State.ACTIVE, State.SUSPENDED, State.EXPIRED, State.SETTLING, State.UNKNOWN, State.CLOSED)
"""Who owes gets no next generation, until it is paid."""


async def lock_renewals(cur: AsyncCursor[Any], chain: str, region: str, now: datetime, *, limit: int) -> list[Standing]:
    """Memberships past their expiry that renew, locked until the commit; those that somebody holds are skipped."""
    await cur.execute(
        f"SELECT {STANDING_COLUMNS} FROM membership WHERE chain = %s AND region = %s AND renews AND expires_at <= %s"
        " AND state = ANY(%s) ORDER BY expires_at LIMIT %s FOR UPDATE SKIP LOCKED",
        (chain, region, now, list(RENEWS_FROM), limit),
    )
    return [await standing_from(cur, row) for row in await cur.fetchall()]


async def lock_renewals_of(cur: AsyncCursor[Any], member: MemberId, now: datetime) -> list[Standing]:
    """Those of one member, locked until the commit."""
    await cur.execute(
        f"SELECT {STANDING_COLUMNS} FROM membership WHERE member = %s AND renews AND expires_at <= %s"
        " AND state = ANY(%s) FOR UPDATE",
        (member, now, list(RENEWS_FROM)),
    )
    return [await standing_from(cur, row) for row in await cur.fetchall()]


RENEWAL_TRIES_MAX = 9
"""How often a member may want the next generation after nobody secured it in time."""


async def renewed_as(cur: AsyncCursor[Any], membership: str) -> Standing | None:
    """The generation that followed a membership, locked; None: none did. Of several tries the last one."""
    keys = [renewal_key(membership, n) for n in range(1, RENEWAL_TRIES_MAX + 1)]
    await cur.execute(
        f"SELECT {STANDING_COLUMNS} FROM membership WHERE enrol_key = ANY(%s)"
        " ORDER BY array_position(%s, enrol_key) DESC LIMIT 1 FOR UPDATE",
        (keys, keys),
    )
    row = await cur.fetchone()
    return None if row is None else await standing_from(cur, row)


def renewal_of(standing: Standing) -> str:
    """The generation before; empty: this one was enrolled."""
    key = standing.enrol_key
    return key.removeprefix("renew:").partition("#")[0] if key.startswith("renew:") else ""


def renewal_key(membership: str, attempt: int = 1) -> str:
    """The enrolment key of the generation that follows: one lives at most, the tries before it came to nothing."""
    return f"renew:{membership}" + (f"#{attempt}" if attempt > 1 else "")


def next_renewal_key(membership: str, last: Standing | None) -> str | None:
    """The key of the next try; None: one lives already, or there were too many."""
    if last is None:
        return renewal_key(membership)
    if last.state not in (State.ABANDONED, State.REJECTED):
        return None
    attempt = int(last.enrol_key.partition("#")[2] or 1) + 1
    return renewal_key(membership, attempt) if attempt <= RENEWAL_TRIES_MAX else None


async def lock_member_row(cur: AsyncCursor[Any], member: MemberId) -> None:
    """Nobody else enrols or changes the plan of this member until the commit."""
    await cur.execute("SELECT 1 FROM member WHERE id = %s FOR UPDATE", (member,))


# ---------------------------------------------------------------- for a screen


def masked_name(name: str, phone_tail: str) -> str:
    """What a screen may call a member, in any language: `张*`, else `•••• 1234`; empty when neither is known."""
    if name:
        return f"{name[0]}*"
    return f"•••• {phone_tail}" if phone_tail else ""


async def load_member_view(
    connection: AsyncConnection[Any], member: MemberId, now: datetime, plan: PlanId | None = None
) -> MemberView | None:
    """Who a member is, as far as a screen may show, with the membership that is open at business time `now`.

    Places held by open reservations are not offered. With several plans: `plan`, else the one that ends first.
    None when there is no such member.
    """
    async with connection.cursor() as cur:
        await cur.execute(
            "SELECT m.name, m.phone_tail, a.birth_year, a.under_14, a.guardian_consent"
            " FROM member m LEFT JOIN member_age a ON a.member = m.id WHERE m.id = %s",
            (member,),
        )
        row = await cur.fetchone()
        if row is None:
            return None
        name = masked_name(row[0], row[1])
        permitted = template_permitted(None if row[4] is None else Age(*row[2:]), now.year)
        points = await spendable_points(cur, member, now)
        tenders = await own_tenders(connection, member)
        await cur.execute(
            "SELECT id, plan, plan_version, fee_eff_fen, used_fen, expires_at, task_target, task_done FROM membership"
            " WHERE member = %(member)s AND state = 'ACTIVE' AND expires_at > %(now)s"
            " AND (%(plan)s::text IS NULL OR plan = %(plan)s) ORDER BY expires_at, id LIMIT 1",
            {"member": member, "now": now, "plan": plan},
        )
        row = await cur.fetchone()
        if row is None:
            return MemberView(member, name, None, permitted, points, tenders)
        terms = await load_plan(cur, row[1], row[2])
        taken = await quota_taken(cur, row[0], now)
        left = tuple(
            BenefitLeft(BenefitId(benefit.id), max(benefit.quota - taken.get(benefit.id, 0), 0))
            for benefit in terms.benefits
        )
        view = MembershipView(row[0], row[1], row[2], row[3], row[4], left, row[5], row[6], row[7])
        return MemberView(member, name, view, permitted, points, tenders)


async def quota_taken(
    cur: AsyncCursor[Any], membership: str, now: datetime, but_not: tuple[str, ...] = ()
) -> dict[str, int]:
    """Places taken per benefit at business time `now`: REGULAR and LATE uses not wholly reversed, open reservations of
    others, and what open leases have left.
    """
    await cur.execute(
        "SELECT benefit, sum(places)::int FROM ("
        " SELECT benefit, 1 AS places FROM usage WHERE membership = %(membership)s AND class IN ('REGULAR', 'LATE')"
        " AND reversed_fen < fen"
        " UNION ALL SELECT benefit, 1 FROM reservation WHERE membership = %(membership)s AND state = 'open'"
        " AND NOT usage = ANY(%(but_not)s)"
        " UNION ALL SELECT benefit, uses - used FROM lease WHERE membership = %(membership)s AND state = 'open'"
        " AND lapses_at > %(now)s) AS taken GROUP BY benefit",
        {"membership": membership, "but_not": list(but_not), "now": now},
    )
    return {row[0]: row[1] for row in await cur.fetchall()}


async def member_with_tail(cur: AsyncCursor[Any], member: str, tail: str) -> MemberId | None:
    """The member, if their phone ends so; None: it does not, or is not known."""
    await cur.execute("SELECT id FROM member WHERE id = %s AND phone_tail = %s AND phone_tail <> ''", (member, tail))
    row = await cur.fetchone()
    return None if row is None else MemberId(row[0])


async def find_member(cur: AsyncCursor[Any], chain: ChainId, by: str, value: str) -> MemberId | None:
    """The member of the chain by `phone` (its digest), `card` (the member's number) or `code` (that, or the name
    under which the payment provider knows the customer); None: nobody.
    """
    where = {"phone": "phone_sha256 = %(value)s", "card": "id = %(value)s"}.get(
        by, "(id = %(value)s OR (provider_user <> '' AND provider_user = %(value)s))"
    )
    await cur.execute(
        f"SELECT id FROM member WHERE chain = %(chain)s AND {where} ORDER BY id LIMIT 1",
        {"chain": chain, "value": value},
    )
    row = await cur.fetchone()
    return None if row is None else MemberId(row[0])


async def member_ids_by_tail(connection: AsyncConnection[Any], chain: ChainId, tail: str) -> list[MemberId]:
    """Members of the chain whose phone ends in `tail`, for digits after an unsure face."""
    cur = await connection.execute(
        "SELECT id FROM member WHERE chain = %s AND phone_tail = %s ORDER BY id LIMIT %s",
        (chain, tail, MEMBERS_BY_TAIL_MAX),
    )
    return [MemberId(row[0]) for row in await cur.fetchall()]
