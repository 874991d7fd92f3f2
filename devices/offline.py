"""Selling while the link is down: a local price list, leased benefits, cash and card. Pure, standard library only.

The server books each sale once it comes. A leased use is REGULAR until the lease's `until`; a benefit given without a
lease is classed at arrival, and what is over the quota is the merchant's (docs: money).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from models.domain.errors import Refused
from models.domain.money import cash_rounded_fen

ITEMS_MAX = 20_000
BENEFITS_MAX = 256
LEASES_MAX = 200
LINES_MAX = 200
QUANTITY_MAX = 99
SALES_MAX = 5_000
"""Sales in one outage: after that somebody must look at the network."""
SALE_FEN_MAX = 500_000
"""One offline sale: nobody can check a large one against anything."""

NOT_DISCOUNTED = frozenset({"no_discount", "tobacco", "agency"})
"""Flags of items that no benefit is given on (docs: money, Pricing)."""
AGE_FLAG = "age_18"


@dataclass(frozen=True, slots=True)
class OfflineItem:
    """An article as this terminal sells it alone; `unit_fen` is the price of one."""

    code: str
    name: str
    unit_fen: int
    flags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class OfflineBenefit:
    """What one use of a benefit takes off, at most."""

    id: str
    name: str
    value_fen: int


@dataclass(frozen=True, slots=True)
class PriceList:
    """Articles by code and benefits by id, of one version."""

    version: int = 0
    items: Mapping[str, OfflineItem] = field(default_factory=dict)
    benefits: Mapping[str, OfflineBenefit] = field(default_factory=dict)

    @staticmethod
    def read(document: Mapping[str, Any]) -> PriceList:
        """From `desired.config.offline` or the file it names: `{version, items:[{code, name, unit_fen, flags}],
        benefits:[{id, name, value_fen}]}`. Raises ValueError for anything else; nothing is taken half.
        """
        items = _rows(document, "items", ITEMS_MAX)
        benefits = _rows(document, "benefits", BENEFITS_MAX)
        try:
            return PriceList(
                _whole(document.get("version", 0)),
                {str(row["code"]): _item(row) for row in items},
                {str(row["id"]): _benefit(row) for row in benefits},
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"a price list needs {error}") from error


def _rows(document: Mapping[str, Any], name: str, rows_max: int) -> Sequence[Mapping[str, Any]]:
    rows = document.get(name, [])
    if not isinstance(rows, list) or len(rows) > rows_max or not all(isinstance(row, Mapping) for row in rows):
        raise ValueError(f"{name} is a list of at most {rows_max} objects")
    return rows


def _item(row: Mapping[str, Any]) -> OfflineItem:
    flags = frozenset(str(flag) for flag in row.get("flags", ()))
    return OfflineItem(str(row["code"]), str(row["name"]), _whole(row["unit_fen"]), flags)


def _benefit(row: Mapping[str, Any]) -> OfflineBenefit:
    return OfflineBenefit(str(row["id"]), str(row["name"]), _whole(row["value_fen"]))


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"a whole number is needed, not {value!r}")
    return value


@dataclass(frozen=True, slots=True)
class HeldLease:
    """So many uses of a member's benefit, reserved while there was a network. `until` by business time."""

    id: str
    membership: str
    benefit: str
    uses: int
    until: datetime
    used: int = 0
    member: str = ""
    """The masked name that the screen showed, so that the clerk finds the right lease."""

    def left(self, now: datetime) -> int:
        """Uses that may still be given."""
        return max(0, self.uses - self.used) if now < self.until else 0

    def document(self) -> dict[str, str | int]:
        """As it is kept on the disk."""
        return {
            "id": self.id,
            "membership": self.membership,
            "benefit": self.benefit,
            "uses": self.uses,
            "until": self.until.astimezone(UTC).isoformat(),
            "used": self.used,
            "member": self.member,
        }

    @staticmethod
    def read(document: Mapping[str, Any]) -> HeldLease:
        """What `document` wrote. Raises ValueError, KeyError."""
        return HeldLease(
            str(document["id"]),
            str(document["membership"]),
            str(document["benefit"]),
            _whole(document["uses"]),
            datetime.fromisoformat(str(document["until"])),
            _whole(document.get("used", 0)),
            str(document.get("member", "")),
        )


