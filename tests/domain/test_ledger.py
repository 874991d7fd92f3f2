from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain import ledger
from models.domain.charging import Branch, UseClass, branch_of, charge_fen
from models.domain.errors import Bug
from models.domain.ids import LegalEntityId, StoreId
from models.domain.ledger import (
    Book,
    Entry,
    OwedAs,
    Place,
    Settlement,
    StoreShare,
    Taking,
    Transaction,
    mirror,
)

DAY = "2026-02-02"
CHAIN, FRANCHISEE = LegalEntityId("chain"), LegalEntityId("franchisee-1")
OWN = Place(StoreId("s001"), CHAIN)
FRANCHISED = Place(StoreId("s002"), FRANCHISEE)
FEN = st.integers(1, 10**7)
PLACES = st.sampled_from([OWN, FRANCHISED])


def balances(transactions: Iterable[Transaction], book: Book = Book.POSTED) -> dict[tuple[str, str], int]:
    """Sums per (entity, account), zeros left out; checks each entity's sum on the way."""
    sums: defaultdict[tuple[str, str], int] = defaultdict(int)
    for transaction in transactions:
        per_entity: defaultdict[str, int] = defaultdict(int)
        for entry in transaction.entries:
            if entry.book is book:
                sums[entry.entity, entry.account] += entry.amount_fen
                per_entity[entry.entity] += entry.amount_fen
        assert not any(per_entity.values())
    return {key: fen for key, fen in sums.items() if fen}


def settlement(due_fen: int, branch: Branch | None, *shares: StoreShare) -> Settlement:
    return Settlement("m1", CHAIN, "alipay", branch, due_fen, shares)


def use(number: str, place: Place, fen: int, use_class: UseClass = UseClass.REGULAR) -> Transaction:
    return ledger.benefit_used(number, place=place, fen=fen, use_class=use_class, funder=CHAIN, business_date=DAY)


def test_a_sale_of_which_nothing_else_is_said_is_takings_and_sales() -> None:
    taken = (Taking(600, drawer="d1"), Taking(400, provider="alipay"))
    sale = ledger.sale_paid("s1", place=OWN, takings=taken, due_fen=1000, business_date=DAY)
    sums = {("chain", "till:s001:d1"): 600, ("chain", "provider_clearing:alipay"): 400,
            ("chain", "sales_gross:s001"): -1000}  # fmt: skip
    assert balances([sale]) == sums
    back = ledger.sale_refunded("r1", "s1", place=OWN, takings=taken, due_fen=1000, business_date=DAY)
    assert balances([back]) == {key: -fen for key, fen in sums.items()}


def test_an_unbalanced_entity_is_a_bug_even_when_the_whole_sums_to_zero() -> None:
    legs = (Entry(0, CHAIN, "a", 5, DAY), Entry(1, FRANCHISEE, "b", -5, DAY))
    with pytest.raises(Bug, match="leaves"):
        Transaction("kind", "n1", legs)


def test_pending_never_balances_posted() -> None:
    legs = (Entry(0, CHAIN, "a", 5, DAY), Entry(1, CHAIN, "b", -5, DAY, Book.PENDING))
    with pytest.raises(Bug, match="leaves"):
        Transaction("kind", "n1", legs)


def test_the_id_is_derived_so_a_request_books_once() -> None:
    assert use("u1", OWN, 800).id == use("u1", OWN, 800).id == ledger.transaction_id("u1", "benefit_used")
    assert use("u1", OWN, 800).id != use("u2", OWN, 800).id


def test_a_hold_is_pending_only_and_ends_as_a_whole() -> None:
    hold = ledger.hold_placed("H1", entity=CHAIN, provider="alipay", hold_fen=1000, business_date=DAY)
    ended = ledger.hold_ended("H1", entity=CHAIN, provider="alipay", hold_fen=1000, business_date=DAY)
    assert balances([hold], Book.PENDING) == {("chain", "hold:alipay"): 1000, ("chain", "hold_contra"): -1000}
    assert balances([hold]) == {}
    assert balances([hold, ended], Book.PENDING) == {}
    assert ended.refers_to == hold.id


