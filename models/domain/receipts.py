"""A store's receipts as a chain: a missing, changed or reordered one is found by whoever looks.

sha256 of a link = SHA-256(sha256 of the link before, or GENESIS || digest); digest = SHA-256 of the canonical content:
JSON in UTF-8, keys in order, no blanks. The content is what the customer was given: it names no person, so erasing one
breaks no chain, and no business date, for what comes late to a closed day is booked on the next.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from models.domain.facts import SaleMade, SaleReturned, SaleVoided

GENESIS = hashlib.sha256(b"storeops receipts 1").digest()
"""What stands before a store's first receipt."""

_SALE = (
    "id", "receipt", "store", "lane", "terminal", "clerk", "entity", "till_txn", "gross_fen", "discount_fen",
    "due_fen", "rounding_fen", "suspense_fen", "agency_fen",
)  # fmt: skip
_VOID = ("id", "sale", "store", "terminal")
_RETURN = (
    "id", "sale", "n", "store", "lane", "terminal", "clerk", "entity", "due_fen", "discount_fen", "rounding_fen",
    "suspense_fen", "reason",
)  # fmt: skip
_PARTS: dict[str, tuple[str, ...]] = {
    "tenders": ("kind", "fen", "order", "tendered_fen", "change_fen"),
    "uses": ("usage", "benefit", "fen"),
    "vouchers": ("use", "voucher", "fen"),
}
_SALE_LINE = ("line", "code", "name", "quantity", "unit_fen", "discount_fen", "net_fen")
_RETURN_LINE = ("line", "quantity", "discount_fen", "net_fen")


@dataclass(frozen=True, slots=True)
class Receipt:
    """What one receipt says. Voids and returns are receipts too. `content`: canonical bytes."""

    id: str
    kind: str
    store: str
    at: datetime
    content: bytes

    @property
    def digest(self) -> bytes:
        """SHA-256 of the content."""
        return hashlib.sha256(self.content).digest()


def canonical(document: Mapping[str, Any]) -> bytes:
    """The one spelling of a document of texts, integers, lists and nulls."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _picked(source: object, names: Sequence[str]) -> dict[str, Any]:
    if isinstance(source, Mapping):
        return {name: source.get(name) for name in names}
    return {name: getattr(source, name) for name in names}


def _receipt(kind: str, source: object, names: Sequence[str], line: Sequence[str], at: datetime) -> Receipt:
    document = _picked(source, names)
    if line:
        parts = _picked(source, ("lines", *_PARTS))
        document["lines"] = [_picked(one, line) for one in parts["lines"] or ()]
        for name, columns in _PARTS.items():
            document[name] = [_picked(one, columns) for one in parts[name] or ()]
    document |= {"kind": kind, "at": at.astimezone(UTC).isoformat()}
    return Receipt(document["id"], kind, document["store"], at, canonical(document))


def receipt_of(fact: SaleMade | SaleVoided | SaleReturned) -> Receipt:
    """The receipt of what happens now."""
    match fact:
        case SaleMade():
            return _receipt("sale", fact, _SALE, _SALE_LINE, fact.at)
        case SaleVoided():
            return _receipt("void", fact, _VOID, (), fact.at)
        case SaleReturned():
            return _receipt("return", fact, _RETURN, _RETURN_LINE, fact.at)


def kept_from_row(store: str, kind: str, ident: str, row: Mapping[str, Any]) -> Receipt:
    """The receipt that a stored sale, void or return would have today. Raises KeyError, ValueError for a broken row."""
    names, line = {"sale": (_SALE, _SALE_LINE), "void": (_VOID, ()), "return": (_RETURN, _RETURN_LINE)}[kind]
    return _receipt(kind, {**row, "id": ident, "store": store}, names, line, datetime.fromisoformat(row["at"]))


# ---------------------------------------------------------------- verifying


@dataclass(frozen=True, slots=True)
class Link:
    """A receipt in its store's chain, numbered from 1."""

    n: int
    id: str
    kind: str
    at: datetime
    digest: bytes
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """A link with what its sale, void or return says today. Without one of them, something is gone."""

    link: Link | None
    receipt: Receipt | None


