"""Stores that adopt one after the other: what each would have done without, from those that have not adopted yet.

The imputation estimator of Borusyak, Jaravel and Spiess 2024: store and day effects are fitted to store-days without
the change only, and the effect is the mean of what the others do beyond them. A regression with one coefficient for
"treated" would compare late stores with early ones that already have the change, some with negative weights (Goodman-
Bacon 2021). The interval leaves out one store at a time (jackknife), t with treated stores - 1 degrees.
"""

from __future__ import annotations

from math import sqrt

import numpy as np
from numpy.typing import NDArray

from runtime.evidence_cuped import Comparison

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def adopted(values: Floats, under_change: Flags) -> tuple[Comparison, int] | None:
    """`values` (stores, days), NaN where a store was shut; `under_change` likewise.

    Returns the mean effect of a store-day under the change, and how many of those were left out because on their day
    every store had the change, or their store has no day without it. None: fewer than two stores with and without.
    """
    there: Flags = np.logical_not(np.isnan(values))
    bare: Flags = np.logical_and(there, np.logical_not(under_change))
    filled = np.where(there, values, 0.0)
    stores = np.flatnonzero(bare.any(axis=1))
    filled, bare, treated = filled[stores], bare[stores], (there[stores] & under_change[stores])
    own = bare.sum(axis=1).astype(np.float64)
    # Store effects swept out: each store adds diag(bare) - bare bare'/own to the normal matrix of the days.
    means = (filled * bare).sum(axis=1) / own
    sums = np.where(bare, filled - means[:, None], 0.0)
    matrices = -np.einsum("si,sj->sij", bare / own[:, None], bare.astype(np.float64))
    days = np.arange(values.shape[1])
    matrices[:, days, days] += bare
    whole, right = matrices.sum(axis=0), sums.sum(axis=0)
    known: Flags = np.asarray(bare.any(axis=0))
    usable: Flags = np.logical_and(treated, known[None, :])
    has = usable.any(axis=1)
    of_treated = int(has.sum())
    if of_treated < 2 or int((~has).sum()) < 2:
        return None

    def effect(matrix: Floats, target: Floats, keep: Flags) -> tuple[float, Floats]:
        # Day effects are known up to a constant, which the stores' means take up: least norm.
        day = np.linalg.lstsq(matrix, target, rcond=1e-10)[0]
        store = means - (bare @ day) / own
        beyond = np.where(usable & keep[:, None], filled - store[:, None] - day[None, :], 0.0)
        return float(beyond.sum() / (usable & keep[:, None]).sum()), beyond

    everyone = np.ones(len(stores), dtype=bool)
    estimate, beyond = effect(whole, right, everyone)
    left_out = []
    for n in range(len(stores)):
        keep = everyone.copy()
        keep[n] = False
        left_out.append(effect(whole - matrices[n], right - sums[n], keep)[0])
    found = np.array(left_out)
    size = len(stores)
    error = sqrt((size - 1) / size * float(((found - found.mean()) ** 2).sum()))
    each = beyond[has].sum(axis=1) / usable[has].sum(axis=1)
    skipped = int((there & under_change).sum() - usable.sum())
    return Comparison(estimate, error, of_treated - 1, float(each.std(ddof=1)), 1.0), skipped
