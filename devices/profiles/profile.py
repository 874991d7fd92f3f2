"""What a family of terminals can show and do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TerminalProfile:
    """Capabilities of one family. The server decides by these, never by a family's name."""

    name: str
    title_zh: str
    title_en: str
    roles: tuple[str, ...]
    """Roles in a lane that this family may be registered for; the first is the usual one."""
    can_show_lines: bool
    """Shows the whole basket, not only the amount."""
    has_camera: bool
    """Sends faces. One without a camera may still show what a face terminal of its lane asks."""
    digits_required: bool
    """Recognition always asks for four phone digits (the first generation of face terminals)."""
    takes_line_adjustments: bool
    """Accepts prices that we adjusted; one that does not gets the benefit as a `coupon` tender."""
