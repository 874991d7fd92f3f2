"""Random baskets, vouchers and light benefits for the tests of pricing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from models.domain.benefits import Scope
from models.domain.ids import LegalEntityId, VoucherId
from models.domain.plans import Plan, Text, plan_from_dict
from models.domain.pricing import BasketLine, LightOffer
from models.domain.vouchers import Voucher, VoucherStage
from tests.domain.test_plans import shipped

CODES = ("rice", "tea", "cake", "soap", "nuts")


def line(number: int, fen: int, quantity: int = 1, code: str = "", *flags: str) -> BasketLine:
    return BasketLine(number, code or f"code{number}", f"item {number}", quantity, fen, frozenset(flags))


def voucher(name: str = "v", **terms: Any) -> Voucher:
    """An order voucher of 1.00 yuan that counts everywhere, but for `terms`."""
    plain = Voucher(
        VoucherId(name), name.upper(), Text(f"券{name}", name), VoucherStage.ORDER, LegalEntityId("chain"), 100
    )
    if "basis_points" in terms:
        terms = {**terms, "value_fen": 0}
    return replace(plain, **terms)


def plan_of(*benefits: dict[str, Any], fee_fen: int = 1000) -> Plan:
    named = [{"name": {"zh": one["id"], "en": one["id"]}, "quota": 9, **one} for one in benefits]
    return plan_from_dict({**shipped(), "fee_fen": fee_fen, "benefits": named})


@dataclass(frozen=True)
class Off:
    """So much off the first line; `later` of it is charged afterwards."""

    fen: int
    later: int = 0

    def worth_fen(self, nets: Sequence[int]) -> int:
        return min(self.fen, nets[0])

    def parts(self, nets: Sequence[int]) -> tuple[int, ...]:
        return (self.worth_fen(nets), *(0 for _ in nets[1:]))

    def later_fen(self, fen: int) -> int:
        return min(self.later, fen)


lines = st.lists(
    st.builds(
        lambda code, fen, quantity, flags: (code, fen, quantity, flags),
        st.sampled_from(CODES),
        st.integers(0, 3000),
        st.integers(1, 3),
        st.sampled_from([(), (), (), (), ("tobacco",), ("no_discount",), ("agency",), ("snack",)]),
    ),
    min_size=1,
    max_size=6,
).map(lambda made: [line(n, fen, many, code, *flags) for n, (code, fen, many, flags) in enumerate(made, 1)])

_terms = st.fixed_dictionaries(
    {
        "stage": st.sampled_from(VoucherStage),
        "threshold_fen": st.sampled_from([0, 0, 0, 500, 1500, 3000]),
        "cap_fen": st.sampled_from([None, None, 1, 333, 900]),
        "group": st.sampled_from(["", "", "", "a", "b"]),
        "exclusive": st.sampled_from([False] * 7 + [True]),
        "flags": st.sampled_from([frozenset[str](), frozenset[str](), frozenset({"snack"})]),
        "scope": st.sets(st.sampled_from(CODES), max_size=3).map(lambda codes: Scope(items=frozenset(codes))),
    }
)
_values = st.one_of(
    st.sampled_from([1, 50, 100, 100, 500, 1000]).map(lambda fen: {"value_fen": fen}),
    st.sampled_from([1, 500, 1000, 3333, 10_000]).map(lambda points: {"basis_points": points}),
)


def vouchers(at_most: int) -> st.SearchStrategy[list[Voucher]]:
    """Different vouchers, in any order."""
    one = st.tuples(_terms, _values).map(lambda parts: {**parts[0], **parts[1]})
    return st.lists(one, max_size=at_most).flatmap(
        lambda made: st.permutations([voucher(f"v{n}", **terms) for n, terms in enumerate(made)])
    )


_benefits = st.sampled_from(
    [
        {"id": "coupon", "value_fen": 800},
        {"id": "twice", "value_fen": 300, "uses_per_sale_max": 2},
        {"id": "tenth", "kind": "percent", "basis_points": 1000, "cap_fen": 700},
        {"id": "second", "kind": "nth_item", "nth": 2, "basis_points": 5000, "cap_fen": 5000},
        {"id": "tier", "kind": "tier_price", "prices_fen": {"rice": 200, "tea": 900}, "cap_fen": 5000},
    ]
)
lights = st.one_of(
    st.none(),
    st.builds(
        lambda benefits, fee, used: LightOffer(
            plan_of(*benefits, fee_fen=fee), used, {one["id"]: 5 for one in benefits}
        ),
        st.lists(_benefits, min_size=1, max_size=2, unique_by=lambda one: str(one["id"])),
        st.sampled_from([0, 700, 1000, 90_000]),
        st.sampled_from([0, 400, 900, 2000]),
    ),
)
