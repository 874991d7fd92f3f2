"""Double entry: what each event posts, as values. Debit positive, credit negative, integer fen.

Every transaction sums to 0 per legal entity, in each book by itself; effects between entities go by pairs of
due_to / due_from. Its id is uuid5(request number, kind), so the same request cannot be booked twice. Functions
here only build transactions; a transaction without entries means that there is nothing to book.

Accounts: provider_clearing:{provider}, till:{store}:{drawer}, cash_rounding, sales_gross:{store},
discount_given:{store}, absorbed:{funder}, given_up:{funder}, subsidy:{funder}, suspense:{store},
agency_payable:{store}, provider_receivable:{provider}, membership_fee_income[:{store}], member_receivable, bad_debt,
refund_payable, due_to:{entity}, due_from:{entity}; in the pending book hold:{provider}, used, given_up:{funder}, and
contras. What kind of account each is, and whose: models.domain.accounts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from models.domain.charging import ABSORBED, Branch, UseClass
from models.domain.errors import Bug
from models.domain.ids import LegalEntityId, StoreId, derived_id
from models.domain.money import allocate, require_fen


class Book(StrEnum):
    """Money that moved, and what is only held or noted. Never summed together."""

    POSTED = "posted"
    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class Entry:
    """One leg. `business_date` is ISO 8601, the day of the store or of the plan's owner."""

    leg: int
    entity: str
    account: str
    amount_fen: int
    business_date: str
    book: Book = Book.POSTED


@dataclass(frozen=True, slots=True)
class Transaction:
    """One append-only posting. Raises Bug `ledger_unbalanced` unless each entity's legs sum to 0 per book."""

    kind: str
    request_number: str
    entries: tuple[Entry, ...]
    memo: str = ""
    refers_to: str | None = None
    """The id of the transaction that this one undoes or follows, if any."""

    def __post_init__(self) -> None:
        sums: defaultdict[tuple[str, Book], int] = defaultdict(int)
        for entry in self.entries:
            sums[entry.entity, entry.book] += require_fen(entry.amount_fen)
        open_sums = {key: fen for key, fen in sums.items() if fen}
        if open_sums:
            raise Bug("ledger_unbalanced", f"{self.kind} {self.request_number} leaves {open_sums}")

    @property
    def id(self) -> str:
        """uuid5(request number, kind)."""
        return transaction_id(self.request_number, self.kind)


def transaction_id(request_number: str, kind: str) -> str:
    """The id that the transaction of this request and kind has, whether booked yet or not."""
    return derived_id(request_number, kind)


@dataclass(frozen=True, slots=True)
class Place:
    """A store and the legal entity that owned it on that day."""

    store: StoreId
    entity: LegalEntityId


@dataclass(frozen=True, slots=True)
class StoreShare:
    """b_i: REGULAR uses at one store, net of reversals, in fen."""

    place: Place
    fen: int


