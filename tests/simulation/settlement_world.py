"""The memberships that schedules of settlement are played on, as rows in memory."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import product
from typing import Any

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from models.domain.charging import task_done
from models.domain.ids import LegalEntityId, MemberId, MembershipId, StoreId, derived_id
from models.domain.ledger import Place, hold_placed
from models.domain.membership import HoldState, State
from models.domain.payments import Failed, PayResult, Succeeded
from models.domain.plans import Plan, plan_from_dict
from models.domain.settlement import CallState, Standing
from models.tables.credit_records import Agreement
from tests.simulation import settlement_rows as rows
from tests.simulation.settlement_provider import BYSTANDER, SUBJECT, Does
from tests.simulation.settlement_schedules import (
    CHAIN,
    FEE_FEN,
    NOW,
    REGION,
    USES,
    Beside,
    Committed,
    Profile,
    Schedule,
    play,
)
from tests.simulation.settlement_uses import PAID_FEN, reverse, told

OWNERS = {"s-own": LegalEntityId("chain"), "s-north": LegalEntityId("north")}
PROVIDER = "alipay"
REVERSED_BY = "v-1"
PLAN: dict[str, Any] = {
    "id": "light-crash",
    "version": 1,
    "name": {"zh": "十元轻会员", "en": "Light membership 10"},
    "owner_entity": "chain",
    "rule": "FEE_MIN",
    "fee_fen": FEE_FEN,
    "benefits": [
        {"id": "coupon8", "name": {"zh": "券", "en": "coupon"}, "kind": "fixed_coupon", "value_fen": 800, "quota": 5}
    ],
    "period_days": 30,
    "grace_days": 1,
    "cutoff_hour": 0,
    "zone": "Asia/Shanghai",
    "dunning_attempts": 1,
    "dunning_days": [1],
    "on_merchant_cancel": "prorate",
    "guarantees": ["huabei_hold", "sesame_credit"],
    "enrol_again_after_days": 0,
    "funder_entity": "chain",
}
PLANS: dict[Profile, dict[str, Any]] = {
    Profile.SHARED: {**PLAN, "id": "light-shared", "fee_shares": "usage"},
    Profile.TASK_KEPT: {**PLAN, "id": "light-times", "rule": "TASK_TIMES", "task_target": 2},
    Profile.DUNNED_TWICE: {**PLAN, "id": "light-dunned", "dunning_attempts": 2, "dunning_days": [1, 3]},
    Profile.TASK_MISSED: {**PLAN, "id": "light-amount", "rule": "TASK_AMOUNT", "task_target": 3 * PAID_FEN},
}
"""The plans that are not PLAN."""
NOT_HELD = {Profile.FREE, Profile.CREDIT}


def standing(id_: str, profile: Profile, plan: Plan) -> Standing:
    """An ACTIVE membership that is due for its cutoff."""
    hold_fen = 0 if profile in NOT_HELD else FEE_FEN
    return Standing(
        id=MembershipId(id_), enrol_key=f"e-{id_}", member=MemberId(f"m-{id_}"), chain=CHAIN, region=REGION,
        store=StoreId("s-own"), terminal="t-1", session="", plan=plan, owner=LegalEntityId("chain"), generation=1,
        state=State.ACTIVE, fee_fen=FEE_FEN, fee_eff_fen=FEE_FEN, used_fen=sum(fen for _, fen in USES[profile]),
        hold_order=f"H{id_}" if hold_fen else "", hold_no=f"A{id_}" if hold_fen else "", hold_fen=hold_fen,
        hold_state=HoldState.HELD if hold_fen else HoldState.NONE, enrolled_at=NOW - timedelta(days=40),
        expires_at=NOW - timedelta(days=9), cutoff_at=NOW - timedelta(days=8), charge_fen=None, branch=None,
        paid_fen=0, refunded_fen=0, receivable_fen=0, captured_number="", attempts=0,
        guarantee="huabei_hold" if hold_fen else "sesame_credit", task_target=plan.task_target,
        task_done=task_done(plan, [PAID_FEN] * len(USES[profile])),
    )  # fmt: skip


def planted(profile: Profile) -> list[tuple[Standing, list[rows.UseRow]]]:
    """The subject, and the bystander beside it."""
    both = []
    for id_, one in ((SUBJECT, profile), (BYSTANDER, Profile.FEE)):
        uses = [
            rows.UseRow(f"u{n}-{id_}", id_, Place(StoreId(store), OWNERS[store]), fen)
            for n, (store, fen) in enumerate(USES[one])
        ]
        both.append((standing(id_, one, plan_from_dict(PLANS.get(one, PLAN))), uses))
    return both


def agreement_of(one: Standing) -> Agreement:
    """Signed, and over at the provider: it said under which number it is settled."""
    return Agreement(one.id, f"A{one.id}", "", f"N{one.id}", "lin", str(one.id), one.expires_at)


class MemoryWorld:
    """See World."""

    def __init__(self) -> None:
        self.books = rows.Books()

    def pool(self) -> AsyncConnectionPool[AsyncConnection[Any]]:
        return self.books.pool()

    async def plant(self, profile: Profile) -> dict[str, int]:
        holds = {}
        for one, uses in planted(profile):
            self.books.rows["membership"][one.id] = rows.MembershipRow(one)
            self.books.rows["use"].update({use.id: use for use in uses})
            if one.id == SUBJECT and profile is Profile.CREDIT:
                self.books.rows["agreement"][one.id] = (agreement_of(one), told(uses))
            if one.hold_fen:
                holds[one.hold_no] = one.hold_fen
                txn = hold_placed(
                    one.hold_order, entity=one.owner, provider=PROVIDER, hold_fen=one.hold_fen,
                    business_date=one.business_date(one.enrolled_at),
                )  # fmt: skip
                self.books.rows["txn"][txn.id] = txn
        return holds

    async def reverse(self, fen: int, now: datetime) -> None:
        use = max(use.id for use in self.books.uses() if use.membership == SUBJECT)
        async with self.books.connection() as session:
            await reverse(session, derived_id(REVERSED_BY, use), use, fen, now, PROVIDER)

    async def tell(self, number: str) -> bool:
        call = self.books.rows["call"].get(number)
        if call is None or call.state is not CallState.POSTED or not isinstance(call.answer, Failed):
            return False
        taken = Succeeded(PayResult(call.fen, call.fen, call.fen, call.fen, (), f"T{number}"))
        self.books.rows["call"][number] = replace(call, state=CallState.ANSWERED, answer=taken)
        return True

    async def state(self) -> Committed:
        return Committed(
            {row.standing.id: row.standing for row in self.books.memberships()},
            dict(self.books.rows["call"]),
            dict(self.books.rows["txn"]),
        )

    async def blocked(self) -> int:
        return self.books.blocked()

    async def totals_agree(self, batch_at: datetime) -> bool:
        async with self.books.connection() as session:
            return (await rows.control_totals(session, CHAIN, REGION, batch_at)).agree


# ---------------------------------------------------------------- all of them

UNCLEAR = (Does.EFFECT_UNHEARD, Does.EFFECT_UNCLEAR, Does.NO_EFFECT, Does.ARRIVES_LATE, Does.PENDS_THEN_SUCCEEDS)
SINGLE = tuple((one,) for one in Does)
TOLD = tuple(
    product(
        (Does.FAILS_AND_COLLECTS_TOLD_MEANWHILE, Does.FAILS_AND_COLLECTS_TOLD_LAST),
        (Does.PENDS_THEN_FAILS, Does.EFFECT_UNHEARD),
    )
)
"""Collected after all, which is told while the next attempt is open, or when that has failed as well."""
SCRIPTS = (
    *SINGLE,
    *product((Does.FAILS, Does.PENDS_THEN_FAILS), Does),  # the dunning attempt
    *TOLD,
    *product((Does.SUCCEEDS,), UNCLEAR),  # the refund
    *product((Does.FAILS,), (Does.FAILS,), (Does.FAILS, Does.PENDS_THEN_SUCCEEDS)),  # the second dunning attempt
)
"""What the provider does with the first request about the subject, and with the second."""
POINTS = 45
"""So far a drawn schedule's points go: few schedules are longer."""