class FaultKind(StrEnum):
    """What may be wrong with a chain. A closed list."""

    MISSING = "missing"
    """A link of the chain is not there, or what it is about is gone."""
    CHANGED = "changed"
    """The sale, void or return does not say any more what its receipt said."""
    OUT_OF_PLACE = "out_of_place"
    """A link does not follow from the one before it: reordered, put in, or an earlier one was taken out."""
    NO_RECEIPT = "no_receipt"
    """A sale, void or return that is in no chain."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One finding; `n` 0 where there is no link."""

    kind: FaultKind
    n: int
    id: str
    detail: str


FAULTS_KEPT_MAX = 1_000


@dataclass(slots=True)
class Verifier:
    """Fed with a chain in its order, finds what is wrong with it. Faults beyond FAULTS_KEPT_MAX are counted."""

    faults: list[Fault] = field(default_factory=list)
    faults_total: int = 0
    receipts: int = 0
    head: bytes = GENESIS
    _expected: int = 1
    _noted: dict[int, bytes] = field(default_factory=dict)

    def watch(self, n: int, sha256: bytes) -> None:
        """A head that was noted before: it must be there, as it was."""
        self._noted[n] = sha256

    def feed(self, kept: Kept) -> None:
        """The next link, or after all links what is in no chain."""
        link, receipt = kept.link, kept.receipt
        if link is None:
            assert receipt is not None
            self._fault(FaultKind.NO_RECEIPT, 0, receipt.id, f"a {receipt.kind} without a receipt")
            return
        self.receipts += 1
        follows = link.n == self._expected
        if not follows:
            gap = f"{self._expected}" if link.n == self._expected + 1 else f"{self._expected} to {link.n - 1}"
            self._fault(FaultKind.MISSING, self._expected, "", f"receipt {gap} is missing before {link.id}")
        if follows and hashlib.sha256(self.head + link.digest).digest() != link.sha256:
            self._fault(FaultKind.OUT_OF_PLACE, link.n, link.id, "does not follow from the receipt before it")
        if receipt is None:
            self._fault(FaultKind.MISSING, link.n, link.id, f"the {link.kind} that it is about is gone")
        elif receipt.digest != link.digest or receipt.kind != link.kind or receipt.at != link.at:
            self._fault(FaultKind.CHANGED, link.n, link.id, f"the {link.kind} does not say what its receipt said")
        if self._noted.pop(link.n, link.sha256) != link.sha256:
            self._fault(FaultKind.OUT_OF_PLACE, link.n, link.id, "is not the receipt that was noted under this number")
        self.head, self._expected = link.sha256, link.n + 1

    def finish(self) -> None:
        """The chain ended."""
        for n in sorted(self._noted):
            self._fault(FaultKind.MISSING, n, "", f"receipt {n} was noted before, the chain ends at {self.last}")

    @property
    def last(self) -> int:
        """The number of the last receipt; 0: there is none."""
        return self._expected - 1

    def _fault(self, kind: FaultKind, n: int, ident: str, detail: str) -> None:
        self.faults_total += 1
        if len(self.faults) < FAULTS_KEPT_MAX:
            self.faults.append(Fault(kind, n, ident, detail))


def verify(chain: Iterable[Kept]) -> Verifier:
    """A whole chain at once."""
    verifier = Verifier()
    for kept in chain:
        verifier.feed(kept)
    verifier.finish()
    return verifier


def link_faults(before: bytes, kept: Kept) -> list[Fault]:
    """What is wrong with one link alone, `before` being the SHA-256 of the link before it (GENESIS before the first).

    That nothing is missing elsewhere, only the whole chain says.
    """
    assert kept.link is not None
    verifier = Verifier(head=before, _expected=kept.link.n)
    verifier.feed(kept)
    return verifier.faults