@dataclass(frozen=True, slots=True)
class Taking:
    """One tender as it was collected: `fen` of the due.

    Cash (`drawer` set) goes to the till of the store. Anything else goes through `provider`'s clearing of the
    entity whose merchant account collects (`collector`; the store's own when None), at the receipt amount:
    what the provider or the merchant funded of it is named.
    """

    fen: int
    drawer: str | None = None
    provider: str = ""
    collector: LegalEntityId | None = None
    merchant_funded_fen: int = 0
    provider_funded_fen: int = 0


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a membership owes now, and whose money it is.

    FEE: `due_fen` is the owner's fee income; with `shares` (a plan whose fee_shares is usage) it is that of the stores'
    entities, by largest remainder on what each gave. CLAWBACK: `due_fen` is the sum of `shares`, and each store's
    entity gets exactly its own. The owner's merchant account at `provider` collects.
    """

    membership: str
    owner: LegalEntityId
    provider: str
    branch: Branch | None
    due_fen: int
    shares: tuple[StoreShare, ...] = ()

    def __post_init__(self) -> None:
        if self.branch is Branch.CLAWBACK and sum(share.fen for share in self.shares) != self.due_fen:
            raise Bug("clawback_unexplained", f"shares of {self.membership} do not sum to {self.due_fen} fen")
        if self.branch is None and self.due_fen:
            raise Bug("charge_without_branch", f"{self.membership} owes {self.due_fen} fen for nothing")


class OwedAs(StrEnum):
    """Which account of the owner holds what the member owes, or is owed."""

    RECEIVABLE = "member_receivable"
    BAD_DEBT = "bad_debt"
    REFUND = "refund_payable"


class _Legs:
    """Collects legs of one business date; zero amounts are left out."""

    def __init__(self, business_date: str) -> None:
        self._business_date = business_date
        self._entries: list[Entry] = []

    def add(self, entity: str, account: str, amount_fen: int, book: Book = Book.POSTED) -> None:
        if require_fen(amount_fen):
            leg = len(self._entries)
            self._entries.append(Entry(leg, entity, account, amount_fen, self._business_date, book))

    def pair(self, entity: str, debit: str, credit: str, fen: int, book: Book = Book.POSTED) -> None:
        """`fen` from `credit` to `debit` inside one entity."""
        self.add(entity, debit, fen, book)
        self.add(entity, credit, -fen, book)

    def across(self, payer: str, debit: str, payee: str, credit: str, fen: int) -> None:
        """`fen` from `credit` at `payee` to `debit` at `payer`; between two entities, payer owes payee."""
        if payer == payee:
            self.pair(payer, debit, credit, fen)
            return
        self.pair(payer, debit, f"due_to:{payee}", fen)
        self.pair(payee, f"due_from:{payer}", credit, fen)

    def as_transaction(
        self, kind: str, request_number: str, memo: str = "", refers_to: str | None = None
    ) -> Transaction:
        return Transaction(kind, request_number, tuple(self._entries), memo, refers_to)


def clearing(provider: str) -> str:
    """The account of money that a provider collected for us and has not paid out."""
    return f"provider_clearing:{provider}"


def mirror(original: Transaction, request_number: str, kind: str, business_date: str) -> Transaction:
    """The transaction that undoes `original` leg by leg, booked on `business_date`."""
    legs = _Legs(business_date)
    for entry in original.entries:
        legs.add(entry.entity, entry.account, -entry.amount_fen, entry.book)
    return legs.as_transaction(kind, request_number, original.memo, original.id)


# ---------------------------------------------------------------- membership: holds and uses


def hold_placed(
    request_number: str, *, entity: LegalEntityId, provider: str, hold_fen: int, business_date: str
) -> Transaction:
    """Enrolled with a hold: pending only, no money moved."""
    legs = _Legs(business_date)
    legs.pair(entity, f"hold:{provider}", "hold_contra", hold_fen, Book.PENDING)
    return legs.as_transaction("hold_placed", request_number)


def hold_ended(
    request_number: str, *, entity: LegalEntityId, provider: str, hold_fen: int, business_date: str
) -> Transaction:
    """The hold is over, by release, lapse or capture: `hold_fen` is what was placed, all of it.

    `request_number` is the hold's own, so that it can end only once.
    """
    placed = hold_placed(
        request_number, entity=entity, provider=provider, hold_fen=hold_fen, business_date=business_date
    )
    return mirror(placed, request_number, "hold_ended", business_date)


def benefit_used(
    usage_id: str,
    *,
    place: Place,
    fen: int,
    use_class: UseClass,
    funder: LegalEntityId,
    business_date: str,
) -> Transaction:
    """A benefit given at a store. REGULAR: the store's discount, noted as used; LATE, OVERUSE: the funder's.

    REFUSED books nothing. The sale itself books the net takings (`sale_paid`).
    """
    return _use_legs(place, fen, use_class, funder, business_date).as_transaction("benefit_used", usage_id)


def benefit_reversed(
    reversal_id: str,
    usage_id: str,
    *,
    place: Place,
    fen: int,
    use_class: UseClass,
    funder: LegalEntityId,
    business_date: str,
) -> Transaction:
    """The mirror of `benefit_used` for `fen` of it, which may be a part."""
    refers_to = transaction_id(usage_id, "benefit_used")
    legs = _use_legs(place, -fen, use_class, funder, business_date)
    return legs.as_transaction("benefit_reversed", reversal_id, refers_to=refers_to)


def _use_legs(place: Place, fen: int, use_class: UseClass, funder: LegalEntityId, business_date: str) -> _Legs:
    legs = _Legs(business_date)
    if use_class is UseClass.REGULAR:
        legs.pair(place.entity, f"discount_given:{place.store}", f"sales_gross:{place.store}", fen)
        legs.pair(place.entity, "used", "used_contra", fen, Book.PENDING)
    elif use_class in ABSORBED:
        legs.across(funder, f"absorbed:{funder}", place.entity, f"sales_gross:{place.store}", fen)
    return legs


# ---------------------------------------------------------------- membership: settlement


def settled(request_number: str, settlement: Settlement, *, captured_fen: int, business_date: str) -> Transaction:
    """Captured at the first attempt. What was captured beyond the due (a reversal came meanwhile) is owed back."""
    legs = _Legs(business_date)
    _income(legs, settlement, clearing(settlement.provider))
    _excess(legs, settlement, captured_fen)
    return legs.as_transaction("settled", request_number, settlement.membership)


def capture_failed(request_number: str, settlement: Settlement, *, business_date: str) -> Transaction:
    """The first attempt failed for good: what is due becomes a receivable of the owner."""
    legs = _Legs(business_date)
    _income(legs, settlement, OwedAs.RECEIVABLE)
    return legs.as_transaction("capture_failed", request_number, settlement.membership)


def receivable_collected(
    request_number: str,
    settlement: Settlement,
    *,
    captured_fen: int,
    business_date: str,
    owed_as: OwedAs = OwedAs.RECEIVABLE,
) -> Transaction:
    """A later attempt was captured; `owed_as` BAD_DEBT when it had been written off already."""
    legs = _Legs(business_date)
    legs.pair(settlement.owner, clearing(settlement.provider), owed_as, settlement.due_fen)
    _excess(legs, settlement, captured_fen)
    return legs.as_transaction("receivable_collected", request_number, settlement.membership)


def written_off(request_number: str, settlement: Settlement, *, business_date: str) -> Transaction:
    """Every attempt failed: what is still due is bad debt of the owner. The number is the last attempt's."""
    legs = _Legs(business_date)
    legs.pair(settlement.owner, OwedAs.BAD_DEBT, OwedAs.RECEIVABLE, settlement.due_fen)
    return legs.as_transaction("written_off", request_number, settlement.membership)


