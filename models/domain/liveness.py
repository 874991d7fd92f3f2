"""Is it a person who stands there, or a picture of one? A policy of values; never a certified rate."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Liveness(StrEnum):
    """What the liveness policy says of one image. Never a certified rate."""

    PASSED = "passed"
    NOT_CHECKED = "not_checked"
    IN_DOUBT = "in_doubt"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class LivenessPolicy:
    """How a device's score (0 to 1) is read. Unsigned devices send none: `required` then means digits."""

    required: bool = False
    pass_min: float = 0.7
    veto_below: float = 0.2

    def judge(self, score_ppm: int | None) -> Liveness:
        """Failed is a veto; in doubt asks for digits."""
        if score_ppm is None:
            return Liveness.IN_DOUBT if self.required else Liveness.NOT_CHECKED
        score = score_ppm / 1_000_000
        if score < self.veto_below:
            return Liveness.FAILED
        return Liveness.PASSED if score >= self.pass_min else Liveness.IN_DOUBT
