"""Value-added tax: rates by code, and what of a price is tax. Prices here always contain it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models.domain.money import Rounding, allocate, divide

BASIS_POINTS = 10_000
RATE_BP_MAX = 5_000
DEFAULT_TAX = "13"
"""Of an article that names no rate."""
SERVICE_TAX = "6"
"""Of a membership's fee: a service."""
DEFAULT_TAXES: Mapping[str, int] = {"13": 1300, "9": 900, "6": 600, "0": 0}
"""China's rates: goods, everyday food, services, exempt."""


def read_taxes(document: Mapping[str, Any]) -> Mapping[str, int]:
    """The chain's rates beside the usual ones: code -> basis points. Raises ValueError naming what is wrong."""
    if not document:
        return DEFAULT_TAXES
    made = dict(DEFAULT_TAXES)
    for code, rate in document.items():
        if not isinstance(rate, int) or isinstance(rate, bool) or not 0 <= rate <= RATE_BP_MAX:
            raise ValueError(f"taxes: {code}: a rate is 0 to {RATE_BP_MAX} basis points, not {rate!r}")
        made[str(code)] = rate
    return made


def tax_of(gross: Sequence[int], rate_bp: int) -> list[int]:
    """What of each of these amounts (>= 0, tax contained) is tax at one rate: that of their sum, a part of a fen left
    out, shared by largest remainder, so that lines sum to the document's total."""
    total = divide(sum(gross) * rate_bp, BASIS_POINTS + rate_bp, Rounding.FLOOR)
    return allocate(total, gross)