async def enumerated() -> AsyncIterator[Schedule]:
    """Every point of every script, by itself: a crash, a reversal, a second worker; then a crash with a reversal.

    How many points there are is what the schedule without any of them has.
    """
    points: dict[Schedule, range] = {}
    for profile, script in product(Profile, SCRIPTS):
        plain = Schedule(profile, script)
        points[plain] = range((await play(plain, MemoryWorld())).points)
        for point in points[plain]:
            yield replace(plain, crash=point)
            yield replace(plain, crash=point, early=True)
            for beside in list(Beside)[1:]:
                yield replace(plain, beside=beside, beside_at=point)
            if USES[profile]:
                yield replace(plain, reversal=point)
                yield replace(plain, reversal=point, back_fen=1)
    for plain, of_it in points.items():
        if plain.script in (*SINGLE, *TOLD) and USES[plain.profile]:
            for crash, reversal in product(of_it, of_it):
                yield replace(plain, crash=crash, reversal=reversal)


def drawn(rng: random.Random) -> Schedule:
    """Anything together with anything."""
    return Schedule(
        profile=rng.choice(list(Profile)),
        script=rng.choice(SCRIPTS),
        crash=rng.choice([None, rng.randrange(POINTS), rng.randrange(POINTS)]),
        reversal=rng.choice([None, rng.randrange(POINTS)]),
        back_fen=rng.choice([1, 299, 800]),
        beside=rng.choice(list(Beside)),
        beside_at=rng.randrange(POINTS),
        early=rng.random() < 0.5,
        chunk=rng.choice([1, 10]),
    )