def due_reduced(
    reversal_id: str,
    *,
    settlement: Settlement,
    fen: int,
    place: Place,
    owed_as: OwedAs,
    business_date: str,
    fee_received: Sequence[StoreShare] = (),
) -> Transaction:
    """A reversal after the charge was booked lowered the due by `fen`: income goes back where it came from.

    FEE: the owner's fee income, or, where it was shared, that of the stores by largest remainder on what each has of
    it (`fee_received`). CLAWBACK: the discount of `place`, where the use was. `owed_as`: REFUND once collected (then
    `refunded` pays it out), else RECEIVABLE or BAD_DEBT.
    """
    shares = (StoreShare(place, fen),) if settlement.branch is Branch.CLAWBACK else tuple(fee_received)
    change = Settlement(settlement.membership, settlement.owner, settlement.provider, settlement.branch, fen, shares)
    legs = _Legs(business_date)
    _income(legs, change, owed_as, sign=-1)
    return legs.as_transaction("due_reduced", reversal_id, settlement.membership)


def refunded(request_number: str, *, owner: LegalEntityId, provider: str, fen: int, business_date: str) -> Transaction:
    """The provider gave back `fen` that was owed to the member."""
    legs = _Legs(business_date)
    legs.pair(owner, OwedAs.REFUND, clearing(provider), fen)
    return legs.as_transaction("refunded", request_number)


