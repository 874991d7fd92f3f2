"""Pricing a basket with 20 vouchers: CPU time of the production function, beside one pass of each once.

The one pass is the least that any answer costs: it finds each voucher's goods and takes it off, and chooses nothing.
How often a till without a search (always take what helps most) would be dearer is counted on the same baskets.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from models.domain.benefits import ALWAYS_EXCLUDED, Benefit, Goods, Scope
from models.domain.best_set import NODES_MAX, Candidate, best_set, greedy_set
from models.domain.ids import BenefitId, LegalEntityId, PlanId, VoucherId
from models.domain.periods import Days
from models.domain.plans import GuaranteeKind, MerchantCancel, Plan, Text
from models.domain.pricing import BasketLine, LightOffer, price, voucher_candidates
from models.domain.vouchers import FittedVoucher, Voucher, VoucherStage, fit
from runtime.bench.form import Row, row
from runtime.bench.money import Advance, Ground

STEPS = 10
BASKETS = 1_000
VOUCHERS = 20
ARTICLES = 30
LINES = (1, 12)
"""A convenience basket has two or three lines; twelve is a large one."""
SEED = 20261122


@dataclass(frozen=True, slots=True)
class Case:
    """One basket, what was entered, and the member's benefit."""

    lines: tuple[BasketLine, ...]
    vouchers: tuple[Voucher, ...]
    light: LightOffer


@dataclass(frozen=True, slots=True)
class Figures:
    """CPU milliseconds per basket, in the order of the baskets; and what the searches did."""

    price_ms: tuple[float, ...]
    pass_ms: tuple[float, ...]
    cut_short: int
    """Searches that ended at the bound: best found, `optimal` false."""
    greedy_dearer: int
    nodes_ms_20: int
    """Sets that 20 ms of CPU are enough for, on this machine: what NODES_MAX is calibrated to."""


def cases(count: int = BASKETS, seed: int = SEED) -> list[Case]:
    """Random baskets: the same for the same seed."""
    rng = random.Random(seed)  # noqa: S311 - baskets, not secrets
    plan = _plan()
    return [
        Case(
            tuple(_line(rng, n) for n in range(1, rng.randint(*LINES) + 1)),
            tuple(_voucher(rng, n) for n in range(VOUCHERS)),
            LightOffer(plan, rng.choice((0, 400, 1000)), {"coupon8": 5}),
        )
        for _ in range(count)
    ]


def figures_of(baskets: Sequence[Case], seen: Callable[[], None] = lambda: None) -> Figures:
    """Price each basket, and apply its vouchers once, in turn. `seen` is called after each basket, for progress."""
    price_ms, pass_ms = [], []
    cut_short = greedy_dearer = nodes = 0
    search_s = 0.0
    for case in baskets:
        began = time.process_time()
        quote = price(case.lines, case.light, vouchers=case.vouchers)
        between = time.process_time()
        one_pass(case)
        ended = time.process_time()
        price_ms.append((between - began) * 1e3)
        pass_ms.append((ended - between) * 1e3)
        cut_short += not quote.optimal
        grosses, candidates = _search_of(case)
        began = time.process_time()
        best = best_set(grosses, candidates)
        search_s += time.process_time() - began
        nodes += best.nodes
        greedy_dearer += greedy_set(grosses, candidates).effective_fen > best.effective_fen
        seen()
    return Figures(
        tuple(price_ms), tuple(pass_ms), cut_short, greedy_dearer, round(nodes * 0.020 / max(search_s, 1e-9))
    )


def one_pass(case: Case) -> int:
    """Each voucher once, in the order it was entered: finds its goods, takes it off. What is left, in fen."""
    goods = [Goods(one.code, one.quantity, one.unit_fen, one.gross_fen, one.gross_fen, one.flags) for one in case.lines]
    left = [one.gross_fen for one in case.lines]
    for voucher in case.vouchers:
        parts = fit(voucher, goods).parts(left)
        left = [net - part for net, part in zip(left, parts, strict=True)]
    return sum(left)


