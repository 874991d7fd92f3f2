"""What a plan would have done to receipts of the past: they are replayed through the rules that charge real members.

Pricing chooses the benefits, the membership's state machine classes and settles them, the ledger says at whose cost.
Only one thing is assumed, and named: who of the customers would have joined (`Audience`). A replay does not say what
people would have bought because of a plan.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from models.domain import ledger
from models.domain.benefits import holds_at
from models.domain.calendar import business_date, require_instant
from models.domain.charging import Branch, UseClass
from models.domain.errors import Refused
from models.domain.ids import LegalEntityId, MembershipId, SaleId, StoreId, UsageId
from models.domain.ledger import Place, StoreShare, Transaction
from models.domain.membership import (
    CreditAnswer,
    CreditAnswered,
    CutOff,
    Expired,
    HoldFrozen,
    Membership,
    ProviderAnswer,
    ProviderAnswered,
    State,
    UseReported,
    apply,
    apply_for,
)
from models.domain.membership_guarantee import renewed
from models.domain.plans import FeeShares, Plan, Rule
from models.domain.pricing import BasketLine, LightOffer, Quote, price

WHOLE_BASIS_POINTS = 10_000
PROVIDER = "provider"
COUNTER = "counter"
"""The channel of every receipt of a store (models.domain.benefits.Scope)."""


class Joins(StrEnum):
    """When a customer is asked: at the first receipt, or at the first that a benefit would make cheaper."""

    FIRST = "first"
    SAVING = "saving"


@dataclass(frozen=True, slots=True)
class Audience:
    """Who joins: `take_up_bp` basis points of the customers, the same ones for the same seed."""

    joins: Joins = Joins.SAVING
    take_up_bp: int = WHOLE_BASIS_POINTS
    seed: int = 0

    def has(self, customer: str) -> bool:
        """True when this customer says yes, once asked."""
        digest = hashlib.sha256(f"{self.seed}:{customer}".encode()).digest()
        return int.from_bytes(digest[:8], "big") % WHOLE_BASIS_POINTS < self.take_up_bp


@dataclass(frozen=True, slots=True)
class Receipt:
    """A basket that was sold. `customer` is empty where nobody knows who it was; no such basket joins anything."""

    number: str
    at: datetime
    store: StoreId
    customer: str
    lines: tuple[BasketLine, ...]


@dataclass(frozen=True, slots=True)
class StoreOutcome:
    """One store: what its benefits gave, what came back to its entity, and what it cost in the end (fen)."""

    place: Place
    uses: int
    given_fen: int
    cost_fen: int

    @property
    def back_fen(self) -> int:
        """Discounts that members paid back, to the fen."""
        return self.given_fen - self.cost_fen


@dataclass(frozen=True, slots=True)
class MembershipOutcome:
    """One settled membership: u, its charge, and under which name it was charged."""

    used_fen: int
    charge_fen: int
    branch: Branch | None


@dataclass(frozen=True, slots=True)
class WhatIf:
    """The whole replay, in fen. given = charged + kept: what members enjoyed is what they paid and what they keep."""

    plan: Plan
    receipts: int
    customers: int
    members: int
    memberships: tuple[MembershipOutcome, ...]
    unfinished: int
    """Of these, so many had not ended with the last receipt: settled with what was used until then."""
    uses: int
    members_gross_fen: int
    """What members bought while they were members, before discounts."""
    stores: tuple[StoreOutcome, ...]
    fee_income_fen: Mapping[LegalEntityId, int] = field(default_factory=dict)

    @property
    def given_fen(self) -> int:
        """Benefits enjoyed."""
        return sum(one.used_fen for one in self.memberships)

    @property
    def charged_fen(self) -> int:
        """What members paid at the end."""
        return sum(one.charge_fen for one in self.memberships)

    @property
    def kept_fen(self) -> int:
        """What the plan gave away: benefits that nobody paid for."""
        return self.given_fen - self.charged_fen

    def of(self, branch: Branch | None) -> tuple[int, int]:
        """Memberships of this branch, and their charges."""
        those = [one.charge_fen for one in self.memberships if one.branch is branch]
        return len(those), sum(those)


class Replay:
    """Takes receipts in the order of their time. Keeps one membership for each customer that lives."""

    def __init__(self, plan: Plan, audience: Audience, entities: Mapping[StoreId, LegalEntityId] | None = None) -> None:
        """`entities`: whose each store is; the plan's owner where it does not say."""
        self._plan = plan
        self._audience = audience
        self._entities = entities or {}
        self._receipts = 0
        self._customers: set[str] = set()
        self._living: dict[str, Membership] = {}
        self._ended: dict[str, Membership] = {}
        self._outcomes: list[MembershipOutcome] = []
        self._balances: Counter[tuple[str, str]] = Counter()
        self._uses: Counter[Place] = Counter()
        self._given: Counter[Place] = Counter()
        self._shares: defaultdict[str, Counter[Place]] = defaultdict(Counter)
        self._members_gross_fen = 0
        self._last_at: datetime | None = None

    def take(self, receipt: Receipt) -> Quote | None:
        """One receipt; the quote that a member would have got, None for everybody else.

        Raises ValueError for a receipt before the last one, Refused `line_invalid` for a line without a price.
        """
        at = require_instant(receipt.at)
        if self._last_at is not None and at < self._last_at:
            raise ValueError(f"receipt {receipt.number} of {at.isoformat()} comes after {self._last_at.isoformat()}")
        self._last_at = at
        self._receipts += 1
        who = receipt.customer
        if not who:
            return None
        self._customers.add(who)
        self._settle_if_over(who, at)
        membership = self._living.get(who)
        if membership is None:
            if not self._audience.has(who):
                return None
            membership = self._enrolled(who, at)
            if membership is None:
                return None
            if self._audience.joins is Joins.SAVING and not self._quote(membership, receipt).uses:
                return None
        quote = self._quote(membership, receipt)
        self._members_gross_fen += quote.gross_fen
        self._living[who] = self._used(membership, receipt, quote)
        return quote

    def end(self) -> WhatIf:
        """Settle whoever is left, with what was used until now, and sum up. The replay is over."""
        unfinished = 0
        for who, membership in sorted(self._living.items()):
            assert membership.cutoff is not None
            assert self._last_at is not None
            unfinished += membership.cutoff > self._last_at
            self._settle(who, membership)
        self._living.clear()
        stores = [
            StoreOutcome(place, self._uses[place], fen, self._balances[place.entity, f"discount_given:{place.store}"])
            for place, fen in sorted(self._given.items(), key=lambda one: (one[0].store, one[0].entity))
        ]
        income: Counter[LegalEntityId] = Counter()
        for (entity, account), fen in sorted(self._balances.items()):
            if account.partition(":")[0] == "membership_fee_income":
                income[LegalEntityId(entity)] -= fen
        return WhatIf(
            plan=self._plan,
            receipts=self._receipts,
            customers=len(self._customers),
            members=len(self._ended),
            memberships=tuple(self._outcomes),
            unfinished=unfinished,
            uses=sum(self._uses.values()),
            members_gross_fen=self._members_gross_fen,
            stores=tuple(stores),
            fee_income_fen={entity: fen for entity, fen in income.items() if fen},
        )

    # ------------------------------------------------------------ one membership

    def _enrolled(self, who: str, at: datetime) -> Membership | None:
        """A membership that begins now; None while the plan does not take this customer again."""
        last = self._ended.get(who)
        kind = self._plan.guarantees[0]
        try:
            if last is not None and self._plan.rule is Rule.CYCLE:
                applied = renewed(last, kind, at)
            else:
                applied = apply_for(
                    MembershipId(f"what-if-{who}"),
                    self._plan,
                    kind,
                    at,
                    last_ended_at=None if last is None else last.expiry,
                    generation=1 if last is None else last.generation + 1,
                )
        except Refused:
            return None
        admitted = apply(applied, CreditAnswered(at, CreditAnswer.OK)).membership
        if admitted.state is State.HOLD_PENDING:
            admitted = apply(admitted, HoldFrozen(at, self._plan.fee_fen)).membership
        return admitted

    def _quote(self, membership: Membership, receipt: Receipt) -> Quote:
        taken, plan = membership.quota_taken(), membership.plan
        left: dict[str, int] = {
            benefit.id: benefit.quota - taken[benefit.id]
            for benefit in plan.benefits
            if holds_at(benefit.scope, store=receipt.store, channel=COUNTER, at=receipt.at, zone=plan.zone)
        }
        offer = LightOffer(plan, membership.used_fen, left, membership.fee_eff_fen, membership.task_done)
        return price(receipt.lines, offer)

    def _used(self, membership: Membership, receipt: Receipt, quote: Quote) -> Membership:
        place = self._place(receipt.store)
        for n, use in enumerate(quote.uses):
            usage = UsageId(f"{receipt.store}/{receipt.number}/{n}")
            sale = SaleId(f"{receipt.store}/{receipt.number}")
            reported = UseReported(
                receipt.at, usage, use.benefit, use.fen, receipt.at, sale=sale, paid_fen=quote.due_fen
            )
            outcome = apply(membership, reported)
            assert outcome.use_class is UseClass.REGULAR, f"{usage} was priced, and is {outcome.use_class}"
            membership = outcome.membership
            self._uses[place] += 1
            self._given[place] += use.fen
            self._shares[_key(membership)][place] += use.fen
            self._book(
                ledger.benefit_used(
                    usage,
                    place=place,
                    fen=use.fen,
                    use_class=UseClass.REGULAR,
                    funder=self._plan.funder_entity,
                    business_date=self._date(receipt.at),
                )
            )
        return membership

    def _settle_if_over(self, who: str, at: datetime) -> None:
        membership = self._living.get(who)
        if membership is not None and membership.expiry is not None and membership.expiry <= at:
            self._settle(who, self._living.pop(who))

    def _settle(self, who: str, membership: Membership) -> None:
        """Expiry, cutoff, and a capture that succeeds: what a plan costs does not hang on a provider's bad day."""
        assert membership.expiry is not None
        assert membership.cutoff is not None
        outcome = apply(apply(membership, Expired(membership.expiry)).membership, CutOff(membership.cutoff))
        if outcome.capture is not None:
            answer = ProviderAnswered(membership.cutoff, ProviderAnswer.SUCCEEDED, outcome.capture.fen)
            captured = outcome.capture
            outcome = apply(outcome.membership, answer)
            shares = tuple(
                StoreShare(place, fen)
                for place, fen in sorted(self._shares[_key(membership)].items(), key=lambda one: one[0].store)
            )
            branch = outcome.membership.branch
            shared = branch is Branch.CLAWBACK or self._plan.fee_shares is FeeShares.USAGE
            settlement = ledger.Settlement(
                membership.id,
                self._plan.owner_entity,
                PROVIDER,
                branch,
                captured.fen,
                shares if shared else (),
            )
            self._book(
                ledger.settled(
                    captured.number,
                    settlement,
                    captured_fen=captured.fen,
                    business_date=self._date(membership.cutoff),
                )
            )
        settled = outcome.membership
        self._shares.pop(_key(membership), None)
        self._ended[who] = settled
        self._outcomes.append(MembershipOutcome(settled.used_fen, settled.paid_fen, settled.branch))

    def _book(self, transaction: Transaction) -> None:
        for entry in transaction.entries:
            if entry.book is ledger.Book.POSTED:
                self._balances[entry.entity, entry.account] += entry.amount_fen

    def _place(self, store: StoreId) -> Place:
        return Place(store, self._entities.get(store, self._plan.owner_entity))

    def _date(self, at: datetime) -> str:
        return business_date(at, self._plan.zone, self._plan.cutoff_hour).isoformat()


def replay(
    plan: Plan,
    receipts: Sequence[Receipt],
    audience: Audience = Audience(),
    entities: Mapping[StoreId, LegalEntityId] | None = None,
) -> WhatIf:
    """All at once, in the order of time."""
    run = Replay(plan, audience, entities)
    for receipt in sorted(receipts, key=lambda one: (one.at, one.store, one.number)):
        run.take(receipt)
    return run.end()


def _key(membership: Membership) -> str:
    return f"{membership.id}G{membership.generation}"