def collected_beside(
    request_number: str, *, owner: LegalEntityId, provider: str, fen: int, business_date: str
) -> Transaction:
    """The provider collected what nobody owed it: the member's, until `refunded`."""
    legs = _Legs(business_date)
    legs.pair(owner, clearing(provider), OwedAs.REFUND, fen)
    return legs.as_transaction("collected_beside", request_number)


def given_up(
    request_number: str,
    *,
    funder: LegalEntityId,
    fen: int,
    topped_up: Sequence[StoreShare] = (),
    business_date: str,
) -> Transaction:
    """A cancel by the merchant let the member off `fen`: noted with its funder.

    `topped_up` (see `top_ups`) is what the funder pays to the stores' entities because the charge does not.
    """
    legs = _Legs(business_date)
    legs.pair(funder, f"given_up:{funder}", "given_up_contra", fen, Book.PENDING)
    for share in topped_up:
        entity, store = share.place.entity, share.place.store
        legs.across(funder, f"given_up:{funder}", entity, f"discount_given:{store}", share.fen)
    return legs.as_transaction("given_up", request_number)


def top_ups(
    fee_fen: int, fee_eff_fen: int, used_fen: int, shares: Sequence[StoreShare], branch: Branch | None = None
) -> tuple[StoreShare, ...]:
    """What the funder owes the stores, so that a merchant's cancel costs a franchisee nothing: without it u < F would
    have given each its b_i back. Where the charge is a reduced fee instead (`branch` once it is fixed, F_eff <= u
    before), the funder pays the b_i, whatever is reversed later.
    """
    as_fee = fee_eff_fen <= used_fen if branch is None else branch is Branch.FEE
    return tuple(shares) if as_fee and max(fee_eff_fen, used_fen) < fee_fen else ()


def promised_top_ups(promised: Sequence[StoreShare], received: Sequence[StoreShare]) -> tuple[StoreShare, ...]:
    """What is missing, store by store, of what a plan promised for the benefits given there; nothing is taken back."""
    got: defaultdict[Place, int] = defaultdict(int)
    for share in received:
        got[share.place] += share.fen
    missing = (StoreShare(share.place, share.fen - got[share.place]) for share in promised)
    return tuple(share for share in missing if share.fen > 0)


def _income(legs: _Legs, settlement: Settlement, debit: str, sign: int = 1) -> None:
    owner = settlement.owner
    match settlement.branch:
        case Branch.FEE if any(share.fen for share in settlement.shares):
            parts = allocate(settlement.due_fen, [share.fen for share in settlement.shares])
            for share, fen in zip(settlement.shares, parts, strict=True):
                credit = f"membership_fee_income:{share.place.store}"
                legs.across(owner, debit, share.place.entity, credit, sign * fen)
        case Branch.FEE:
            legs.pair(owner, debit, "membership_fee_income", sign * settlement.due_fen)
        case Branch.CLAWBACK:
            for share in settlement.shares:
                credit = f"discount_given:{share.place.store}"
                legs.across(owner, debit, share.place.entity, credit, sign * share.fen)
        case None:
            pass


def _excess(legs: _Legs, settlement: Settlement, captured_fen: int) -> None:
    excess = captured_fen - settlement.due_fen
    if excess < 0:
        raise Bug("captured_less_than_due", f"{settlement.membership}: {captured_fen} < {settlement.due_fen} fen")
    legs.pair(settlement.owner, clearing(settlement.provider), OwedAs.REFUND, excess)


# ---------------------------------------------------------------- sales