def rows(figures: Figures) -> list[Row]:
    """The rows of `storeops bench money`."""
    baskets = len(figures.price_ms)
    base = f"one pass, each of {VOUCHERS} vouchers once"
    p99 = percentile(figures.price_ms, 99)
    return [
        row(
            f"price of a basket with {VOUCHERS} vouchers, p50", percentile(figures.price_ms, 50), "ms CPU", base,
            percentile(figures.pass_ms, 50),
        ),
        row(
            f"price of a basket with {VOUCHERS} vouchers, p99", p99, "ms CPU", base, percentile(figures.pass_ms, 99),
            "<= 20",
        ),
        row("searches that ended at the bound", figures.cut_short, "baskets", "baskets", baskets),
        row("baskets where greedy is dearer", figures.greedy_dearer, "baskets", "baskets", baskets),
        row("sets priced in 20 ms CPU", figures.nodes_ms_20, "sets", "sets that a search may price", NODES_MAX),
    ]  # fmt: skip


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that so many per cent are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, -(-len(ordered) * percent // 100) - 1)]


def measure(ground: Ground, advance: Advance) -> list[Row]:
    """Warm up, measure, and report. Needs nothing of the ground: prices are computed."""
    del ground
    figures_of(cases(20, seed=SEED + 1))
    left = iter(range(1, BASKETS + 1))

    def seen() -> None:
        if next(left) % (BASKETS // STEPS) == 0:
            advance("baskets priced")

    return rows(figures_of(cases(), seen))


def _search_of(case: Case) -> tuple[list[int], list[Candidate]]:
    goods = [Goods(one.code, one.quantity, one.unit_fen, one.gross_fen, one.gross_fen, one.flags) for one in case.lines]
    fitted: list[FittedVoucher] = [fit(voucher, goods) for voucher in case.vouchers]
    return [one.gross_fen for one in case.lines], voucher_candidates(fitted)


def _line(rng: random.Random, number: int) -> BasketLine:
    code = f"c{rng.randrange(ARTICLES)}"
    flags = frozenset({"tobacco"}) if rng.random() < 0.05 else frozenset[str]()
    return BasketLine(number, code, code, rng.randint(1, 3), rng.randrange(100, 2000, 10), flags)


def _voucher(rng: random.Random, number: int) -> Voucher:
    points = rng.random() < 0.5
    named = frozenset(f"c{rng.randrange(ARTICLES)}" for _ in range(12)) if rng.random() < 0.4 else frozenset[str]()
    return Voucher(
        VoucherId(f"v{number:02}"),
        f"V{number}",
        Text(f"券{number}", f"voucher {number}"),
        rng.choice(tuple(VoucherStage)),
        LegalEntityId("chain"),
        value_fen=0 if points else rng.choice((50, 100, 200, 300, 500, 800, 1000)),
        basis_points=rng.choice((500, 1000, 2000, 3000)) if points else 0,
        threshold_fen=rng.choice((0, 0, 1000, 2000, 3000, 5000, 8000)),
        cap_fen=rng.choice((None, None, 500, 1000)),
        group=rng.choice(("", "", "", "a", "b", "c")),
        exclusive=rng.random() < 0.08,
        scope=Scope(ALWAYS_EXCLUDED, named),
    )


def _plan() -> Plan:
    name = Text("十元轻会员", "Light membership 10")
    chain = LegalEntityId("chain")
    return Plan(
        id=PlanId("light-10"), version=1, name=name, owner_entity=chain, fee_fen=1000,
        benefits=(Benefit(BenefitId("coupon8"), Text("8 元券", "8-yuan coupon"), 800, 5),), period=Days(30),
        grace_days=1, cutoff_hour=0, zone="Asia/Shanghai", dunning_days=(1,), on_merchant_cancel=MerchantCancel.MIN,
        guarantees=(GuaranteeKind.HUABEI_HOLD,), enrol_again_after_days=0, funder_entity=chain,
    )  # fmt: skip