def test_fee_branch_one_life_across_two_entities() -> None:
    """Five 8.00 coupons, fee 10.00: the owner earns the fee, each store keeps its discounts."""
    uses = [use(f"u{n}", OWN if n < 3 else FRANCHISED, 800) for n in range(5)]
    settled = ledger.settled("S1", settlement(1000, Branch.FEE), captured_fen=1000, business_date=DAY)
    assert balances([*uses, settled]) == {
        ("chain", "discount_given:s001"): 2400,
        ("chain", "sales_gross:s001"): -2400,
        ("franchisee-1", "discount_given:s002"): 1600,
        ("franchisee-1", "sales_gross:s002"): -1600,
        ("chain", "provider_clearing:alipay"): 1000,
        ("chain", "membership_fee_income"): -1000,
    }


def test_clawback_gives_each_store_exactly_its_own() -> None:
    uses = [use("u1", OWN, 300), use("u2", FRANCHISED, 500)]
    claw = settlement(800, Branch.CLAWBACK, StoreShare(OWN, 300), StoreShare(FRANCHISED, 500))
    settled = ledger.settled("S1", claw, captured_fen=800, business_date=DAY)
    assert balances([*uses, settled]) == {
        ("chain", "sales_gross:s001"): -300,
        ("franchisee-1", "sales_gross:s002"): -500,
        ("chain", "provider_clearing:alipay"): 800,
        ("chain", "due_to:franchisee-1"): -500,
        ("franchisee-1", "due_from:chain"): 500,
    }


def test_clawback_must_be_explained_by_its_shares() -> None:
    with pytest.raises(Bug, match="do not sum"):
        settlement(800, Branch.CLAWBACK, StoreShare(OWN, 799))
    with pytest.raises(Bug, match="for nothing"):
        settlement(1, None)


def test_nothing_used_posts_nothing() -> None:
    assert ledger.settled("S1", settlement(0, None), captured_fen=0, business_date=DAY).entries == ()


def test_a_reversal_while_the_capture_was_in_flight_is_owed_back_and_refunded() -> None:
    settled = ledger.settled("S1", settlement(300, Branch.FEE), captured_fen=1000, business_date=DAY)
    assert balances([settled])["chain", "refund_payable"] == -700
    refund = ledger.refunded("R1", owner=CHAIN, provider="alipay", fen=700, business_date=DAY)
    assert balances([settled, refund]) == {
        ("chain", "provider_clearing:alipay"): 300,
        ("chain", "membership_fee_income"): -300,
    }
    with pytest.raises(Bug, match="<"):
        ledger.settled("S1", settlement(300, Branch.FEE), captured_fen=299, business_date=DAY)


def test_refund_after_a_clawback_comes_from_the_store_of_the_use() -> None:
    used = use("u1", FRANCHISED, 800)
    claw = settlement(800, Branch.CLAWBACK, StoreShare(FRANCHISED, 800))
    story = [used, ledger.settled("S1", claw, captured_fen=800, business_date=DAY)]
    story.append(
        ledger.benefit_reversed(
            "r1",
            "u1",
            place=FRANCHISED,
            fen=300,
            use_class=UseClass.REGULAR,
            funder=CHAIN,
            business_date=DAY,
        )
    )
    story.append(
        ledger.due_reduced("r1", settlement=claw, fen=300, place=FRANCHISED, owed_as=OwedAs.REFUND, business_date=DAY)
    )
    story.append(ledger.refunded("R1", owner=CHAIN, provider="alipay", fen=300, business_date=DAY))
    assert balances(story) == {
        ("chain", "provider_clearing:alipay"): 500,
        ("chain", "due_to:franchisee-1"): -500,
        ("franchisee-1", "due_from:chain"): 500,
        ("franchisee-1", "sales_gross:s002"): -500,
    }
    assert story[2].refers_to == used.id
    assert balances(story, Book.PENDING) == {
        ("franchisee-1", "used"): 500,
        ("franchisee-1", "used_contra"): -500,
    }


@pytest.mark.parametrize("owed_as", [OwedAs.RECEIVABLE, OwedAs.BAD_DEBT])
def test_failed_then_collected_leaves_what_a_first_success_leaves(owed_as: OwedAs) -> None:
    claw = settlement(800, Branch.CLAWBACK, StoreShare(OWN, 300), StoreShare(FRANCHISED, 500))
    story = [ledger.capture_failed("S1", claw, business_date=DAY)]
    assert balances(story)["chain", "member_receivable"] == 800
    if owed_as is OwedAs.BAD_DEBT:
        story.append(ledger.written_off("S1", claw, business_date=DAY))
        assert balances(story)["chain", "bad_debt"] == 800
    story.append(ledger.receivable_collected("S1A1", claw, captured_fen=800, owed_as=owed_as, business_date=DAY))
    at_once = ledger.settled("S1", claw, captured_fen=800, business_date=DAY)
    assert balances(story) == balances([at_once])


