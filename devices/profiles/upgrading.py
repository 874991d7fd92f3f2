"""What a lane has in its terminals, and what it would lose when software makes one of them another family."""

from __future__ import annotations

from collections.abc import Sequence

from devices.profiles import profile_of, require_role
from devices.profiles.profile import TerminalProfile
from models.domain.errors import Refused

NEEDED = (
    "has_camera",
    "has_keypad",
    "has_scanner",
    "has_printer",
    "has_cash_drawer",
    "has_clerk",
    "can_pay",
    "can_answer",
    "owns_basket",
)
"""What a visit may need of a lane, as fields of a profile."""


def lost(others: Sequence[TerminalProfile], before: TerminalProfile, after: TerminalProfile) -> list[str]:
    """What the lane has by `before` alone, and would not have with `after` in its place."""
    return [
        need
        for need in NEEDED
        if getattr(before, need) and not getattr(after, need) and not any(getattr(one, need) for one in others)
    ]


def require_lane(lane: str, role: str, before: TerminalProfile, family: str, others: Sequence[TerminalProfile]) -> None:
    """Refuse a family that a terminal of this role cannot be, or with which its lane would lack what it has.

    Raises Refused: unknown_profile, unfit_role, unfit_lane.
    """
    if family == before.name:
        return
    after = profile_of(family)
    require_role(after, role)
    if missing := lost(others, before, after):
        raise Refused(
            "unfit_lane",
            f"as {family} the lane {lane} would lose {', '.join(missing)}",
            "choose an image for this family, or put a terminal there that has it",
        )
