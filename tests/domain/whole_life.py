"""One member's whole life beside its books and its provider, for properties: every event is met, booked and checked.

`House` carries out what `models.domain.membership` decides, as the system does: what was captured, refunded, frozen
and released, and the double entry of each step. `check` compares all of it with sums made the plainest way.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import count

from models.domain import ledger
from models.domain.charging import ABSORBED, TAKES_QUOTA, Branch, UseClass
from models.domain.ids import LegalEntityId, MembershipId, StoreId, UsageId
from models.domain.ledger import Book, OwedAs, Place, Settlement, StoreShare, Transaction, promised_top_ups, top_ups
from models.domain.membership import (
    Event,
    Guarantee,
    HoldState,
    Membership,
    Outcome,
    PlanChanged,
    ProviderAnswer,
    ProviderAnswered,
    State,
    UseReported,
    UseReversed,
    apply,
    apply_for,
)
from models.domain.money import allocate
from models.domain.plans import FeeShares, Plan

OWNER, FUNDER, FRANCHISEE = LegalEntityId("chain"), LegalEntityId("funder"), LegalEntityId("franchisee")
PLACES = (Place(StoreId("s1"), OWNER), Place(StoreId("s2"), FRANCHISEE), Place(StoreId("s3"), FRANCHISEE))
PROVIDER, DAY = "alipay", "2026-01-01"
FINAL = {State.CLOSED, State.REJECTED, State.ABANDONED, State.WRITTEN_OFF}


@dataclass
class Generation:
    """One generation's membership and what the outside did for it."""

    m: Membership
    places: dict[UsageId, Place]
    received: dict[UsageId, UseReported] = field(default_factory=dict)
    reversed_ids: dict[str, UseReversed] = field(default_factory=dict)
    numbers: list[str] = field(default_factory=list)
    captures_fen: list[int] = field(default_factory=list)
    refunds_fen: list[int] = field(default_factory=list)
    held_fen: int = 0
    booked_as: str = ""
    fixed: tuple[int | None, Branch | None] | None = None
    used_when_fixed_fen: int = 0
    collected_at: Membership | None = None
    after_collection: list[Event] = field(default_factory=list)
    fee_received: Counter[Place] = field(default_factory=Counter)
    plans_before: list[tuple[datetime, Plan]] = field(default_factory=list)


