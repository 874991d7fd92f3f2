"""A chain of receipts: what is missing, changed or reordered is found, and nothing else is said."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from models.domain.receipts import GENESIS, FaultKind, Kept, Link, Receipt, Verifier, canonical, verify

START = datetime(2026, 1, 1, tzinfo=UTC)


def chain(count: int) -> list[Kept]:
    made, before = [], GENESIS
    for n in range(1, count + 1):
        at = START + timedelta(minutes=n)
        receipt = Receipt(f"r{n}", "sale", "s1", at, canonical({"id": f"r{n}", "due_fen": n * 100, "name": "茶"}))
        before = hashlib.sha256(before + receipt.digest).digest()
        made.append(Kept(Link(n, receipt.id, "sale", at, receipt.digest, before), receipt))
    return made


def kinds(kept: list[Kept]) -> list[FaultKind]:
    return [fault.kind for fault in verify(kept).faults]


def test_the_canonical_content_has_one_spelling() -> None:
    assert canonical({"b": 1, "a": ["茶", None]}) == '{"a":["茶",null],"b":1}'.encode()


@given(st.integers(0, 12))
def test_a_whole_chain_has_no_fault(count: int) -> None:
    found = verify(chain(count))
    assert (found.faults, found.receipts, found.last) == ([], count, count)


@given(st.integers(2, 12), st.data())
def test_a_missing_link_is_found_unless_it_was_the_last(count: int, data: st.DataObject) -> None:
    whole = chain(count)
    place = data.draw(st.integers(0, count - 1))
    cut = whole[:place] + whole[place + 1 :]
    assert kinds(cut) == ([] if place == count - 1 else [FaultKind.MISSING])
    # The end cut off is found by a head that was noted before, or by the sale that stays without a receipt.
    verifier = Verifier()
    last = whole[-1].link
    assert last is not None
    verifier.watch(last.n, last.sha256)
    for kept in cut:
        verifier.feed(kept)
    verifier.finish()
    assert verifier.faults
    assert FaultKind.NO_RECEIPT in kinds([*cut, Kept(None, whole[place].receipt)])


@given(st.integers(2, 12), st.data())
def test_renumbering_after_taking_one_out_is_found(count: int, data: st.DataObject) -> None:
    whole = chain(count)
    place = data.draw(st.integers(0, count - 2))
    shifted = [
        replace(kept, link=replace(kept.link, n=kept.link.n - 1))
        for kept in whole[place + 1 :]
        if kept.link is not None
    ]
    assert kinds(whole[:place] + shifted) == [FaultKind.OUT_OF_PLACE]


@given(st.integers(2, 12), st.data())
def test_two_links_that_changed_places_are_found(count: int, data: st.DataObject) -> None:
    whole = chain(count)
    one = data.draw(st.integers(0, count - 2))
    other = data.draw(st.integers(one + 1, count - 1))
    first, second = whole[one].link, whole[other].link
    assert first is not None
    assert second is not None
    swapped = list(whole)
    swapped[one] = Kept(replace(second, n=first.n), whole[other].receipt)
    swapped[other] = Kept(replace(first, n=second.n), whole[one].receipt)
    assert FaultKind.OUT_OF_PLACE in kinds(swapped)


@given(st.integers(1, 12), st.data())
def test_a_changed_sale_is_found_and_so_is_one_that_is_gone(count: int, data: st.DataObject) -> None:
    whole = chain(count)
    place = data.draw(st.integers(0, count - 1))
    receipt = whole[place].receipt
    assert receipt is not None
    changed = list(whole)
    changed[place] = replace(whole[place], receipt=replace(receipt, content=receipt.content.replace(b"00", b"01")))
    assert kinds(changed) == [FaultKind.CHANGED]
    changed[place] = replace(whole[place], receipt=None)
    assert kinds(changed) == [FaultKind.MISSING]


@given(st.integers(1, 12), st.data())
def test_a_chain_written_anew_is_found_by_a_noted_head(count: int, data: st.DataObject) -> None:
    whole = chain(count)
    noted = whole[data.draw(st.integers(0, count - 1))].link
    assert noted is not None
    forged, before = [], b"elsewhere"
    for kept in whole:
        assert kept.link is not None
        before = hashlib.sha256(before + kept.link.digest).digest()
        forged.append(replace(kept, link=replace(kept.link, sha256=before)))
    verifier = Verifier()
    verifier.watch(noted.n, noted.sha256)
    for kept in forged:
        verifier.feed(kept)
    verifier.finish()
    assert FaultKind.OUT_OF_PLACE in [fault.kind for fault in verifier.faults]