@dataclass(frozen=True, slots=True)
class OfflineLine:
    """One line of the basket that is being sold."""

    line: int
    item: OfflineItem
    quantity: int

    @property
    def net_fen(self) -> int:
        """Before benefits."""
        return self.item.unit_fen * self.quantity


@dataclass(frozen=True, slots=True)
class Given:
    """A benefit to be given with this sale. `lease` None: without one, the server classes it at arrival."""

    membership: str
    benefit: str
    fen: int
    lease: str | None


@dataclass(frozen=True, slots=True)
class OfflineQuote:
    """What the customer is asked for. `due_fen` = total less benefits; cash is rounded down to 10 fen."""

    total_fen: int
    benefits: tuple[Given, ...]
    due_fen: int
    cash_due_fen: int


@dataclass(frozen=True, slots=True)
class OfflineTill:
    """One terminal selling alone. Every verb returns the next state; what it cannot do raises Refused."""

    prices: PriceList = PriceList()
    leases: tuple[HeldLease, ...] = ()
    lines: tuple[OfflineLine, ...] = ()
    given: tuple[str, str | None, str] | None = None
    """(benefit, lease, membership) chosen for the basket."""
    aged: bool = False
    """The clerk checked the customer's age for this basket."""
    sales: int = 0
    taken_fen: int = 0

    # ------------------------------------------------------------ leases

    def hold(self, lease: HeldLease) -> OfflineTill:
        """Keep a lease that was granted; the same one again changes nothing."""
        others = tuple(one for one in self.leases if one.id != lease.id)
        if len(others) < len(self.leases):
            return self
        if len(others) >= LEASES_MAX:
            raise Refused("leases_full", f"{LEASES_MAX} leases are held", "give some back first")
        return replace(self, leases=(*others, lease))

    def release(self, lease: str) -> OfflineTill:
        """It was given back, or ended."""
        return replace(self, leases=tuple(one for one in self.leases if one.id != lease))

    # ------------------------------------------------------------ the basket

    def scan(self, code: str, quantity: int = 1) -> OfflineTill:
        """One more line. Raises Refused: unknown_item, bad_quantity, basket_full."""
        item = self.prices.items.get(code)
        if item is None:
            raise Refused("unknown_item", f"{code} is not on the local price list", "sell it when the network is back")
        if not 1 <= quantity <= QUANTITY_MAX:
            raise Refused("bad_quantity", f"{quantity} pieces", f"1 to {QUANTITY_MAX}")
        if len(self.lines) >= LINES_MAX:
            raise Refused("basket_full", f"{LINES_MAX} lines", "split the basket")
        number = max((line.line for line in self.lines), default=0) + 1
        return replace(self, lines=(*self.lines, OfflineLine(number, item, quantity)))

    def remove(self, line: int) -> OfflineTill:
        """Take a line out. Raises Refused no_such_line."""
        left = tuple(one for one in self.lines if one.line != line)
        if len(left) == len(self.lines):
            raise Refused("no_such_line", f"line {line}", "look at the screen")
        return replace(self, lines=left)

    def age_checked(self, ok: bool) -> OfflineTill:
        """The clerk looked at the customer. Refused: the items that need it go back on the shelf."""
        if ok:
            return replace(self, aged=True)
        return replace(self, lines=tuple(one for one in self.lines if AGE_FLAG not in one.item.flags))

    def give(self, lease: str, now: datetime) -> OfflineTill:
        """Use one of a lease's uses in this basket. Raises Refused: no_such_lease, lease_over, unknown_benefit."""
        held = next((one for one in self.leases if one.id == lease or one.member == lease), None)
        if held is None:
            raise Refused("no_such_lease", f"no lease {lease!a} is held here", "sell at the full price")
        if held.left(now) == 0:
            raise Refused("lease_over", "its uses are given or its time is over", "sell at the full price")
        self._benefit(held.benefit)
        return replace(self, given=(held.benefit, held.id, held.membership))

    def give_unleased(self, membership: str, benefit: str) -> OfflineTill:
        """Give a benefit without a lease: what is over the member's quota will be the merchant's."""
        self._benefit(benefit)
        return replace(self, given=(benefit, None, membership))

    def cancel(self) -> OfflineTill:
        """The customer goes without buying."""
        return replace(self, lines=(), given=None, aged=False)

    def _benefit(self, benefit: str) -> OfflineBenefit:
        found = self.prices.benefits.get(benefit)
        if found is None:
            raise Refused("unknown_benefit", f"{benefit} is not on the local list", "sell at the full price")
        return found

    def quote(self) -> OfflineQuote:
        """What the basket costs now: one benefit for a sale, on what may be discounted."""
        total = sum(line.net_fen for line in self.lines)
        benefits: tuple[Given, ...] = ()
        if self.given is not None:
            benefit, lease, membership = self.given
            eligible = sum(line.net_fen for line in self.lines if not line.item.flags & NOT_DISCOUNTED)
            fen = min(self._benefit(benefit).value_fen, eligible)
            benefits = (Given(membership, benefit, fen, lease),) if fen else ()
        due = total - sum(one.fen for one in benefits)
        return OfflineQuote(total, benefits, due, cash_rounded_fen(due))

    # ------------------------------------------------------------ the sale

    def sell(
        self, kind: str, now: datetime, *, tendered_fen: int | None = None, till_txn: str
    ) -> tuple[OfflineTill, dict[str, Any]]:
        """Take the money, in cash or by the shop's own card terminal: the next state and the body of one `sale`.

        Raises Refused: nothing_to_pay, tender_unsupported, tender_short, age_check_missing, sale_too_large,
        offline_full, lease_over. Nothing is changed then.
        """
        quote = self._sellable(kind, now)
        due = quote.cash_due_fen if kind == "cash" else quote.due_fen
        if tendered_fen is not None and (kind != "cash" or tendered_fen < due):
            raise Refused("tender_short", f"{tendered_fen} fen for {due}", "ask for the rest; only cash gives change")
        tender: dict[str, Any] = {"kind": kind, "fen": due}
        if tendered_fen is not None:
            tender["tendered_fen"] = tendered_fen
        body = {
            "till_txn": till_txn,
            "lines": [_line(line) for line in self.lines],
            "tenders": [tender] if quote.due_fen else [],
            "total_fen": quote.total_fen,
            "benefits": [
                {"lease": one.lease, "membership": one.membership, "benefit": one.benefit, "fen": one.fen}
                for one in quote.benefits
            ],
        }
        used = {one.lease for one in quote.benefits}
        leases = tuple(replace(one, used=one.used + 1) if one.id in used else one for one in self.leases)
        sold = replace(self, leases=leases, sales=self.sales + 1, taken_fen=self.taken_fen + due)
        return sold.cancel(), body

    def _sellable(self, kind: str, now: datetime) -> OfflineQuote:
        if not self.lines:
            raise Refused("nothing_to_pay", "the basket is empty", "scan something first")
        if kind not in ("cash", "card"):
            raise Refused("tender_unsupported", f"{kind} needs the network", "take cash or the card terminal")
        if self.sales >= SALES_MAX:
            raise Refused("offline_full", f"{SALES_MAX} sales wait for the network", "call the operator")
        if not self.aged and any(AGE_FLAG in line.item.flags for line in self.lines):
            raise Refused("age_check_missing", "an item is for adults", "check the age")
        quote = self.quote()
        if quote.due_fen > SALE_FEN_MAX:
            raise Refused(
                "sale_too_large", f"{quote.due_fen} fen offline, {SALE_FEN_MAX} at most", "wait for the network"
            )
        for one in quote.benefits:
            held = next((lease for lease in self.leases if lease.id == one.lease), None)
            if one.lease is not None and (held is None or held.left(now) == 0):
                raise Refused("lease_over", "the lease ended meanwhile", "sell at the full price")
        return quote

    def back_online(self) -> OfflineTill:
        """The outage is over: its counters begin anew."""
        return replace(self, sales=0, taken_fen=0)


def _line(line: OfflineLine) -> dict[str, Any]:
    return {
        "line": line.line,
        "code": line.item.code,
        "name": line.item.name,
        "quantity": line.quantity,
        "unit_fen": line.item.unit_fen,
        "net_fen": line.net_fen,
        "flags": sorted(line.item.flags),
    }