class House:
    """The generations of one membership, the ledger of all of them, and the checks after every step."""

    def __init__(self, plan: Plan, guarantee: Guarantee, at: datetime) -> None:
        first = apply_for(MembershipId("m1"), plan, guarantee.kind, at)
        self.places: dict[UsageId, Place] = {}
        self.generations = [Generation(first, self.places)]
        self.balance: Counter[tuple[str, str, Book]] = Counter()
        self.booked: set[str] = set()
        self.numbers = count(1)

    # ------------------------------------------------------------ carrying out

    def meet(self, event: Event, generation: int = -1) -> Outcome:
        """One event, twice: the second time nothing may happen."""
        life = self.generations[generation]
        before = life.m
        if isinstance(event, UseReported):
            self.places.setdefault(event.id, PLACES[len(self.places) % len(PLACES)])
        outcome = apply(before, event)
        life.m = outcome.membership
        assert life.m.state is not State.PARKED, life.m.parked_because
        _check_class(life, before, event, outcome)
        if life.m.plan is not before.plan:
            life.plans_before.append((event.at, before.plan))
        self._carry_out(life, before, event, outcome)
        again = apply(life.m, event)
        assert _without_asking(again.membership) == _without_asking(life.m), "a duplicate changes nothing"
        assert (again.capture, again.collected_fen, again.refund_fen, again.release_hold_fen) == (None, 0, 0, 0)
        assert again.use_class is outcome.use_class
        if life.collected_at is not None and isinstance(event, UseReported | UseReversed):
            life.after_collection.append(event)
        if outcome.collected_fen:
            life.collected_at = life.m
        self.check()
        return outcome

    def _book(self, transaction: Transaction) -> None:
        assert transaction.id not in self.booked, f"{transaction.kind} {transaction.request_number} is booked twice"
        self.booked.add(transaction.id)
        for entry in transaction.entries:
            self.balance[entry.entity, entry.account, entry.book] += entry.amount_fen

    def _carry_out(self, life: Generation, before: Membership, event: Event, outcome: Outcome) -> None:
        m = life.m
        self._book_holds(life, before, event, outcome)
        self._book_uses(life, before, event)
        if m.cancellation is not before.cancellation:
            assert m.expiry is not None
            assert before.expiry is not None
            assert m.expiry <= before.expiry, "a cancel never lengthens a membership"
        if before.charge_fen is None and m.charge_fen is not None:
            assert m.charge_fen == before.due_fen, "preview == charge"
            life.used_when_fixed_fen = m.used_fen
        if outcome.capture is not None:
            assert before.attempt is None or not before.attempt.open, "one number at a time"
            life.numbers.append(outcome.capture.number)
        if outcome.query is not None:
            assert outcome.query == life.numbers[-1], "an unclear answer is asked again under the same number"
        if isinstance(event, ProviderAnswered):
            self._book_answer(life, before, event, outcome)
        elif isinstance(event, UseReversed) and m.due_fen < before.due_fen and life.booked_as:
            self._book_reduction(life, before.due_fen - m.due_fen, event, outcome.refund_fen)
        if outcome.refund_fen:
            life.refunds_fen.append(outcome.refund_fen)

    def _book_holds(self, life: Generation, before: Membership, event: Event, outcome: Outcome) -> None:
        old, new = before.guarantee, life.m.guarantee
        if isinstance(event, PlanChanged) and outcome.change_refused:
            return  # the new plan's hold was given back as it came
        was, now = old.hold is HoldState.HELD, new.hold is HoldState.HELD
        swapped = isinstance(event, PlanChanged) and life.m.plan is not before.plan
        if was and (not now or swapped):
            self._book_hold(life, -old.hold_fen)
        if now and (not was or swapped):
            self._book_hold(life, new.hold_fen)

    def _book_hold(self, life: Generation, fen: int) -> None:
        life.held_fen += fen
        book = ledger.hold_placed if fen > 0 else ledger.hold_ended
        number = f"H{next(self.numbers)}"
        self._book(book(number, entity=OWNER, provider=PROVIDER, hold_fen=abs(fen), business_date=DAY))

    def _book_uses(self, life: Generation, before: Membership, event: Event) -> None:
        if isinstance(event, UseReported) and event.id not in life.received:
            life.received[event.id] = event
            use = life.m.uses[-1]
            kind, place = use.use_class, self.places[use.id]
            self._book(
                ledger.benefit_used(
                    f"{life.m.generation}{use.id}", place=place, fen=use.fen, use_class=kind, funder=FUNDER,
                    business_date=DAY,
                )
            )  # fmt: skip
            if life.m.reversed_fen(use):
                self._book_reversal(life, f"born{use.id}", use.id, kind, life.m.reversed_fen(use))
        if isinstance(event, UseReversed) and event.id not in life.reversed_ids:
            life.reversed_ids[event.id] = event
            use_or_none = next((use for use in life.m.uses if use.id == event.refers_to), None)
            if use_or_none is not None:
                fen = life.m.reversed_fen(use_or_none) - before.reversed_fen(use_or_none)
                self._book_reversal(life, event.id, use_or_none.id, use_or_none.use_class, fen)

    def _book_reversal(self, life: Generation, number: str, usage: UsageId, kind: UseClass, fen: int) -> None:
        self._book(
            ledger.benefit_reversed(
                f"{life.m.generation}{number}", usage, place=self.places[usage], fen=fen, use_class=kind,
                funder=FUNDER, business_date=DAY,
            )
        )  # fmt: skip

    def _settlement(self, life: Generation) -> Settlement:
        m = life.m
        shares = self.shares(life) if m.branch is Branch.CLAWBACK or m.plan.fee_shares is FeeShares.USAGE else ()
        return Settlement(m.id, OWNER, PROVIDER, m.branch, m.due_fen, shares if m.due_fen else ())

    def shares(self, life: Generation) -> tuple[StoreShare, ...]:
        """b_i: REGULAR net at each store."""
        given: Counter[Place] = Counter()
        for use in life.m.uses:
            if use.use_class is UseClass.REGULAR and life.m.net_fen(use):
                given[self.places[use.id]] += life.m.net_fen(use)
        return tuple(StoreShare(place, given[place]) for place in PLACES if given[place])

    def _book_answer(self, life: Generation, before: Membership, event: ProviderAnswered, outcome: Outcome) -> None:
        m = life.m
        if outcome.collected_fen:
            assert before.attempt is not None
            number = before.attempt.number
            life.captures_fen.append(outcome.collected_fen)
            settlement = self._settlement(life)
            if life.booked_as:
                self._book(
                    ledger.receivable_collected(
                        number, settlement, captured_fen=outcome.collected_fen, business_date=DAY,
                        owed_as=OwedAs(life.booked_as),
                    )
                )  # fmt: skip
            else:
                self._book(ledger.settled(number, settlement, captured_fen=outcome.collected_fen, business_date=DAY))
                self._note_fee(life, settlement)
            self._refund(f"R{number}", outcome.refund_fen)
            life.booked_as = OwedAs.REFUND
        elif before.attempt is not None and before.attempt.open and event.answer is ProviderAnswer.FAILED:
            settlement = self._settlement(life)
            if not life.booked_as:
                self._book(ledger.capture_failed(before.attempt.number, settlement, business_date=DAY))
                self._note_fee(life, settlement)
                life.booked_as = OwedAs.RECEIVABLE
            if m.state is State.WRITTEN_OFF:
                self._book(ledger.written_off(before.attempt.number, settlement, business_date=DAY))
                life.booked_as = OwedAs.BAD_DEBT

    def _note_fee(self, life: Generation, settlement: Settlement) -> None:
        if settlement.branch is Branch.FEE and settlement.shares:
            parts = allocate(settlement.due_fen, [share.fen for share in settlement.shares])
            for share, part in zip(settlement.shares, parts, strict=True):
                life.fee_received[share.place] += part

    def _book_reduction(self, life: Generation, fen: int, event: UseReversed, refund_fen: int) -> None:
        received = tuple(StoreShare(place, fen) for place, fen in life.fee_received.items() if fen)
        self._book(
            ledger.due_reduced(
                f"{life.m.generation}{event.id}", settlement=self._settlement(life), fen=fen,
                place=self.places[event.refers_to], owed_as=OwedAs(life.booked_as), business_date=DAY,
                fee_received=received,
            )
        )  # fmt: skip
        if received and life.m.branch is Branch.FEE:
            for share, part in zip(received, allocate(fen, [share.fen for share in received]), strict=True):
                life.fee_received[share.place] -= part
        self._refund(f"R{life.m.generation}{event.id}", refund_fen)

    def _refund(self, number: str, fen: int) -> None:
        if fen:
            self._book(ledger.refunded(number, owner=OWNER, provider=PROVIDER, fen=fen, business_date=DAY))

    # ------------------------------------------------------------ checking

    def check(self) -> None:
        """Every invariant of the specification, over all generations and the whole ledger."""
        per_entity: defaultdict[tuple[str, Book], int] = defaultdict(int)
        for (entity, _, book), fen in self.balance.items():
            per_entity[entity, book] += fen
        assert not any(per_entity.values()), "every entity's books sum to 0"
        for life in self.generations:
            _check_member(life)
        self._check_books()
        for life in self.generations:
            self._check_franchisee(life)

    def _posted(self, entity: str, account: str, book: Book = Book.POSTED) -> int:
        return self.balance[entity, account, book]

    def _check_books(self) -> None:
        lives = self.generations
        assert self._posted(OWNER, f"provider_clearing:{PROVIDER}") == sum(life.m.paid_fen for life in lives)
        assert self._posted(FUNDER, f"absorbed:{FUNDER}") == sum(life.m.absorbed_fen for life in lives)
        for account in (OwedAs.RECEIVABLE, OwedAs.BAD_DEBT):
            owed = sum(life.m.due_fen for life in lives if life.booked_as == account)
            assert self._posted(OWNER, account) == owed, f"{account} is what is due"
        assert self._posted(OWNER, OwedAs.REFUND) == 0, "what is owed back goes back at once"
        assert self._posted(OWNER, f"hold:{PROVIDER}", Book.PENDING) == sum(life.held_fen for life in lives)
        used = sum(self._posted(entity, "used", Book.PENDING) for entity in (OWNER, FRANCHISEE))
        assert used == sum(life.m.used_fen for life in lives)
        fee = self._posted(OWNER, "membership_fee_income")
        fee += sum(self._posted(place.entity, f"membership_fee_income:{place.store}") for place in PLACES)
        assert -fee == sum(life.m.due_fen for life in lives if life.m.branch is Branch.FEE and life.booked_as)
        for place in PLACES:
            borne = sum(share.fen for life in lives for share in self._borne(life) if share.place == place)
            assert self._posted(place.entity, f"discount_given:{place.store}") == borne, "clawed back exactly"

    def _borne(self, life: Generation) -> tuple[StoreShare, ...]:
        """What each store still bears of the benefits it gave: nothing once a clawback is booked."""
        clawed = life.m.branch is Branch.CLAWBACK and life.booked_as
        return () if clawed else self.shares(life)

    def _check_franchisee(self, life: Generation) -> None:
        """A store's entity gets at least what the plan promised: its b_i back where the member used less than the fee
        until the charge was fixed, its share of a shared fee beyond. A cancel by the merchant takes nothing from it.
        """
        m = life.m
        if m.charge_fen is None or (m.charge_fen and not life.booked_as):
            return
        shares = self.shares(life)
        topped = {share.place: share.fen for share in _topped_up(life, shares)}
        clawback = not m.task_kept and 0 < life.used_when_fixed_fen < m.plan.fee_fen
        for share in shares:
            got = share.fen if m.branch is Branch.CLAWBACK else life.fee_received[share.place]
            assert got + topped.get(share.place, 0) >= (share.fen if clawback else 0), "the franchisee theorem"
        if m.branch is Branch.FEE and m.plan.fee_shares is FeeShares.USAGE:
            assert sum(life.fee_received.values()) == m.due_fen, "a shared fee goes to the stores whole"

    def close_books(self) -> None:
        """Books what a cancel gave up; then no store bears what the plan promised to give back."""
        for life in self.generations:
            m = life.m
            shares = self.shares(life)
            topped = _topped_up(life, shares)
            if m.charge_fen is None or not topped:
                continue
            before = Counter(self.balance)
            self._book(
                ledger.given_up(
                    f"V{m.generation}", funder=FUNDER, fen=m.given_up_fen, topped_up=topped, business_date=DAY
                )
            )
            for share in topped:
                key = share.place.entity, f"discount_given:{share.place.store}", Book.POSTED
                assert before[key] - self.balance[key] == share.fen