def sale_paid(
    sale_id: str,
    *,
    place: Place,
    takings: Sequence[Taking],
    due_fen: int,
    business_date: str,
    rounding_fen: int = 0,
    suspense_fen: int = 0,
    agency_fen: int = 0,
    other_discount_fen: int = 0,
    funded: Sequence[tuple[LegalEntityId, int]] = (),
) -> Transaction:
    """A paid basket: takings against sales. Light benefits are booked by `benefit_used`, not here.

    sum of takings = due_fen - rounding_fen + suspense_fen. `agency_fen` of the due is somebody else's money.
    `other_discount_fen` was given by something other than a light benefit and is shown gross; `funded` of it, by
    funder, is borne by another entity than the store's, which is owed it.
    """
    legs = _Legs(business_date)
    for taking in takings:
        _take(legs, place, taking)
    _sold(legs, place, due_fen, rounding_fen, suspense_fen, agency_fen, other_discount_fen)
    for funder, fen in funded:
        legs.across(funder, f"subsidy:{funder}", place.entity, f"discount_given:{place.store}", fen)
    return legs.as_transaction("sale_paid", sale_id)


def sale_refunded(
    return_id: str,
    sale_id: str,
    *,
    place: Place,
    takings: Sequence[Taking],
    due_fen: int,
    business_date: str,
    rounding_fen: int = 0,
    suspense_fen: int = 0,
    agency_fen: int = 0,
    other_discount_fen: int = 0,
    funded: Sequence[tuple[LegalEntityId, int]] = (),
) -> Transaction:
    """Money back for the lines' share, to the original tenders: the mirror of `sale_paid` with these amounts."""
    paid = sale_paid(
        sale_id,
        place=place,
        takings=takings,
        due_fen=due_fen,
        business_date=business_date,
        rounding_fen=rounding_fen,
        suspense_fen=suspense_fen,
        agency_fen=agency_fen,
        other_discount_fen=other_discount_fen,
        funded=funded,
    )
    return mirror(paid, return_id, "sale_refunded", business_date)


def sale_voided(void_id: str, sale: Transaction, business_date: str) -> Transaction:
    """The whole sale undone, from the transaction that booked it."""
    return mirror(sale, void_id, "sale_voided", business_date)


def takings_without_order(request_number: str, *, place: Place, taking: Taking, business_date: str) -> Transaction:
    """Money that no order explains: it waits in suspense to be matched."""
    legs = _Legs(business_date)
    _take(legs, place, taking)
    legs.add(place.entity, f"suspense:{place.store}", -taking.fen)
    return legs.as_transaction("takings_without_order", request_number)


def _take(legs: _Legs, place: Place, taking: Taking) -> None:
    """The debit side of one tender, `taking.fen` in all at the store's entity."""
    if taking.drawer is not None:
        legs.add(place.entity, f"till:{place.store}:{taking.drawer}", taking.fen)
        return
    receipt_fen = taking.fen - taking.merchant_funded_fen - taking.provider_funded_fen
    collector = taking.collector or place.entity
    for account, fen in (
        (clearing(taking.provider), receipt_fen),
        (f"provider_receivable:{taking.provider}", taking.provider_funded_fen),
    ):
        if collector == place.entity:
            legs.add(collector, account, fen)
        else:
            legs.pair(collector, account, f"due_to:{place.entity}", fen)
            legs.add(place.entity, f"due_from:{collector}", fen)
    legs.add(place.entity, f"discount_given:{place.store}", taking.merchant_funded_fen)


def _sold(
    legs: _Legs, place: Place, due_fen: int, rounding_fen: int, suspense_fen: int, agency_fen: int, discount_fen: int
) -> None:
    entity, store = place.entity, place.store
    legs.add(entity, "cash_rounding", rounding_fen)
    legs.add(entity, f"discount_given:{store}", discount_fen)
    legs.add(entity, f"agency_payable:{store}", -agency_fen)
    legs.add(entity, f"suspense:{store}", -suspense_fen)
    legs.add(entity, f"sales_gross:{store}", -(due_fen - agency_fen + discount_fen))