def test_a_reversal_lowers_a_receivable() -> None:
    fee = settlement(1000, Branch.FEE)
    story = [ledger.capture_failed("S1", fee, business_date=DAY)]
    story.append(
        ledger.due_reduced(
            "r1", settlement=fee, fen=200, place=FRANCHISED, owed_as=OwedAs.RECEIVABLE, business_date=DAY
        )
    )
    assert balances(story) == {("chain", "member_receivable"): 800, ("chain", "membership_fee_income"): -800}
    after = settlement(800, Branch.FEE)
    story.append(ledger.receivable_collected("S1A1", after, captured_fen=800, business_date=DAY))
    assert balances(story) == {
        ("chain", "provider_clearing:alipay"): 800,
        ("chain", "membership_fee_income"): -800,
    }


def test_a_fee_that_is_shared_goes_to_the_stores_by_largest_remainder() -> None:
    shares = (StoreShare(OWN, 1600), StoreShare(FRANCHISED, 800))
    shared = settlement(1000, Branch.FEE, *shares)
    assert balances([ledger.settled("S1", shared, captured_fen=1000, business_date=DAY)]) == {
        ("chain", "provider_clearing:alipay"): 1000,
        ("chain", "membership_fee_income:s001"): -667,
        ("chain", "due_to:franchisee-1"): -333,
        ("franchisee-1", "due_from:chain"): 333,
        ("franchisee-1", "membership_fee_income:s002"): -333,
    }
    assert balances([ledger.capture_failed("S1", shared, business_date=DAY)])["chain", "member_receivable"] == 1000


@given(
    given=st.lists(
        st.tuples(PLACES, st.integers(0, 5_000)), min_size=1, max_size=4, unique_by=lambda one: one[0].store
    ),
    due_fen=st.integers(0, 1000),
    falls=st.lists(st.integers(0, 400), max_size=4),
)
def test_what_was_shared_of_a_fee_comes_back_from_those_who_have_it(
    given: list[tuple[Place, int]], due_fen: int, falls: list[int]
) -> None:
    shares = tuple(StoreShare(place, fen) for place, fen in given)
    due_fen = min(due_fen, sum(share.fen for share in shares))
    shared = settlement(due_fen, Branch.FEE, *shares)
    story = [ledger.settled("S1", shared, captured_fen=due_fen, business_date=DAY)]
    for n, fall in enumerate(falls):
        fen = min(fall, due_fen)
        had = balances(story)
        received = [
            StoreShare(share.place, -had.get((share.place.entity, f"membership_fee_income:{share.place.store}"), 0))
            for share in shares
        ]
        story.append(
            ledger.due_reduced(f"r{n}", settlement=shared, fen=fen, place=OWN, owed_as=OwedAs.REFUND,
                               business_date=DAY, fee_received=received)
        )  # fmt: skip
        story.append(ledger.refunded(f"R{n}", owner=CHAIN, provider="alipay", fen=fen, business_date=DAY))
        due_fen -= fen
    sums = balances(story)
    income = {share.place.store: -sums.get((share.place.entity, f"membership_fee_income:{share.place.store}"), 0)
              for share in shares}  # fmt: skip
    assert sum(income.values()) == due_fen == sums.get(("chain", "provider_clearing:alipay"), 0)
    assert all(0 <= income[share.place.store] <= share.fen for share in shares)
    assert sums.get(("chain", "due_to:franchisee-1"), 0) == -sums.get(("franchisee-1", "due_from:chain"), 0)


@given(
    promised=st.lists(st.tuples(PLACES, st.integers(0, 5_000)), max_size=2, unique_by=lambda one: one[0].store),
    received=st.lists(st.tuples(PLACES, st.integers(0, 5_000)), max_size=4),
)
def test_a_store_gets_what_the_plan_promised_and_its_funder_is_named(
    promised: list[tuple[Place, int]], received: list[tuple[Place, int]]
) -> None:
    got = [StoreShare(place, fen) for place, fen in received]
    missing = ledger.promised_top_ups([StoreShare(place, fen) for place, fen in promised], got)
    paid = ledger.given_up("P1", funder=CHAIN, fen=0, topped_up=missing, business_date=DAY)
    sums = balances([paid])
    for place, fen in promised:
        has = sum(share.fen for share in got if share.place == place)
        assert has - sums.get((place.entity, f"discount_given:{place.store}"), 0) == max(has, fen)
    assert sums.get(("chain", "given_up:chain"), 0) == sum(share.fen for share in missing)
    assert sums.get(("chain", "due_to:franchisee-1"), 0) == -sums.get(("franchisee-1", "due_from:chain"), 0)