def _topped_up(life: Generation, shares: tuple[StoreShare, ...]) -> tuple[StoreShare, ...]:
    """What the funder pays the stores: what the plan promised, less what they have of a shared fee."""
    m = life.m
    if m.task_kept:
        return ()
    promised = top_ups(m.plan.fee_fen, m.fee_eff_fen, m.used_fen, shares, m.branch)
    received = [StoreShare(place, fen) for place, fen in life.fee_received.items()]
    return promised_top_ups(promised, received)


def _check_member(life: Generation) -> None:
    m = life.m
    regular = [use for use in m.uses if use.use_class is UseClass.REGULAR]
    nets = {use.id: _net(life, use.id, use.fen) for use in m.uses}
    used = sum(nets[use.id] for use in regular)
    assert m.used_fen == used
    assert m.absorbed_fen == sum(nets[use.id] for use in m.uses if use.use_class in ABSORBED)
    assert 0 <= m.paid_fen <= min(m.fee_eff_fen, used), "the member theorem"
    assert m.paid_fen == sum(life.captures_fen) - sum(life.refunds_fen)
    assert len(life.captures_fen) <= 1, "one successful capture per generation"
    assert len(set(life.numbers)) == len(life.numbers) <= 1 + m.plan.dunning_attempts
    assert all(fen <= m.plan.fee_fen for fen in life.captures_fen)
    if m.captured_fen:
        assert m.paid_fen == m.due_fen
    if m.charge_fen is not None:
        assert life.fixed in (None, (m.charge_fen, m.branch)), "charge and branch are fixed once"
        life.fixed = (m.charge_fen, m.branch)
        assert m.due_fen == min(m.charge_fen, m.fee_eff_fen, used)
        assert (m.branch is None) == (m.charge_fen == 0)
        assert m.charge_fen == 0 or not m.task_kept
    if m.state is State.WRITTEN_OFF:
        assert m.due_fen > 0, "nothing owed is held against the member"
    if m.state in FINAL:
        assert m.guarantee.hold is not HoldState.HELD, "captured or released before the end"
    assert life.held_fen == (m.guarantee.hold_fen if m.guarantee.hold is HoldState.HELD else 0)
    kept = m.task_kept or (
        m.charge_fen is None and m.plan.task_target is not None and m.task_done >= m.plan.task_target
    )
    assert m.given_up_fen == (0 if kept else min(m.plan.fee_fen, used) - min(m.fee_eff_fen, used))


