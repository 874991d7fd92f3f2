"""Dragonfly Plus: all in one, a screen for the customer and one behind it for the clerk, scanner and printer."""

from __future__ import annotations

from devices.profiles.profile import Role, TerminalProfile

PROFILE = TerminalProfile(
    name="dragonfly-plus",
    title_zh="蜻蜓 Plus 双屏一体机",
    title_en="Dragonfly Plus two-screen terminal",
    roles=(Role.FACE, Role.CLERK, Role.CUSTOMER),
    screens=(Role.CUSTOMER, Role.CLERK),
    can_show_lines=True,
    has_camera=True,
    has_keypad=True,
    has_scanner=True,
    has_printer=True,
    has_cash_drawer=False,
    has_clerk=True,
    enters_amount=True,
    sells_offline=True,
    vouches_liveness=True,
    digits_required=False,
    takes_line_adjustments=True,
)
