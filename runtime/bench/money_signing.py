"""How fast a core signs requests to a provider: the work that no batching of ours can share out.

The thing is `gateway.providers.signing.sign` over a request's text; the bare limit is the same private-key operation
of the library alone, without base64, encoding and the text. Both in CPU time of one thread, interleaved.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from gateway.providers.signing import generate_private_key, sign, verify
from runtime.bench.form import Row, row

if TYPE_CHECKING:
    from runtime.bench.money import Advance, Ground

STEPS = 1
ROUNDS = 9
SIGNATURES_A_ROUND = 200
TEXT = "app_id=2026000000000001&biz_content=" + "x" * 400 + "&charset=utf-8&method=alipay.trade.pay&version=1.0"


@dataclass(frozen=True, slots=True)
class SigningFigures:
    """Operations a second of CPU time, medians; `ratio` is ours to the bare limit."""

    signatures_a_core: float
    bare_a_core: float
    ratio: float
    verifications_a_core: float


def measure(_ground: Ground, advance: Advance) -> list[Row]:
    """The rows of `storeops bench money`."""
    found = measure_signing()
    advance("signing")
    library = "the library's private-key operation alone"
    return [
        row("signatures a core", found.signatures_a_core, "/s", library, found.bare_a_core, ">= 1000"),
        row("the same, beside the library", found.signatures_a_core, "/s", library, found.bare_a_core, ">= 0.9 x"),
        row("signatures checked a core", found.verifications_a_core, "/s", library, found.bare_a_core),
    ]


def measure_signing(rounds: int = ROUNDS) -> SigningFigures:
    """RSA2 (SHA256withRSA, 2048 bits). About two seconds."""
    key = generate_private_key()
    public, signature, raw = key.public_key(), sign(TEXT, key), TEXT.encode()
    ours, bare, verified = [], [], []
    for _ in range(rounds):
        ours.append(_rate(lambda: sign(TEXT, key)))
        bare.append(_rate(lambda: key.sign(raw, padding.PKCS1v15(), hashes.SHA256())))
        verified.append(_rate(lambda: verify(TEXT, signature, public)))
    fast, limit = statistics.median(ours), statistics.median(bare)
    ratio = statistics.median(a / b for a, b in zip(ours, bare, strict=True))
    return SigningFigures(fast, limit, ratio, statistics.median(verified))


def _rate(work: Callable[[], object]) -> float:
    begun = time.thread_time()
    for _ in range(SIGNATURES_A_ROUND):
        work()
    return SIGNATURES_A_ROUND / (time.thread_time() - begun)