def _net(life: Generation, usage: UsageId, fen: int) -> int:
    back = sum(event.fen for event in life.reversed_ids.values() if event.refers_to == usage)
    return fen - min(fen, back)


def _check_class(life: Generation, before: Membership, event: Event, outcome: Outcome) -> None:
    """The class as the specification words it, decided from what arrived before."""
    if not isinstance(event, UseReported) or event.id in life.received:
        return
    benefit = _plan_of_its_moment(life, before, event).benefit(event.benefit)
    taken = sum(
        use.benefit == event.benefit and use.use_class in TAKES_QUOTA and _net(life, use.id, use.fen) > 0
        for use in before.uses
    )
    outside = before.enrolled_at is None or before.expiry is None
    if not outside:
        assert before.enrolled_at is not None
        assert before.expiry is not None
        outside = not before.enrolled_at <= event.biz_time < before.expiry
    if benefit is None or taken >= benefit.quota or outside:
        wanted = UseClass.OVERUSE if event.offline else UseClass.REFUSED
    elif before.state is State.SUSPENDED and not event.offline:
        wanted = UseClass.REFUSED
    else:
        wanted = UseClass.REGULAR if before.charge_fen is None else UseClass.LATE
    assert outcome.use_class is wanted


def _plan_of_its_moment(life: Generation, before: Membership, event: UseReported) -> Plan:
    plan = before.plan
    for until, ended in reversed(life.plans_before):
        plan = ended if event.biz_time < until else plan
    return plan


def _without_asking(m: Membership) -> Membership:
    return replace(m, cancels_refused=0)


def facts(m: Membership) -> tuple[object, ...]:
    """What the member and the books see at the end."""
    return m.state, m.used_fen, m.charge_fen, m.paid_fen, m.branch, m.given_up_fen


def check_arrival_order(life: Generation) -> None:
    """What arrived after the collection, arrived the other way round: the member pays the same."""
    if life.collected_at is None or not life.after_collection:
        return
    m, refunds = life.collected_at, 0
    for event in reversed(life.after_collection):
        outcome = apply(m, event)
        m, refunds = outcome.membership, refunds + outcome.refund_fen
    assert facts(m) == facts(life.m)
    assert life.collected_at.refunded_fen + refunds == life.m.refunded_fen
