"""What a lane has in its terminals, and what it would lose when software makes one of them another family."""

from __future__ import annotations

from collections.abc import Sequence

from devices.profiles.profile import TerminalProfile

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