@pytest.mark.parametrize("use_class", [UseClass.LATE, UseClass.OVERUSE])
def test_what_the_merchant_absorbs_is_the_funders_and_pays_the_store(use_class: UseClass) -> None:
    assert balances([use("u1", FRANCHISED, 800, use_class)]) == {
        ("chain", "absorbed:chain"): 800,
        ("chain", "due_to:franchisee-1"): -800,
        ("franchisee-1", "due_from:chain"): 800,
        ("franchisee-1", "sales_gross:s002"): -800,
    }
    assert use("u2", FRANCHISED, 800, UseClass.REFUSED).entries == ()


def test_a_merchants_cancel_costs_the_franchisee_nothing() -> None:
    shares = (StoreShare(FRANCHISED, 800),)
    assert ledger.top_ups(1000, 500, 800, shares) == shares
    assert ledger.top_ups(1000, 1000, 800, shares) == ()
    assert ledger.top_ups(1000, 500, 1600, (StoreShare(FRANCHISED, 1600),)) == ()
    used = use("u1", FRANCHISED, 800)
    settled = ledger.settled("S1", settlement(500, Branch.FEE), captured_fen=500, business_date=DAY)
    topped = ledger.given_up("S1", funder=CHAIN, fen=300, topped_up=shares, business_date=DAY)
    sums = balances([used, settled, topped])
    assert ("franchisee-1", "discount_given:s002") not in sums
    assert sums["franchisee-1", "due_from:chain"] == 800
    # The funder's net cost is what was given up: 800 paid on, 500 earned.
    assert sums["chain", "given_up:chain"] + sums["chain", "membership_fee_income"] == 300
    assert balances([topped], Book.PENDING) == {
        ("chain", "given_up:chain"): 300,
        ("chain", "given_up_contra"): -300,
    }


def test_a_cash_sale_is_rounded_down_and_the_difference_has_an_account() -> None:
    sale = ledger.sale_paid(
        "sale1",
        place=OWN,
        takings=[Taking(1250, drawer="d1")],
        due_fen=1259,
        rounding_fen=9,
        business_date=DAY,
    )
    assert balances([sale]) == {
        ("chain", "till:s001:d1"): 1250,
        ("chain", "cash_rounding"): 9,
        ("chain", "sales_gross:s001"): -1259,
    }
    assert [entry.leg for entry in sale.entries] == [0, 1, 2]
    assert {entry.business_date for entry in sale.entries} == {DAY}


def test_a_franchisees_sale_through_the_chains_merchant_account() -> None:
    sale = ledger.sale_paid(
        "sale1",
        place=FRANCHISED,
        takings=[Taking(1000, provider="alipay", collector=CHAIN)],
        due_fen=1000,
        business_date=DAY,
    )
    assert balances([sale]) == {
        ("chain", "provider_clearing:alipay"): 1000,
        ("chain", "due_to:franchisee-1"): -1000,
        ("franchisee-1", "due_from:chain"): 1000,
        ("franchisee-1", "sales_gross:s002"): -1000,
    }


def test_promotions_book_the_receipt_amount_and_name_the_rest() -> None:
    sale = ledger.sale_paid(
        "sale1",
        place=OWN,
        takings=[Taking(1000, provider="alipay", merchant_funded_fen=50, provider_funded_fen=100)],
        due_fen=1000,
        business_date=DAY,
    )
    assert balances([sale]) == {
        ("chain", "provider_clearing:alipay"): 850,
        ("chain", "provider_receivable:alipay"): 100,
        ("chain", "discount_given:s001"): 50,
        ("chain", "sales_gross:s001"): -1000,
    }


def test_agency_money_is_a_liability_and_other_discounts_are_shown_gross() -> None:
    sale = ledger.sale_paid(
        "sale1",
        place=OWN,
        takings=[Taking(6000, provider="alipay")],
        due_fen=6000,
        agency_fen=5000,
        other_discount_fen=200,
        business_date=DAY,
    )
    assert balances([sale]) == {
        ("chain", "provider_clearing:alipay"): 6000,
        ("chain", "discount_given:s001"): 200,
        ("chain", "agency_payable:s001"): -5000,
        ("chain", "sales_gross:s001"): -1200,
    }


