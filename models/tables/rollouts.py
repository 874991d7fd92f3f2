"""Rollouts: what was frozen, its journal, what gates decided and on which evidence. What was written stays.

A rollout is the fold of its journal; the row beside it carries only what is asked of many at once. Appending is
compare-and-set on `entries`: of two drivers that saw the same, one writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb
from sqlalchemy import BigInteger, CheckConstraint, Index, text
from sqlmodel import Field, SQLModel

from models.domain.errors import Refused
from models.domain.evidence import Outlook, Verdict, verdict_of
from models.domain.ids import ChainId, StoreId
from models.domain.rollout import Artefact, PersonId, RolloutId, RolloutPolicy, RolloutState, Selector
from models.domain.rollout_gate import Counts, Gate
from models.domain.rollout_journal import (
    Attached,
    Entry,
    Rollout,
    RolloutMoved,
    StageMoved,
    TailJoined,
    TargetMoved,
    drafted,
    folded,
)
from models.domain.rollout_plan import FrozenPlan
from models.tables.base import document, instant

Connection = AsyncConnection[Any]
ACTIVE = tuple(str(state) for state in RolloutState if state.active and state is not RolloutState.DRAFT)
"""May change terminals; a draft does not yet."""
_ACTIVE_SQL = "state IN ({})".format(", ".join(f"'{state}'" for state in ACTIVE))
START_LOCK = 0x524F4C4C  # "ROLL"


class RolloutRow(SQLModel, table=True):
    """One rollout as it was frozen; `state` and `entries` follow its journal. `scope`: the selector in one word."""

    __tablename__ = "rollout"
    __table_args__ = (
        Index(
            "rollout_active",
            "chain",
            "artefact_key",
            "scope",
            unique=True,
            postgresql_where=text(_ACTIVE_SQL),
        ),
        Index("rollout_created", "created_at"),
        CheckConstraint("entries >= 0", name="rollout_formed"),
    )
    id: str = Field(primary_key=True)
    chain: str
    artefact_key: str
    scope: str
    artefact: dict[str, object] = document()
    selector: dict[str, object] = document()
    policy: dict[str, object] = document()
    plan: dict[str, object] = document()
    plan_sha256: str
    outlooks: list[object] = document()
    """For each stage: its controls and what it will see, registered before the start; null without evidence."""
    author: str
    state: str
    entries: int = Field(sa_type=BigInteger)
    created_at: datetime = instant()
    changed_at: datetime = instant()


class RolloutJournalRow(SQLModel, table=True):
    """One entry; never changed, never deleted."""

    __tablename__ = "rollout_journal"
    __table_args__ = (Index("rollout_journal_target", "rollout", "target", "n"),)
    rollout: str = Field(primary_key=True, foreign_key="rollout.id")
    n: int = Field(primary_key=True, sa_type=BigInteger)
    at: datetime = instant()
    kind: str
    target: str = ""
    doc: dict[str, object] = document()


class RolloutDecisionRow(SQLModel, table=True):
    """What a gate decided, with the counts and the evidence that it saw; in the commit of the journal that follows."""

    __tablename__ = "rollout_decision"
    rollout: str = Field(primary_key=True, foreign_key="rollout.id")
    n: int = Field(primary_key=True, sa_type=BigInteger)
    """The journal's length after its commit."""
    stage: int = Field(primary_key=True)
    at: datetime = instant()
    way: str
    code: str
    gate: dict[str, object] = document()
    counts: dict[str, object] = document()
    verdict: dict[str, object] | None = document(nullable=True)


class RolloutVerdictRow(SQLModel, table=True):
    """The evidence of one look, computed once."""

    __tablename__ = "rollout_verdict"
    rollout: str = Field(primary_key=True, foreign_key="rollout.id")
    stage: int = Field(primary_key=True)
    look: int = Field(primary_key=True)
    at: datetime = instant()
    verdict: dict[str, object] = document()


# ---------------------------------------------------------------- values


@dataclass(frozen=True, slots=True)
class StageOutlook:
    """What was registered for a stage with evidence: its controls, and what it will see. `short`: stores that found
    fewer controls than the rule asks for."""

    controls: tuple[StoreId, ...]
    short: tuple[StoreId, ...]
    outlook: Outlook | None


@dataclass(frozen=True, slots=True)
class Header:
    """A rollout as lists show it. `entries`: the length of its journal."""

    id: RolloutId
    chain: ChainId
    scope: str
    artefact_key: str
    state: RolloutState
    author: PersonId
    entries: int
    created_at: datetime
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Decision:
    """One gate's word, as it is kept."""

    stage: int
    at: datetime
    gate: Gate
    counts: Counts
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """One look of a stage that was spent, with its evidence."""

    stage: int
    at: datetime
    verdict: Verdict


