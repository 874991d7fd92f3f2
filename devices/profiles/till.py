"""A plain till: owns basket and base prices, accepts adjusted lines, has no camera."""

from __future__ import annotations

from devices.profiles.profile import TerminalProfile

PROFILE = TerminalProfile(
    name="till",
    title_zh="收银机",
    title_en="Till",
    roles=("till", "clerk"),
    can_show_lines=True,
    has_camera=False,
    digits_required=False,
    takes_line_adjustments=True,
)