def test_takings_that_do_not_explain_the_due_are_a_bug_unless_in_suspense() -> None:
    with pytest.raises(Bug, match="sale_paid"):
        ledger.sale_paid("s", place=OWN, takings=[Taking(900, drawer="d1")], due_fen=1000, business_date=DAY)
    odd = ledger.sale_paid(
        "s", place=OWN, takings=[Taking(900, drawer="d1")], due_fen=1000, suspense_fen=-100, business_date=DAY
    )
    assert balances([odd])["chain", "suspense:s001"] == 100
    loose = ledger.takings_without_order("x", place=OWN, taking=Taking(700, drawer="d1"), business_date=DAY)
    assert balances([loose])["chain", "suspense:s001"] == -700


def test_a_coupon_that_covers_everything_leaves_nothing_to_take() -> None:
    sale = ledger.sale_paid("sale1", place=OWN, takings=[], due_fen=0, business_date=DAY)
    assert sale.entries == ()
    assert balances([sale, use("u1", OWN, 800)])["chain", "sales_gross:s001"] == -800


TAKINGS = st.one_of(
    st.builds(Taking, FEN, drawer=st.just("d1")),
    st.builds(
        Taking,
        FEN,
        provider=st.sampled_from(["alipay", "card"]),
        collector=st.sampled_from([None, CHAIN, FRANCHISEE]),
        merchant_funded_fen=st.integers(0, 50),
        provider_funded_fen=st.integers(0, 50),
    ),
)


@given(PLACES, st.lists(TAKINGS, max_size=4), st.integers(0, 9), st.integers(-500, 500), st.integers(0, 500))
def test_a_mirror_undoes_any_sale(
    place: Place, takings: list[Taking], rounding: int, suspense: int, discount: int
) -> None:
    due = sum(taking.fen for taking in takings) + rounding - suspense
    amounts: dict[str, Any] = {
        "due_fen": due,
        "rounding_fen": rounding,
        "suspense_fen": suspense,
        "other_discount_fen": discount,
    }
    sale = ledger.sale_paid("s1", place=place, takings=takings, business_date=DAY, **amounts)
    void = ledger.sale_voided("v1", sale, "2026-02-03")
    back = ledger.sale_refunded("b1", "s1", place=place, takings=takings, business_date=DAY, **amounts)
    assert balances([sale, void]) == {}
    assert balances([sale, back]) == {}
    assert void.refers_to == back.refers_to == sale.id
    assert {entry.business_date for entry in void.entries} <= {"2026-02-03"}


@given(
    st.integers(0, 3000),
    st.lists(st.tuples(PLACES, st.integers(1, 900)), max_size=6),
    st.integers(0, 2000),
    st.booleans(),
)
def test_any_settlement_balances_and_pays_the_charge_exactly(
    fee: int, uses: list[tuple[Place, int]], reversed_fen: int, failed_first: bool
) -> None:
    """Charge, failed capture, collection, one reversal and its refund: provider_clearing ends at what is due."""
    shares = tuple(StoreShare(place, fen) for place, fen in uses)
    used = sum(fen for _, fen in uses)
    charge = charge_fen(fee, used)
    owed = settlement(charge, branch_of(charge, fee), *shares)
    if failed_first:
        story = [
            ledger.capture_failed("S1", owed, business_date=DAY),
            ledger.receivable_collected("S1A1", owed, captured_fen=charge, business_date=DAY),
        ]
    else:
        story = [ledger.settled("S1", owed, captured_fen=charge, business_date=DAY)]
    if uses and charge:
        place, whole = uses[0]
        drop = charge - charge_fen(fee, used - min(whole, reversed_fen))
        story.append(
            ledger.due_reduced("r1", settlement=owed, fen=drop, place=place, owed_as=OwedAs.REFUND, business_date=DAY)
        )
        story.append(ledger.refunded("R1", owner=CHAIN, provider="alipay", fen=drop, business_date=DAY))
        charge -= drop
    sums = balances(story)
    assert sums.get(("chain", "provider_clearing:alipay"), 0) == charge
    assert sums.get(("chain", "due_to:franchisee-1"), 0) == -sums.get(("franchisee-1", "due_from:chain"), 0)
    assert not {account for _, account in sums} & {"member_receivable", "refund_payable", "bad_debt"}
    for story_part in story:
        undone = mirror(story_part, "undo", "undo", DAY)
        assert balances([story_part, undone]) == {}