_KINDS: dict[str, type[Any]] = {
    "rollout": RolloutMoved,
    "stage": StageMoved,
    "target": TargetMoved,
    "attached": Attached,
    "joined": TailJoined,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_HEADER = "id, chain, scope, artefact_key, state, author, entries, created_at, changed_at"


# ---------------------------------------------------------------- writing


async def insert_draft(
    conn: Connection, rollout: Rollout, scope: str, outlooks: Sequence[StageOutlook | None], at: datetime
) -> bool:
    """Keep a draft; False: this id is there already."""
    cursor = await conn.execute(
        """INSERT INTO rollout (id, chain, artefact_key, scope, artefact, selector, policy, plan, plan_sha256, outlooks,
             author, state, entries, created_at, changed_at)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 0, %s, %s) ON CONFLICT (id) DO NOTHING""",
        (
            rollout.id,
            rollout.chain,
            rollout.artefact.key,
            scope,
            _jsonb(rollout.artefact),
            _jsonb(rollout.selector),
            _jsonb(rollout.policy),
            _jsonb(rollout.plan),
            rollout.plan.sha256,
            _jsonb(list(outlooks)),
            rollout.author,
            str(rollout.state),
            at,
            at,
        ),
    )
    return cursor.rowcount == 1


async def append(
    conn: Connection,
    before: Rollout,
    after: Rollout,
    entries: Sequence[Entry],
    decisions: Sequence[Decision],
    at: datetime,
) -> bool:
    """Write one tick or command inside the caller's transaction; False: somebody else wrote since `before` was read.

    Raises Refused `rollout_active` when another one with the same key and scope is active.
    """
    try:
        cursor = await conn.execute(
            "UPDATE rollout SET entries = %s, state = %s, changed_at = %s WHERE id = %s AND entries = %s",
            (after.entries, str(after.state), at, before.id, before.entries),
        )
    except UniqueViolation as error:
        raise Refused(
            "rollout_active",
            f"another rollout of {before.artefact.key} is active in the same scope",
            "see `storeops rollout status`; end that one first",
        ) from error
    if cursor.rowcount != 1:
        return False
    numbers = range(before.entries + 1, before.entries + len(entries) + 1)
    await conn.execute(
        """INSERT INTO rollout_journal (rollout, n, at, kind, target, doc)
           SELECT %s, n, at, kind, target, doc::jsonb
           FROM unnest(%s::bigint[], %s::timestamptz[], %s::text[], %s::text[], %s::text[])
             AS e (n, at, kind, target, doc)""",
        (
            before.id,
            list(numbers),
            [one.at for one in entries],
            [_NAMES[type(one)] for one in entries],
            [one.target if isinstance(one, TargetMoved) else "" for one in entries],
            [msgspec.json.encode(one).decode() for one in entries],
        ),
    )
    for one in decisions:
        await conn.execute(
            "INSERT INTO rollout_decision VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (
                before.id,
                after.entries,
                one.stage,
                one.at,
                str(one.gate.way),
                str(one.gate.code),
                _jsonb(one.gate),
                _jsonb(one.counts),
                None if one.verdict is None else _jsonb(one.verdict.document()),
            ),
        )
    return True


async def stands_at(conn: Connection, rollout: RolloutId, entries: int) -> bool:
    """True while the journal is as long as that; until the caller's transaction ends nobody writes more of it."""
    cursor = await conn.execute("SELECT 1 FROM rollout WHERE id = %s AND entries = %s FOR SHARE", (rollout, entries))
    return await cursor.fetchone() is not None


async def lock_starts(conn: Connection, chain: ChainId) -> None:
    """Starts of one chain wait for one another, until the caller's transaction ends."""
    await conn.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (START_LOCK, chain))


async def save_verdict(conn: Connection, rollout: RolloutId, stage: int, verdict: Verdict, at: datetime) -> Verdict:
    """Spend a look: keep its evidence. Returns what is kept: the first one counts, whoever computed it."""
    await conn.execute(
        "INSERT INTO rollout_verdict VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (rollout, stage, verdict.look, at, _jsonb(verdict.document())),
    )
    return (await load_verdicts(conn, rollout))[stage]


# ---------------------------------------------------------------- reading


async def list_headers(
    conn: Connection, chains: Sequence[str], *, active: bool = False, before: str = "", limit: int = 100
) -> list[Header]:
    """The newest first; `before`: the last id of the page before."""
    cursor = await conn.execute(
        f"""SELECT {_HEADER} FROM rollout WHERE chain = ANY(%(chains)s) {f"AND {_ACTIVE_SQL}" if active else ""}
            AND (%(before)s = '' OR (created_at, id) < (SELECT created_at, id FROM rollout WHERE id = %(before)s))
            ORDER BY created_at DESC, id DESC LIMIT %(limit)s""",
        {"chains": list(chains), "before": before, "limit": limit},
    )
    return [_header(row) for row in await cursor.fetchall()]


