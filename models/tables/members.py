"""Members, light memberships, reservations, usage lines and their reversals (money rules: light membership)."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, Column, Computed, DateTime, Index, String, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from models.tables.base import document, fen_column, instant, maybe_fen_column, maybe_instant

DUE_AT = """CASE state::text WHEN 'ACTIVE'::text THEN expires_at WHEN 'SUSPENDED'::text THEN expires_at
    WHEN 'EXPIRED'::text THEN cutoff_at ELSE NULL::timestamp with time zone END"""
"""When settlement moves a membership on: at its expiry, then at its cutoff; null once its charge is fixed."""
STAGE = """CASE WHEN state::text = 'ADMITTING'::text OR state::text = 'HOLD_PENDING'::text THEN 'pending'::text
    WHEN state::text = 'ACTIVE'::text OR state::text = 'SUSPENDED'::text THEN 'live'::text
    WHEN state::text = 'DUNNING'::text OR state::text = 'WRITTEN_OFF'::text THEN 'owing'::text
    WHEN state::text = 'PARKED'::text THEN 'parked'::text
    WHEN state::text = 'CLOSED'::text AND renews THEN 'renewal'::text ELSE NULL::text END"""
"""What the indexes say of a state. It is the same while settlement closes what was due, so that those rewrites of the
row touch no index at all; both texts are as PostgreSQL writes them, for the comparison with the schema.
"""

LIVE_STAGES = "stage IN ('pending', 'live')"
SHORT_STAGES = "stage IN ('pending', 'owing', 'parked', 'renewal')"


class PlanRow(SQLModel, table=True):
    """An immutable version of a plan, as configured."""

    __tablename__ = "plan"
    id: str = Field(primary_key=True)
    version: int = Field(primary_key=True)
    chain: str
    owner: str
    doc: dict[str, object] = document()


class MemberRow(SQLModel, table=True):
    """A member of a chain. `phone_sha256` finds them again; only the last four digits stand in clear."""

    __tablename__ = "member"
    __table_args__ = (UniqueConstraint("chain", "phone_sha256"), Index("member_tail", "chain", "phone_tail"))
    id: str = Field(primary_key=True)
    chain: str
    region: str
    home_store: str
    name: str = ""
    phone_sha256: str | None = None
    phone_tail: str = ""
    provider_user: str = ""
    joined_at: datetime = instant()


class MembershipRow(SQLModel, table=True):
    """One generation of a light membership. Row-locked by reservations, cancels and settlement alike.

    `used_fen` is u: REGULAR uses net of reversals, kept by the statements that write usage under the row lock.
    `paid_fen` is what was captured less what was decided to be refunded (`refunded_fen`). `state_until` runs on the
    wall clock in ADMITTING and HOLD_PENDING; every other instant is business time. `hold_order` is our number of the
    freeze. `task_done` is the progress towards `task_target` (purchases, or fen; null: no task), kept like u.
    `renews`: the next generation opens when this one expires. It is the `cycle`-th period in an unbroken row that
    began at `first_at` (null: at its own enrolment). `provider` holds and collects: a payment provider, or `balance`.
    """

    __tablename__ = "membership"
    __table_args__ = (
        Index("membership_due", "chain", "region", "due_at", "id", postgresql_where=text("due_at IS NOT NULL")),
        Index("membership_stage", "chain", "region", "stage", postgresql_where=text(SHORT_STAGES)),
        Index("membership_renews", "chain", "region", "expires_at", postgresql_where=text("renews")),
        Index("membership_batch", "chain", "region", "settled_at"),
        Index("membership_member", "member"),
        UniqueConstraint("enrol_key"),
        # One live membership per member and plan, whoever asks at the same moment.
        Index("membership_live", "member", "plan", unique=True, postgresql_where=text(LIVE_STAGES)),
        CheckConstraint("paid_fen >= 0 AND paid_fen <= fee_fen AND refunded_fen >= 0", name="member_never_pays_more"),
    )
    id: str = Field(primary_key=True)
    enrol_key: str
    member: str = Field(foreign_key="member.id")
    chain: str
    region: str
    store: str
    terminal: str
    session: str = ""
    clerk: str | None = None
    plan: str
    plan_version: int
    owner: str
    generation: int = 1
    state: str
    fee_fen: int = fen_column()
    fee_eff_fen: int = fen_column()
    used_fen: int = fen_column(0)
    guarantee: str
    hold_order: str = ""
    hold_no: str = ""
    hold_fen: int = fen_column(0)
    hold_state: str = "none"
    enrolled_at: datetime = instant()
    expires_at: datetime = instant()
    cutoff_at: datetime = instant()
    state_until: datetime | None = maybe_instant()
    cancelled_by: str = ""
    cancelled_at: datetime | None = maybe_instant()
    charge_fen: int | None = maybe_fen_column()
    branch: str | None = None
    settled_at: datetime | None = maybe_instant()
    paid_fen: int = fen_column(0)
    refunded_fen: int = fen_column(0)
    receivable_fen: int = fen_column(0)
    captured_number: str = ""
    attempts: int = 0
    parked_why: str = ""
    task_target: int | None = maybe_fen_column()
    task_done: int = fen_column(0, sa_column_kwargs={"server_default": "0"})
    renews: bool = Field(default=False, sa_column_kwargs={"server_default": "false"})
    first_at: datetime | None = maybe_instant()
    cycle: int = Field(default=1, sa_column_kwargs={"server_default": "1"})
    provider: str = Field(default="alipay", sa_column_kwargs={"server_default": "alipay"})
    due_at: datetime | None = Field(
        default=None, sa_column=Column(DateTime(timezone=True), Computed(DUE_AT, persisted=True), nullable=True)
    )
    stage: str | None = Field(default=None, sa_column=Column(String, Computed(STAGE, persisted=True), nullable=True))


class MembershipRequestRow(SQLModel, table=True):
    """What somebody asked to be done with a membership, under a number of theirs: once, however often it is asked.

    `state`: pending (a freeze is open, until `state_until` of the wall clock), releasing (done; `release_no` goes
    back), done, refused (`code` says why). `hold_order` is our number of the new freeze, at `hold_provider`; the old
    hold goes back at `release_provider`.
    """

    __tablename__ = "membership_request"
    __table_args__ = (
        Index("membership_request_membership", "membership"),
        Index(
            "membership_request_open",
            "chain",
            "region",
            "state_until",
            postgresql_where=text("state IN ('pending', 'releasing')"),
        ),
    )
    number: str = Field(primary_key=True)
    membership: str = Field(foreign_key="membership.id")
    chain: str
    region: str
    owner: str
    action: dict[str, object] = document()
    by: str
    state: str
    code: str = ""
    hold_order: str = ""
    hold_no: str = ""
    hold_fen: int = fen_column(0)
    code_text: str = ""
    release_order: str = ""
    release_no: str = ""
    release_fen: int = fen_column(0)
    hold_provider: str = Field(default="alipay", sa_column_kwargs={"server_default": "alipay"})
    release_provider: str = Field(default="alipay", sa_column_kwargs={"server_default": "alipay"})
    made_at: datetime = instant()
    state_until: datetime | None = maybe_instant()
    done_at: datetime | None = maybe_instant()


class ReservationRow(SQLModel, table=True):
    """A benefit reserved for one quote, until its wall expiry; resolved by posting or releasing."""

    __tablename__ = "reservation"
    __table_args__ = (Index("reservation_open", "membership", "state"),)
    usage: str = Field(primary_key=True)
    membership: str = Field(foreign_key="membership.id")
    benefit: str
    fen: int = fen_column()
    session: str
    store: str
    state: str = "open"
    class_: str = Field(sa_column_kwargs={"name": "class"})
    biz_time: datetime = instant()
    expires_at: datetime = instant()


class LeaseRow(SQLModel, table=True):
    """Uses of a benefit kept for a store that goes offline; changed only under the membership's row lock.

    `used` of `uses` came back as usage lines. While it is open and its sync window is not over, the rest holds places
    of the quota and the cutoff waits. All instants are business time.
    """

    __tablename__ = "lease"
    __table_args__ = (
        Index("lease_open", "membership", "state"),
        CheckConstraint("used >= 0 AND used <= uses", name="lease_gives_no_more"),
    )
    id: str = Field(primary_key=True)
    membership: str = Field(foreign_key="membership.id")
    benefit: str
    store: str
    terminal: str
    session: str
    uses: int
    used: int = 0
    state: str = "open"
    granted_at: datetime = instant()
    until: datetime = instant()
    lapses_at: datetime = instant()
    ended_at: datetime | None = maybe_instant()


class UsageRow(SQLModel, table=True):
    """One use of a benefit, classed once (REGULAR, LATE, OVERUSE, REFUSED)."""

    __tablename__ = "usage"
    __table_args__ = (Index("usage_membership", "membership"), Index("usage_sale", "sale"))
    id: str = Field(primary_key=True)
    membership: str = Field(foreign_key="membership.id")
    benefit: str
    fen: int = fen_column()
    class_: str = Field(sa_column_kwargs={"name": "class"})
    paid_fen: int = fen_column()
    reversed_fen: int = fen_column(0)
    biz_time: datetime = instant()
    received_at: datetime = instant()
    entity: str
    store: str
    terminal: str
    sale: str
    lease: str | None = None
    seq: int = Field(default=0, sa_type=BigInteger)
    clerk: str | None = None


class ReversalRow(SQLModel, table=True):
    """Part or all of a use taken back. One that arrives before its use is kept and born with it."""

    __tablename__ = "usage_reversal"
    __table_args__ = (Index("usage_reversal_usage", "usage"),)
    id: str = Field(primary_key=True)
    usage: str
    fen: int = fen_column()
    at: datetime = instant()


class SettlementCallRow(SQLModel, table=True):
    """One call to the provider for one membership: capture, release or refund; its number is unique for ever."""

    __tablename__ = "settlement_call"
    __table_args__ = (
        Index(
            "settlement_call_open",
            "chain",
            "region",
            "not_before",
            "request_number",
            postgresql_where=text("state <> 'POSTED'"),
        ),
        Index("settlement_call_membership", "membership"),
    )
    request_number: str = Field(primary_key=True)
    membership: str
    """A trigger holds it to a membership that exists, once per statement: a foreign key would ask once per row."""
    chain: str
    region: str
    owner: str
    kind: str
    fen: int = fen_column()
    state: str = "NEW"
    attempt: int = 0
    tries: int = 0
    not_before: datetime = instant()
    lease_until: datetime | None = maybe_instant()
    answer: dict[str, object] | None = document(nullable=True)
    answered_at: datetime | None = maybe_instant()
    posted_at: datetime | None = maybe_instant()