async def active_artefacts(conn: Connection, chain: ChainId) -> list[tuple[RolloutId, Artefact]]:
    """What every active rollout of a chain changes, in no order."""
    cursor = await conn.execute(f"SELECT id, artefact::text FROM rollout WHERE chain = %s AND {_ACTIVE_SQL}", (chain,))
    return [(RolloutId(number), msgspec.json.decode(text, type=Artefact)) for number, text in await cursor.fetchall()]


async def load_header(conn: Connection, rollout: RolloutId) -> Header:
    """Raises Refused `unknown_rollout`."""
    cursor = await conn.execute(f"SELECT {_HEADER} FROM rollout WHERE id = %s", (rollout,))
    row = await cursor.fetchone()
    if row is None:
        raise _unknown(rollout)
    return _header(row)


async def load_rollout(conn: Connection, rollout: RolloutId) -> Rollout:
    """The fold of the whole journal. Raises Refused `unknown_rollout`."""
    cursor = await conn.execute(
        "SELECT chain, artefact::text, selector::text, policy::text, plan::text, author FROM rollout WHERE id = %s",
        (rollout,),
    )
    row = await cursor.fetchone()
    if row is None:
        raise _unknown(rollout)
    draft = drafted(
        rollout,
        ChainId(row[0]),
        msgspec.json.decode(row[1], type=Artefact),
        msgspec.json.decode(row[2], type=Selector),
        msgspec.json.decode(row[3], type=RolloutPolicy),
        msgspec.json.decode(row[4], type=FrozenPlan),
        PersonId(row[5]),
    )
    return await caught_up(conn, draft)


async def caught_up(conn: Connection, rollout: Rollout) -> Rollout:
    """With the entries that were written since."""
    return folded(rollout, [entry for _, entry in await journal(conn, rollout.id, since=rollout.entries)])


async def journal(
    conn: Connection, rollout: RolloutId, *, since: int = 0, target: str | None = None, limit: int | None = None
) -> list[tuple[int, Entry]]:
    """Entries after number `since` with their numbers; of one terminal when `target` is given, "" for none of any."""
    about = "" if target is None else "AND target = %(target)s"
    cursor = await conn.execute(
        f"""SELECT n, kind, doc::text FROM rollout_journal
            WHERE rollout = %(rollout)s AND n > %(since)s {about} ORDER BY n LIMIT %(limit)s""",
        {"rollout": rollout, "since": since, "target": target, "limit": limit},
    )
    return [(n, msgspec.json.decode(doc, type=_KINDS[kind])) for n, kind, doc in await cursor.fetchall()]


async def load_outlooks(conn: Connection, rollout: RolloutId) -> tuple[StageOutlook | None, ...]:
    """By stage. Raises Refused `unknown_rollout`."""
    cursor = await conn.execute("SELECT outlooks::text FROM rollout WHERE id = %s", (rollout,))
    row = await cursor.fetchone()
    if row is None:
        raise _unknown(rollout)
    return tuple(msgspec.json.decode(row[0], type=list[StageOutlook | None]))


async def load_verdicts(conn: Connection, rollout: RolloutId) -> dict[int, Verdict]:
    """The latest look of each stage that had one."""
    cursor = await conn.execute(
        "SELECT DISTINCT ON (stage) stage, verdict FROM rollout_verdict WHERE rollout = %s ORDER BY stage, look DESC",
        (rollout,),
    )
    return {stage: verdict_of(doc) for stage, doc in await cursor.fetchall()}


async def looks(conn: Connection, rollout: RolloutId) -> list[Look]:
    """Every look that was spent, by stage and look."""
    cursor = await conn.execute(
        "SELECT stage, at, verdict FROM rollout_verdict WHERE rollout = %s ORDER BY stage, look", (rollout,)
    )
    return [Look(stage, at, verdict_of(doc)) for stage, at, doc in await cursor.fetchall()]


async def decisions(conn: Connection, rollout: RolloutId) -> list[Decision]:
    """In their order."""
    cursor = await conn.execute(
        "SELECT stage, at, gate::text, counts::text, verdict FROM rollout_decision WHERE rollout = %s"
        " ORDER BY n, stage",
        (rollout,),
    )
    return [
        Decision(
            stage,
            at,
            msgspec.json.decode(gate, type=Gate),
            msgspec.json.decode(counts, type=Counts),
            None if verdict is None else verdict_of(verdict),
        )
        for stage, at, gate, counts, verdict in await cursor.fetchall()
    ]


# ---------------------------------------------------------------- small things


def _jsonb(value: object) -> Jsonb:
    return Jsonb(msgspec.to_builtins(value))


def _unknown(rollout: str) -> Refused:
    return Refused("unknown_rollout", f"no rollout {rollout!r}", "see `storeops rollout status`")


def _header(row: Sequence[Any]) -> Header:
    number, chain, scope, key, state, author, entries, created_at, changed_at = row
    return Header(
        RolloutId(number),
        ChainId(chain),
        scope,
        key,
        RolloutState(state),
        PersonId(author),
        entries,
        created_at,
        changed_at,
    )
